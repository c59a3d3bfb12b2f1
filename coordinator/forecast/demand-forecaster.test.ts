import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { aDemandSeries, type DemandSeries, hump, MONDAY_MS } from '../../test/builders/demand-series.ts'
import { scoreSeries } from '../../test/bench/forecast-score.ts'
import { createDemandForecaster, type DemandForecaster } from './demand-forecaster.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

function feed(series: DemandSeries, horizonMs = HOUR, untilMs = Number.POSITIVE_INFINITY): DemandForecaster {
  const forecaster = createDemandForecaster({ stepMs: series.stepMs, timeZone: series.timeZone, horizonMs })
  for (const { atMs, value } of series.points) if (atMs < untilMs) forecaster.observe(atMs, value)
  return forecaster
}

describe('a new series', () => {
  it('has no forecast before its first sample, then persistence, not trusted', () => {
    const forecaster = createDemandForecaster({ horizonMs: 5 * MINUTE })
    expect(forecaster.forecast()).toBeNull()
    expect(forecaster.standings()).toEqual([])
    forecaster.observe(MONDAY_MS, 120)
    expect(forecaster.forecast()).toMatchObject({
      method: 'persistence',
      expected: [120, 120, 120, 120, 120],
      isTrusted: false,
      errorVsPersistence: null,
      atMs: MONDAY_MS,
      horizonMs: 5 * MINUTE,
    })
  })

  it('is not trusted within its first day, however regular', () => {
    const series = aDemandSeries({ name: 'saw', days: 1, noise: 0, mean: (t) => 100 + 50 * ((t * 24) % 1) })
    expect(feed(series, HOUR, MONDAY_MS + 20 * HOUR).forecast()?.isTrusted).toBe(false)
  })

  it('knows the errors of persistence after some reaches of the horizon, not before', () => {
    const series = aDemandSeries({ name: 'noise', days: 1, noise: 0.2, mean: () => 100, seed: 4 })
    const errorAfter = (hours: number) => feed(series, HOUR, MONDAY_MS + hours * HOUR).forecast()?.errorVsPersistence
    expect(errorAfter(4)).toBeNull()
    expect(errorAfter(6)).toBe(1)
    expect(feed(series, HOUR, MONDAY_MS + 6 * HOUR).forecast()?.isJudged).toBe(false)
  })
})

describe('a report that cannot be true', () => {
  it('row 13: leaves nothing behind, whatever its size: the forecast is that of a gap', () => {
    const forecastAfter = (value: number) => {
      const forecaster = createDemandForecaster({ horizonMs: 10 * MINUTE })
      let atMs = MONDAY_MS
      const feed = (demand: number, minutes: number) => {
        for (let i = 0; i < minutes; i++, atMs += MINUTE) forecaster.observe(atMs, demand)
      }
      feed(200, 2 * 24 * 60)
      feed(value, 3)
      feed(200, 10 * 60)
      return forecaster.forecast()
    }
    for (const value of [3.4e38, 1e154, 1e300, Number.MAX_VALUE]) expect(forecastAfter(value)).toEqual(forecastAfter(Number.NaN))
    expect(forecastAfter(1e300)?.peak).toBeCloseTo(200)
  })
})

describe('a daily rhythm', () => {
  const series = aDemandSeries({ name: 'daily', days: 10, noise: 0.05, mean: (t) => 100 + 300 * hump(t) })

  it('is seen an hour ahead of the rise, and the peak over the horizon is the upper quantile of its top', () => {
    const at = MONDAY_MS + 9 * DAY + 9 * HOUR
    const forecast = feed(series, HOUR, at).forecast()
    const now = 100 + 300 * hump(9 / 24)
    const then = 100 + 300 * hump(10 / 24)
    expect(forecast?.isTrusted).toBe(true)
    expect(forecast?.expected.at(-1)).toBeGreaterThan(now + 0.6 * (then - now))
    expect(forecast?.expected.at(-1)).toBeLessThan(then * 1.15)
    expect(forecast?.peak).toBe(Math.max(...(forecast?.upper ?? [])))
    expect(forecast?.errorVsPersistence).toBeLessThan(0.7)
  })

  it('answers the same whether or not it was asked before, and again the same when replayed', () => {
    const asked = createDemandForecaster({ stepMs: series.stepMs, horizonMs: HOUR })
    for (const { atMs, value } of series.points) {
      asked.observe(atMs, value)
      asked.forecast()
      asked.standings(15 * MINUTE)
    }
    expect(asked.forecast()).toEqual(feed(series).forecast())
  })

  it('has a shorter horizon within the longest one', () => {
    const forecast = feed(series).forecast(15 * MINUTE)
    expect(forecast?.expected).toHaveLength(3)
    expect(forecast?.horizonMs).toBe(15 * MINUTE)
  })
})

