/**
 * The next action for one instance. Pure; times are monotonic ms. Read `planRun` for the way up, `planDown` for the way out.
 */
import { backoffCeilingMs } from '../../shared/backoff.ts'
import type { RestartPolicy, UnitSpec } from '../../shared/model/unit.ts'
import { earliest, type Reason } from '../../shared/plan.ts'
import type { Assignment } from '../../shared/protocol/frames.ts'
import {
  advancePhase,
  freshMemory,
  type InstanceMemory,
  isTerminal,
  runOf,
  type SeenContainer,
  targetKeyOf,
} from './instance-memory.ts'
import type { ReconcileAction, ReconcileState } from './plan-reconcile.ts'

export interface InstanceView {
  readonly instance: string
  readonly assignment: Assignment | null
  readonly containers: readonly SeenContainer[]
  readonly state: ReconcileState
}

export interface Decision {
  readonly action: ReconcileAction | null
  readonly reason: Reason | null
  readonly wakeAtMs: number | null
}

/** How often the end of the last requests is looked for while draining. */
const DRAIN_POLL_MS = 100
/** A run this long forgets earlier failures when the policy names no window. */
const DEFAULT_WINDOW_MS = 60_000

export function planInstance(view: InstanceView, nowMs: number): Decision {
  const memory = view.state.memory.get(view.instance) ?? freshMemory()
  const { assignment } = view
  if (assignment === null) return planLeftover(view, memory, nowMs)
  if (!view.state.memory.has(view.instance) || memory.stopGraceMs !== assignment.unit.stopGraceMs)
    return mark(view, { stopGraceMs: assignment.unit.stopGraceMs })
  if (assignment.goal === 'stop') return planStop(view, memory, assignment, nowMs)
  if (isTerminal(memory.phase)) return planEnded(view, memory, nowMs)
  // Wanted again while it goes: phases never go back, so this life of it ends first and is forgotten, then it begins anew.
  if (memory.phase === 'draining') return planLeftover(view, memory, nowMs)
  const deadlineMs = strictDeadlineMs(view.state, assignment)
  if (deadlineMs === null) return planRun(view, memory, assignment, nowMs)
  const decision = planFence(view, memory, assignment, deadlineMs, nowMs) ?? planRun(view, memory, assignment, nowMs)
  return nowMs < deadlineMs ? { ...decision, wakeAtMs: earliest(decision.wakeAtMs, deadlineMs) } : decision
}

/** Out of service, let the requests finish, stop, remove, report `stopped`. */
function planStop(view: InstanceView, memory: InstanceMemory, { unit }: Assignment, nowMs: number): Decision {
  if (memory.phase === 'stopped' && view.containers.length === 0 && memory.cleared) return idle(view, 'stopped', 'it has stopped')
  if (memory.drainSinceMs === null)
    return mark(view, {
      phase: advancePhase(memory.phase, 'draining'),
      drainSinceMs: nowMs,
      notBeforeMs: 0,
      message: 'finishing its requests',
    })
  const down = planDown(view, memory, unit.drainMs, unit, nowMs)
  return down ?? mark(view, { phase: advancePhase(memory.phase, 'stopped'), ports: [], message: 'stopped as asked' })
}

/** Not assigned (any more): a copy that was replaced elsewhere, or left by an earlier life. */
function planLeftover(view: InstanceView, memory: InstanceMemory, nowMs: number): Decision {
  if (memory.drainSinceMs === null && view.containers.length > 0)
    return mark(view, {
      phase: advancePhase(memory.phase, 'draining'),
      drainSinceMs: nowMs,
      notBeforeMs: 0,
      message: 'not assigned to this node',
    })
  const down = planDown(view, memory, 0, null, nowMs)
  return down ?? { action: { kind: 'mark', instance: view.instance, patch: {}, forget: true }, reason: null, wakeAtMs: null }
}

/** It ended by itself and is not to run again: nothing leads to it, its containers stay for their logs. */
function planEnded(view: InstanceView, memory: InstanceMemory, nowMs: number): Decision {
  if (memory.notBeforeMs > nowMs) return waitUntil(view, memory.notBeforeMs, 'backoff', memory.message)
  const running = inStopOrder(view).find((container) => container.state === 'running')
  if (memory.target !== null && !memory.withdrawn) return step(view, { kind: 'withdraw', instance: view.instance })
  if (running) return step(view, stopStep(running, memory.stopGraceMs))
  if (!memory.cleared) return step(view, { kind: 'clear', instance: view.instance })
  return idle(view, memory.phase, memory.message)
}

