/** The last decisions about one service, changes only, with all they were made from; and how often it changed direction. */
import type { ScalingDecision } from './plan-replicas.ts'

export interface DecisionRecord extends ScalingDecision {
  /** Epoch ms at which it was decided first. */
  readonly atMs: number
}

export interface DecisionLog {
  /** Kept when its code or its wish differs from the one before. */
  add(decision: ScalingDecision, atMs: number): void
  /** A step that was committed. `monotonicMs` must not decrease. */
  stepped(from: number, to: number, monotonicMs: number): void
  /** Newest first. */
  records(): readonly DecisionRecord[]
  /** Steps of the last hour whose direction was not that of the step before. */
  turnsPerHour(monotonicMs: number): number
}

const KEPT = 50
const HOUR_MS = 3_600_000
const MAX_TURNS = 500

export function createDecisionLog(): DecisionLog {
  let records: DecisionRecord[] = []
  let direction = 0
  let turns: number[] = []
  return {
    add(decision, atMs) {
      const last = records.at(-1)
      if (last !== undefined && last.code === decision.code && last.wish === decision.wish) return
      records.push({ ...decision, atMs })
      if (records.length >= 2 * KEPT) records = records.slice(-KEPT)
    },
    stepped(from, to, monotonicMs) {
      const now = Math.sign(to - from)
      if (now !== 0 && direction !== 0 && now !== direction) turns = [...turns, monotonicMs].slice(-MAX_TURNS)
      if (now !== 0) direction = now
    },
    records: () => records.slice(-KEPT).reverse(),
    turnsPerHour: (monotonicMs) => turns.filter((atMs) => atMs > monotonicMs - HOUR_MS).length,
  }
}
