/** Forecast of one demand series, fed sample by sample: the forecasters of this folder, their contest, and what it concludes. Pure. */
import { createCivilTime, type CivilTime } from './civil-time.ts'
import { createContest, type Standing } from './contest.ts'
import type { DemandForecast, Forecaster } from './forecaster.ts'
import { createHoltWinters } from './holt-winters.ts'
import { createProfile, LEAST_SLOT_MS } from './profile.ts'
import { createProfileLevel } from './profile-level.ts'
import { createDrift, createPersistence, createSeasonalNaive, createSmoothed } from './simple-forecasters.ts'

export interface DemandForecasterOptions {
  /** Time between samples, ms: from a minute to an hour. Default one minute. */
  readonly stepMs?: number
  /** IANA zone in which days and weeks repeat, or an existing one to share. Default UTC. */
  readonly timeZone?: string | CivilTime
  /** Longest horizon that will be asked for, ms. Default 60 minutes. */
  readonly horizonMs?: number
}

export interface DemandForecaster {
  /**
   * The sample of the step that holds `atMs`; null: it is missing. Skipped steps count as missing. A sample of the last step or before
   * it is ignored; one that is no number or above `MOST_PERCENT` counts as missing, a negative one as 0.
   */
  observe(atMs: number, value: number | null): void
  /**
   * A mean of the past over a span longer than a step, as old history has it: teaches what is usual at that time and nothing else.
   * To be called in order and before the first `observe`.
   */
  learnUsual(atMs: number, spanMs: number, value: number): void
  /**
   * What to expect of the steps after the last one; null before the first sample. A horizon of its own may be given, ≤ the longest
   * one. What it answers without season or evidence is persistence, not trusted.
   */
  forecast(horizonMs?: number): DemandForecast | null
  /** How each forecaster did at that horizon. */
  standings(horizonMs?: number): readonly Standing[]
}

const MINUTE_MS = 60_000
const DAY_MS = 86_400_000
/** Ten million instances' worth: no demand is that large, and squares of what is below stay exact enough to be averaged for weeks. */
export const MOST_PERCENT = 1e9
/** New days and weeks move the usual by these shares: two weeks of days, a month of weeks. */
const DAY_WEIGHT = 0.15
const WEEK_WEIGHT = 0.3

export function createDemandForecaster(options: DemandForecasterOptions = {}): DemandForecaster {
  const stepMs = options.stepMs ?? MINUTE_MS
  const longestMs = Math.max(stepMs, options.horizonMs ?? 60 * MINUTE_MS)
  const zone = options.timeZone ?? 'UTC'
  const civil = typeof zone === 'string' ? createCivilTime(zone) : zone
  const day = createProfile(civil, { period: 'day', stepMs, weight: DAY_WEIGHT })
  const week = createProfile(civil, { period: 'week', stepMs, weight: WEEK_WEIGHT })
  const contest = createContest({
    forecasters: [
      createPersistence(),
      createSmoothed(),
      createDrift(stepMs),
      createSeasonalNaive(day, stepMs),
      createSeasonalNaive(week, stepMs),
      createProfileLevel(day, stepMs),
      createProfileLevel(week, stepMs),
      createHoltWinters(civil, stepMs),
    ] satisfies readonly Forecaster[],
    stepMs,
    steps: Math.ceil(longestMs / stepMs),
    hourOf: (atMs) => Math.floor((civil.msOfWeek(atMs) % DAY_MS) / 3_600_000),
    onObserved(atMs, value) {
      day.observe(atMs, value)
      week.observe(atMs, value)
    },
  })
  let lastStep: number | null = null

  const stepsOf = (horizonMs: number) => Math.max(1, Math.ceil(Math.min(horizonMs, longestMs) / stepMs))

  return {
    observe(atMs, value) {
      const step = Math.floor(atMs / stepMs)
      if (!Number.isFinite(step) || (lastStep !== null && step <= lastStep)) return
      // After more than a day of silence nothing of the near past matters any more.
      const first = lastStep === null ? step : Math.max(lastStep + 1, step - Math.ceil(DAY_MS / stepMs))
      for (let missing = first; missing < step; missing++) contest.observe(missing * stepMs, null)
      lastStep = step
      contest.observe(step * stepMs, value === null || !isDemand(value) ? null : Math.max(0, value))
    },
    learnUsual(atMs, spanMs, value) {
      if (!isDemand(value)) return
      for (let at = atMs; at < atMs + spanMs; at += Math.max(stepMs, LEAST_SLOT_MS)) {
        day.observe(at, value)
        week.observe(at, value)
      }
    },
    forecast(horizonMs = longestMs) {
      const steps = stepsOf(horizonMs)
      const { entrant, errorVsPersistence, isTrusted, isJudged } = contest.verdict(steps)
      const expected: number[] = []
      const upper: number[] = []
      let peak = 0
      for (let distance = 1; distance <= steps; distance++) {
        const value = contest.expected(entrant, distance)
        if (value === null || lastStep === null) return null
        const high = value + contest.margin(entrant, distance)
        expected.push(value)
        upper.push(high)
        peak = Math.max(peak, high)
      }
      return {
        method: contest.names[entrant] ?? '',
        peak,
        expected,
        upper,
        atMs: (lastStep ?? 0) * stepMs,
        stepMs,
        horizonMs: steps * stepMs,
        errorVsPersistence,
        isTrusted,
        isJudged,
      }
    },
    standings: (horizonMs = longestMs) => contest.standings(stepsOf(horizonMs)),
  }
}

function isDemand(value: number): boolean {
  return Number.isFinite(value) && value <= MOST_PERCENT
}