/** Withdraws, waits, stops, removes and clears; null when nothing is left. */
function planDown(
  view: InstanceView,
  memory: InstanceMemory,
  drainMs: number,
  unit: UnitSpec | null,
  nowMs: number,
): Decision | null {
  if (memory.notBeforeMs > nowMs) return waitUntil(view, memory.notBeforeMs, 'backoff', memory.message)
  const ordered = inStopOrder(view, unit)
  const drained = planDrain(view, memory, drainMs, ordered, nowMs)
  if (drained) return drained
  const running = ordered.find((container) => container.state === 'running')
  if (running) return step(view, stopStep(running, memory.stopGraceMs))
  // Sidecars first: they live in the main container's network.
  const last = ordered.at(-1)
  if (last) return step(view, { kind: 'remove', instance: last.instance, runtime: last.runtime, id: last.id })
  return memory.cleared ? null : step(view, { kind: 'clear', instance: view.instance })
}

/** Withdrawal, and the wait for requests under way; null when it is over, or nothing ever led here. */
function planDrain(
  view: InstanceView,
  memory: InstanceMemory,
  drainMs: number,
  containers: readonly SeenContainer[],
  nowMs: number,
): Decision | null {
  if (memory.target === null) return null
  if (!memory.withdrawn) return step(view, { kind: 'withdraw', instance: view.instance })
  if (!containers.some((container) => container.state === 'running')) return null
  const { settleMs } = view.state.limits
  const sinceMs = memory.drainSinceMs ?? nowMs
  const inFlight = view.state.inFlight(view.instance)
  if (nowMs < sinceMs + settleMs) return waitUntil(view, sinceMs + settleMs, 'settling', 'the withdrawal is spreading')
  if (inFlight === 0 || nowMs >= sinceMs + drainMs) return null
  return waitUntil(view, Math.min(sinceMs + drainMs, nowMs + DRAIN_POLL_MS), 'draining', `${inFlight} requests are under way`)
}

/** When a strict singleton must be stopped unless a coordinator is heard before (row 24); null for all others. */
function strictDeadlineMs(state: ReconcileState, { unit }: Assignment): number | null {
  if (unit.singletonStrictMs === null) return null
  return state.lastContactMs === null
    ? state.agentStartedMs + Math.min(unit.singletonStrictMs, state.limits.strictStartGraceMs)
    : state.lastContactMs + unit.singletonStrictMs
}

/** A strict singleton must not run while another copy may have been started elsewhere; null when it may run. */
function planFence(
  view: InstanceView,
  memory: InstanceMemory,
  { unit }: Assignment,
  deadlineMs: number,
  nowMs: number,
): Decision | null {
  const { state } = view
  // A coordinator that was heard has not yet said what shall run: until it does, what runs may stay, but nothing is begun.
  const mayRun =
    nowMs < deadlineMs && (state.confirmedAtMs !== null || view.containers.some((container) => container.state === 'running'))
  if (memory.fencedAtMs === null) {
    if (mayRun) return null
    return mark(view, {
      fencedAtMs: nowMs,
      condemned: view.containers.map(runOf),
      message: `stopped: no coordinator for ${unit.singletonStrictMs} ms, and it must never run twice`,
    })
  }
  const running = inStopOrder(view, unit).find((container) => container.state === 'running')
  if (running) return step(view, stopStep(running, memory.stopGraceMs))
  if (memory.target !== null && !memory.withdrawn) return step(view, { kind: 'withdraw', instance: view.instance })
  // Contact alone is not enough: the set may have changed meanwhile, so a coordinator must have confirmed it since.
  if (
    nowMs < deadlineMs &&
    state.lastContactMs !== null &&
    state.confirmedAtMs !== null &&
    state.confirmedAtMs >= memory.fencedAtMs
  )
    return mark(view, { fencedAtMs: null, notBeforeMs: 0, withdrawn: false, target: null, message: '' })
  return idle(view, 'fenced', memory.message)
}

