/**
 * What everything that answers for the past promises (coordinator/history/past.ts), whatever it is kept in. The samples of all scenarios
 * are known beforehand, so that a server which reads them from files can be given them all at once.
 */
import { beforeAll, describe, expect, it } from 'vitest'
import type { Past } from '../../coordinator/history/past.ts'
import type { Measure, Point, SeriesId } from '../../coordinator/history/series.ts'

export interface Sample {
  readonly id: SeriesId
  readonly atMs: number
  readonly value: number
}

export interface PastScenario {
  readonly name: string
  /**
   * Of each series in order of time. Of what Prometheus counts: per second, of the ten seconds that begin then. Answer times are such as
   * lie at 95 % of a bucket of `LATENCY_BUCKETS_MS`.
   */
  readonly samples: readonly Sample[]
  readonly nowMs: number
  check(past: Past, tolerance: number): Promise<void>
}

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS
/** Where blocks of every level begin. */
const START_MS = Date.UTC(2026, 0, 5)
const STEPS = [10_000, MINUTE_MS, 15 * MINUTE_MS] as const
const series = (subject: string, measure: Measure = 'demand'): SeriesId => ({ subject, measure })
const WEB = series('service shop/web')

const samplesOf = (id: SeriesId, values: readonly (readonly [atMs: number, value: number])[]): Sample[] =>
  values.map(([atMs, value]) => ({ id, atMs: START_MS + atMs, value }))
const regular = (id: SeriesId, fromMs: number, toMs: number, everyMs: number, value: (i: number) => number): Sample[] =>
  Array.from({ length: Math.ceil((toMs - fromMs) / everyMs) }, (_, i) => ({ id, atMs: fromMs + i * everyMs, value: value(i) }))

const ask = async (past: Past, id: SeriesId, stepMs: number, fromMs: number, toMs: number) => {
  const { points, isWhole } = await past.query({ ...id, fromMs, toMs, stepMs })
  expect(isWhole).toBe(true)
  return points
}

/** Means and maxima of the samples of each step; the plainest thing that could be right. */
function naive(samples: readonly Sample[], stepMs: number): readonly Point[] {
  const steps = Map.groupBy(samples, ({ atMs }) => Math.floor(atMs / stepMs) * stepMs)
  return [...steps].map(([atMs, those]) => {
    const values = those.map(({ value }) => value)
    return { atMs, value: values.reduce((sum, value) => sum + value, 0) / values.length, max: Math.max(...values) }
  })
}

function expectPoints(found: readonly Point[], wanted: readonly Point[], tolerance: number): void {
  expect(found.map(({ atMs }) => atMs)).toEqual(wanted.map(({ atMs }) => atMs))
  found.forEach((point, i) => {
    for (const key of ['value', 'max'] as const) {
      const want = wanted[i]?.[key] ?? Number.NaN
      expect(Math.abs(point[key] - want)).toBeLessThanOrEqual(Math.abs(want) * tolerance + 1e-9)
    }
  })
}

const GAPS = samplesOf(WEB, [
  [0, 10],
  [4_000, 30],
  [9_900, 80],
  [10_000, 5],
  [70_000, 7],
  [31 * MINUTE_MS, 2],
])
/** By the minute, at both ends of eight days and around some of those at which a server is asked in parts (every 2,000th). */
const DAYS = [
  [0, 2],
  [32, 34],
  [166, 168],
  [186, 192],
].flatMap(([fromHour = 0, toHour = 0]) =>
  regular(WEB, START_MS + fromHour * HOUR_MS, START_MS + toHour * HOUR_MS, MINUTE_MS, (i) => (i * 7919) % 1000),
)
const ODD_SUBJECTS = [
  'node a.c',
  'node abc',
  'node a"b\\c}{',
  'node ü-1',
  'service shop/web',
  'service shop/web2',
  'service sh.p/web',
]
const OFTEN = regular(WEB, START_MS, START_MS + HOUR_MS, 30_000, (i) => 100 + (i % 7))
const RATES = [series('service shop/web', 'requests'), series('cluster', 'requests')]
const ANSWERS = series('service shop/web', 'latencyP95')
const FEW: readonly SeriesId[] = [
  series('cluster', 'wanted'),
  series('node n-1', 'cpuMillis'),
  series('node n-1', 'memoryBytes'),
  series('pool small', 'usdPerHour'),
  series('service shop/web', 'demand'),
  series('service shop/web', 'ready'),
]

