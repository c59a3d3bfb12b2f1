/** Errors of forecasts over one series: rolling origin, learned online from its first sample, scored over its last third. */
import { createDemandForecaster } from '../../coordinator/forecast/demand-forecaster.ts'
import type { DemandSeries } from '../builders/demand-series.ts'

/** Errors of one method at one distance. */
export interface Score {
  /** Mean absolute error ÷ that of the one-step naive forecast over the first two thirds (Hyndman and Koehler 2006). */
  readonly mase: number
  /** Mean pinball loss at p90, on the same scale. */
  readonly pinball: number
  /** Share of values at or below the upper quantile; 0.9 is meant. */
  readonly coverage: number
}

export interface HorizonScore {
  readonly horizonMs: number
  /** By method, `contest` being what the product would use: the winner, or persistence while none is trusted. */
  readonly scores: ReadonlyMap<string, Score>
  /** Share of the scored samples at which the contest trusted a winner. */
  readonly trusted: number
  readonly scored: number
  /** Share of the scored samples after which demand stayed at or below the forecast's peak throughout the horizon. */
  readonly peakCoverage: number
}

interface Sums {
  absolute: number
  pinball: number
  covered: number
}

const UPPER = 0.9

export function scoreSeries(series: DemandSeries, horizonsMs: readonly number[]): readonly HorizonScore[] {
  const { points, stepMs } = series
  const from = Math.floor((points.length * 2) / 3)
  const scale = naiveError(points.slice(0, from).map(({ value }) => value))
  const forecaster = createDemandForecaster({ stepMs, timeZone: series.timeZone, horizonMs: Math.max(...horizonsMs) })
  const results = horizonsMs.map((horizonMs) => ({ horizonMs, sums: new Map<string, Sums>(), trusted: 0, scored: 0, peaks: 0 }))
  points.forEach(({ atMs, value }, i) => {
    forecaster.observe(atMs, value)
    for (const result of results) {
      const steps = Math.round(result.horizonMs / stepMs)
      const actual = points[i + steps]?.value ?? null
      if (i + steps < from || actual === null) continue
      const forecast = forecaster.forecast(result.horizonMs)
      if (forecast === null) continue
      result.scored += 1
      if (forecast.isTrusted) result.trusted += 1
      if (!points.slice(i + 1, i + 1 + steps).some((point) => (point.value ?? 0) > forecast.peak)) result.peaks += 1
      for (const { method, expected, upper } of forecaster.standings(result.horizonMs))
        add(result.sums, method, expected, upper, actual)
      add(result.sums, 'contest', forecast.expected.at(-1) ?? Number.NaN, forecast.upper.at(-1) ?? Number.NaN, actual)
    }
  })
  return results.map(({ horizonMs, sums, trusted, scored, peaks }) => ({
    horizonMs,
    trusted: trusted / scored,
    scored,
    peakCoverage: peaks / scored,
    scores: new Map(
      [...sums].map(([method, { absolute, pinball, covered }]) => [
        method,
        { mase: absolute / scored / scale, pinball: pinball / scored / scale, coverage: covered / scored },
      ]),
    ),
  }))
}

function add(sums: Map<string, Sums>, method: string, expected: number, upper: number, actual: number): void {
  const sum = sums.get(method) ?? { absolute: 0, pinball: 0, covered: 0 }
  sums.set(method, sum)
  sum.absolute += Math.abs(actual - expected)
  sum.pinball += actual > upper ? UPPER * (actual - upper) : (1 - UPPER) * (upper - actual)
  if (actual <= upper) sum.covered += 1
}

function naiveError(values: readonly (number | null)[]): number {
  let sum = 0
  let count = 0
  for (let i = 1; i < values.length; i++) {
    const [before, value] = [values[i - 1] ?? null, values[i] ?? null]
    if (before === null || value === null) continue
    sum += Math.abs(value - before)
    count += 1
  }
  return sum / Math.max(1, count)
}

export function geomean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length)
}
