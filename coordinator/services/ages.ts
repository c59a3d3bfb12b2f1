/**
 * How long something has been so, by monotonic time: since this coordinator first saw it, and before that as the wall clock
 * told when it was first seen. A jump of the wall clock afterwards changes nothing (fault row 37).
 */
import type { Clock } from '../../shared/clock.ts'

export interface Ages {
  /** Age in ms of `key`; starts it, `beganAtMs` (epoch ms, default now) ago, when it is not known. */
  of(key: string, beganAtMs?: number): number
  forget(key: string): void
  has(key: string): boolean
}

export function createAges(clock: Clock): Ages {
  const began = new Map<string, number>()
  return {
    of(key, beganAtMs) {
      const nowMs = clock.monotonicMs()
      let start = began.get(key)
      if (start === undefined) {
        start = nowMs - Math.max(0, beganAtMs === undefined ? 0 : clock.now() - beganAtMs)
        began.set(key, start)
      }
      return nowMs - start
    },
    forget: (key) => void began.delete(key),
    has: (key) => began.has(key),
  }
}
