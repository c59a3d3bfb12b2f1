/** The way out of one instance: out of service, its requests finished, stopped, removed. Pure; times are monotonic ms. */
import type { UnitSpec } from '../../shared/model/unit.ts'
import type { Assignment } from '../../shared/protocol/frames.ts'
import { type Decision, idle, inStopOrder, type InstanceView, mark, step, stopStep, waitUntil } from './instance-decision.ts'
import { advancePhase, type InstanceMemory, type SeenContainer } from './instance-memory.ts'

/** How often the end of the last requests is looked for while draining. */
const DRAIN_POLL_MS = 100

/** Out of service, let the requests finish, stop, remove, report `stopped`. */
export function planStop(view: InstanceView, memory: InstanceMemory, { unit }: Assignment, nowMs: number): Decision {
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
export function planLeftover(view: InstanceView, memory: InstanceMemory, nowMs: number): Decision {
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
export function planEnded(view: InstanceView, memory: InstanceMemory, nowMs: number): Decision {
  if (memory.notBeforeMs > nowMs) return waitUntil(view, memory.notBeforeMs, 'backoff', memory.message)
  const running = inStopOrder(view).find((container) => container.state === 'running')
  if (memory.target !== null && !memory.withdrawn) return step(view, { kind: 'withdraw', instance: view.instance })
  if (running) return step(view, stopStep(running, memory.stopGraceMs))
  if (!memory.cleared) return step(view, { kind: 'clear', instance: view.instance })
  return idle(view, memory.phase, memory.message)
}

/** Withdraws, waits, stops, removes and clears; null when nothing is left. */
export function planDown(
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
