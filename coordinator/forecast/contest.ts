/**
 * Rolling-origin contest between forecasters of one series. At every sample each says what comes 1, 2, 4 … steps later, up to the
 * longest horizon; when that moment has come it is scored. The winner at a horizon is the one with the least error there over the last
 * days, counting the point and the upper quantile (which punishes too little nine times as much as too much). Persistence is the floor:
 * another one is trusted only when it beats it by a margin, on enough evidence, and did not just fail.
 */
import { createBlend } from './blend.ts'
import { createErrorBook } from './errors.ts'
import type { Forecaster } from './forecaster.ts'

export interface Standing {
  readonly method: string
  /** Error and pinball loss at p90 relative to persistence's at that horizon; null while unknown. */
  readonly errorVsPersistence: number | null
  readonly pinballVsPersistence: number | null
  /** What it says now of the last step of the horizon, and its p90. */
  readonly expected: number
  readonly upper: number
}

export interface Verdict {
  readonly entrant: number
  readonly errorVsPersistence: number | null
  readonly isTrusted: boolean
  /** A day of errors was there to choose by; before that it is persistence for want of evidence. */
  readonly isJudged: boolean
}

export interface Contest {
  readonly names: readonly string[]
  /** Scores what was said about this step, lets every forecaster see it, and asks them anew. */
  observe(atMs: number, value: number | null): void
  /** Which entrant to believe for this many steps: persistence, entrant 0, unless another one can be trusted. */
  verdict(steps: number): Verdict
  /** How every entrant stands; empty before the first sample. */
  standings(steps: number): readonly Standing[]
  /** Expected value of an entrant at a distance, and its p90; null while it has seen too little. */
  expected(entrant: number, distance: number): number | null
  margin(entrant: number, distance: number): number
}

export interface ContestOptions {
  /** The first is persistence: the floor, and what stands in for those that have seen too little. */
  readonly forecasters: readonly Forecaster[]
  readonly stepMs: number
  /** Longest horizon in steps, ≥ 1. */
  readonly steps: number
  /** Local hour of the day, 0–23. */
  hourOf(atMs: number): number
  /** Called after the forecasters have seen a sample, for what they share. */
  onObserved(atMs: number, value: number): void
}

const DAY_MS = 86_400_000
/** Errors of the last days decide; a week's rhythm must show in them. */
const LONG_MS = 4 * DAY_MS
const SHORT_MS = 3_600_000
const BLEND_HALF_LIFE_MS = 7 * DAY_MS
const SOLVE_EVERY_MS = 3_600_000
/** Scored samples, and time they must span, before anything is believed. */
const LEAST_SAMPLES = 24
const LEAST_SPAN_MS = DAY_MS
const LEAST_REACHES = 4
/** Of persistence's error: what a trusted winner may have at most. */
const TRUST_MARGIN = 0.95
/** Failing: in the last hour or so worse than its own mean by this factor, and worse than persistence by that one. */
const BURST_FACTOR = 1.5
const BURST_VS_PERSISTENCE = 1

