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
  const store = memoryStore()
  const state = await openState(store, clock)
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
  return { clock, store, state, observed, loop, desired }
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
  it('row 12: a new coordinator takes nothing away while it has not heard a node, and does once it knows that the node is lost', async () => {
    const { clock, state, observed, loop, desired } = await running({ downWindowMs: 30_000 })
    const there = (nodeId: string, slots: readonly number[]) =>
      someAssignments(
        nodeId,
        slots.map((slot) => anInstanceRecord({ id: `shop/web/${slot}/1`, nodeId })),
      )
    await state.commit(
      state
        .change()
        .put('node', 'n-2', aNodeRecord({ id: 'n-2' }))
        .put('assignments', 'n-1', there('n-1', [1, 2]))
        .put('assignments', 'n-2', there('n-2', [3, 4, 5, 6]))
        .put('service', 'shop/web', aServiceRecord({ desired: 6 })),
    )
    observed.setInstance(anInstanceObservation({ instance: 'shop/web/2/1' }))
    const report = () => {
      for (const slot of [1, 2]) observed.setUse(anInstanceUse({ instance: `shop/web/${slot}/1`, loadPercent: 20 }), clock.now())
    }
    report()
    await clock.advance(280_000)
    expect(desired()).toBe(6)
    observed.setNode(aNodeObservation({ nodeId: 'n-2', liveness: 'lost', connected: false }))
    report()
    await clock.advance(120_000)
    expect(desired()).toBeLessThan(6)
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
    const forecastOf = () => {
      asked += 1
      return null
    }
    const { clock, observed, loop } = await running({ predict: 'auto' }, { forecastOf })
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
    const schedules = [
      { at: '0 8 * * *', timeZone: 'UTC', min: 3, max: 50 },
      { at: '0 20 * * *', timeZone: 'UTC', min: 1, max: 50 },
    ]
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
    expect(before).toBe(1)
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
      isJudged: true,
    }
    const { clock, observed, loop, desired } = await running({ predict: 'auto' }, { forecastOf: () => forecast })
    observed.setUse(anInstanceUse({ loadPercent: 40 }), clock.now())
    await clock.advance(40_000)
    expect(desired()).toBe(10)
    await loop.stop()
  })

  /** Another app beside `shop`, whose service is loaded so that it must grow. */
  const addApp = async ({ state, observed, clock }: Awaited<ReturnType<typeof running>>, name: string, scale = aScale()) => {
    const change = state.change()
    change.put('app', name, anAppRecord({ name, spec: anAppSpec({ name, services: [aServiceSpec({ scale })] }) }))
    change.put('service', `${name}/web`, aServiceRecord({ id: `${name}/web` }))
    change.put('node', `n-${name}`, aNodeRecord({ id: `n-${name}` }))
    const id = `${name}/web/1/1`
    change.put('assignments', `n-${name}`, someAssignments(`n-${name}`, [anInstanceRecord({ id, nodeId: `n-${name}` })]))
    await state.commit(change)
    observed.setNode(aNodeObservation({ nodeId: `n-${name}` }))
    observed.setInstance(anInstanceObservation({ instance: id, nodeId: `n-${name}` }))
    observed.setUse(anInstanceUse({ instance: id, loadPercent: 90 }), clock.now())
  }

  it('a stored schedule in a zone that is none stops neither others nor its own scaling by load, and is told', async () => {
    const schedules = [{ at: '0 8 * * *', timeZone: 'PST', min: 1, max: 4 }]
    const bed = await running({ schedules })
    await addApp(bed, 'zoo')
    bed.observed.setUse(anInstanceUse({ loadPercent: 90 }), bed.clock.now())
    await bed.clock.advance(20_000)
    expect(bed.desired()).toBe(2)
    expect(bed.state.snapshot.get('service', 'zoo/web')?.desired).toBe(2)
    const events = await bed.state.events({ type: 'service.isolated' })
    expect(events).toMatchObject([{ subject: 'shop/web', actor: 'scaling' }])
    expect(events[0]?.message).toMatch(/schedule "0 8 \* \* \*" PST: there is no time zone "PST"/)
    await bed.loop.stop()
  })

  it('a service that cannot be decided about stops no other, and is told', async () => {
    const forecastOf = (id: string) => {
      if (id === 'shop/web') throw new Error('a fault of ours')
      return null
    }
    const bed = await running({ predict: 'auto' }, { forecastOf })
    await addApp(bed, 'zoo', aScale({ predict: 'auto' }))
    await bed.clock.advance(20_000)
    expect(bed.state.snapshot.get('service', 'zoo/web')?.desired).toBe(2)
    expect(await bed.state.events({ type: 'service.isolated' })).toMatchObject([{ subject: 'shop/web' }])
    await bed.loop.stop()
  })

  it('a wall clock that jumps has the bounds of where it is', async () => {
    const schedules = [
      { at: '0 0 1 1 *', timeZone: 'UTC', min: 1, max: 50 },
      { at: '0 0 1 7 *', timeZone: 'UTC', min: 4, max: 50 },
    ]
    const bed = await running({ schedules })
    bed.observed.setUse(anInstanceUse({ loadPercent: 40 }), bed.clock.now())
    await bed.clock.advance(300_000)
    expect(bed.desired()).toBe(1)
    bed.clock.jumpWall(200 * 86_400_000)
    await bed.clock.advance(70_000)
    expect(bed.desired()).toBe(4)
    bed.clock.jumpWall(-200 * 86_400_000)
    await bed.clock.advance(900_000)
    expect(bed.desired()).toBe(1)
    await bed.loop.stop()
  })

  it('gives way to other work when its services take long', async () => {
    const bed = await running({ predict: 'auto' })
    await bed.loop.stop()
    let spentMs = 0
    const clock = { ...bed.clock, monotonicMs: () => bed.clock.monotonicMs() + spentMs }
    const forecastOf = () => {
      spentMs += 20
      return null
    }
    for (let i = 0; i < 5; i += 1) await addApp(bed, `app${i}`, aScale({ predict: 'auto' }))
    const loop = createScalingLoop({ state: bed.state, observed: bed.observed, clock, logger: silentLogger(), forecastOf })
    const seen: number[] = []
    const watch = () => {
      seen.push([...loop.decisions()].length)
      if (seen.length < 5) clock.setTimer(0, watch)
    }
    loop.start()
    clock.setTimer(0, watch)
    await bed.clock.advance(0)
    // Others had their turn in between.
    expect(new Set(seen).size).toBeGreaterThan(1)
    expect(seen.at(-1)).toBe(6)
    await loop.stop()
  })

  it('tells news of an objective that the store did not take with the next tick', async () => {
    const { clock, state, store, observed, loop } = await running({ objective: { latencyP95Ms: 100 }, min: 1, max: 1 })
    const slow = Array.from({ length: 20 }, (_, bucket) => (bucket === 12 ? 40 : 0))
    store.failNext({ kind: 'unavailable', detail: 'a full disk' }, 3)
    for (let i = 0; i < 120; i += 1) {
      observed.setUse(anInstanceUse({ loadPercent: 40, requests: 40, latency: slow }), clock.now())
      await clock.advance(2_000)
    }
    expect(await state.events({ type: 'service.objective-missed' })).toHaveLength(1)
    await loop.stop()
  })
})
