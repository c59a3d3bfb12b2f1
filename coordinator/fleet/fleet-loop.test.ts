import { afterEach, describe, expect, it } from 'vitest'
import { endFleetBeds, fleetBed, fleetPool } from '../../test/builders/fleet-bed.ts'

const MiB = 2 ** 20
const GiB = 2 ** 30

afterEach(endFleetBeds)

describe('fleet loop: buying', () => {
  it('V10: a burst that fits nowhere is bought for once, waits for its machines and is then placed', async () => {
    const bed = await fleetBed([fleetPool('small')])
    await bed.ask(7) // three of 300 MiB on 1 GiB: three machines
    await bed.clock.advance(10_000)
    expect(bed.cloud.live()).toHaveLength(3)
    expect(bed.fleet.noteFor('shop/web/1/1')).toMatch(/^waiting for machine m-/)
    await bed.clock.advance(120_000)
    expect(bed.pending()).toBe(0)
    expect(bed.placed()).toBe(7)
    expect(bed.cloud.live()).toHaveLength(3)
    expect(await bed.events('machine.requested')).toHaveLength(3)
    expect((await bed.events('machine.requested'))[0]).toContain('fit nowhere')
    expect(bed.fleet.waitingFor('shop/web/1/1')).toBeNull()
  })

  it.each([
    [500, 0],
    [0, 1],
  ])('what fits nowhere for a moment only, with a hold of %i ms, buys %i machines', async (buyHoldMs, bought) => {
    const bed = await fleetBed([fleetPool('small')], { buyHoldMs })
    await bed.ask(1)
    await bed.clock.advance(300)
    expect(await bed.events('instance.unplaced')).toHaveLength(1)
    const service = bed.state.snapshot.get('service', 'shop/web')
    if (service) await bed.state.commit(bed.state.change().put('service', 'shop/web', { ...service, pending: [] }))
    await bed.clock.advance(5_000)
    expect(await bed.events('machine.requested')).toHaveLength(bought)
  })

  it('row 9: a pool without capacity rests and the next one is bought from, in few calls', async () => {
    const bed = await fleetBed([fleetPool('cheap', { priceUsdPerHour: 0.05 }), fleetPool('dear', { priceUsdPerHour: 0.2 })])
    bed.cloud.levers.soldOut.add('cheap')
    await bed.ask(3)
    await bed.clock.advance(120_000)
    expect(bed.placed()).toBe(3)
    expect(bed.cloud.live().map((machine) => machine.request.offering)).toEqual(['dear'])
    expect(bed.cloud.createCalls.length).toBeLessThanOrEqual(3)
    expect(await bed.events('pool.cooling-down')).toHaveLength(1)
  })

  it('row 9: a machine that joined after the rest forgives the failures before it: the next rest is as short as the first', async () => {
    const bed = await fleetBed([fleetPool('small')], { capacityCoolDownMs: 120_000, minNodeAgeMs: 1e9 })
    for (let round = 1; round <= 3; round += 1) {
      bed.cloud.levers.soldOut.add('small')
      await bed.ask(3)
      await bed.clock.advance(30_000)
      bed.cloud.levers.soldOut.clear()
      await bed.clock.advance(600_000)
      expect(bed.placed()).toBe(3 * round)
    }
    const rests = await bed.events('pool.cooling-down')
    expect(rests.map((text) => / for (\d+) s/.exec(text)?.[1])).toEqual(['120', '120', '120'])
  })

  it('row 9: a pool’s rest outlives the coordinator: one that crashes in a loop does not hammer a cloud that is sold out', async () => {
    const bed = await fleetBed([fleetPool('small')], { capacityCoolDownMs: 300_000 })
    bed.cloud.levers.soldOut.add('small')
    await bed.ask(3)
    await bed.clock.advance(20_000)
    const calls = bed.cloud.createCalls.length
    expect(calls).toBeGreaterThan(0)
    for (let crash = 0; crash < 5; crash += 1) {
      await bed.crash()
      await bed.start()
      await bed.clock.advance(30_000)
    }
    expect(bed.cloud.createCalls).toHaveLength(calls)
    expect(bed.fleet.view().pools[0]?.cooling?.untilMs).toBeGreaterThan(bed.clock.now())
    await bed.clock.advance(300_000)
    expect(bed.cloud.createCalls.length).toBeGreaterThan(calls)
  })

  it('row 9: a quota that is reached makes no tight loop', async () => {
    const bed = await fleetBed([fleetPool('small')])
    bed.cloud.levers.quota = 1
    await bed.ask(6)
    await bed.clock.advance(600_000)
    expect(bed.placed()).toBe(3)
    expect(bed.cloud.createCalls.length).toBeLessThanOrEqual(4)
    expect(bed.fleet.noteFor('shop/web/6/1')).toMatch(/rests for/)
  })

  it('M6: beyond the budget nothing is bought, and an event says what it would have cost', async () => {
    const bed = await fleetBed([fleetPool('small', { priceUsdPerHour: 1 })], { budgetUsdPerMonth: 2.5 })
    await bed.ask(9)
    await bed.clock.advance(120_000)
    expect(bed.cloud.live()).toHaveLength(2)
    expect(bed.placed()).toBe(6)
    const [message] = await bed.events('fleet.budget-reached')
    expect(message).toContain('one more small ($1.00) would bring this month to $3.0')
    expect(message).toContain('over the budget of $2.50')
    expect(bed.fleet.view().budgetUsdPerMonth).toBe(2.5)
  })

  it('an instance that no pool could ever hold is explained, and nothing is bought', async () => {
    const bed = await fleetBed([fleetPool('small', { taints: ['gpu'] }), fleetPool('tiny', { max: 0 })])
    await bed.ask(1, 8 * GiB)
    await bed.clock.advance(60_000)
    expect(bed.cloud.live()).toHaveLength(0)
    expect(bed.fleet.noteFor('shop/web/1/1')).toBe('no pool fits, small: taint gpu; tiny: memory')
  })

  it('§8.3: a machine slower than its pool’s p90 × 2 while work waits gets one stand-in elsewhere; the later one is cancelled', async () => {
    const bed = await fleetBed([fleetPool('cheap', { max: 20 }), fleetPool('dear', { priceUsdPerHour: 0.2 })], {
      minNodeAgeMs: 1e9,
    })
    await bed.ask(12) // four machines teach that `cheap` takes half a minute
    await bed.clock.advance(120_000)
    expect(bed.fleet.machineLeadMs('cheap')).toBeGreaterThan(29_000)
    expect(bed.fleet.machineLeadMs('dear')).toBeNull()
    expect(bed.fleet.machineLeadMs()).toBe(bed.fleet.machineLeadMs('cheap'))
    bed.cloud.levers.bootDelayOf.set('cheap', 400_000)
    await bed.ask(1)
    await bed.clock.advance(58_000)
    expect(bed.cloud.live()).toHaveLength(5)
    await bed.clock.advance(30_000)
    expect(
      bed.cloud
        .live()
        .map((machine) => machine.request.offering)
        .at(-1),
    ).toBe('dear')
    expect((await bed.events('machine.requested')).at(-1)).toMatch(
      /takes longer than 2 × its usual 3\d s while work waits: dear stands in/,
    )
    await bed.clock.advance(60_000)
    expect(bed.placed()).toBe(13)
    expect(bed.cloud.live()).toHaveLength(5)
    expect((await bed.events('machine.terminating')).at(-1)).toContain('came first and holds what it was bought for')
    expect(await bed.events('machine.requested')).toHaveLength(6)
    await bed.clock.advance(600_000)
    expect(bed.cloud.live()).toHaveLength(5)
  })

  it('§8.3: a slow machine that comes first after all keeps its work, and its stand-in is cancelled', async () => {
    const bed = await fleetBed([fleetPool('cheap', { max: 20 }), fleetPool('dear', { priceUsdPerHour: 0.2 })], {
      minNodeAgeMs: 1e9,
    })
    await bed.ask(12)
    await bed.clock.advance(120_000)
    bed.cloud.levers.bootDelayOf.set('cheap', 80_000).set('dear', 300_000)
    await bed.ask(1)
    await bed.clock.advance(180_000)
    expect(bed.placed()).toBe(13)
    expect(new Set(bed.cloud.live().map((machine) => machine.request.offering))).toEqual(new Set(['cheap']))
    expect(await bed.events('machine.requested')).toHaveLength(6)
  })

  it('B6: machines for forecast instances come ahead of demand, are kept for them, and go when nothing is expected any more', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000 })
    await bed.ask(3)
    await bed.clock.advance(120_000)
    expect(bed.cloud.live()).toHaveLength(1)
    bed.predicted = [{ service: 'shop/web', count: 6 }]
    bed.fleet.poke()
    await bed.clock.advance(600_000)
    expect(bed.cloud.live()).toHaveLength(2)
    expect((await bed.events('machine.requested')).at(-1)).toContain('room for shop/web, as forecast')
    expect(bed.pending()).toBe(0)
    await bed.ask(3)
    await bed.clock.advance(1_000)
    expect(bed.placed()).toBe(6)
    expect(bed.cloud.live()).toHaveLength(2)
    await bed.stopAll(3)
    bed.predicted = []
    await bed.clock.advance(900_000)
    expect(bed.cloud.live()).toHaveLength(1)
  })

  it('§8.3: spare slots are bought for, and no node is given back that holds them', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000, spareSlots: 2, spareSlotMemoryBytes: 300 * MiB })
    await bed.clock.advance(600_000)
    expect(bed.cloud.live()).toHaveLength(1)
    expect((await bed.events('machine.requested')).at(-1)).toContain('room for 2 spare slots')
    await bed.ask(2)
    await bed.clock.advance(600_000)
    expect(bed.cloud.live()).toHaveLength(2)
    expect(await bed.events('machine.requested')).toHaveLength(2)
  })

  it('row 9: a cloud that always says "again" is not waited for alone: the next pool stands in', async () => {
    const bed = await fleetBed([fleetPool('cheap', { provider: 'busy' }), fleetPool('dear', { priceUsdPerHour: 0.2 })])
    const busy = bed.clouds.get('busy')
    if (!busy) throw new Error('no cloud')
    busy.levers.failCalls = 1e9
    await bed.ask(1)
    await bed.clock.advance(180_000)
    expect(bed.placed()).toBe(1)
    expect(bed.clouds.get('fake')?.live()).toHaveLength(1)
    expect(busy.createCalls.length).toBeLessThan(20)
  })
})
