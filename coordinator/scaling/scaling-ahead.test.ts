/** Scaling with the real forecaster over a real history: whether what it orders is ready when demand comes. */
import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import { aNodeObservation, anInstanceObservation, anInstanceUse, testObserved } from '../../test/builders/observed.ts'
import { anAppRecord, aNodeRecord, anInstanceRecord, aServiceRecord, someAssignments } from '../../test/builders/records.ts'
import { anAppSpec, aScale, aServiceSpec } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { createForecastLoop } from '../forecast/forecast-loop.ts'
import { createMemoryHistory } from '../history/memory-history.ts'
import { openState } from '../state/state.ts'
import { smallestFor } from './plan-replicas.ts'
import { createScalingLoop } from './scaling-loop.ts'

const MINUTE = 60_000
const DAY = 24 * 60 * MINUTE
const WEB = 'shop/web'
const SERIES = { subject: 'service shop/web', measure: 'demand' } as const
const RULES = aScale({ predict: 'auto', min: 1, max: 50 })
const EIGHT = Date.UTC(2026, 0, 15, 8)

/** 40 % at night; from eight in the morning on a ramp of half an hour up to 740 %. */
function demandAt(atMs: number): number {
  const sinceEightMs = (((atMs - EIGHT) % DAY) + DAY) % DAY
  return sinceEightMs < 10 * 60 * MINUTE ? 40 + 700 * Math.min(1, sinceEightMs / (30 * MINUTE)) : 40
}

/** Twelve such days are in the history; it is half past seven, one instance runs, and one more takes `startMs`. */
async function morning(startMs: number) {
  const clock = virtualClock(EIGHT - 30 * MINUTE)
  const state = await openState(memoryStore(), clock)
  const observed = testObserved()
  const change = state.change()
  change.put('app', 'shop', anAppRecord({ spec: anAppSpec({ services: [aServiceSpec({ scale: RULES })] }) }))
  change.put('service', WEB, aServiceRecord({ learned: { startMs, warmUpMs: null, coolDownMs: null, shiftPercent: 0 } }))
  change.put('node', 'n-1', aNodeRecord())
  change.put('assignments', 'n-1', someAssignments('n-1', [anInstanceRecord({ nodeId: 'n-1' })]))
  await state.commit(change)
  observed.setNode(aNodeObservation())
  observed.setInstance(anInstanceObservation())
  const history = createMemoryHistory(clock)
  for (let atMs = clock.now() - 12 * DAY; atMs < clock.now(); atMs += MINUTE) history.record(SERIES, atMs, demandAt(atMs))
  const common = { state, clock, logger: silentLogger() }
  const forecasts = createForecastLoop({ ...common, history, timeZone: 'UTC', leadTimeMs: () => startMs })
  const asked: { readonly nowMs: number; readonly endMs: number }[] = []
  const scaling = createScalingLoop({
    ...common,
    observed,
    forecastOf(id, horizonMs) {
      const forecast = forecasts.forecastOf(id, horizonMs)
      if (forecast !== null)
        asked.push({ nowMs: clock.now(), endMs: forecast.atMs + forecast.stepMs * (forecast.expected.length + 1) })
      return forecast
    },
  })
  forecasts.start()
  scaling.start()
  return {
    clock,
    asked,
    wanted: () => state.snapshot.get('service', WEB)?.desired ?? 0,
    async live(ms: number, each: () => void = () => {}) {
      for (let passed = 0; passed < ms; passed += 1_000) {
        // What the one instance shows does not grow: whatever is wanted more is wanted by the forecast.
        observed.setUse(anInstanceUse({ loadPercent: 40 }), clock.now())
        if (passed % MINUTE === 0) history.record(SERIES, clock.now(), demandAt(clock.now()))
        await clock.advance(1_000)
        each()
      }
    },
    async stop() {
      await scaling.stop()
      await forecasts.stop()
    },
  }
}

describe('scaling with the forecaster', () => {
  it('sees as far as an instance ordered now takes, at every second of the minute', async () => {
    const startMs = 117_000
    const bed = await morning(startMs)
    await bed.live(10 * MINUTE)
    expect(bed.asked.length).toBeGreaterThan(30)
    const leadMs = startMs + 3_000
    expect(bed.asked.filter(({ nowMs, endMs }) => endMs < nowMs + leadMs)).toEqual([])
    await bed.stop()
  })

  it('has instances ordered so early that they are ready when the daily ramp needs them, to the minute that demand is sampled by', async () => {
    const startMs = 100_000
    const bed = await morning(startMs)
    await bed.live(28 * MINUTE)
    expect(bed.wanted()).toBe(1)
    let late = 0
    const seconds = 34 * 60
    await bed.live(seconds * 1_000, () => {
      const readyAtMs = bed.clock.now() + startMs
      if (bed.wanted() < smallestFor(RULES, demandAt(readyAtMs - MINUTE), 1, 50)) late += 1
    })
    // What is usual is kept in slots of five minutes, so that a ramp is followed in steps: late at times, never by more than that.
    expect(late).toBeLessThan(0.1 * seconds)
    await bed.stop()
  })
})
