/** What every history promises (coordinator/history/series.ts), whatever it is kept in. */
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { HistoryBackend, Point, SeriesId, SeriesLimits } from '../../coordinator/history/series.ts'
import { type VirtualClock, virtualClock } from '../fakes/virtual-clock.ts'

export interface HistoryUnderTest {
  open(clock: VirtualClock, options: SeriesLimits): HistoryBackend
  /** Opens what is on disk now, as after a crash of the one that was opened before; null: it keeps nothing beyond its process. */
  readonly reopen: ((clock: VirtualClock) => Promise<HistoryBackend>) | null
  /** Relative error of values. */
  readonly tolerance: number
  cleanUp(): void
}

const START_MS = Date.UTC(2026, 0, 5)
const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS
const STEPS = [10_000, MINUTE_MS, 15 * MINUTE_MS] as const
const KEEPS = [6 * HOUR_MS, 8 * DAY_MS, 90 * DAY_MS] as const
const web: SeriesId = { subject: 'service shop/web', measure: 'demand' }

/** The plainest thing that could be right: every sample in a list. */
function naive(samples: readonly { readonly atMs: number; readonly value: number }[], stepMs: number): readonly Point[] {
  const steps = new Map<number, number[]>()
  for (const { atMs, value } of samples) {
    const step = Math.floor(atMs / stepMs) * stepMs
    steps.set(step, [...(steps.get(step) ?? []), value])
  }
  return [...steps]
    .sort(([a], [b]) => a - b)
    .map(([atMs, values]) => ({
      atMs,
      value: values.reduce((sum, value) => sum + value, 0) / values.length,
      max: Math.max(...values),
    }))
}

