import { afterEach, describe, expect, it } from 'vitest'
import { endFleetBeds, fleetBed, fleetPool } from '../../test/builders/fleet-bed.ts'

afterEach(endFleetBeds)

describe('fleet loop: machines that fail, lag, vanish or belong to nobody', () => {
  it('row 3: a machine whose creation was answered by silence is adopted, not bought twice', async () => {
    const bed = await fleetBed([fleetPool('small')])
    bed.cloud.levers.loseCreateReplies = 2
    await bed.ask(4)
    await bed.clock.advance(180_000)
    expect(bed.placed()).toBe(4)
    expect(bed.cloud.live()).toHaveLength(2)
    expect(new Set(bed.cloud.createCalls).size).toBe(2)
  })

  it('row 3: a creation that hangs is given up in time and found by its name', async () => {
    const bed = await fleetBed([fleetPool('small')], { callTimeoutMs: 20_000 })
    bed.cloud.levers.hangCreates = 1
    await bed.ask(1)
    await bed.clock.advance(180_000)
    expect(bed.placed()).toBe(1)
    expect(bed.cloud.live()).toHaveLength(1)
  })

  it('row 4: a machine that never joins is deleted after the deadline and its pool rests', async () => {
    const bed = await fleetBed([fleetPool('small', { max: 1 })])
    bed.cloud.levers.neverJoins = true
    await bed.ask(1)
    await bed.clock.advance(590_000)
    expect(bed.cloud.live()).toHaveLength(1)
    bed.cloud.levers.neverJoins = false
    await bed.clock.advance(60_000)
    expect(bed.cloud.live()).toHaveLength(0)
    expect(bed.fleet.view().pools[0]?.cooling?.reason).toContain('never joined')
    await bed.clock.advance(300_000)
    expect(bed.placed()).toBe(1)
    expect(bed.cloud.live()).toHaveLength(1)
  })

  it('row 7: an empty, partial or failing list deletes nothing', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 1e9 })
    await bed.ask(9)
    await bed.clock.advance(400_000)
    for (const mode of ['empty', 'partial', 'fails'] as const) {
      bed.cloud.levers.listMode = mode
      await bed.clock.advance(900_000)
    }
    expect(bed.cloud.live()).toHaveLength(3)
    expect(bed.nodes()).toHaveLength(3)
    expect((await bed.events('fleet.list-distrusted')).length).toBeGreaterThan(0)
  })

  it('row 6: a list that shows new machines late makes none of them lost', async () => {
    const bed = await fleetBed([fleetPool('small')], { takeoverMs: 0 })
    bed.cloud.levers.listLagMs = 290_000
    bed.cloud.levers.bootDelayMs = 240_000
    await bed.ask(3)
    await bed.clock.advance(900_000)
    expect(bed.placed()).toBe(3)
    expect(bed.cloud.createCalls).toHaveLength(1)
  })

  it('row 8: a deletion that fails is repeated until the cloud says not found', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000 })
    await bed.ask(1)
    await bed.clock.advance(120_000)
    await bed.stopAll(1)
    bed.cloud.levers.deleteDelayMs = 90_000
    await bed.clock.until(
      () => bed.state.snapshot.all('machine').size > 0 && bed.cloud.live()[0]?.state === 'stopping',
      'deletes',
      900_000,
    )
    bed.cloud.levers.failCalls = 5
    await bed.clock.until(() => bed.cloud.live().length === 0, 'it is gone', 900_000)
    await bed.clock.advance(120_000)
    expect(bed.nodes()).toHaveLength(0)
    expect([...bed.state.snapshot.all('machine').values()].map((machine) => machine.phase)).toEqual(['gone'])
  })

  it('row 10: a machine deleted at the console is lost, and its node forgotten', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 1e9 })
    await bed.ask(3)
    await bed.clock.advance(400_000)
    bed.cloud.destroy(bed.cloud.live()[0]?.name ?? '')
    await bed.clock.advance(200_000)
    expect(bed.nodes()).toHaveLength(1)
    await bed.clock.advance(300_000)
    expect(bed.nodes()).toHaveLength(0)
    expect([...bed.state.snapshot.all('machine').values()].map((machine) => machine.phase)).toEqual(['lost'])
  })

  it('an unknown machine with our tag goes after its grace, a foreign one is never touched', async () => {
    const bed = await fleetBed([fleetPool('small')])
    bed.cloud.plant({ name: 'c1-m-stray', tags: { 'rubato-cluster': 'c1' } })
    bed.cloud.plant({ name: 'database-prod', tags: {} })
    bed.cloud.plant({ name: 'mislabelled', tags: { 'rubato-cluster': 'c1' } })
    await bed.clock.advance(290_000)
    expect(bed.cloud.live()).toHaveLength(3)
    await bed.clock.advance(300_000)
    expect(bed.cloud.live().map((machine) => machine.name)).toEqual(['database-prod', 'mislabelled'])
  })

  it('row 37: a jump of the wall clock makes no machine overdue', async () => {
    const bed = await fleetBed([fleetPool('small')])
    await bed.ask(1)
    await bed.clock.advance(5_000)
    bed.clock.jumpWall(3_600_000)
    await bed.clock.advance(60_000)
    expect(bed.placed()).toBe(1)
    expect(bed.cloud.createCalls).toHaveLength(1)
  })

  it('a machine whose agent stays silent is given back in the end, however many lists show it', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 1e9 })
    await bed.ask(1)
    await bed.clock.advance(120_000)
    bed.observed.set('n-1', 'lost')
    await bed.clock.advance(1_200_000)
    expect(bed.cloud.live()).toHaveLength(1)
    await bed.clock.advance(3_000_000)
    expect(bed.cloud.live()).toHaveLength(0)
    expect(bed.nodes()).toHaveLength(0)
  })

  it('rows 1, 2, 3: a coordinator that dies at any step of buying and giving back leaks nothing', async () => {
    for (const crashAfterMs of [0, 10, 60, 300, 510, 600, 5_000, 31_000, 62_000, 130_000, 190_000, 200_000, 250_000]) {
      const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000 })
      await bed.ask(2)
      await bed.clock.advance(Math.min(crashAfterMs, 125_000))
      if (crashAfterMs > 125_000) {
        await bed.stopAll(2)
        await bed.clock.advance(crashAfterMs - 125_000)
      }
      await bed.crash()
      await bed.clock.advance(20_000)
      await bed.start()
      await bed.clock.advance(300_000)
      if (crashAfterMs <= 125_000) {
        expect(bed.placed(), `crash after ${crashAfterMs}`).toBe(2)
        expect(bed.cloud.live(), `crash after ${crashAfterMs}`).toHaveLength(1)
        await bed.stopAll(2)
      }
      await bed.clock.advance(900_000)
      expect(bed.cloud.live(), `crash after ${crashAfterMs}`).toHaveLength(0)
      expect(bed.nodes(), `crash after ${crashAfterMs}`).toHaveLength(0)
    }
  })
})
