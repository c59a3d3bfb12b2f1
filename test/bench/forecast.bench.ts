/**
 * Forecast error per recorded trace and horizon, for every forecaster and for what the contest would have used, beside persistence and
 * seasonal naive; and what a sample costs. The parameters were chosen on the generated series, which have a figure of their own:
 * the recorded ones are held out. `TRACES=dir` names other traces.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { createCivilTime } from '../../coordinator/forecast/civil-time.ts'
import { createDemandForecaster } from '../../coordinator/forecast/demand-forecaster.ts'
import { aDemandSeries, type DemandSeries, generatedSeries, hump } from '../builders/demand-series.ts'
import { geomean, type HorizonScore, scoreSeries } from './forecast-score.ts'
import { readTraces, tracesFolder } from './forecast-traces.ts'
import type { BenchResult } from './result.ts'
import { median, spread } from './statistics.ts'

const MINUTE_MS = 60_000
const DAY_MS = 86_400_000
const HORIZONS_MIN = [5, 15, 60]
const COARSE_HORIZONS_STEPS = [1, 2, 4]

interface Row extends HorizonScore {
  readonly series: string
}

export async function benchForecast(): Promise<BenchResult[]> {
  const folder = tracesFolder()
  const results = [...summarize('forecast.generated', rowsOf(generatedSeries())), ...costs()]
  if (folder === null) {
    process.stderr.write('forecast: no traces (TRACES=dir, or ../shared/data/traces): only the generated series were measured\n')
    return results
  }
  const rows = rowsOf(readTraces(folder))
  process.stdout.write(`${errorTable(rows)}\n${pinballTable(rows)}\n`)
  return [...summarize('forecast', rows), ...results]
}

function rowsOf(all: readonly DemandSeries[]): readonly Row[] {
  return all.flatMap((series) => {
    const fitting = HORIZONS_MIN.map((minutes) => minutes * MINUTE_MS).filter((ms) => ms % series.stepMs === 0)
    const horizons = fitting.length > 1 ? fitting : COARSE_HORIZONS_STEPS.map((steps) => steps * series.stepMs)
    // Where persistence errs never, as on a constant series, there is nothing to compare with.
    return scoreSeries(series, horizons)
      .map((score) => ({ ...score, series: series.name }))
      .filter((row) => of(row, 'persistence', 'mase') > 0)
  })
}

type Pick = 'mase' | 'pinball'
const of = (row: Row, method: string, pick: Pick) => row.scores.get(method)?.[pick] ?? Number.NaN
/** Geometric mean over rows of one method's error relative to another's. */
const relative = (rows: readonly Row[], method: string, peer: string, pick: Pick) =>
  geomean(rows.map((row) => of(row, method, pick) / of(row, peer, pick)))

function summarize(prefix: string, rows: readonly Row[]): BenchResult[] {
  const naive = (pick: Pick) =>
    geomean(rows.map((row) => of(row, 'contest', pick) / Math.min(of(row, 'day-naive', pick), of(row, 'week-naive', pick))))
  const figure = (name: string, value: number, target: number | null, peer: string): BenchResult => ({
    name: `${prefix}.${name}`,
    value,
    unit: 'ratio',
    better: 'lower',
    target,
    peer,
    ratio: value,
  })
  const geo = (method: string, pick: Pick) => geomean(rows.map((row) => of(row, method, pick)))
  const against = (pick: Pick) =>
    ['persistence', 'day-naive', 'week-naive', 'holt-winters'].map((name) => `${name} ${geo(name, pick).toFixed(2)}`).join(', ')
  return [
    { ...figure('mase_geomean', geo('contest', 'mase'), null, against('mase')), unit: 'MASE', ratio: null },
    figure('mase_vs_persistence', relative(rows, 'contest', 'persistence', 'mase'), 1, 'persistence 1'),
    figure('mase_vs_seasonal_naive', naive('mase'), 1, 'the better of day-naive and week-naive 1'),
    figure(
      'pinball_p90_vs_persistence',
      relative(rows, 'contest', 'persistence', 'pinball'),
      1,
      'persistence with its own p90 1',
    ),
    figure('pinball_p90_vs_seasonal_naive', naive('pinball'), 1, 'the better of day-naive and week-naive, with their own p90, 1'),
    figure(
      'worst_mase_vs_persistence',
      Math.max(...rows.map((row) => of(row, 'contest', 'mase') / of(row, 'persistence', 'mase'))),
      1.05,
      'the trace and horizon where the contest does worst',
    ),
  ]
}

