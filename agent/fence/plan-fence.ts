/**
 * When does the watchdog stop what? A strict singleton whose lease has run out is asked to end through its engine; what runs on
 * after its grace is killed past the engine, which may hang. Pure; times are steady ms.
 */
import type { Plan, Reason } from '../../shared/plan.ts'
import { earliest } from '../../shared/plan.ts'
import type { Lease, LeasedInstance } from './lease.ts'
import { deadlineMsOf } from './plan-lease.ts'

interface Target {
  readonly instance: string
  readonly runtime: LeasedInstance['runtime']
  readonly id: string
}

export type FenceAction =
  | ({ readonly kind: 'stop'; readonly graceMs: number } & Target)
  | ({ readonly kind: 'kill' } & Target)
  /** Nothing is left to watch. */
  | { readonly kind: 'exit' }

export interface FenceState {
  /** null: there is none, or it is of another boot. */
  readonly lease: Lease | null
  /** Ids that run, of leases that have run out. */
  readonly running: ReadonlySet<string>
  /** When each was asked to stop in this expiry. */
  readonly askedMs: ReadonlyMap<string, number>
}

/** How long after its grace something is killed: an engine that answers needs a moment, signals need none. */
export const KILL_AFTER_MS: Readonly<Record<LeasedInstance['runtime'], number>> = { docker: 5_000, process: 0 }

export function planFence({ lease, running, askedMs }: FenceState, nowMs: number): Plan<FenceAction> {
  if (lease === null || lease.instances.length === 0) return { actions: [{ kind: 'exit' }], reasons: [], wakeAtMs: null }
  const actions: FenceAction[] = []
  const reasons: Reason[] = []
  let wakeAtMs: number | null = null
  for (const leased of lease.instances) {
    const deadlineMs = deadlineMsOf(lease, leased.afterMs)
    if (nowMs < deadlineMs) {
      wakeAtMs = earliest(wakeAtMs, deadlineMs)
      continue
    }
    for (const id of leased.ids.filter((each) => running.has(each))) {
      const { instance, runtime, stopGraceMs } = leased
      const since = askedMs.get(id)
      const killAtMs = since === undefined ? null : since + stopGraceMs + KILL_AFTER_MS[runtime]
      if (killAtMs === null) actions.push({ kind: 'stop', instance, runtime, id, graceMs: stopGraceMs })
      else if (nowMs >= killAtMs) actions.push({ kind: 'kill', instance, runtime, id })
      else wakeAtMs = earliest(wakeAtMs, killAtMs)
      reasons.push({ subject: instance, code: 'expired', text: `its lease ran out ${Math.round(nowMs - deadlineMs)} ms ago` })
    }
  }
  return { actions, reasons, wakeAtMs }
}

/** Instances whose time is over. */
export function expired(lease: Lease, nowMs: number): readonly LeasedInstance[] {
  return lease.instances.filter((leased) => nowMs >= deadlineMsOf(lease, leased.afterMs))
}
