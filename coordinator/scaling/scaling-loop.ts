/**
 * Measures the load of every service that scales, once a second, and moves its wanted count by the rule of plan-replicas.
 * What it learns is in memory only: after a start it holds until its window is filled again, and never takes away before.
 */
import type { Clock } from '../../shared/clock.ts'
import { UnavailableError } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop, type Loop } from '../../shared/loop.ts'
import type { ScaleRules, ServiceSpec } from '../../shared/model/app.ts'
import { parseInstanceId, type ServiceId, serviceId } from '../../shared/model/identity.ts'
import { createAges } from '../services/ages.ts'
import type { InstanceRecord, ServiceRecord } from '../state/objects.ts'
import { type InstanceObservation, isRoutable, type Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import { createLoadWindow, type LoadWindow } from './load-window.ts'
import { planReplicas, type ScaleAction, type ScalingDecision } from './plan-replicas.ts'
import { createStartTimes, type StartTimes } from './start-times.ts'

export interface ScalingLoopDeps {
  readonly state: State
  readonly observed: Observed
  readonly clock: Clock
  readonly logger: Logger
}

export interface ScalingLoop extends Loop {
  /** The newest decision about a service; null when it does not scale or none was made yet. */
  decision(id: ServiceId): ScalingDecision | null
  decisions(): Iterable<ScalingDecision>
  /** Learned 90th percentile of the time from placement to readiness, ms; null until it is known. */
  startTimeMs(id: ServiceId): number | null
}

const TICK_MS = 1_000
/** Services in one commit. */
const BATCH = 50
/** Before a start time is learned, and for very quick ones, an instance gets this long. */
const LEAST_PATIENCE_MS = 60_000
const PATIENCE_UNLEARNED_MS = 600_000

interface Watched {
  readonly window: LoadWindow
  readonly rulesKey: string
  readonly starts: StartTimes
  /** Placed instances not yet ready, with the monotonic time they were first seen. */
  starting: Map<string, number>
  /** Mean load before the last step up. */
  meanBeforePercent: number | null
  decision: ScalingDecision | null
}

export function createScalingLoop({ state, observed, clock, logger: root }: ScalingLoopDeps): ScalingLoop {
  const logger = root.with({ loop: 'scaling' })
  const watched = new Map<ServiceId, Watched>()
  const ages = createAges(clock)

  const loop = createLoop({
    name: 'scaling',
    clock,
    logger,
    async run(signal) {
      const steps: { record: ServiceRecord; action: ScaleAction; decision: ScalingDecision }[] = []
      const present = new Set<ServiceId>()
      for (const app of state.snapshot.all('app').values()) {
        if (app.removing) continue
        for (const spec of app.spec.services) {
          const record = state.snapshot.get('service', serviceId(app.name, spec.name))
          if (spec.scale === null || spec.mode === 'global' || record === undefined) continue
          present.add(record.id)
          const step = consider(spec, spec.scale, record)
          if (step !== null) steps.push(step)
        }
      }
      for (const id of watched.keys()) if (!present.has(id)) watched.delete(id)
      for (let i = 0; i < steps.length && !signal.aborted; i += BATCH) await commit(steps.slice(i, i + BATCH))
      return clock.now() + TICK_MS
    },
  })

  function consider(spec: ServiceSpec, rules: ScaleRules, record: ServiceRecord) {
    const nowMs = clock.monotonicMs()
    const service = watch(record.id, rules)
    const running = state.snapshot.instancesOf(record.id).filter((instance) => instance.goal === 'run')
    const standings = running.map((instance) => ({
      instance,
      seen: readyStatus(instance),
      crashLooping: observed.instance(instance.id)?.crashLooping ?? false,
    }))
    const ready = standings.flatMap(({ seen }) => (seen === null ? [] : [seen]))
    learnStarts(service, standings, nowMs)
    if (service.window.isDue(nowMs))
      service.window.add(
        nowMs,
        ready.map((seen) =>
          hears(seen)
            ? { loadPercent: seen.use?.loadPercent ?? null, demand: seen.use?.demand ?? null }
            : { loadPercent: null, demand: null },
        ),
      )
    const last = record.lastScale
    const plan = planReplicas({
      serviceId: record.id,
      rules,
      boundsNote: null,
      forecast: null,
      wanted: record.desired,
      pinned: record.pinned,
      excluded: countUseless(service, standings, nowMs),
      ready: new Set(ready.map((seen) => slotOf(seen.instance))).size,
      load: service.window.summary(nowMs, service.starts.p90Ms() ?? 0),
      leadMs: service.starts.p90Ms() ?? 0,
      lastStep: last === null ? null : { from: last.from, to: last.to, agoMs: ages.of(`${record.id} ${last.atMs}`, last.atMs) },
      rolloutUnhealthy: record.rollout !== null && UNHEALTHY.has(record.rollout.phase),
      memoryOnly: spec.unit.load.length > 0 && spec.unit.load.every((source) => source.kind === 'memory'),
      meanBeforePercent: service.meanBeforePercent,
    })
    if (service.decision?.code !== plan.decision.code && plan.decision.code === 'memory-hold')
      logger.warn('memory does not divide among replicas, holding', { serviceId: record.id })
    service.decision = plan.decision
    const [action] = plan.actions
    return action === undefined ? null : { record, action, decision: plan.decision }
  }

  function watch(id: ServiceId, rules: ScaleRules): Watched {
    const rulesKey = `${rules.windowMs} ${rules.downWindowMs}`
    const known = watched.get(id)
    if (known?.rulesKey === rulesKey) return known
    const fresh: Watched = {
      window: createLoadWindow(rules.windowMs, rules.downWindowMs),
      rulesKey,
      starts: known?.starts ?? createStartTimes(),
      starting: known?.starting ?? new Map(),
      meanBeforePercent: known?.meanBeforePercent ?? null,
      decision: known?.decision ?? null,
    }
    watched.set(id, fresh)
    return fresh
  }

  function readyStatus(instance: InstanceRecord): InstanceObservation | null {
    const seen = observed.instance(instance.id)
    return seen !== undefined && isRoutable(seen, observed.node(seen.nodeId)) ? seen : null
  }

  /** Reports are deltas: an unchanged load is not sent again, so what counts is that its node is heard. */
  function hears(seen: InstanceObservation): boolean {
    const node = observed.node(seen.nodeId)
    return node?.connected === true && node.liveness === 'live'
  }

  async function commit(
    steps: readonly { record: ServiceRecord; action: ScaleAction; decision: ScalingDecision }[],
  ): Promise<void> {
    const change = state.change()
    for (const { record, action, decision } of steps) {
      // The record of this very moment: an earlier batch took time to be written.
      const present = state.snapshot.get('service', record.id)
      if (present === undefined || present.desired !== action.from || present.pinned !== null) continue
      const atMs = clock.now()
      change.put('service', record.id, {
        ...present,
        desired: action.to,
        lastScale: { atMs, from: action.from, to: action.to, reason: action.reason },
      })
      const { n, ready, demandPercent, thresholdPercent, code } = decision
      change.event({
        actor: 'scaling',
        type: 'service.scaled',
        subject: record.id,
        message: `${action.from} → ${action.to}: ${action.reason}`,
        severity: 'info',
        data: { from: action.from, to: action.to, code, n, ready, demandPercent, thresholdPercent },
      })
    }
    const outcome = await state.commit(change)
    if (outcome.kind === 'conflict') return
    if (outcome.kind !== 'committed') throw new UnavailableError(`the store did not take a scaling step: ${outcome.detail}`)
    for (const { record, action, decision } of steps) {
      const service = watched.get(record.id)
      if (service !== undefined && action.to > action.from) service.meanBeforePercent = decision.load.meanPercent
      if (record.lastScale !== null) ages.forget(`${record.id} ${record.lastScale.atMs}`)
    }
  }

  return {
    name: loop.name,
    start: loop.start,
    poke: loop.poke,
    stop: loop.stop,
    decision: (id) => watched.get(id)?.decision ?? null,
    *decisions() {
      for (const service of watched.values()) if (service.decision !== null) yield service.decision
    },
    startTimeMs: (id) => watched.get(id)?.starts.p90Ms() ?? null,
  }
}

const UNHEALTHY: ReadonlySet<string> = new Set(['paused', 'failed', 'rolling-back'])

interface Standing {
  readonly instance: InstanceRecord
  /** Its status while it is routable. */
  readonly seen: InstanceObservation | null
  readonly crashLooping: boolean
}

/** Notes how long instances took that became ready since the last look. */
function learnStarts(service: Watched, standings: readonly Standing[], nowMs: number): void {
  const starting = new Map<string, number>()
  for (const { instance, seen } of standings) {
    const sinceMs = service.starting.get(instance.id)
    if (seen !== null && sinceMs !== undefined) service.starts.add(nowMs - sinceMs)
    if (seen === null && instance.nodeId !== null) starting.set(instance.id, sinceMs ?? nowMs)
  }
  service.starting = starting
}

/** Slots in which nothing useful will come: crash-looping, or not ready long after others were. Waiting for a place is no fault. */
function countUseless(service: Watched, standings: readonly Standing[], nowMs: number): number {
  const learnedMs = service.starts.p90Ms()
  const patienceMs = learnedMs === null ? PATIENCE_UNLEARNED_MS : Math.max(LEAST_PATIENCE_MS, 2 * learnedMs)
  const useless = new Set<number>()
  const useful = new Set<number>()
  for (const { instance, seen, crashLooping } of standings) {
    const isLate = nowMs - (service.starting.get(instance.id) ?? nowMs) > patienceMs
    const isUseless = crashLooping || (seen === null && isLate)
    ;(isUseless ? useless : useful).add(slotOf(instance.id))
  }
  let count = 0
  for (const slot of useless) if (!useful.has(slot)) count += 1
  return count
}

function slotOf(id: string): number {
  return parseInstanceId(id)?.slot ?? 0
}