export const PAST_SCENARIOS: readonly PastScenario[] = [
  {
    name: 'O6: gives mean and maximum per step; steps without samples are absent, whatever was last before them',
    samples: GAPS,
    nowMs: START_MS + HOUR_MS,
    async check(past, tolerance) {
      for (const stepMs of STEPS)
        expectPoints(await ask(past, WEB, stepMs, START_MS, START_MS + HOUR_MS), naive(GAPS, stepMs), tolerance)
    },
  },
  {
    name: 'answers the steps that begin within [from, to)',
    samples: OFTEN,
    nowMs: START_MS + HOUR_MS,
    async check(past) {
      const at = async (fromMs: number, toMs: number) =>
        (await ask(past, WEB, MINUTE_MS, START_MS + fromMs, START_MS + toMs)).map(({ atMs }) => (atMs - START_MS) / MINUTE_MS)
      expect(await at(MINUTE_MS, 4 * MINUTE_MS)).toEqual([1, 2, 3])
      expect(await at(MINUTE_MS - 1, 4 * MINUTE_MS + 1)).toEqual([1, 2, 3, 4])
      expect(await at(MINUTE_MS, MINUTE_MS)).toEqual([])
      expect(await at(5 * MINUTE_MS, MINUTE_MS)).toEqual([])
    },
  },
  {
    name: 'answers in the coarser one of its steps where another is asked for',
    samples: OFTEN,
    nowMs: START_MS + HOUR_MS,
    async check(past, tolerance) {
      const end = START_MS + HOUR_MS
      expectPoints(await ask(past, WEB, 20_000, START_MS, end), naive(OFTEN, MINUTE_MS), tolerance)
      expectPoints(await ask(past, WEB, DAY_MS, START_MS, end), naive(OFTEN, 15 * MINUTE_MS), tolerance)
    },
  },
  {
    name: 'answers for eight days by the minute at once, and has no finer steps than are kept for so long ago, however far back one asks',
    samples: DAYS,
    nowMs: START_MS + 8 * DAY_MS,
    async check(past, tolerance) {
      const points = await ask(past, WEB, MINUTE_MS, START_MS, START_MS + 8 * DAY_MS)
      expect(points).toHaveLength(12 * 60)
      expectPoints(points, naive(DAYS, MINUTE_MS), tolerance)
      const [fine, , coarse] = await Promise.all(STEPS.map((stepMs) => ask(past, WEB, stepMs, 0, Number.POSITIVE_INFINITY)))
      expectPoints(fine ?? [], naive(DAYS.slice(-360), 10_000), tolerance)
      expectPoints(coarse ?? [], naive(DAYS, 15 * MINUTE_MS), 3 * tolerance)
    },
  },
  {
    name: 'tells subjects apart whose names look alike or hold quotes, braces and dots',
    samples: ODD_SUBJECTS.flatMap((subject, i) => samplesOf(series(subject, 'memoryBytes'), [[0, 1000 + i]])),
    nowMs: START_MS + HOUR_MS,
    async check(past, tolerance) {
      for (const [i, subject] of ODD_SUBJECTS.entries()) {
        const id = series(subject, 'memoryBytes')
        const points = await ask(past, id, MINUTE_MS, START_MS, START_MS + HOUR_MS)
        expectPoints(points, [{ atMs: START_MS, value: 1000 + i, max: 1000 + i }], tolerance)
        expect([...(await past.series(subject))]).toEqual([id])
      }
      expect(await ask(past, series('node a', 'memoryBytes'), MINUTE_MS, START_MS, START_MS + HOUR_MS)).toEqual([])
    },
  },
  {
    name: 'lists the series that have points, of one subject sorted; each in its own unit',
    samples: FEW.flatMap((id, i) => samplesOf(id, [[0, 1.5 + i]])),
    nowMs: START_MS + HOUR_MS,
    async check(past, tolerance) {
      const keyed = (ids: Iterable<SeriesId>) => [...ids].map(({ subject, measure }) => `${subject} ${measure}`)
      expect(keyed(await past.series()).sort()).toEqual(keyed(FEW))
      expect(keyed(await past.series('service shop/web'))).toEqual(keyed(FEW.slice(4)))
      expect(keyed(await past.series('cluster'))).toEqual(['cluster wanted'])
      expect(keyed(await past.series('service shop/we'))).toEqual([])
      for (const [i, id] of FEW.entries()) {
        const points = await ask(past, id, MINUTE_MS, START_MS, START_MS + HOUR_MS)
        expectPoints(points, [{ atMs: START_MS, value: 1.5 + i, max: 1.5 + i }], tolerance)
      }
      expect(await ask(past, series('service shop/web', 'reservedPercent'), MINUTE_MS, START_MS, START_MS + HOUR_MS)).toEqual([])
    },
  },
  {
    name: 'gives requests per second, of steps in which they were counted',
    samples: RATES.flatMap((id) => [
      ...regular(id, START_MS, START_MS + HOUR_MS, 10_000, () => 5),
      ...regular(id, START_MS + 2 * HOUR_MS, START_MS + 3 * HOUR_MS, 10_000, () => 5),
    ]),
    nowMs: START_MS + 3 * HOUR_MS,
    async check(past) {
      for (const id of RATES) {
        const points = await ask(past, id, MINUTE_MS, START_MS, START_MS + 3 * HOUR_MS)
        const at = points.map(({ atMs }) => (atMs - START_MS) / MINUTE_MS)
        expect(at).toEqual(Array.from({ length: 120 }, (_, i) => (i < 60 ? i : i + 60)))
        // Where counting begins, Prometheus may be off by what came before its first scrape.
        points.forEach(({ value, max }, i) => {
          if (i % 60 > 1) expect([value, max]).toEqual([expect.closeTo(5, 2), expect.closeTo(5, 2)])
        })
      }
    },
  },
  {
    name: 'gives the 95th percentile of answer times of steps in which something was answered',
    samples: [
      ...regular(ANSWERS, START_MS, START_MS + 10 * MINUTE_MS, 10_000, () => 19.5),
      ...regular(ANSWERS, START_MS + 20 * MINUTE_MS, START_MS + 30 * MINUTE_MS, 10_000, () => 98.75),
    ],
    nowMs: START_MS + HOUR_MS,
    async check(past) {
      const points = await ask(past, ANSWERS, MINUTE_MS, START_MS, START_MS + HOUR_MS)
      expect(points.map(({ atMs }) => (atMs - START_MS) / MINUTE_MS)).toEqual(
        Array.from({ length: 20 }, (_, i) => (i < 10 ? i : i + 10)),
      )
      points.forEach(({ value, max }, i) => {
        if (i % 10 > 1)
          expect([value, max]).toEqual([expect.closeTo(i < 10 ? 19.5 : 98.75, 2), expect.closeTo(i < 10 ? 19.5 : 98.75, 2)])
      })
    },
  },
]

/** `open` is given all samples at once, and answers with the past of each scenario. */
export function pastContract(
  name: string,
  tolerance: number,
  open: (scenarios: readonly PastScenario[]) => Promise<(scenario: PastScenario) => Past>,
): void {
  describe(`contract of the past: ${name}`, () => {
    let pastOf: ((scenario: PastScenario) => Past) | null = null
    beforeAll(async () => {
      pastOf = await open(PAST_SCENARIOS)
    })
    for (const scenario of PAST_SCENARIOS)
      it(scenario.name, async () => {
        if (pastOf === null) throw new Error('nothing was opened')
        await scenario.check(pastOf(scenario), tolerance)
      })
  })
}