function planRun(view: InstanceView, memory: InstanceMemory, assignment: Assignment, nowMs: number): Decision {
  const { unit, specHash } = assignment
  const { instance, state } = view
  if (!state.runtimes.has(unit.runtime))
    return mark(view, { phase: 'failed', message: `this node has no ${unit.runtime} runtime` })

  const wanted = wantedContainers(view, unit, specHash)
  const stale = inStopOrder(view, unit).filter((container) => !wanted.includes(container))
  if (stale[0] && wanted.length > 0) {
    // A second copy beside the right one: only the surplus goes.
    const surplus = stale[0]
    return surplus.state === 'running'
      ? step(view, stopStep(surplus, unit.stopGraceMs))
      : step(view, { kind: 'remove', instance, runtime: surplus.runtime, id: surplus.id })
  }
  if (stale.length > 0) {
    if (memory.drainSinceMs === null)
      return mark(view, { drainSinceMs: nowMs, notBeforeMs: 0, message: 'its specification changed' })
    const down = planDown(view, memory, unit.drainMs, unit, nowMs)
    if (down) return down
  }
  if (memory.drainSinceMs !== null)
    return mark(view, {
      drainSinceMs: null,
      withdrawn: false,
      target: null,
      cleared: false,
      run: null,
      warmAtMs: null,
      images: {},
    })

  const policy = unit.containers[0]?.restart
  const ended = wanted.filter((container) => container.state === 'exited' && !memory.condemned.includes(runOf(container)))
  if (ended[0]) return planAfterEnd(view, memory, ended[0], wanted, policy, nowMs)
  const condemned = wanted.find((container) => container.state === 'running' && memory.condemned.includes(runOf(container)))
  if (condemned) return step(view, stopStep(condemned, unit.stopGraceMs))

  if (wanted.length === unit.containers.length && wanted.every((container) => container.state === 'running'))
    return planRunning(view, memory, unit, wanted, policy, nowMs)

  if (nowMs < memory.notBeforeMs) return waitUntil(view, memory.notBeforeMs, 'backoff', memory.message)
  return planBringUp(view, memory, unit, wanted) ?? idle(view, 'nothing', `${instance} has nothing to run`)
}

/** Images, then containers, then their start: main first. */
function planBringUp(
  view: InstanceView,
  memory: InstanceMemory,
  unit: UnitSpec,
  wanted: readonly SeenContainer[],
): Decision | null {
  const { instance } = view
  const { runtime } = unit
  const stopped = wanted.filter((container) => container.state !== 'running')
  const broken = stopped.filter((container) => container.state === 'dead' || memory.recreate).at(-1)
  if (broken) return step(view, { kind: 'remove', instance, runtime, id: broken.id })
  if (memory.recreate) return mark(view, { recreate: false })
  const main = wanted.find((container) => container.container === unit.containers[0]?.name)
  const orphanSidecar = main === undefined ? wanted.at(-1) : undefined
  if (orphanSidecar)
    return orphanSidecar.state === 'running'
      ? step(view, stopStep(orphanSidecar, unit.stopGraceMs))
      : step(view, { kind: 'remove', instance, runtime, id: orphanSidecar.id })

  const missing = unit.containers.filter((spec) => !wanted.some((container) => container.container === spec.name))
  if (runtime !== 'process')
    for (const { image } of missing) {
      if (memory.images[image] === undefined) return step(view, { kind: 'lookForImage', instance, runtime, image })
      if (memory.images[image] === 'absent') {
        const phase = advancePhase(memory.phase, 'pulling')
        if (phase !== memory.phase) return mark(view, { phase, message: `pulling ${image}` })
        return step(view, { kind: 'pull', instance, runtime, image })
      }
    }
  const phase = advancePhase(memory.phase, 'starting')
  if (phase !== memory.phase) return mark(view, { phase, message: 'starting' })
  const next = missing[0]
  if (next) return step(view, { kind: 'create', instance, runtime, container: next.name, sharesNetworkOf: main?.id ?? null })
  for (const spec of unit.containers) {
    const container = stopped.find((item) => item.container === spec.name)
    if (container) return step(view, { kind: 'start', instance, runtime, id: container.id })
  }
  return null
}

