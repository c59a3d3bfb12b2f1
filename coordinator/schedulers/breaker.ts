/**
 * Whether a scheduler that failed is asked at all: a dead one must not cost its deadline for each service. After a few failures in a
 * row it rests; then one question is let through, and its outcome decides. Pure. Times are monotonic ms.
 */

export interface Breaker {
  /** Failures since the last answer. */
  readonly failures: number
  /** Rests until then; null while it is asked as ever. */
  readonly openUntilMs: number | null
  /** The question let through after a rest is under way. */
  readonly isTrying: boolean
}

export const CLOSED: Breaker = { failures: 0, openUntilMs: null, isTrying: false }

/** One slow answer is no reason to give up on it; three in a row are. */
const FAILURES_TO_OPEN = 3
const FIRST_REST_MS = 5_000
/** Long enough to cost a dead scheduler nothing, short enough that one that came back is soon noticed. */
const LONGEST_REST_MS = 60_000

export function mayAsk({ openUntilMs, isTrying }: Breaker, nowMs: number): boolean {
  return openUntilMs === null || (nowMs >= openUntilMs && !isTrying)
}

/** When it was decided to ask. */
export function asked(breaker: Breaker): Breaker {
  return breaker.openUntilMs === null ? breaker : { ...breaker, isTrying: true }
}

export function failed(breaker: Breaker, nowMs: number): Breaker {
  // Questions asked before the rest began fail late; they do not lengthen it.
  if (breaker.openUntilMs !== null && !breaker.isTrying) return breaker
  const failures = breaker.failures + 1
  if (failures < FAILURES_TO_OPEN) return { ...CLOSED, failures }
  const restMs = Math.min(LONGEST_REST_MS, FIRST_REST_MS * 2 ** Math.min(20, failures - FAILURES_TO_OPEN))
  return { failures, openUntilMs: nowMs + restMs, isTrying: false }
}
