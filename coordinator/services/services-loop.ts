/**
 * Keeps every service as its app wants it. Poked by each change of the state and of what agents report; looks only at the
 * services that the change may concern, and at all of them once a minute as a safety net.
 */
import { createCalendar } from '../../shared/calendar.ts'
import type { Clock } from '../../shared/clock.ts'
import { UnavailableError } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop, type Loop } from '../../shared/loop.ts'
import { type InstanceId, type NodeId, type ServiceId, serviceId } from '../../shared/model/identity.ts'
import { createIsolation } from '../state/isolation.ts'
import { type Observed, isRoutable } from '../state/observed.ts'
import type { AppRecord, InstanceRecord, JobRun, ServiceRecord } from '../state/objects.ts'
import type { State } from '../state/state.ts'
import { createAges } from './ages.ts'
import { applyActions } from './apply-actions.ts'
import { newService, ordinalAfter } from './deploy.ts'
import { createDirtyServices } from './dirty-services.ts'
import { globalNodes } from './global-nodes.ts'
import { imagesAt } from './images-first.ts'
import { planService } from './plan-service.ts'
import { type DependencyState, type NodeView, type ServiceInput, wantedCount } from './service-plan.ts'

export interface ServicesLoopDeps {
  readonly state: State
  readonly observed: Observed
  readonly clock: Clock
  readonly logger: Logger
  /** Steady time in which drains have their deadlines; default the wall clock. */
  steadyNowMs?(): number
  /** Updates that stop first wait for images that nodes pull ahead. Default false. */
  readonly pullsAhead?: boolean
}

const RESYNC_MS = 60_000
/** A service whose plan or commit failed for a reason of its own is left alone this long: the others come first. */
const RETRY_MS = 5_000
/** How often to look whether replacing is allowed again. */
const FROZEN_LOOK_MS = 1_000
/** Phases in which a container has been started at least once. */
const STARTED: ReadonlySet<string> = new Set(['starting', 'warming', 'ready', 'draining', 'stopped', 'failed'])