export function historyContract(name: string, make: () => HistoryUnderTest): void {
  describe(`history contract: ${name}`, () => {
    let subject: HistoryUnderTest
    let clock: VirtualClock
    let history: HistoryBackend

    const begin = (options: SeriesLimits = {}) => {
      subject = make()
      clock = virtualClock(START_MS)
      history = subject.open(clock, options)
    }
    beforeEach(() => begin())
    afterEach(async () => {
      await history.close()
      subject.cleanUp()
    })

    const ask = (stepMs: number, fromMs = 0, toMs = Number.POSITIVE_INFINITY, id = web) =>
      history.query({ ...id, fromMs, toMs, stepMs })
    const expectPoints = (found: readonly Point[], wanted: readonly Point[], merges = 1) => {
      expect(found.map(({ atMs }) => atMs)).toEqual(wanted.map(({ atMs }) => atMs))
      found.forEach((point, i) => {
        for (const key of ['value', 'max'] as const) {
          const want = wanted[i]?.[key] ?? Number.NaN
          expect(Math.abs(point[key] - want)).toBeLessThanOrEqual(Math.abs(want) * subject.tolerance * merges + 1e-9)
        }
        expect(point.max).toBeGreaterThanOrEqual(point.value - Math.abs(point.value) * 1e-3)
      })
    }

    it('O6: gives mean and maximum per step, at once and after a flush', async () => {
      for (const [atMs, value] of [
        [0, 10],
        [4000, 30],
        [9999, 80],
        [10_000, 5],
        [70_000, 7],
      ] as const)
        history.record(web, START_MS + atMs, value)
      const wanted = [
        { atMs: START_MS, value: 40, max: 80 },
        { atMs: START_MS + 10_000, value: 5, max: 5 },
        { atMs: START_MS + 70_000, value: 7, max: 7 },
      ]
      expectPoints(ask(10_000), wanted)
      await history.flush()
      expectPoints(ask(10_000), wanted)
      expectPoints(ask(30_000), [
        { atMs: START_MS, value: 31.25, max: 80 },
        { atMs: START_MS + MINUTE_MS, value: 7, max: 7 },
      ])
      expectPoints(ask(DAY_MS), [{ atMs: START_MS, value: 26.4, max: 80 }])
    })

    it('answers the steps that begin within [from, to)', async () => {
      for (let i = 0; i < 6; i += 1) history.record(web, START_MS + i * 10_000, i)
      const at = (points: readonly Point[]) => points.map(({ atMs }) => (atMs - START_MS) / 10_000)
      expect(at(ask(10_000, START_MS + 10_000, START_MS + 40_000))).toEqual([1, 2, 3])
      await history.flush()
      expect(at(ask(10_000, START_MS + 9_999, START_MS + 40_001))).toEqual([1, 2, 3, 4])
      expect(ask(10_000, START_MS + 40_000, START_MS + 40_000)).toEqual([])
      expect(ask(10_000, START_MS + 50_000, START_MS)).toEqual([])
    })

    it('drops what is no number, and keeps the sum of weights of what is', () => {
      for (const value of [Number.NaN, Number.POSITIVE_INFINITY, 3, Number.NEGATIVE_INFINITY])
        history.record(web, START_MS, value)
      expectPoints(ask(10_000), [{ atMs: START_MS, value: 3, max: 3 }])
    })

    it('drops samples that are stamped days ahead, before 1970, or older than anything kept', async () => {
      for (const atMs of [START_MS + 3 * DAY_MS, -1, Number.NaN, START_MS - 100 * DAY_MS, 1e18]) history.record(web, atMs, 1)
      history.record(web, START_MS, 2)
      await history.flush()
      expectPoints(ask(15 * MINUTE_MS), [{ atMs: START_MS, value: 2, max: 2 }])
    })

    it('lists the series that have points, of all or one subject, sorted', async () => {
      const node: SeriesId = { subject: 'node n-1', measure: 'cpuMillis' }
      for (const id of [web, node, { ...web, measure: 'load' } as const, node]) history.record(id, START_MS, 1)
      const wanted = [node, web, { ...web, measure: 'load' }]
      expect(history.series()).toEqual(wanted)
      await history.flush()
      expect(history.series()).toEqual(wanted)
      expect(history.series('service shop/web')).toEqual(wanted.slice(1))
      expect(history.series('service shop/we')).toEqual([])
      expect(history.query({ subject: 'nobody', measure: 'load', fromMs: 0, toMs: START_MS, stepMs: 1 })).toEqual([])
    })

    it('row 37: a wall clock that goes back an hour and comes again adds to the same steps, none is lost or listed twice', async () => {
      const samples: { atMs: number; value: number }[] = []
      const run = async (minutes: number, value: number) => {
        for (let i = 0; i < minutes * 6; i += 1) {
          samples.push({ atMs: clock.now(), value: value + i })
          history.record(web, clock.now(), value + i)
          await clock.advance(10_000)
          if (i % 6 === 0) await history.flush()
        }
      }
      await run(90, 100)
      clock.jumpWall(-HOUR_MS)
      await run(90, 1000)
      clock.jumpWall(2 * HOUR_MS)
      await run(30, 10)
      await history.flush()
      for (const stepMs of STEPS) expectPoints(ask(stepMs), naive(samples, stepMs), 3)
    })

    it('keeps 10 s for 6 h, 1 min for 8 d, 15 min for 90 d, and forgets a series that nobody writes any more', async () => {
      const gone: SeriesId = { subject: 'service old/job', measure: 'ready' }
      history.record(gone, START_MS, 1)
      for (let hour = 0; hour < 92 * 24; hour += 1) {
        history.record(web, clock.now(), hour)
        await history.flush()
        await clock.advance(HOUR_MS)
      }
      history.record(web, clock.now(), 1)
      await history.flush()
      STEPS.forEach((stepMs, i) => {
        const points = ask(stepMs)
        const keepMs = KEEPS[i] ?? 0
        const oldest = clock.now() - (points[0]?.atMs ?? 0)
        expect(oldest).toBeGreaterThanOrEqual(keepMs - HOUR_MS)
        expect(oldest).toBeLessThan(keepMs + 25 * HOUR_MS)
        expect(points).toHaveLength(Math.floor(oldest / HOUR_MS) + 1)
      })
      await clock.advance(2 * DAY_MS)
      await history.flush()
      expect(history.series()).toEqual([web])
    })

    it('refuses new series beyond its bound, and makes room of those that are gone', async () => {
      await history.close()
      subject.cleanUp()
      begin({ maxSeries: 3 })
      const id = (i: number): SeriesId => ({ subject: `service ci/job-${i}`, measure: 'ready' })
      for (let i = 0; i < 5; i += 1) history.record(id(i), clock.now(), 1)
      await history.flush()
      expect(history.series()).toHaveLength(3)
      expect(history.status().dropped).toBe(2)
      await clock.advance(100 * DAY_MS)
      await history.flush()
      history.record(id(9), clock.now(), 1)
      expect(history.series()).toEqual([id(9)])
    })

    it('row 13: what nothing measures can be as large is not kept, so that no mean is infinite', () => {
      for (const value of [1e308, 1e308, Number.POSITIVE_INFINITY, Number.NaN, 7]) history.record(web, START_MS, value)
      expectPoints(ask(10_000), [{ atMs: START_MS, value: 7, max: 7 }])
    })

    it('one app with very many series leaves the others room, and gets it back when its old ones are silent', async () => {
      await history.close()
      subject.cleanUp()
      begin({ maxSeries: 10, maxSeriesPerApp: 3 })
      const id = (app: string, i: number): SeriesId => ({ subject: `service ${app}/s${i}`, measure: 'ready' })
      for (let i = 0; i < 20; i += 1) history.record(id('greedy', i), clock.now(), 1)
      history.record(id('other', 1), clock.now(), 1)
      history.record({ subject: 'node n-1', measure: 'cpuMillis' }, clock.now(), 1)
      await history.flush()
      expect([...history.eachSeries()].map(({ subject }) => subject).sort()).toEqual([
        'node n-1',
        'service greedy/s0',
        'service greedy/s1',
        'service greedy/s2',
        'service other/s1',
      ])
      expect(history.status().fault).toBeNull()
      await clock.advance(100 * DAY_MS)
      await history.flush()
      history.record(id('greedy', 9), clock.now(), 1)
      expect(history.series(id('greedy', 9).subject)).toHaveLength(1)
    })

    it('O6: any samples in any order, flushed at any time, give what a list of all of them gives', async () => {
      const sample = fc.record({
        agoMs: fc.oneof(
          { weight: 6, arbitrary: fc.integer({ min: 0, max: 120_000 }) },
          { weight: 1, arbitrary: fc.integer({ min: 0, max: 5 * HOUR_MS }) },
        ),
        value: fc.oneof(fc.integer({ min: 0, max: 8000 }), fc.double({ min: 0, max: 1e12, noNaN: true }), fc.constant(7)),
      })
      const step = fc.oneof(
        {
          weight: 12,
          arbitrary: fc.record({ kind: fc.constant('samples' as const), samples: fc.array(sample, { maxLength: 12 }) }),
        },
        { weight: 3, arbitrary: fc.constant({ kind: 'flush' as const }) },
        {
          weight: 6,
          arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 25 * MINUTE_MS }) }),
        },
        { weight: 1, arbitrary: fc.constant({ kind: 'reopen' as const }) },
      )
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
          await history.close()
          subject.cleanUp()
          begin()
          const all: { atMs: number; value: number }[] = []
          let flushes = 1
          for (const each of steps) {
            if (each.kind === 'samples')
              for (const { agoMs, value } of each.samples) {
                const atMs = clock.now() - agoMs
                all.push({ atMs, value })
                history.record(web, atMs, value)
              }
            else if (each.kind === 'wait') await clock.advance(each.ms)
            else {
              await history.flush()
              flushes += 1
              if (each.kind === 'reopen' && subject.reopen !== null) history = await subject.reopen(clock)
            }
          }
          STEPS.forEach((stepMs, i) => {
            const oldestMs = clock.now() - (KEEPS[i] ?? 0)
            const wanted = naive(all, stepMs).filter(({ atMs }) => atMs >= oldestMs)
            expectPoints(ask(stepMs, oldestMs), wanted, flushes + 3)
          })
        }),
        { numRuns: 50 },
      )
    })
  })
}