describe('the contest', () => {
  it('does not trust anything on a random walk: nothing beats persistence there', () => {
    const series = aDemandSeries({ name: 'walk', days: 14, noise: 0.3, memory: 0.999, mean: () => 100, seed: 5 })
    const [score] = scoreSeries(series, [15 * MINUTE])
    expect(score?.trusted).toBeLessThan(0.05)
  })

  it('leaves a profile within two hours after the rhythm breaks, errs no more than persistence from then on, and learns the new one', () => {
    const shape = { name: 'break', days: 28, noise: 0.05, seed: 3 }
    const series = aDemandSeries({ ...shape, mean: (t) => (t < 14 ? 100 + 300 * hump(t) : 100 + 300 * hump(t + 0.5)) })
    const breakMs = MONDAY_MS + 14 * DAY
    const forecaster = createDemandForecaster({ stepMs: series.stepMs, horizonMs: HOUR })
    const steps = HOUR / series.stepMs
    const sums = { ours: 0, persistence: 0, trustedBefore: 0 }
    series.points.forEach(({ atMs, value }, i) => {
      forecaster.observe(atMs, value)
      const forecast = forecaster.forecast()
      const actual = series.points[i + steps]?.value ?? null
      if (forecast === null || actual === null || value === null) return
      if (atMs === breakMs - series.stepMs) sums.trustedBefore = forecast.isTrusted ? 1 : 0
      const error = Math.abs((forecast.expected[steps - 1] ?? 0) - actual)
      const floor = Math.abs(value - actual)
      if (atMs >= breakMs + 2 * HOUR && atMs < breakMs + 26 * HOUR) {
        sums.ours += error
        sums.persistence += floor
      }
    })
    expect(sums.trustedBefore).toBe(1)
    expect(sums.ours).toBeLessThanOrEqual(1.05 * sums.persistence)
    expect(forecaster.forecast()).toMatchObject({ isTrusted: true })
    expect(forecaster.forecast()?.errorVsPersistence).toBeLessThan(0.7)
  })

  it('covers about nine values in ten by the upper quantile, at night as by day', () => {
    const series = aDemandSeries({ name: 'daily', days: 21, noise: 0.2, mean: (t) => 100 + 300 * hump(t), seed: 9 })
    for (const { scores } of scoreSeries(series, [15 * MINUTE, HOUR])) {
      expect(scores.get('contest')?.coverage).toBeGreaterThan(0.86)
      expect(scores.get('contest')?.coverage).toBeLessThan(0.94)
    }
  })
})

describe('odd input', () => {
  it('keeps its hours when the clocks change', () => {
    // A shop in Berlin that opens at 08:00 by its own clock; on 30 March 2025 the clocks change.
    const start = Date.UTC(2025, 2, 3)
    const local = (atMs: number) => atMs + (atMs >= Date.UTC(2025, 2, 30, 1) ? 2 : 1) * HOUR
    const open = (atMs: number) => (local(atMs) % DAY >= 8 * HOUR && local(atMs) % DAY < 20 * HOUR ? 200 : 10)
    const run = (timeZone: string) => {
      const forecaster = createDemandForecaster({ stepMs: 5 * MINUTE, timeZone, horizonMs: HOUR })
      const until = Date.UTC(2025, 2, 30, 5, 30)
      for (let atMs = start; atMs < until; atMs += 5 * MINUTE) forecaster.observe(atMs, open(atMs))
      return forecaster.forecast()?.expected.at(-1)
    }
    expect(run('Europe/Berlin')).toBeGreaterThan(150)
    expect(run('UTC')).toBeLessThan(100)
  })

  it('ignores late, repeated and impossible samples, and goes on after a silence of months', () => {
    const forecaster = createDemandForecaster({ horizonMs: 10 * MINUTE })
    forecaster.observe(MONDAY_MS + 10 * MINUTE, 50)
    forecaster.observe(MONDAY_MS, 900)
    forecaster.observe(MONDAY_MS + 10 * MINUTE + 20_000, 900)
    forecaster.observe(MONDAY_MS + 11 * MINUTE, Number.NaN)
    forecaster.observe(Number.NaN, 900)
    expect(forecaster.forecast()?.expected[0]).toBe(50)
    forecaster.observe(MONDAY_MS + 90 * DAY, 70)
    expect(forecaster.forecast()?.expected[0]).toBe(70)
  })

  it('never answers with NaN, infinity or less than nothing, whatever comes', () => {
    const value = fc.oneof(
      { weight: 6, arbitrary: fc.double({ min: 0, max: 1e6, noNaN: true }) },
      { weight: 2, arbitrary: fc.constantFrom(0, 0, 1e12, 1e-12, -5) },
      { weight: 1, arbitrary: fc.constantFrom(null, Number.NaN, Number.POSITIVE_INFINITY) },
    )
    fc.assert(
      fc.property(
        fc.array(fc.record({ value, gap: fc.integer({ min: 1, max: 3 }), times: fc.integer({ min: 1, max: 60 }) }), {
          maxLength: 40,
        }),
        fc.constantFrom(MINUTE, 5 * MINUTE, 30 * MINUTE),
        (runs, stepMs) => {
          const forecaster = createDemandForecaster({ stepMs, horizonMs: HOUR })
          let atMs = MONDAY_MS
          for (const run of runs) {
            for (let i = 0; i < run.times; i++) {
              forecaster.observe(atMs, run.value)
              atMs += run.gap * stepMs
            }
            const forecast = forecaster.forecast()
            for (const { expected, upper } of forecaster.standings()) {
              expect(Number.isFinite(expected) && Number.isFinite(upper)).toBe(true)
              expect(expected).toBeGreaterThanOrEqual(0)
              expect(upper).toBeGreaterThanOrEqual(expected)
            }
            for (const number of [...(forecast?.expected ?? []), ...(forecast?.upper ?? [])]) {
              expect(Number.isFinite(number)).toBe(true)
              expect(number).toBeGreaterThanOrEqual(0)
            }
          }
        },
      ),
      { numRuns: 60 },
    )
  })
})
