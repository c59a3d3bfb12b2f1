/**
 * Four published auto-scalers, written from their descriptions in Ilyushkin et al., "An Experimental Performance Evaluation of
 * Autoscaling Policies for Complex Workflows", ICPE 2017, and from the behaviour of the re-implementations that this study used.
 * Each looks once a minute (the study: every 30 to 60 s) at the number of servers that the present load fills, and directs machines
 * at once; they know the load itself, not only the use of what runs. Constants are theirs where they are known.
 *
 * - React (Chieu et al., ICEBE 2009): two above the load when it exceeds the capacity; down to it when more than two are idle.
 * - Adapt (Ali-Eldin et al., NOMS 2012): an integral controller of load less capacity, a fifteenth as fast down, repairs shortages.
 * - Hist (Urgaonkar et al., TAAS 2008): a high percentile of the loads seen in the same hour of earlier days, corrected by the
 *   recent error, and repaired when most of the last looks were short.
 * - Reg (Iqbal et al., FGCS 2011): up by the load; down by a second-order regression over the last 72 looks.
 */
import type { Controller, Policy, PolicyContext } from '../policy.ts'
import { createFollowingFleet } from './following-fleet.ts'

const LOOK_MS = 60_000
const SPARE = 2

interface Scaler {
  learn?(atMs: number, load: number): void
  /** `load`: servers' worth, as a whole number; returns the wanted servers. */
  decide(nowMs: number, load: number, capacity: number): number
}

function scaler(id: string, title: string, create: () => Scaler): Policy {
  return {
    id,
    title,
    source: 'Ilyushkin et al., ICPE 2017',
    start({ world, rules }: PolicyContext): Controller {
      const fleet = createFollowingFleet(world)
      const rule = create()
      let arrived = 0
      let ticks = 0
      let nextMs = world.nowMs + LOOK_MS
      return {
        learn: (atMs, demand) => rule.learn?.(atMs, Math.ceil(demand)),
        tick(seen) {
          arrived += seen.arrived
          ticks += 1
          if (world.nowMs >= nextMs) {
            nextMs += LOOK_MS
            const load = Math.ceil(arrived / ticks)
            arrived = 0
            ticks = 0
            const wish = Math.ceil(rule.decide(world.nowMs, load, world.wanted))
            world.scaleTo(Math.min(rules.max, Math.max(1, rules.min, wish)), `load of ${load} servers`)
          }
          fleet.tick()
        },
      }
    },
  }
}

export const react = scaler('react', 'React', () => ({
  decide(_nowMs, load, capacity) {
    if (load >= capacity) return load + SPARE
    return capacity - load > SPARE ? load + SPARE : capacity
  },
}))

const ADAPT_DOWN = 15

export const adapt = scaler('adapt', 'Adapt', () => {
  let owed = 0
  return {
    decide(_nowMs, load, capacity) {
      const gap = load - capacity
      owed += gap < 0 ? gap / ADAPT_DOWN : gap
      const whole = Math.trunc(owed)
      owed -= whole
      if (gap > 0) return Math.max(load + SPARE, capacity + whole)
      return whole < 0 ? Math.min(capacity, Math.max(load + SPARE, capacity + whole)) : capacity
    },
  }
})

const HIST_PERCENTILE = 0.95
const HOURS = 24
const HOUR_MS = 3_600_000
const RECENT = 10

export const hist = scaler('hist', 'Hist', () => {
  /** Counts of each load by hour of day. */
  const histograms: number[][] = Array.from({ length: HOURS }, () => [])
  const totals = new Array<number>(HOURS).fill(0)
  const errors: number[] = []
  const shortages: number[] = []
  const hourOf = (atMs: number) => Math.floor(atMs / HOUR_MS) % HOURS
  const learn = (atMs: number, load: number) => {
    const histogram = histograms[hourOf(atMs)] as number[]
    histogram[load] = (histogram[load] ?? 0) + 1
    totals[hourOf(atMs)] = (totals[hourOf(atMs)] ?? 0) + 1
  }
  const predicted = (atMs: number): number => {
    const histogram = histograms[hourOf(atMs)] as number[]
    let below = HIST_PERCENTILE * (totals[hourOf(atMs)] ?? 0)
    for (let load = 0; load < histogram.length; load += 1) {
      below -= histogram[load] ?? 0
      if (below <= 0) return load
    }
    return 0
  }
  return {
    learn,
    decide(nowMs, load, capacity) {
      const prediction = predicted(nowMs)
      learn(nowMs, load)
      errors.push(Math.max(0, load - prediction))
      if (errors.length > HOURS) errors.shift()
      shortages.push(load > capacity ? 1 : 0)
      if (shortages.length > RECENT) shortages.shift()
      const correction = errors.reduce((sum, error) => sum + error, 0) / errors.length
      const isShort = shortages.reduce((sum, short) => sum + short, 0) > RECENT / 2
      return Math.max(predicted(nowMs) + correction, isShort ? load + SPARE : 0)
    },
  }
})

const REG_LOOKS = 72

export const reg = scaler('reg', 'Reg', () => {
  const loads: number[] = []
  return {
    decide(_nowMs, load, capacity) {
      loads.push(load)
      if (loads.length > REG_LOOKS) loads.shift()
      if (load >= capacity) return load
      const fitted = Math.ceil(quadraticAtEnd(loads))
      return Math.max(load, Math.min(capacity, fitted))
    },
  }
})

/** Value at the last point of the parabola of least squares through equally spaced values. */
export function quadraticAtEnd(values: readonly number[]): number {
  const n = values.length
  if (n < 4) return values.at(-1) ?? 0
  const middle = (n - 1) / 2
  // Orthogonal polynomials on −middle … middle: 1, x, x² − mean(x²).
  const meanSquare = (n * n - 1) / 12
  let mean = 0
  let first = 0
  let second = 0
  let firstNorm = 0
  let secondNorm = 0
  values.forEach((value, index) => {
    const x = index - middle
    const square = x * x - meanSquare
    mean += value / n
    first += value * x
    second += value * square
    firstNorm += x * x
    secondNorm += square * square
  })
  return mean + (first / firstNorm) * middle + (second / secondNorm) * (middle * middle - meanSquare)
}