export function createContest(options: ContestOptions): Contest {
  const { forecasters, stepMs } = options
  const distances = checkpoints(options.steps)
  const names = [...forecasters.map(({ name }) => name), 'blend']
  const entrants = names.length
  const blended = entrants - 1
  // Record j · entrants + c: entrant c at checkpoint j.
  const book = createErrorBook(distances.length * entrants, {
    stepMs,
    longMs: LONG_MS,
    shortMs: Math.max(SHORT_MS, 6 * stepMs),
  })
  const blends = distances.map(() => createBlend(forecasters.length, 0.5 ** (stepMs / BLEND_HALF_LIFE_MS)))
  // What was said `distance` steps ago, in the place where the next saying goes: expected values, then upper ones.
  const said = distances.map((distance) => new Float32Array(2 * distance * entrants).fill(Number.NaN))
  const solveEvery = Math.max(1, Math.round(SOLVE_EVERY_MS / stepMs))
  const now = new Float64Array(forecasters.length)
  const errors = new Float64Array(forecasters.length)
  let step = 0
  let lastAtMs = Number.NaN

  const score = (j: number, hour: number, value: number) => {
    const distance = distances[j] ?? 1
    const ring = said[j]
    if (ring === undefined) return
    const from = (step % distance) * 2 * entrants
    if (Number.isNaN(ring[from] ?? Number.NaN)) return
    for (let c = 0; c < entrants; c++)
      book.score(j * entrants + c, hour, ring[from + c] ?? 0, ring[from + entrants + c] ?? 0, value)
    blends[j]?.learn(ring.subarray(from, from + forecasters.length), ring[from + blended] ?? 0, value)
  }

  /** Fills `now` with what each forecaster says; false before the first sample. */
  const ask = (distance: number): boolean => {
    const floor = forecasters[0]?.at(distance) ?? null
    if (floor === null) return false
    for (let c = 0; c < forecasters.length; c++) now[c] = forecasters[c]?.at(distance) ?? floor
    return true
  }

  const say = (j: number) => {
    const distance = distances[j] ?? 1
    const ring = said[j]
    if (ring === undefined) return
    const from = (step % distance) * 2 * entrants
    if (!ask(distance)) {
      ring.fill(Number.NaN, from, from + 2 * entrants)
      return
    }
    const hour = options.hourOf(lastAtMs + distance * stepMs)
    for (let c = 0; c < entrants; c++) {
      const expected = c === blended ? (blends[j]?.of(now) ?? 0) : (now[c] ?? 0)
      ring[from + c] = expected
      ring[from + entrants + c] = expected + book.margin(j * entrants + c, hour)
    }
  }

  /** Index of the largest checkpoint not beyond the distance, and how far (0–1, by ratio) it is to the next. */
  const locate = (distance: number): { readonly j: number; readonly share: number } => {
    let j = 0
    while (j + 1 < distances.length && (distances[j + 1] ?? 0) <= distance) j += 1
    const low = distances[j] ?? 1
    const high = distances[j + 1]
    return { j, share: high === undefined ? 0 : Math.log2(distance / low) / Math.log2(high / low) }
  }

  const between = (distance: number, at: (j: number) => number): number => {
    const { j, share } = locate(distance)
    return share === 0 ? at(j) : (1 - share) * at(j) + share * at(j + 1)
  }

  /** Errors relative to persistence's at a horizon, and with half the weight at the checkpoint before it: peaks come sooner, too. */
  const errorOf = (c: number, steps: number, pick: (record: number) => number): number => {
    const last = locate(steps).j
    let sum = 0
    let weights = 0
    for (let j = Math.max(0, last - 1); j <= last; j++) {
      const floor = pick(j * entrants)
      if (floor <= 0) continue
      const weight = j === last ? 2 : 1
      sum += (weight * pick(j * entrants + c)) / floor
      weights += weight
    }
    return weights === 0 ? 1 : sum / weights
  }

  const isFailing = (record: number, floor: number): boolean =>
    book.recentAbsolute(record) > BURST_FACTOR * book.meanAbsolute(record) &&
    book.recentAbsolute(record) > BURST_VS_PERSISTENCE * book.recentAbsolute(floor)

  const expected = (entrant: number, distance: number): number | null => {
    if (!ask(distance)) return null
    return entrant === blended ? between(distance, (j) => blends[j]?.of(now) ?? 0) : (now[entrant] ?? null)
  }

  const margin = (entrant: number, distance: number): number => {
    const hour = options.hourOf(lastAtMs + distance * stepMs)
    return between(distance, (j) => book.margin(j * entrants + entrant, hour))
  }

  return {
    names,
    observe(atMs, value) {
      if (value !== null) {
        const hour = options.hourOf(atMs)
        for (let j = 0; j < distances.length; j++) score(j, hour, value)
      }
      for (const forecaster of forecasters) forecaster.observe(atMs, value)
      if (value !== null) options.onObserved(atMs, value)
      lastAtMs = atMs
      const isTimeToSolve = step % solveEvery === 0
      for (let j = 0; j < distances.length; j++) {
        if (isTimeToSolve) {
          for (let c = 0; c < forecasters.length; c++) errors[c] = book.meanAbsolute(j * entrants + c)
          blends[j]?.solve(errors)
        }
        say(j)
      }
      step += 1
    },
    verdict(steps) {
      const last = locate(steps).j
      const evidence = book.samples(last * entrants)
      // Persistence needs no trust, only errors of its own: some of them, and not all within one reach of the horizon.
      if (evidence < Math.max(LEAST_SAMPLES, LEAST_SPAN_MS / stepMs)) {
        const isScored = evidence >= Math.max(LEAST_SAMPLES, LEAST_REACHES * steps)
        return { entrant: 0, errorVsPersistence: isScored ? 1 : null, isTrusted: false, isJudged: false }
      }
      let winner = 0
      let least = 2
      for (let c = 1; c < entrants; c++) {
        if (isFailing(last * entrants + c, last * entrants)) continue
        const total = errorOf(c, steps, book.meanAbsolute) + errorOf(c, steps, book.pinball)
        if (total < least) {
          least = total
          winner = c
        }
      }
      const error = errorOf(winner, steps, book.meanAbsolute)
      const isTrusted = winner !== 0 && error < TRUST_MARGIN && errorOf(winner, steps, book.pinball) < TRUST_MARGIN
      return isTrusted
        ? { entrant: winner, errorVsPersistence: error, isTrusted, isJudged: true }
        : { entrant: 0, errorVsPersistence: 1, isTrusted, isJudged: true }
    },
    standings(steps) {
      const isKnown = book.samples(locate(steps).j * entrants) > 0
      return names.flatMap((method, c) => {
        const value = expected(c, steps)
        return value === null
          ? []
          : [
              {
                method,
                errorVsPersistence: isKnown ? errorOf(c, steps, book.meanAbsolute) : null,
                pinballVsPersistence: isKnown ? errorOf(c, steps, book.pinball) : null,
                expected: value,
                upper: value + margin(c, steps),
              },
            ]
      })
    },
    expected,
    margin,
  }
}

/** 1, 2, 4 … and the horizon itself. */
function checkpoints(steps: number): readonly number[] {
  const distances: number[] = []
  for (let distance = 1; distance < steps; distance *= 2) distances.push(distance)
  distances.push(steps)
  return distances
}