function errorTable(rows: readonly Row[]): string {
  const methods = [...(rows[0]?.scores.keys() ?? [])]
  return table(
    ['MASE', 'min', ...methods, 'trusted'],
    rows.map((row) => {
      const best = Math.min(...methods.map((method) => of(row, method, 'mase')))
      const cells = methods.map((method) => {
        const text = of(row, method, 'mase').toFixed(2)
        return of(row, method, 'mase') <= best * 1.005 ? `**${text}**` : text
      })
      return [row.series, minutes(row), ...cells, `${Math.round(100 * row.trusted)} %`]
    }),
  )
}

function pinballTable(rows: readonly Row[]): string {
  const methods = ['persistence', 'day-naive', 'week-naive', 'blend', 'contest']
  return table(
    ['pinball p90 ÷ naive error', 'min', ...methods, 'contest ÷ persistence', 'coverage', 'peak coverage'],
    rows.map((row) => [
      row.series,
      minutes(row),
      ...methods.map((method) => of(row, method, 'pinball').toFixed(3)),
      (of(row, 'contest', 'pinball') / of(row, 'persistence', 'pinball')).toFixed(2),
      (row.scores.get('contest')?.coverage ?? Number.NaN).toFixed(3),
      row.peakCoverage.toFixed(3),
    ]),
  )
}

const minutes = (row: Row) => String(row.horizonMs / MINUTE_MS)

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |\n`).join('')
}

/** Two weeks of minutes, horizons up to an hour: time per sample, time to forecast half an hour, bytes held by one series. */
function costs(): BenchResult[] {
  const series = aDemandSeries({ name: 'cost', days: 14, stepMs: MINUTE_MS, mean: (t) => 100 + 300 * hump(t) })
  const horizonMs = 60 * MINUTE_MS
  const civil = createCivilTime('Europe/Berlin')
  const replay = () => {
    const forecaster = createDemandForecaster({ stepMs: MINUTE_MS, timeZone: civil, horizonMs })
    const startMs = performance.now()
    for (const { atMs, value } of series.points) forecaster.observe(atMs, value)
    return { forecaster, us: ((performance.now() - startMs) * 1000) / series.points.length }
  }
  replay()
  const rounds = Array.from({ length: 5 }, replay)
  const [first] = rounds
  const asked = Array.from({ length: 5 }, () => {
    const startMs = performance.now()
    for (let i = 0; i < 1_000; i++) first?.forecaster.forecast(horizonMs / 2)
    return performance.now() - startMs
  })
  const figure = (name: string, values: readonly number[], unit: string, digits = 1): BenchResult => ({
    name: `forecast.${name}`,
    value: median(values),
    unit,
    better: 'lower',
    target: null,
    peer: spread(values, digits),
    ratio: null,
  })
  const perSample = rounds.map(({ us }) => us)
  return [
    figure('us_per_sample', perSample, 'µs'),
    figure('us_per_forecast', asked, 'µs'),
    // At its start a coordinator replays the eight days of minutes that the history keeps.
    figure(
      'replay_ms_per_service',
      perSample.map((us) => (us * 8 * DAY_MS) / MINUTE_MS / 1000),
      'ms',
      0,
    ),
    figure('bytes_per_series', [bytesHeld(horizonMs)], 'bytes', 0),
  ]
}

function bytesHeld(horizonMs: number): number {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const used = () => {
    collect()
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    return heapUsed + arrayBuffers
  }
  const civil = createCivilTime('UTC')
  const before = used()
  const kept = Array.from({ length: 200 }, () => {
    const forecaster = createDemandForecaster({ stepMs: MINUTE_MS, timeZone: civil, horizonMs })
    for (let i = 0; i < 60; i++) forecaster.observe(i * MINUTE_MS, i)
    return forecaster
  })
  return (used() - before) / kept.length
}