export function createServicesLoop(deps: ServicesLoopDeps): Loop {
  const { state, observed, clock, logger: root, steadyNowMs, pullsAhead = false } = deps
  const logger = root.with({ loop: 'services' })
  const dirty = createDirtyServices(state, observed)
  const ages = createAges(clock)
  const calendar = createCalendar()
  const isolation = createIsolation({ state, clock, logger, part: 'services' })
  /** Monotonic ms at which time alone makes a service worth another look. */
  const wakes = new Map<ServiceId, number>()
  let unsubscribe: (() => void)[] = []
  let resyncDueMs = 0
  let wasFrozen = false

  const followReady = (id: InstanceId): number | null => {
    const seen = observed.instance(id)
    if (seen !== undefined && isRoutable(seen, observed.node(seen.nodeId))) return ages.of(`ready ${id}`)
    // What was ready has to be so again within the time that it had at first.
    if (ages.has(`ready ${id}`) && state.snapshot.instances().has(id)) {
      ages.forget(`placed ${id}`)
      ages.of(`placed ${id}`)
    }
    ages.forget(`ready ${id}`)
    return null
  }
  const followLost = (id: NodeId): number => {
    if (observed.node(id)?.liveness === 'lost') return ages.of(`lost ${id}`)
    ages.forget(`lost ${id}`)
    return 0
  }

  const loop = createLoop({
    name: 'services',
    clock,
    logger,
    async run(signal) {
      const nowMs = clock.monotonicMs()
      const isFrozen = observed.frozen !== null
      if (nowMs >= resyncDueMs || (wasFrozen && !isFrozen)) {
        dirty.markAll()
        resyncDueMs = nowMs + RESYNC_MS
      }
      wasFrozen = isFrozen
      for (const [id, dueMs] of wakes) if (dueMs <= nowMs) dirty.services.add(id)
      for (const name of [...dirty.apps].sort()) {
        if (signal.aborted) return null
        dirty.apps.delete(name)
        await settle(
          name,
          () => ensureServices(name),
          () => dirty.apps.add(name),
        )
      }
      for (const id of [...dirty.services].sort()) {
        if (signal.aborted) return null
        dirty.services.delete(id)
        wakes.delete(id)
        await settle(
          id,
          () => converge(id),
          () => dirty.services.add(id),
        )
      }
      return nextWake()
    },
  })

  /** Does the work for one app or service. When the store refuses for reasons that concern everyone the whole run ends and is repeated. */
  async function settle(subject: string, work: () => Promise<void>, redo: () => void): Promise<void> {
    try {
      await work()
    } catch (error) {
      if (error instanceof UnavailableError) {
        redo()
        throw error
      }
      isolation.failed(subject, error)
      if (subject.includes('/')) wakes.set(subject, clock.monotonicMs() + RETRY_MS)
    }
  }

  /** Makes records that a deploy left out, and ends an app that is taken down. */
  async function ensureServices(name: string): Promise<void> {
    const { snapshot } = state
    const app = snapshot.get('app', name)
    if (app === undefined) return
    if (app.removing) {
      for (const record of snapshot.all('service').values()) if (record.id.startsWith(`${name}/`)) return
      const change = state.change().delete('app', name)
      change.event({
        actor: 'services',
        type: 'app.removed',
        subject: name,
        message: 'everything of it has stopped',
        severity: 'info',
      })
      await commit(change, () => dirty.apps.add(name))
      return
    }
    const missing = app.spec.services.filter((spec) => snapshot.get('service', serviceId(name, spec.name)) === undefined)
    if (missing.length === 0) return
    const change = state.change()
    let ordinal = ordinalAfter(snapshot, name)
    for (const spec of missing.slice(0, 50))
      change.put('service', serviceId(name, spec.name), newService(snapshot, spec, serviceId(name, spec.name), ordinal++))
    await commit(change, () => dirty.apps.add(name))
    if (missing.length > 50) dirty.apps.add(name)
  }

  async function converge(id: ServiceId): Promise<void> {
    const [appName = ''] = id.split('/')
    const { snapshot } = state
    const service = snapshot.get('service', id)
    if (service === undefined) return
    const now = clock.now()
    const app = snapshot.get('app', appName) ?? orphan(appName)
    const input = inputOf(app, service)
    const plan = planService(input, now)
    for (const why of plan.reasons) logger.debug('services decided', { subject: why.subject, code: why.code, text: why.text })
    if (plan.wakeAtMs !== null) wakes.set(id, clock.monotonicMs() + (plan.wakeAtMs - now))
    if (plan.actions.length === 0) return
    const change = state.change()
    applyActions(change, snapshot, app, service, plan.actions, now)
    for (const run of service.job?.runs ?? []) if (run.outcome !== 'running') ages.forget(runKey(id, run))
    await commit(change, () => dirty.services.add(id))
    for (const record of input.instances) if (!snapshot.instances().has(record.id)) forget(record.id)
  }

  function forget(id: InstanceId): void {
    ages.forget(`ready ${id}`)
    ages.forget(`placed ${id}`)
  }

  async function commit(change: ReturnType<State['change']>, redo: () => void): Promise<void> {
    const outcome = await state.commit(change)
    if (outcome.kind === 'committed') return
    if (outcome.kind === 'conflict') {
      // Someone else wrote an object in between; what it holds now comes into the next plan.
      redo()
      loop.poke()
      return
    }
    if (outcome.kind === 'tooLarge') throw new Error(`a commit is too large: ${outcome.detail}`)
    throw new UnavailableError(`the store did not take a commit: ${outcome.detail}`)
  }

  function inputOf(app: AppRecord, service: ServiceRecord): ServiceInput {
    const { snapshot } = state
    const name = service.id.slice(app.name.length + 1)
    const spec = app.spec.services.find((candidate) => candidate.name === name) ?? null
    const instances = snapshot.instancesOf(service.id)
    return {
      app,
      spec,
      service,
      instances,
      observe: (id) => observed.instance(id),
      node: viewOf,
      images: (nodeId) => (pullsAhead && spec !== null ? imagesAt(observed.node(nodeId), spec.unit) : 'settled'),
      globalNodes:
        spec?.mode === 'global' ? globalNodes(spec, snapshot.all('node').values(), (nodeId) => isOn(instances, nodeId)) : [],
      frozen: observed.frozen !== null,
      calendar,
      dependency: (other) => dependencyOf(app, other),
      elapsed: {
        readyMs: followReady,
        placedMs: (record) => (record.placedAtMs === null ? 0 : ages.of(`placed ${record.id}`, record.placedAtMs)),
        lostMs: followLost,
        runMs: (run) => ages.of(runKey(service.id, run), run.startedAtMs),
      },
    }
  }

  function viewOf(id: NodeId): NodeView | undefined {
    const node = state.snapshot.get('node', id)
    if (node === undefined) return undefined
    // Plans compare with the wall clock; a jump of it must end no drain (fault row 37).
    const jumpedMs = steadyNowMs === undefined ? 0 : clock.now() - steadyNowMs()
    return {
      availability: node.availability,
      liveness: observed.node(id)?.liveness ?? 'unknown',
      pool: node.pool,
      drainDeadlineAtMs: node.availability === 'draining' && node.drain ? node.drain.deadlineAtMs + jumpedMs : null,
      instances: state.snapshot.get('assignments', id)?.instances.length ?? 0,
    }
  }

  function dependencyOf(app: AppRecord, name: string): DependencyState | undefined {
    const spec = app.spec.services.find((candidate) => candidate.name === name)
    if (spec === undefined) return undefined
    const record = state.snapshot.get('service', serviceId(app.name, name))
    const running = state.snapshot.instancesOf(serviceId(app.name, name)).filter((instance) => instance.goal === 'run')
    if (spec.job !== undefined) {
      const here = (record?.job?.runs ?? []).filter((run) => run.specHash === spec.specHash)
      return {
        started: here.some((run) => run.succeeded > 0 || run.outcome === 'succeeded') || running.some(hasStarted),
        healthy: running.some((instance) => followReady(instance.id) !== null),
        completed: here.some((run) => run.outcome === 'succeeded'),
      }
    }
    const done = Object.values(record?.completed ?? {}).filter((hash) => hash === spec.specHash).length
    const wanted = record === undefined ? 1 : Math.max(1, wantedCount(spec, record))
    return {
      started: done > 0 || running.some(hasStarted),
      healthy: running.some((instance) => followReady(instance.id) !== null),
      completed: done >= wanted,
    }
  }

  function hasStarted(instance: InstanceRecord): boolean {
    return STARTED.has(observed.instance(instance.id)?.phase ?? '')
  }

  function nextWake(): number | null {
    if (dirty.services.size > 0 || dirty.apps.size > 0) return clock.now()
    let nextMs = resyncDueMs
    if (observed.frozen !== null) nextMs = Math.min(nextMs, clock.monotonicMs() + FROZEN_LOOK_MS)
    for (const dueMs of wakes.values()) nextMs = Math.min(nextMs, dueMs)
    return clock.now() + Math.max(0, nextMs - clock.monotonicMs())
  }

  return {
    name: loop.name,
    poke: loop.poke,
    start() {
      dirty.markAll()
      unsubscribe = [
        state.onChange((change) => {
          dirty.onState(change)
          if (dirty.services.size > 0 || dirty.apps.size > 0) loop.poke()
        }),
        observed.onChange((change) => {
          if (change.useOnly) return
          for (const id of change.instances) followReady(id)
          for (const id of change.nodes) followLost(id)
          dirty.onObserved(change)
          if (dirty.services.size > 0 || (wasFrozen && observed.frozen === null)) loop.poke()
        }),
      ]
      loop.start()
    },
    async stop() {
      for (const end of unsubscribe) end()
      unsubscribe = []
      await loop.stop()
    },
  }
}

/** A run that goes on for nodes that joined begins anew. */
function runKey(id: ServiceId, run: JobRun): string {
  return `run ${id} ${run.id} ${run.startedAtMs}`
}

function isOn(instances: readonly InstanceRecord[], nodeId: NodeId): boolean {
  return instances.some((record) => record.nodeId === nodeId)
}

/** Stands for an app whose record is gone while a record of its services is left: they end. */
function orphan(name: string): AppRecord {
  return {
    name,
    revision: 0,
    spec: { name, services: [] },
    source: '',
    deployedAtMs: 0,
    deployedBy: '',
    history: [],
    removing: true,
  }
}
