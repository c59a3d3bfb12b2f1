/**
 * Demand between the steps of a series: linear from the middle of one step to the middle of the next, so that each step keeps
 * its mean, scaled to instances' worth, with seeded Poisson noise of the number of requests on top. Pure but for the random
 * source that it is given.
 */
import type { Random } from '../../shared/random.ts'
import type { Trace } from './trace.ts'

export interface Demand {
  readonly startMs: number
  readonly endMs: number
  /** Work that arrives, in instances' worth (1 = what one instance can serve at most), without noise. */
  at(atMs: number): number
}

/** `perUnit`: one instance's worth in the unit of the series. */
export function demandOf(trace: Trace, perUnit: number): Demand {
  const { startMs, stepMs, values } = trace
  const last = values.length - 1
  return {
    startMs,
    endMs: startMs + values.length * stepMs,
    at(atMs) {
      const position = Math.min(last, Math.max(0, (atMs - startMs) / stepMs - 0.5))
      const index = Math.floor(position)
      const left = values[index] ?? 0
      const right = values[Math.min(last, index + 1)] ?? left
      return (left + (right - left) * (position - index)) / perUnit
    },
  }
}

/** The unit that makes the 99th percentile of the series (of its values above zero) equal to `instances`. */
export function unitFor(trace: Trace, instances: number): number {
  const sorted = trace.values.filter((value) => value > 0).sort()
  const p99 = sorted[Math.min(sorted.length - 1, Math.floor(0.99 * sorted.length))] ?? 1
  return p99 / instances
}

/** A number of arrivals with the given mean: Knuth's product for small means, the normal approximation for large ones. */
export function poisson(mean: number, random: Random): number {
  if (mean <= 0) return 0
  if (mean < 30) {
    const limit = Math.exp(-mean)
    let count = 0
    for (let product = random.next(); product > limit; product *= random.next()) count += 1
    return count
  }
  const normal = Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())
  return Math.max(0, Math.round(mean + Math.sqrt(mean) * normal))
}
