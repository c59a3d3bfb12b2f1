import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LEVELS, levelFor } from '../levels.ts'
import type { Measure, SeriesQuery } from '../series.ts'
import { finestStepMs, matcherOf, planQueries, POINTS_AT_ONCE, probeOf, stepOf } from './plan-queries.ts'

const NOW_MS = Date.UTC(2026, 0, 20, 12, 3, 4, 567)
const HOUR_MS = 3_600_000
const server = { cluster: 'c1', scrapeIntervalMs: 10_000 }
const about = (more: Partial<SeriesQuery> = {}): SeriesQuery => ({
  subject: 'service shop/web',
  measure: 'demand',
  fromMs: NOW_MS - HOUR_MS,
  toMs: NOW_MS,
  stepMs: 60_000,
  ...more,
})

describe('queries to Prometheus', () => {
  it('ask for every step once, in order, at its last millisecond, never for the future nor for more than one answer may hold', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -100, max: 100 * 24 }),
        fc.double({ min: -10, max: 3000, noNaN: true }),
        fc.constantFrom(10_000, 30_000, 60_000, 900_000, 7_200_000),
        fc.constantFrom(1_000, 10_000, 15_000, 60_000),
        (hoursAgo, hours, stepMs, scrapeIntervalMs) => {
          const fromMs = NOW_MS - hoursAgo * HOUR_MS
          const toMs = fromMs + hours * HOUR_MS
          const queries = planQueries(about({ fromMs, toMs, stepMs }), { ...server, scrapeIntervalMs }, NOW_MS)
          const level = LEVELS[levelFor(Math.max(stepMs, finestStepMs(scrapeIntervalMs)))]
          const steps = queries.flatMap((query) => {
            expect(query.stepMs).toBe(level.stepMs)
            const count = (query.endMs - query.startMs) / query.stepMs + 1
            expect(Number.isInteger(count) && count >= 1 && count <= POINTS_AT_ONCE).toBe(true)
            return Array.from({ length: count }, (_, i) => stepOf(query.startMs + i * query.stepMs, query.stepMs))
          })
          steps.forEach((atMs, i) => {
            if (i > 0) expect(atMs).toBe((steps[i - 1] ?? 0) + level.stepMs)
          })
          const first = Math.ceil(Math.max(fromMs, NOW_MS - level.keepMs - level.blockMs) / level.stepMs) * level.stepMs
          const end = Math.min(toMs, NOW_MS)
          expect(steps.length).toBeLessThanOrEqual(Math.max(0, Math.ceil((end - first) / level.stepMs)))
          if (steps.length > 0) {
            expect(steps[0]).toBeGreaterThanOrEqual(fromMs)
            expect(steps.at(-1)).toBeLessThan(end)
            expect((steps.at(-1) ?? 0) + level.stepMs).toBeGreaterThanOrEqual(end)
          }
        },
      ),
    )
  })

  it('of everything there ever was are bounded in number', () => {
    const all = (stepMs: number) =>
      planQueries(about({ fromMs: 0, toMs: Number.POSITIVE_INFINITY, stepMs }), server, NOW_MS).length
    expect([10_000, 60_000, 900_000].map(all)).toEqual([2, 6, 5])
  })

  it('count only what was scraped within the step', () => {
    const [{ expression } = { expression: '' }] = planQueries(about(), server, NOW_MS)
    const series = 'rubato_service_demand_percent{rubato_cluster="c1",app="shop",service="web"}'
    expect(expression).toBe(
      `label_replace(sum(sum_over_time(${series}[60000ms])) / sum(count_over_time(${series}[60000ms])), "stat", "mean", "", "") or ` +
        `label_replace(max(max_over_time(${series}[60000ms])), "stat", "max", "", "")`,
    )
  })

  it('of counters reach back to the scrape before, and have peaks only where several scrapes are in a step', () => {
    const expressionOf = (stepMs: number, scrapeIntervalMs: number, measure: Measure = 'requests') =>
      planQueries(about({ measure, stepMs }), { ...server, scrapeIntervalMs }, NOW_MS)[0]?.expression ?? ''
    expect(expressionOf(60_000, 60_000)).toContain('[125000ms]) and count_over_time(')
    expect(expressionOf(60_000, 60_000)).not.toContain('max_over_time')
    expect(expressionOf(60_000, 15_000)).toContain('[60000ms:15000ms]')
    expect(expressionOf(900_000, 15_000)).toContain('[900000ms:60000ms]')
    expect(expressionOf(900_000, 15_000, 'latencyP95')).not.toContain('max_over_time')
    expect(expressionOf(60_000, 15_000, 'latencyP95')).toContain('histogram_quantile(0.95, sum by (le) (')
  })

  it('are none where such a thing is not recorded', () => {
    expect(planQueries(about({ subject: 'nobody' }), server, NOW_MS)).toEqual([])
    expect(planQueries(about({ measure: 'reservedPercent' }), server, NOW_MS)).toEqual([])
  })

  it('name the cluster, whatever they are about', () => {
    for (const text of [
      planQueries(about(), server, NOW_MS)[0]?.expression,
      matcherOf(undefined, 'c1'),
      matcherOf('node n-1', 'c1'),
      probeOf(server),
    ])
      expect(text).toContain('rubato_cluster="c1"')
    expect(matcherOf('pool small', 'c1')).toBe(
      '{__name__=~"rubato_pool_machines|rubato_pool_price_usd_per_hour",le=~"|[+]Inf",rubato_cluster="c1",pool="small"}',
    )
  })
})
