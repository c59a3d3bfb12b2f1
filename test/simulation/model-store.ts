/**
 * The store as one coordinator sees it: commits take a little time, in order, as on a disk. What its process had asked for when it
 * died is written or not, as the seed has it; what was acknowledged is there. Levers: it is away, full, or says conflict.
 */
import type { Store } from '../../coordinator/state/store.ts'
import { type Clock, sleep } from '../../shared/clock.ts'
import type { Random } from '../../shared/random.ts'
import type { EffectListener } from './effects.ts'

export interface StoreLevers {
  /** Nothing can be written, and nobody learns whether it was: `unavailable`. */
  away: boolean
  /** `unavailable` with `full`: nothing is written. */
  full: boolean
  /** Chance that a commit is told of a conflict that was none. */
  conflictRate: number
  /** A commit takes up to so much longer. */
  slowMs: number
}

export function modelStore(
  store: Store,
  parts: {
    readonly clock: Clock
    readonly random: Random
    readonly levers: StoreLevers
    /** Its process lives. */
    readonly isAlive: () => boolean
    readonly tell: EffectListener
  },
): Store {
  const { clock, random, levers, tell } = parts
  let freeAtMs = 0
  const never = () => new Promise<never>(() => {})
  return {
    load: () => store.load(),
    events: (query) => store.events(query),
    close: () => store.close(),
    async commit(operations, options) {
      const what = operations.map((operation) => `${operation.op} ${operation.kind} ${operation.key}`).join(', ')
      tell({ who: 'coordinator', kind: 'commit', what, when: 'before' })
      if (!parts.isAlive()) return never()
      freeAtMs = Math.max(freeAtMs, clock.monotonicMs()) + 0.2 + random.next() * (1 + levers.slowMs)
      await sleep(clock, freeAtMs - clock.monotonicMs())
      // Asked for before the death: the disk may have it or not.
      if (!parts.isAlive() && random.next() < 0.5) return never()
      if (levers.full) return { kind: 'unavailable', detail: 'the disk is full', full: true }
      if (levers.away) return { kind: 'unavailable', detail: 'the store does not answer' }
      if (operations.length > 0 && random.next() < levers.conflictRate)
        return { kind: 'conflict', detail: 'somebody else was faster' }
      const outcome = await store.commit(operations, options)
      tell({ who: 'coordinator', kind: 'commit', what, when: 'after' })
      return outcome
    },
  }
}