/** Everything runs: health, way in, warm-up, ready. */
function planRunning(
  view: InstanceView,
  memory: InstanceMemory,
  unit: UnitSpec,
  wanted: readonly SeenContainer[],
  policy: RestartPolicy | undefined,
  nowMs: number,
): Decision {
  const { instance, state } = view
  const key = wanted.map(runOf).join(' ')
  if (memory.run?.key !== key)
    return mark(view, {
      run: { key, sinceMs: nowMs },
      adopted: memory.phase === 'placed',
      warmAtMs: null,
      condemned: [],
      notBeforeMs: 0,
      stepFailures: 0,
      cleared: false,
      phase: advancePhase(memory.phase, 'starting'),
    })
  const main = wanted[0]
  if (main === undefined) return idle(view, 'nothing', 'the unit has no container')
  for (const spec of unit.containers) {
    if (spec.health === undefined) continue
    const container = wanted.find((item) => item.container === spec.name)
    const health = container && state.health[runOf(container)]
    if (health?.status === 'unhealthy') return planAfterUnhealthy(view, memory, health.text, wanted, policy, nowMs)
    if (health?.status !== 'healthy') return idle(view, 'not-healthy-yet', health?.text ?? 'not probed yet')
  }
  const target = targetKeyOf(main)
  if (memory.target !== target) {
    if (nowMs < memory.notBeforeMs) return waitUntil(view, memory.notBeforeMs, 'backoff', memory.message)
    return step(view, { kind: 'open', instance, target, main })
  }
  if (memory.warmAtMs === null) {
    // What was running before this agent came has been warming up all the while.
    const ranMs = memory.adopted && main.startedAtMs !== null ? Math.max(0, state.nowWallMs - main.startedAtMs) : 0
    const warmUpMs = Math.max(0, unit.warmUpMs - ranMs)
    return mark(view, {
      warmAtMs: nowMs + warmUpMs,
      ...(warmUpMs > 0 ? { phase: advancePhase(memory.phase, 'warming'), message: 'warming up' } : {}),
    })
  }
  if (nowMs < memory.warmAtMs) return waitUntil(view, memory.warmAtMs, 'warming', 'warming up')
  if (memory.phase !== 'ready')
    return mark(view, { phase: advancePhase(memory.phase, 'ready'), readyAtMs: state.nowWallMs, message: '' })
  if (memory.failures > 0) {
    const forgivenAtMs = memory.run.sinceMs + windowOf(policy)
    if (nowMs >= forgivenAtMs) return mark(view, { failures: 0, message: '' })
    return waitUntil(view, forgivenAtMs, 'ready', 'it runs')
  }
  if (memory.message !== '') return mark(view, { message: '' })
  return idle(view, 'ready', 'it runs')
}

function planAfterEnd(
  view: InstanceView,
  memory: InstanceMemory,
  ended: SeenContainer,
  wanted: readonly SeenContainer[],
  policy: RestartPolicy | undefined,
  nowMs: number,
): Decision {
  const how = ended.oomKilled
    ? 'ran out of memory'
    : ended.exitCode === null
      ? 'ended while no agent watched'
      : `exited with code ${ended.exitCode}`
  const text = wanted.length > 1 ? `${ended.container} ${how}` : how
  const clean = ended.exitCode === 0
  const again = policy?.condition === 'any' || (policy?.condition === 'on-failure' && !clean)
  if (!again || policy === undefined)
    return mark(view, { phase: clean ? 'stopped' : 'failed', message: text, run: null, notBeforeMs: 0 })
  const ranMs =
    ended.startedAtMs !== null && ended.exitedAtMs !== null
      ? Math.max(0, ended.exitedAtMs - ended.startedAtMs)
      : memory.run === null
        ? 0
        : nowMs - memory.run.sinceMs
  return planFailure(view, memory, text, ranMs, wanted, policy, nowMs)
}

function planAfterUnhealthy(
  view: InstanceView,
  memory: InstanceMemory,
  why: string,
  wanted: readonly SeenContainer[],
  policy: RestartPolicy | undefined,
  nowMs: number,
): Decision {
  const text = `unhealthy: ${why}`
  if (policy === undefined || policy.condition === 'none')
    return mark(view, { phase: 'failed', message: text, run: null, notBeforeMs: 0 })
  return planFailure(view, memory, text, nowMs - (memory.run?.sinceMs ?? nowMs), wanted, policy, nowMs)
}

