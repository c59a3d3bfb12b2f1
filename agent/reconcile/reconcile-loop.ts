/**
 * Makes this node run what it shall: observe → plan → mark → report → step. The loop never waits for a step; a step's end pokes
 * it. Containers seen before a step ended are not used for its instance's next decision.
 */
import type { Clock } from '../../shared/clock.ts'
import { messageOf, UnavailableError } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop } from '../../shared/loop.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import type { InstanceStatus } from '../../shared/model/observation.ts'
import type { Assignment } from '../../shared/protocol/frames.ts'
import type { Reason } from '../../shared/plan.ts'
import type { Prober, ProbeTarget } from '../health/prober.ts'
import type { Runtime } from '../runtime/runtime.ts'
import {
  freshMemory,
  type InstanceMemory,
  type RuntimeName,
  runOf,
  type SeenContainer,
  type SeenHealth,
  statusOf,
} from './instance-memory.ts'
import { DEFAULT_LIMITS, planReconcile, type ReconcileLimits, type ReconcileState, type Step } from './plan-reconcile.ts'
import { type ReconcileHooks, runStep, type StepDeps } from './run-step.ts'

export interface ReconcilerDeps {
  /** Each kind at most once; a unit whose runtime is missing fails with that reason. */
  readonly runtimes: readonly Runtime[]
  readonly prober: Prober
  readonly hooks: ReconcileHooks
  /** Environment and hosts beside what the unit says. */
  readonly extra: StepDeps['extra']
  readonly clock: Clock
  readonly logger: Logger
  /** Every change of a status at once, and instances of which nothing is left here and nothing is wanted. */
  emit(statuses: readonly InstanceStatus[], gone: readonly InstanceId[]): void
  /** Monotonic ms of the last word from a coordinator; null: none yet. Default: always just now. */
  readonly lastContactMonotonicMs?: () => number | null
  /** Monotonic ms of the last word from a coordinator by which the present set still holds; null, and default: only a new set tells. */
  readonly confirmedMonotonicMs?: () => number | null
  /** Called when `pulls` changes. */
  onPulls?(): void
  readonly limits?: Partial<ReconcileLimits>
  /** Longest time between two looks at the engine when nothing happens. Default 10 s. */
  readonly pollMs?: number
}

export interface Reconciler {
  /**
   * The full set that this node shall have. `confirmed` false: it was read from disk, no coordinator has said that it still
   * holds. Until the first call nothing is stopped, started or removed.
   */
  setDesired(assignments: readonly Assignment[], confirmed?: boolean): void
  /** Status of everything here: what is assigned, and what runs under our labels without being so. */
  inventory(): readonly InstanceStatus[]
  /** Asks for a pass soon. */
  poke(): void
  start(): void
  /** Ends looking and deciding; containers stay as they are. Steps under way finish, their outcome is seen at the next start. */
  stop(): Promise<void>
  /** Runtime ids of the instance's containers that run. */
  containerIdsOf(instance: InstanceId): readonly string[]
  /** Every container of ours here, running or not; null while an engine does not answer, so that it is not known. */
  present(): readonly SeenContainer[] | null
  /** What this node shall have; null until it is known. */
  assignments(): readonly Assignment[] | null
  /** The runtime that has the instance's containers; undefined when none has. */
  runtimeOf(instance: InstanceId): Runtime | undefined
  /** The instance whose main container has this address; undefined for processes, which share their node's. */
  instanceByAddress(address: string): InstanceId | undefined
  /** Assignment as it stands now. */
  assignmentOf(instance: InstanceId): Assignment | undefined
  /** Images that instances pull now. */
  pulls(): ReadonlySet<string>
  /** Why each instance waits or acts, from the last pass. */
  reasons(): readonly Reason[]
  /** Resolves when the first look at every engine is done (or failed). */
  readonly observed: Promise<void>
}

/** A plan whose marks never settle is a bug of ours; it must not hang the agent, nor the other instances. */
const MAX_MARKS = 30
/** Steps and engine events come in bursts; each pass asks the engine for everything, which slows the very steps it waits for. */
const SETTLE_MS = 20

