/**
 * Pools that rest after failures, so that a cloud that has nothing left is not asked again and again. Stored: a coordinator that
 * starts anew, perhaps because it crashes in a loop, must not ask either. Times are the fleet's steady time.
 */
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { PoolRest } from '../state/objects.ts'
import type { Change, State } from '../state/state.ts'

export interface PoolRests {
  /** Pools that rest, and those whose rest ended so lately that a failure would double the next. */
  all(): ReadonlyMap<string, PoolRest>
  /** Lets a pool rest; each failure in a row doubles the time. Nothing while it rests: one burst of failures counts once. */
  rest(pool: string, reason: string, baseMs: number): void
  /** A machine of the pool joined at that time: if its rest was over by then, its failures are forgotten. Idempotent. */
  joined(pool: string, atMs: number): void
  /** Forgets what ended long ago. */
  prune(): void
}

const LONGEST_MS = 3_600_000

export function createPoolRests(deps: { readonly state: State; readonly logger: Logger; nowMs(): number }): PoolRests {
  const { state, nowMs } = deps
  // None is longer than this, whatever the wall clock was when it was written.
  const latestMs = nowMs() + LONGEST_MS
  const rests = new Map(
    [...state.snapshot.all('poolRest')].map(([pool, rest]) => [pool, { ...rest, untilMs: Math.min(rest.untilMs, latestMs) }]),
  )
  // What is decided counts at once; a rest that could not be stored is lost only with this process.
  const store = (change: Change) => {
    const failed = (why: string) => deps.logger.warn('the rest of a pool was not stored', { why })
    state.commit(change).then(
      (outcome) => outcome.kind !== 'committed' && failed(outcome.kind),
      (error: unknown) => failed(messageOf(error)),
    )
  }
  const forget = (pool: string) => {
    if (rests.delete(pool) && state.snapshot.get('poolRest', pool)) store(state.change().delete('poolRest', pool))
  }
  return {
    all: () => rests,
    rest(pool, reason, baseMs) {
      const before = rests.get(pool)
      const now = nowMs()
      if (before && before.untilMs > now) return
      const inRow = before && now - before.untilMs < LONGEST_MS ? before.inRow + 1 : 0
      const restMs = Math.min(LONGEST_MS, baseMs * 2 ** inRow)
      const rest: PoolRest = { pool, untilMs: now + restMs, reason: reason.slice(0, 500), inRow }
      rests.set(pool, rest)
      store(
        state
          .change()
          .put('poolRest', pool, rest)
          .event({
            actor: 'fleet',
            type: 'pool.cooling-down',
            subject: pool,
            message: `pool ${pool} rests for ${Math.round(restMs / 1000)} s: ${reason}`,
            severity: 'warning',
          }),
      )
    },
    joined(pool, atMs) {
      const rest = rests.get(pool)
      if (rest && rest.untilMs <= atMs) forget(pool)
    },
    prune() {
      for (const [pool, { untilMs }] of rests) if (nowMs() - untilMs > LONGEST_MS) forget(pool)
    },
  }
}
