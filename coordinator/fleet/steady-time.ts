/**
 * Epoch ms that no jump of the wall clock moves: the wall clock when the coordinator started plus monotonic time since. What has
 * a deadline in the fleet (drains, joins, rests) is measured with it (fault row 37).
 */
import type { Clock } from '../../shared/clock.ts'

export function steadyTime(clock: Pick<Clock, 'now' | 'monotonicMs'>): () => number {
  const startWallMs = clock.now()
  const startMonotonicMs = clock.monotonicMs()
  return () => Math.floor(startWallMs + clock.monotonicMs() - startMonotonicMs)
}