export function createReconciler(deps: ReconcilerDeps): Reconciler {
  const { clock, logger, prober, hooks } = deps
  const limits = { ...DEFAULT_LIMITS, ...deps.limits }
  const memory = new Map<InstanceId, InstanceMemory>()
  const seen = new Map<RuntimeName, readonly SeenContainer[]>()
  const silent = new Set<RuntimeName>()
  const underWay = new Map<InstanceId, { readonly step: Step; readonly abort: AbortController }>()
  const lastSent = new Map<InstanceId, string>()
  const statuses = new Map<InstanceId, InstanceStatus>()
  const runtimes = new Map<RuntimeName, Runtime>(deps.runtimes.map((runtime) => [runtime.name, runtime]))
  let desired: Map<InstanceId, Assignment> | null = null
  let confirmedAtMs: number | null = null
  let agentStartedMs = clock.monotonicMs()
  let reasons: readonly Reason[] = []
  let life = new AbortController()
  let stopped = true
  let looked = false
  const firstLook = Promise.withResolvers<void>()

  const containers = () => [...seen.values()].flat()

  const look = async () => {
    await Promise.all(
      [...runtimes].map(async ([name, runtime]) => {
        try {
          seen.set(
            name,
            (await runtime.list()).map((container) => ({ ...container, runtime: name })),
          )
          if (silent.delete(name)) logger.info('the engine answers again', { runtime: name })
        } catch (error) {
          if (!(error instanceof UnavailableError)) throw error
          if (!silent.has(name))
            logger.warn('the engine does not answer; its containers are unknown', { runtime: name, error: error.message })
          silent.add(name)
        }
      }),
    )
  }

  const watchHealth = (all: readonly SeenContainer[]) => {
    const targets: ProbeTarget[] = []
    const mains = new Map<InstanceId, SeenContainer>()
    for (const container of all) {
      const unit = desired?.get(container.instance)?.unit
      if (unit && container.container === unit.containers[0]?.name) mains.set(container.instance, container)
    }
    for (const container of all) {
      const assignment = desired?.get(container.instance)
      const spec = assignment?.unit.containers.find((item) => item.name === container.container)
      const runtime = runtimes.get(container.runtime)
      if (!assignment || !spec?.health || !runtime || container.state !== 'running' || container.specHash !== assignment.specHash)
        continue
      const main = mains.get(container.instance)
      targets.push({
        key: runOf(container),
        containerId: container.id,
        runtime,
        spec: spec.health,
        // A sidecar has its main container's network.
        address: container.address ?? main?.address ?? null,
        portMap: container.portMap,
      })
    }
    prober.watch(targets)
  }

  const healthOf = (all: readonly SeenContainer[]): Record<string, SeenHealth> => {
    const health: Record<string, SeenHealth> = {}
    for (const container of all) {
      const found = prober.health(runOf(container))
      if (found) health[runOf(container)] = found
    }
    return health
  }

  const report = (all: readonly SeenContainer[], health: Readonly<Record<string, SeenHealth>>, gone: readonly InstanceId[]) => {
    const byInstance = Map.groupBy(all, (container) => container.instance)
    const changed: InstanceStatus[] = []
    const known = new Set([...memory.keys(), ...byInstance.keys()])
    for (const instance of known) {
      const own = byInstance.get(instance) ?? []
      const assignment = desired?.get(instance) ?? null
      const runtime = assignment?.unit.runtime ?? own[0]?.runtime
      const status = statusOf({
        instance,
        assignment,
        containers: own,
        memory: memory.get(instance) ?? { ...freshMemory(), phase: 'starting', message: 'found here, no assignment known yet' },
        health,
        nowMs: clock.monotonicMs(),
        engineSilent: runtime !== undefined && silent.has(runtime),
      })
      statuses.set(instance, status)
      const text = JSON.stringify(status)
      if (lastSent.get(instance) === text) continue
      const before = lastSent.get(instance)
      lastSent.set(instance, text)
      changed.push(status)
      const from = before === undefined ? null : (JSON.parse(before) as InstanceStatus)
      if (from?.phase !== status.phase || from.healthy !== status.healthy)
        logger.info('instance moved', {
          instance,
          from: from?.phase ?? null,
          to: status.phase,
          healthy: status.healthy,
          reason: status.message,
        })
    }
    for (const instance of gone) {
      statuses.delete(instance)
      lastSent.delete(instance)
    }
    if (changed.length > 0 || gone.length > 0) deps.emit(changed, gone)
  }

  const begin = (step: Step) => {
    const abort = new AbortController()
    const { instance } = step
    underWay.set(instance, { step, abort })
    const before = memory.get(instance) ?? freshMemory()
    const signal = AbortSignal.any([abort.signal, life.signal])
    logger.debug('step', { instance, step: step.kind })
    if (step.kind === 'pull') deps.onPulls?.()
    runStep(
      { clock, hooks, limits, extra: deps.extra, runtimeNamed: (name) => runtimes.get(name) },
      step,
      desired?.get(instance) ?? null,
      before,
      signal,
    )
      .then((patch) => {
        if (stopped) return
        if (patch.message !== undefined && !abort.signal.aborted)
          logger.warn('a step failed, it will be repeated', { instance, step: step.kind, error: patch.message })
        memory.set(instance, { ...(memory.get(instance) ?? freshMemory()), ...(abort.signal.aborted ? {} : patch) })
      })
      .finally(() => {
        underWay.delete(instance)
        if (step.kind === 'pull') deps.onPulls?.()
        loop.poke()
      })
      .catch((error) => logger.error('a step broke', { instance, step: step.kind, error: messageOf(error) }))
  }

  const pass = async (signal: AbortSignal): Promise<number | null> => {
    // Whatever ends during the look may have been seen as it was before.
    const busy = new Set(underWay.keys())
    try {
      await look()
    } finally {
      looked = true
      firstLook.resolve()
    }
    if (signal.aborted) return null
    const all = containers()
    watchHealth(all)
    const health = healthOf(all)
    const gone: InstanceId[] = []
    const marks = new Map<InstanceId, number>()
    for (;;) {
      const state: ReconcileState = {
        desired,
        containers: all,
        memory,
        health,
        busy,
        underWay: [...underWay.values()].map(({ step }) => step),
        inFlight: hooks.inFlight,
        runtimes: new Map([...runtimes.keys()].map((name) => [name, silent.has(name) ? 'silent' : 'answers'])),
        lastContactMs: deps.lastContactMonotonicMs ? deps.lastContactMonotonicMs() : clock.monotonicMs(),
        confirmedAtMs: latest(confirmedAtMs, deps.confirmedMonotonicMs?.() ?? null),
        agentStartedMs,
        nowWallMs: clock.now(),
        limits,
      }
      const nowMs = clock.monotonicMs()
      const plan = planReconcile(state, nowMs)
      reasons = plan.reasons
      let marked = false
      for (const action of plan.actions) {
        if (action.kind !== 'mark') continue
        marked = true
        const count = (marks.get(action.instance) ?? 0) + 1
        marks.set(action.instance, count)
        if (count > MAX_MARKS) {
          logger.error('the plan of an instance does not settle, it is left alone for now', {
            instance: action.instance,
            reason: reasons.find((reason) => reason.subject === action.instance)?.text,
          })
          busy.add(action.instance)
        }
        if (action.forget) {
          memory.delete(action.instance)
          // Its containers are gone, or are seen again in the next pass.
          busy.add(action.instance)
          gone.push(action.instance)
          if (desired?.has(action.instance)) loop.poke()
        } else memory.set(action.instance, { ...(memory.get(action.instance) ?? freshMemory()), ...action.patch })
      }
      if (marked) continue
      report(all, health, gone)
      const steps = plan.actions.filter((action) => action.kind !== 'mark')
      for (const step of steps) begin(step)
      return plan.wakeAtMs === null ? null : clock.now() + Math.max(0, plan.wakeAtMs - nowMs)
    }
  }

  const loop = createLoop({
    name: 'reconcile',
    clock,
    logger,
    debounceMs: SETTLE_MS,
    maxSleepMs: deps.pollMs ?? 10_000,
    run: pass,
  })

  const follow = async (runtime: Runtime, signal: AbortSignal) => {
    for await (const _event of runtime.events(signal)) loop.poke()
  }

  prober.onChange(() => loop.poke())

  return {
    observed: firstLook.promise,
    setDesired(assignments, confirmed = true) {
      desired = new Map(assignments.map((assignment) => [assignment.instance, assignment]))
      if (confirmed) confirmedAtMs = clock.monotonicMs()
      // A pull for what is no longer wanted must not hold up its end.
      for (const [instance, { step, abort }] of underWay)
        if (step.kind === 'pull' && desired.get(instance)?.goal !== 'run') abort.abort(new Error('no longer wanted'))
      loop.poke()
    },
    inventory: () => [...statuses.values()],
    poke: () => loop.poke(),
    start() {
      if (!stopped) return
      stopped = false
      life = new AbortController()
      agentStartedMs = clock.monotonicMs()
      loop.start()
      for (const runtime of runtimes.values())
        follow(runtime, life.signal).catch((error) => {
          if (!life.signal.aborted) logger.error('the event stream ended', { runtime: runtime.name, error: messageOf(error) })
        })
    },
    async stop() {
      stopped = true
      life.abort(new Error('the reconciler stopped'))
      prober.stop()
      await loop.stop()
    },
    containerIdsOf: (instance) =>
      containers()
        .filter((container) => container.instance === instance && container.state === 'running')
        .map((container) => container.id),
    present: () => (silent.size === 0 && looked ? containers() : null),
    assignments: () => (desired === null ? null : [...desired.values()]),
    runtimeOf(instance) {
      const name = containers().find((container) => container.instance === instance)?.runtime
      return name === undefined ? undefined : runtimes.get(name)
    },
    instanceByAddress(address) {
      const found = new Set<InstanceId>()
      for (const container of containers())
        if (container.runtime === 'docker' && container.state === 'running' && container.address === address)
          found.add(container.instance)
      return found.size === 1 ? [...found][0] : undefined
    },
    assignmentOf: (instance) => desired?.get(instance),
    pulls: () => new Set([...underWay.values()].flatMap(({ step }) => (step.kind === 'pull' ? [step.image] : []))),
    reasons: () => reasons,
  }
}

function latest(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.max(a, b)
}
