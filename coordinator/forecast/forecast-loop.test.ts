import { describe, expect, it, vi } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import type { ScaleRules } from '../../shared/model/app.ts'
import { hump } from '../../test/builders/demand-series.ts'
import { anAppRecord, aServiceRecord } from '../../test/builders/records.ts'
import { anAppSpec, aServiceSpec, aScale } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { type VirtualClock, virtualClock } from '../../test/fakes/virtual-clock.ts'
import { createMemoryHistory } from '../history/memory-history.ts'
import { ownPast, type Past } from '../history/past.ts'
import { openState } from '../state/state.ts'
import { createForecastLoop, type ForecastLoop } from './forecast-loop.ts'
import { forecastMetrics } from './forecast-metrics.ts'

const MINUTE = 60_000
const DAY = 24 * 60 * MINUTE
const WEB = 'shop/web'
const SERIES = { subject: 'service shop/web', measure: 'demand' } as const

const demandAt = (atMs: number) => 100 + 300 * hump(atMs / DAY)

/** A coordinator's worth of parts after `days` of demand, the last of which ends at the virtual now. */
async function bed(
  options: {
    days?: number
    scale?: Partial<ScaleRules>
    leadTimeMs?: number | null
    past?: (clock: VirtualClock) => Pick<Past, 'query'>
  } = {},
) {
  const clock = virtualClock()
  const state = await openState(memoryStore(), clock)
  const put = async (scale: Partial<ScaleRules>) => {
    const change = state.change()
    change.put('app', 'shop', anAppRecord({ spec: anAppSpec({ services: [aServiceSpec({ scale: aScale(scale) })] }) }))
    change.put('service', WEB, aServiceRecord())
    await state.commit(change)
  }
  await put({ predict: 'auto', ...options.scale })
  const history = createMemoryHistory(clock)
  const nowMs = Math.floor(clock.now() / MINUTE) * MINUTE
  for (let atMs = nowMs - (options.days ?? 0) * DAY; atMs < nowMs; atMs += MINUTE) history.record(SERIES, atMs, demandAt(atMs))
  const loop = createForecastLoop({
    state,
    history,
    ...(options.past === undefined ? {} : { past: options.past(clock) as Past }),
    clock,
    logger: silentLogger(),
    timeZone: 'UTC',
    leadTimeMs: () => options.leadTimeMs ?? null,
  })
  loop.start()
  const live = async (minutes: number) => {
    for (let i = 0; i < minutes; i++) {
      history.record(SERIES, clock.now(), demandAt(clock.now()))
      await clock.advance(MINUTE)
    }
  }
  return { clock, state, history, loop, put, live }
}

