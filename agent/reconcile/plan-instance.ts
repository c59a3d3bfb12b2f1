/**
 * The next action for one instance. Pure; times are monotonic ms. Read `planRun` for the way up, plan-way-out.ts for the way out,
 * plan-failure.ts for what follows a run that failed.
 */
import { compare } from '../../shared/compare.ts'
import { deadlineMsOf } from '../fence/plan-lease.ts'
import type { RestartPolicy, UnitSpec } from '../../shared/model/unit.ts'
import { earliest } from '../../shared/plan.ts'
import type { Assignment } from '../../shared/protocol/frames.ts'
import { type Decision, idle, inStopOrder, type InstanceView, mark, step, stopStep, waitUntil } from './instance-decision.ts'
import {
  advancePhase,
  freshMemory,
  type InstanceMemory,
  isTerminal,
  runOf,
  type SeenContainer,
  targetKeyOf,
} from './instance-memory.ts'
import { planAfterEnd, planAfterUnhealthy, windowOf } from './plan-failure.ts'
import type { ReconcileState } from './plan-reconcile.ts'
import { planDown, planEnded, planLeftover, planStop } from './plan-way-out.ts'

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

/** When a strict singleton must be stopped unless a coordinator is heard before (row 24); null for all others. */
function strictDeadlineMs(state: ReconcileState, { unit }: Assignment): number | null {
  if (unit.singletonStrictMs === null) return null
  return deadlineMsOf({ contactMs: state.lastContactMs, startedMs: state.agentStartedMs }, unit.singletonStrictMs)
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
  return rank(a) - rank(b) || (a.startedAtMs ?? 0) - (b.startedAtMs ?? 0) || compare(a.id, b.id)
}
