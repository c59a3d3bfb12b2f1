/** Percentiles of answer times that gateways counted in buckets. Pure. */
import { LATENCY_BUCKETS_MS } from '../../shared/model/observation.ts'

/** One more than bounds: the last counts what took longer than all of them. */
export const ANSWER_TIME_BUCKETS = LATENCY_BUCKETS_MS.length + 1

/**
 * The time within which `share` (0–1) of the counted requests were answered, ms, taking each bucket's requests as spread evenly over
 * it (as Prometheus' histogram_quantile does). Above the last bound: that bound. null when nothing was counted.
 */
export function answerTimeMs(counts: ArrayLike<number>, share: number): number | null {
  let total = 0
  for (let i = 0; i < ANSWER_TIME_BUCKETS; i += 1) total += counts[i] ?? 0
  if (total === 0) return null
  const wanted = share * total
  let below = 0
  for (let i = 0; i < LATENCY_BUCKETS_MS.length; i += 1) {
    const here = counts[i] ?? 0
    if (here > 0 && below + here >= wanted) {
      const from = i === 0 ? 0 : (LATENCY_BUCKETS_MS[i - 1] ?? 0)
      const to = LATENCY_BUCKETS_MS[i] ?? from
      return from + (to - from) * Math.max(0, (wanted - below) / here)
    }
    below += here
  }
  return LATENCY_BUCKETS_MS.at(-1) ?? null
}