describe('forecast loop', () => {
  it('learns from what the history keeps as soon as it starts, and forecasts what follows', async () => {
    const { clock, loop } = await bed({ days: 12, leadTimeMs: 29 * MINUTE })
    await clock.advance(5_000)
    const forecast = loop.current(WEB)
    expect(forecast).toMatchObject({ isTrusted: true, horizonMs: 30 * MINUTE })
    const then = demandAt((forecast?.atMs ?? 0) + 30 * MINUTE)
    expect(Math.abs((forecast?.expected[29] ?? 0) - then)).toBeLessThan(0.1 * then)
    expect(loop.forecastOf(WEB, 5 * MINUTE)?.expected).toHaveLength(5)
    expect(loop.forecastOf(WEB, 5 * DAY)?.horizonMs).toBe(60 * MINUTE)
    await loop.stop()
  })

  it('begins with persistence, untrusted, where there is no history, and follows minute by minute', async () => {
    const { loop, clock, live } = await bed()
    await clock.advance(5_000)
    expect(loop.current(WEB)).toBeNull()
    await live(10)
    const before = loop.current(WEB)
    expect(before).toMatchObject({ method: 'persistence', isTrusted: false, errorVsPersistence: null })
    await live(5)
    expect((loop.current(WEB)?.atMs ?? 0) - (before?.atMs ?? 0)).toBe(5 * MINUTE)
    await loop.stop()
  })

  it('records what it expects for the moment that it is about, which can be held against what came', async () => {
    const { loop, clock, history, live } = await bed({ days: 10, leadTimeMs: 9 * MINUTE })
    await clock.advance(5_000)
    await live(30)
    const points = history.query({
      subject: SERIES.subject,
      measure: 'forecast',
      fromMs: clock.now() - 5 * MINUTE,
      toMs: clock.now() + DAY,
      stepMs: MINUTE,
    })
    expect(points.length).toBeGreaterThan(10)
    expect(points.at(-1)?.atMs).toBe((loop.current(WEB)?.atMs ?? 0) + 10 * MINUTE)
    for (const { atMs, value } of points) expect(Math.abs(value - demandAt(atMs))).toBeLessThan(0.15 * demandAt(atMs))
    await loop.stop()
  })

  it('falls silent when demand was not measured for a quarter of an hour, and comes back with it', async () => {
    const { loop, clock, live } = await bed({ days: 3 })
    await clock.advance(5_000)
    await live(3)
    expect(loop.current(WEB)).not.toBeNull()
    await clock.advance(20 * MINUTE)
    expect(loop.current(WEB)).toBeNull()
    await live(3)
    expect(loop.current(WEB)).not.toBeNull()
    await loop.stop()
  })

  it('says nothing while the wall clock is set back, rather than what it said an hour ago', async () => {
    const { loop, clock, live } = await bed({ days: 3 })
    await clock.advance(5_000)
    await live(3)
    clock.jumpWall(-60 * MINUTE)
    expect(loop.current(WEB)).toBeNull()
    await loop.stop()
  })

  describe('where the past is elsewhere', () => {
    /** Twelve days that this coordinator never recorded. */
    const elsewhere = () => {
      let isAway = false
      let asked = 0
      const past = (clock: VirtualClock): Pick<Past, 'query'> => {
        const known = createMemoryHistory(clock)
        const nowMs = Math.floor(clock.now() / MINUTE) * MINUTE
        for (let atMs = nowMs - 12 * DAY; atMs < nowMs; atMs += MINUTE) known.record(SERIES, atMs, demandAt(atMs))
        return {
          async query(query) {
            asked += 1
            return isAway ? { points: [], isWhole: false } : ownPast(known).query(query)
          },
        }
      }
      const becomesAway = (next: boolean) => {
        isAway = next
      }
      return { past, asked: () => asked, becomesAway }
    }
    const isGood = (forecast: ReturnType<ForecastLoop['current']>) => {
      const then = demandAt((forecast?.atMs ?? 0) + 30 * MINUTE)
      return forecast?.isTrusted === true && Math.abs((forecast.expected[29] ?? 0) - then) < 0.1 * then
    }

    it('learns from there at its start, then from its own records', async () => {
      const { past, asked } = elsewhere()
      const { loop, clock, live } = await bed({ past, leadTimeMs: 29 * MINUTE })
      await clock.advance(5_000)
      expect(isGood(loop.current(WEB))).toBe(true)
      await live(5)
      expect(isGood(loop.current(WEB))).toBe(true)
      expect(asked()).toBe(2)
      await loop.stop()
    })

    it('begins without it while it is away, and learns it once it is back', async () => {
      const { past, becomesAway } = elsewhere()
      becomesAway(true)
      const { loop, clock, live } = await bed({ past, leadTimeMs: 29 * MINUTE })
      await clock.advance(5_000)
      await live(10)
      expect(loop.current(WEB)).toMatchObject({ method: 'persistence', isTrusted: false })
      becomesAway(false)
      await live(10)
      expect(loop.current(WEB)?.isTrusted).toBe(true)
      await loop.stop()
    })
  })

  it('leaves services alone that do not want it, and forgets those that no longer do', async () => {
    const { loop, clock, live, put } = await bed({ days: 3, scale: { predict: 'off' } })
    await clock.advance(5_000)
    expect(loop.current(WEB)).toBeNull()
    await put({ predict: 'auto' })
    await live(2)
    expect([...loop.all()]).toHaveLength(1)
    expect(loop.standings(WEB).map(({ method }) => method)).toContain('week-profile')
    await put({ predict: 'off' })
    await live(2)
    expect([...loop.all()]).toHaveLength(0)
    await loop.stop()
  })

  it('knows a zone in any spelling: writing it otherwise learns nothing anew', async () => {
    const schedule = { at: '0 8 * * *', min: 1, max: 4 }
    const { loop, clock, history, live, put } = await bed({ scale: { schedules: [{ ...schedule, timeZone: 'Europe/Berlin' }] } })
    await clock.advance(5_000)
    const query = vi.spyOn(history, 'query')
    for (const timeZone of ['europe/BERLIN', 'EUROPE/berlin']) {
      await put({ predict: 'auto', schedules: [{ ...schedule, timeZone }] })
      await live(2)
    }
    expect(query.mock.calls.filter(([{ stepMs }]) => stepMs > MINUTE)).toEqual([])
    await loop.stop()
  })

  it('publishes method, peak, horizon and error as figures', async () => {
    const { loop, clock } = await bed({ days: 10, leadTimeMs: 29 * MINUTE })
    await clock.advance(5_000)
    const text = forecastMetrics(loop.all())
    expect(text).toContain('rubato_service_forecast_trusted{app="shop",service="web"} 1\n')
    expect(text).toContain('rubato_service_forecast_horizon_seconds{app="shop",service="web"} 1800\n')
    expect(Number(/error_ratio\{.*\} (.*)/.exec(text)?.[1])).toBeLessThan(0.8)
    expect(forecastMetrics([])).toBe('')
    await loop.stop()
  })
})
