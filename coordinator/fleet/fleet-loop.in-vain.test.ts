import { afterEach, describe, expect, it } from 'vitest'
import { endFleetBeds, fleetBed, fleetPool } from '../../test/builders/fleet-bed.ts'

const GiB = 2 ** 30
const HOUR_MS = 3_600_000

afterEach(endFleetBeds)

const small = (share: number) => {
  const { capacity } = fleetPool('small')
  return { capacity: { ...capacity, memoryBytes: share * capacity.memoryBytes } }
}

describe('fleet loop: what machines turn out not to hold', () => {
  it.each([
    ['a kernel that keeps a little', small(0.95)],
    ['much less memory than was promised', small(0.7)],
    ['no runtime', { runtimes: [] }],
  ])(
    '%s: what was bought in vain is tried again one machine at a time, ever more seldom, and people are told',
    async (_, turnsOut) => {
      const bed = await fleetBed([fleetPool('small')])
      bed.turnsOut = turnsOut
      await bed.ask(3, Math.round(0.97 * GiB))
      await bed.clock.advance(HOUR_MS)
      const inBurst = (await bed.events('machine.requested')).length
      expect(inBurst).toBeLessThanOrEqual(4)
      expect(bed.fleet.noteFor('shop/web/1/1')).toMatch(/small: (\d of its latest \d machines turned out not to hold it|memory)/)
      await bed.clock.advance(11 * HOUR_MS)
      expect((await bed.events('machine.requested')).length).toBeLessThanOrEqual(inBurst + 3)
      expect((await bed.events('fleet.bought-in-vain'))[0]).toMatch(
        /^pool small for shop\/web: \d of its latest \d machines turned out not to hold it/,
      )
      expect(bed.pending()).toBe(3)
      expect(bed.cloud.live().length).toBeLessThanOrEqual(3)
    },
  )

  it('what was in vain is known to the next coordinator, and stands in the way of nothing that does fit', async () => {
    const bed = await fleetBed([fleetPool('small')])
    bed.turnsOut = small(0.95)
    await bed.ask(1, Math.round(0.97 * GiB))
    await bed.clock.advance(HOUR_MS / 2)
    const bought = bed.cloud.createCalls.length
    await bed.crash()
    await bed.start()
    await bed.clock.advance(HOUR_MS / 4)
    expect(bed.cloud.createCalls).toHaveLength(bought)
    bed.turnsOut = small(0.95)
    await bed.ask(1, Math.round(0.5 * GiB))
    await bed.clock.advance(120_000)
    expect(bed.placed()).toBeGreaterThan(0)
  })

  it('an engine that answers half a minute after the join is waited for, and nothing is bought in its place', async () => {
    const bed = await fleetBed([fleetPool('small')])
    bed.turnsOut = { runtimes: [] }
    await bed.ask(3)
    await bed.clock.until(() => bed.nodes().length === 1, 'it joins', 120_000)
    await bed.clock.advance(30_000)
    const [node] = bed.nodes()
    if (node) await bed.state.commit(bed.state.change().put('node', node.id, { ...node, runtimes: ['process'] }))
    await bed.clock.advance(120_000)
    expect(bed.placed()).toBe(3)
    expect(bed.cloud.createCalls).toHaveLength(1)
  })

  it('a pool whose image was mended is bought from at once', async () => {
    const bed = await fleetBed([fleetPool('small')])
    bed.turnsOut = { runtimes: [] }
    await bed.ask(3)
    await bed.clock.advance(HOUR_MS / 2)
    expect(bed.placed()).toBe(0)
    bed.turnsOut = null
    await bed.state.commit(bed.state.change().put('pool', 'small', fleetPool('small', { image: 'mended' })))
    await bed.clock.advance(120_000)
    expect(bed.placed()).toBe(3)
  })
})
