import { describe, expect, it } from 'vitest'
import type { ScaleRules } from '../../shared/model/app.ts'
import { silentLogger } from '../../shared/logger.ts'
import { aNodeObservation, anInstanceObservation, anInstanceUse, testObserved } from '../../test/builders/observed.ts'
import { anAppRecord, aNodeRecord, anInstanceRecord, aServiceRecord, someAssignments } from '../../test/builders/records.ts'
import { anAppSpec, aScale, aServiceSpec } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openState } from '../state/state.ts'
import { createScalingLoop, type ScalingLoopDeps } from './scaling-loop.ts'

/** A jump must hold for 2 s, is seen half a second after the last tick at the latest, and is looked at once a second. */
const MOST_MS = 2_600

async function running(scale: Partial<ScaleRules> = {}, deps: Partial<ScalingLoopDeps> = {}) {
  const clock = virtualClock()
  const state = await openState(memoryStore(), clock)
  const observed = testObserved()
  const change = state.change()
  change.put('app', 'shop', anAppRecord({ spec: anAppSpec({ services: [aServiceSpec({ scale: aScale(scale) })] }) }))
  change.put('service', 'shop/web', aServiceRecord())
  change.put('node', 'n-1', aNodeRecord())
  change.put('assignments', 'n-1', someAssignments('n-1', [anInstanceRecord({ nodeId: 'n-1' })]))
  await state.commit(change)
  observed.setNode(aNodeObservation())
  observed.setInstance(anInstanceObservation())
  const loop = createScalingLoop({ state, observed, clock, logger: silentLogger(), ...deps })
  loop.start()
  const desired = () => state.snapshot.get('service', 'shop/web')?.desired
  return { clock, state, observed, loop, desired }
}

describe('scaling loop', () => {
  it('moves the wanted count, with the numbers in the event, and keeps the decision', async () => {
    const { clock, state, observed, loop, desired } = await running()
    observed.setUse(anInstanceUse({ loadPercent: 90 }), clock.now())
    await clock.advance(20_000)
    expect(desired()).toBe(2)
    const [event] = await state.events({ type: 'service.scaled' })
    expect(event?.message).toMatch(/1 → 2: demand 90 % over 1 = 90 %, threshold 60 %/)
    expect(loop.decision('shop/web')?.demandPercent).toBe(90)
    await loop.stop()
    expect(clock.pendingTimers).toBe(0)
  })
  it('row 12: holds without data, and keeps the count when the node falls silent', async () => {
    const { clock, observed, loop, desired } = await running()
    await clock.advance(200_000)
    expect(loop.decision('shop/web')?.code).toBe('no-data')
    observed.setNode(aNodeObservation({ liveness: 'suspect', connected: false }))
    observed.setUse(anInstanceUse({ loadPercent: 0 }), clock.now())
    await clock.advance(300_000)
    expect(desired()).toBe(1)
    await loop.stop()
  })
  it('looks no more at a service that rests, and at once again when it has news', async () => {
    let asked = 0
    const forecastOf = () => {
      asked += 1
      return null
    }
    const { clock, observed, loop, desired } = await running({ predict: 'auto' }, { forecastOf })
    observed.setUse(anInstanceUse({ loadPercent: 40 }), clock.now())
    await clock.advance(300_000)
    asked = 0
    await clock.advance(100_000)
    // Once per 15 s for the forecast, not once per second.
    expect(asked).toBeLessThan(12)
    observed.setUse(anInstanceUse({ loadPercent: 95 }), clock.now())
    await clock.advance(6_000)
    expect(desired()).toBe(2)
    await loop.stop()
    expect(clock.pendingTimers).toBe(0)
  })
  it('looks at a jump of load when it comes, so that it waits for nothing but for how long the jump must hold', async () => {
    for (const afterTickMs of [100, 450, 600, 950]) {
      const { clock, observed, loop, desired } = await running()
      observed.setUse(anInstanceUse({ loadPercent: 30 }), clock.now())
      await clock.advance(120_000 + afterTickMs)
      observed.setUse(anInstanceUse({ loadPercent: 95 }), clock.now())
      await clock.advance(1_900)
      expect(desired(), 'one report is no proof').toBe(1)
      await clock.advance(MOST_MS - 1_900)
      expect(desired(), `jump ${afterTickMs} ms after a tick`).toBe(2)
      await loop.stop()
      expect(clock.pendingTimers).toBe(0)
    }
  })
  it('a stream of jumps makes two looks a second at most', async () => {
    let asked = 0
    const { clock, observed, loop } = await running({ predict: 'auto' }, { forecastOf: () => (asked++, null) })
    observed.setUse(anInstanceUse({ loadPercent: 10 }), clock.now())
    await clock.advance(30_000)
    asked = 0
    for (let i = 0; i < 100; i += 1) {
      observed.setUse(anInstanceUse({ loadPercent: (i * 17) % 60 }), clock.now())
      await clock.advance(100)
    }
    expect(asked).toBeGreaterThan(10)
    expect(asked).toBeLessThanOrEqual(21)
    await loop.stop()
  })
  it('V5: raises the minimum of a schedule in time, and says why', async () => {
    const schedules = [{ at: '0 8 * * *', timeZone: 'UTC', min: 3, max: 50 }]
    const { clock, state, observed, loop, desired } = await running({ schedules })
    observed.setUse(anInstanceUse({ loadPercent: 40 }), clock.now())
    const untilMs = (Math.floor(clock.now() / 86_400_000) + 1) * 86_400_000 + 8 * 3_600_000 - clock.now()
    const wait = untilMs % 86_400_000
    await clock.advance(Math.max(0, wait - 120_000))
    const before = desired()
    await clock.advance(120_000)
    expect(desired()).toBe(3)
    expect((await state.events({ type: 'service.scaled' })).at(-1)?.message).toMatch(
      /kept within 3 to 50 \(schedule "0 8 \* \* \*" UTC/,
    )
    expect(before === 1 || before === 3).toBe(true)
    await loop.stop()
  })
  it('keeps decisions with their inputs, and tells when an objective is missed', async () => {
    const { clock, state, observed, loop } = await running({ objective: { latencyP95Ms: 100 } })
    const slow = Array.from({ length: 20 }, (_, bucket) => (bucket === 12 ? 40 : 0))
    for (let i = 0; i < 120; i += 1) {
      observed.setUse(anInstanceUse({ loadPercent: 40, requests: 40, latency: slow }), clock.now())
      await clock.advance(2_000)
    }
    expect(loop.objective('shop/web')).toMatchObject({ kept: false, shareOfTime: 0, shareOfRequests: 0 })
    expect(loop.objective('shop/web')?.shiftPercent).toBeLessThan(0)
    expect(await state.events({ type: 'service.objective-missed' })).toHaveLength(1)
    const [newest] = loop.decisionsOf('shop/web')
    expect(newest?.load.demandPercent).toBeGreaterThan(0)
    expect(loop.decisionsOf('shop/web').map(({ code }) => code)).toContain('up')
    await loop.stop()
  })
  it('starts instances ahead of the load that a trusted forecast expects', async () => {
    const forecast = {
      method: 'x',
      peak: 740,
      expected: [],
      upper: [],
      atMs: 0,
      stepMs: 60_000,
      horizonMs: 240_000,
      errorVsPersistence: 0.5,
      isTrusted: true,
    }
    const { clock, observed, loop, desired } = await running({ predict: 'auto' }, { forecastOf: () => forecast })
    observed.setUse(anInstanceUse({ loadPercent: 40 }), clock.now())
    await clock.advance(40_000)
    expect(desired()).toBe(10)
    await loop.stop()
  })
})