/** Counts a failed run and sets when to try again; gives up after the policy's attempts. */
function planFailure(
  view: InstanceView,
  memory: InstanceMemory,
  text: string,
  ranMs: number,
  wanted: readonly SeenContainer[],
  policy: RestartPolicy,
  nowMs: number,
): Decision {
  return mark(view, failurePatch(memory, text, ranMs, wanted.map(runOf), policy, view.state.limits.backoffCapMs, nowMs))
}

/** What a failed run (or a start that failed) changes. */
export function failurePatch(
  memory: InstanceMemory,
  text: string,
  ranMs: number,
  runs: readonly string[],
  policy: RestartPolicy,
  backoffCapMs: number,
  nowMs: number,
): Partial<InstanceMemory> {
  const failures = ranMs >= windowOf(policy) ? 1 : memory.failures + 1
  if (policy.maxAttempts !== null && failures > policy.maxAttempts)
    return { phase: 'failed', failures, run: null, message: `${text}; given up after ${policy.maxAttempts} restarts` }
  const delayMs = backoffCeilingMs(failures - 1, { baseMs: policy.delayMs, capMs: Math.max(backoffCapMs, policy.delayMs) })
  return {
    failures,
    restarts: memory.restarts + 1,
    condemned: runs,
    notBeforeMs: nowMs + delayMs,
    run: null,
    warmAtMs: null,
    message: `${text}; restart ${failures} in ${delayMs} ms`,
  }
}

function windowOf(policy: RestartPolicy | undefined): number {
  return policy !== undefined && policy.windowMs > 0 ? policy.windowMs : DEFAULT_WINDOW_MS
}

/** The unit's containers of the right specification, one for each name, in the unit's order. */
function wantedContainers({ containers }: InstanceView, unit: UnitSpec, specHash: string): SeenContainer[] {
  const found: SeenContainer[] = []
  for (const spec of unit.containers) {
    const candidates = containers
      .filter((item) => item.container === spec.name && item.specHash === specHash && item.runtime === unit.runtime)
      .sort(runningAndOldestFirst)
    if (candidates[0]) found.push(candidates[0])
  }
  return found
}

function runningAndOldestFirst(a: SeenContainer, b: SeenContainer): number {
  const rank = (container: SeenContainer) => (container.state === 'running' ? 0 : 1)
  return rank(a) - rank(b) || (a.startedAtMs ?? 0) - (b.startedAtMs ?? 0) || (a.id < b.id ? -1 : 1)
}

/** Main first, so that sidecars serve it to its end; names of an unknown unit by age. */
function inStopOrder({ containers }: InstanceView, unit?: UnitSpec | null): SeenContainer[] {
  const place = (container: SeenContainer) => {
    const index = unit?.containers.findIndex((spec) => spec.name === container.container) ?? -1
    return index === -1 ? Number.MAX_SAFE_INTEGER : index
  }
  return [...containers].sort(
    (a, b) => place(a) - place(b) || (a.startedAtMs ?? 0) - (b.startedAtMs ?? 0) || (a.id < b.id ? -1 : 1),
  )
}

function stopStep(container: SeenContainer, graceMs: number): ReconcileAction {
  return { kind: 'stop', instance: container.instance, runtime: container.runtime, id: container.id, graceMs }
}

function mark(view: InstanceView, patch: Partial<InstanceMemory>): Decision {
  return { action: { kind: 'mark', instance: view.instance, patch }, reason: null, wakeAtMs: null }
}

function step(view: InstanceView, action: ReconcileAction): Decision {
  return { action, reason: { subject: view.instance, code: action.kind, text: `next: ${action.kind}` }, wakeAtMs: null }
}

function waitUntil(view: InstanceView, wakeAtMs: number, code: string, text: string): Decision {
  return { action: null, reason: { subject: view.instance, code, text }, wakeAtMs }
}

function idle(view: InstanceView, code: string, text: string): Decision {
  return { action: null, reason: { subject: view.instance, code, text }, wakeAtMs: null }
}
