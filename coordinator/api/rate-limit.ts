/** Token buckets per key in a bounded map: a flood of new keys forgets the least recently used, never grows memory. */
import { LRUCache } from 'lru-cache'
import type { Clock } from '../../shared/clock.ts'

export interface RateLimiter {
  /** Takes one token; 0 when there was one, else the seconds (≥ 1) until there is. */
  take(key: string): number
}

interface Bucket {
  tokens: number
  atMs: number
}

/** Buckets of `burst` tokens that refill at `ratePerS`; at most `maxKeys` are remembered. Uses monotonic time. */
export function rateLimiter(options: {
  readonly clock: Clock
  readonly ratePerS: number
  readonly burst: number
  readonly maxKeys?: number
}): RateLimiter {
  const { clock, ratePerS, burst } = options
  const buckets = new LRUCache<string, Bucket>({ max: options.maxKeys ?? 10_000 })
  return {
    take(key) {
      const nowMs = clock.monotonicMs()
      const bucket = buckets.get(key) ?? { tokens: burst, atMs: nowMs }
      bucket.tokens = Math.min(burst, bucket.tokens + ((nowMs - bucket.atMs) / 1000) * ratePerS)
      bucket.atMs = nowMs
      buckets.set(key, bucket)
      if (bucket.tokens < 1) return Math.max(1, Math.ceil((1 - bucket.tokens) / ratePerS))
      bucket.tokens -= 1
      return 0
    },
  }
}
