/** Waiting times between repeated attempts. Pure. */
import type { Random } from './random.ts'

export interface BackoffOptions {
  /** First ceiling in ms. */
  readonly baseMs: number
  /** Largest ceiling in ms. */
  readonly capMs: number
}

/** Exponential ceiling of attempt `attempt` (0-based): base · 2^attempt, at most the cap. */
export function backoffCeilingMs(attempt: number, options: BackoffOptions): number {
  return Math.min(options.capMs, options.baseMs * 2 ** Math.min(attempt, 40))
}

/** Full jitter: uniform in [0, ceiling), so that many who failed together do not return together (fault row 27). */
export function fullJitterMs(attempt: number, options: BackoffOptions, random: Random): number {
  return Math.floor(random.next() * backoffCeilingMs(attempt, options))
}
