import { afterEach, describe, expect, it } from 'vitest'
import { copies, endFleetBeds, fleetBed, fleetPool, moveOff, takeOver } from '../../test/builders/fleet-bed.ts'
import { drainNode } from './node-actions.ts'

const GiB = 2 ** 30

afterEach(endFleetBeds)

describe('fleet loop: draining, giving back and moving', () => {
  it('V11: a node that is no longer needed is drained, its machine deleted and confirmed absent', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000 })
    await bed.ask(6)
    await bed.clock.advance(120_000)
    expect(bed.nodes()).toHaveLength(2)
    await bed.stopAll(4)
    await bed.clock.until(() => bed.nodes().some((node) => node.availability !== 'active'), 'a node drains', 900_000)
    const victim = bed.nodes().find((node) => node.availability !== 'active')
    await moveOff(bed, victim?.id ?? '')
    await bed.clock.until(() => bed.cloud.live().length === 1, 'its machine is gone', 900_000)
    await bed.clock.advance(120_000)
    expect(bed.nodes()).toHaveLength(1)
    expect(bed.placed()).toBe(2)
    expect(await bed.events('machine.gone')).toHaveLength(1)
    expect(bed.state.snapshot.get('assignments', victim?.id ?? '')).toBeUndefined()
  })

  it('returning demand takes a draining node back before it buys one', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000, downIntervalMs: 30_000 })
    await bed.ask(6)
    await bed.clock.advance(120_000)
    await bed.keepPerNode(1)
    await bed.clock.until(() => bed.nodes().some((node) => node.availability === 'draining'), 'a node drains', 900_000)
    await bed.ask(4)
    await bed.clock.advance(10_000)
    expect(bed.nodes().map((node) => node.availability)).toEqual(['active', 'active'])
    expect(bed.pending()).toBe(0)
    expect(bed.cloud.createCalls).toHaveLength(2)
  })

  it('§8.3: a machine whose work has gone by before it joined is cancelled and confirmed absent', async () => {
    const bed = await fleetBed([fleetPool('small')])
    bed.cloud.levers.bootDelayMs = 500_000
    bed.predicted = [{ service: 'shop/web', count: 6 }]
    await bed.ask(1)
    await bed.clock.advance(200_000)
    expect(bed.cloud.live()).toHaveLength(2)
    bed.predicted = []
    await bed.clock.advance(120_000)
    expect(bed.cloud.live()).toHaveLength(1)
    expect(await bed.events('machine.gone')).toHaveLength(1)
    await bed.clock.advance(400_000)
    expect(bed.placed()).toBe(1)
    expect(bed.cloud.createCalls).toHaveLength(2)
  })

  it('an instance that nothing could hold keeps no idle machine alive', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000 })
    await bed.ask(3)
    await bed.clock.advance(120_000)
    await bed.stopAll(3)
    await bed.ask(1, 8 * GiB)
    await bed.clock.advance(600_000)
    expect(bed.pending()).toBe(1)
    expect(bed.cloud.live()).toHaveLength(0)
  })

  it('one node that is not heard of keeps room for its own instances, and the rest goes', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000, silentNodeMs: 1e9 })
    await bed.ask(12)
    await bed.clock.advance(120_000)
    const [silent, ...others] = bed.nodes().map(({ id }) => id)
    expect(others).toHaveLength(3)
    const idle = others.slice(0, 2)
    for (const nodeId of idle) await bed.state.commit(bed.state.change().put('assignments', nodeId, { nodeId, instances: [] }))
    bed.observed.set(silent ?? '', 'suspect')
    await bed.clock.advance(300_000)
    const left = bed.nodes().map(({ id }) => id)
    expect(left).toHaveLength(3)
    expect(idle.filter((id) => left.includes(id))).toHaveLength(1)
  })

  it('the minimum of a pool is kept without any demand', async () => {
    const bed = await fleetBed([fleetPool('small', { min: 2 })], { minNodeAgeMs: 1000 })
    await bed.clock.advance(900_000)
    expect(bed.nodes()).toHaveLength(2)
  })

  it('§8.3: an interruption notice drains the node by its deadline, buys at once, and is not taken back', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 1e9, reapIntervalMs: 10_000 })
    await bed.ask(3)
    await bed.clock.advance(120_000)
    bed.cloud.interrupt(bed.cloud.live()[0]?.name ?? '', 120_000)
    await bed.clock.advance(15_000)
    const [node] = bed.nodes()
    expect(node?.availability).toBe('draining')
    expect(node?.drain?.by).toBe('cloud')
    expect((node?.drain?.deadlineAtMs ?? 0) - bed.clock.now()).toBeLessThanOrEqual(120_000)
    expect(bed.cloud.live()).toHaveLength(2) // before anything was moved
    await bed.clock.advance(60_000)
    await moveOff(bed, node?.id ?? '')
    await bed.clock.advance(60_000)
    expect(bed.placed()).toBe(3)
    expect(bed.cloud.live()).toHaveLength(1)
    expect(await bed.events('node.interrupted')).toHaveLength(1)
  })

  it.each([60_000, 600_000, -600_000])(
    'row 37: a wall clock that jumped by %i ms brings no interruption notice forward, and puts none off',
    async (jumpMs) => {
      const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 1e9, reapIntervalMs: 10_000 })
      await bed.ask(3)
      await bed.clock.advance(120_000)
      bed.clock.jumpWall(jumpMs)
      bed.cloud.levers.listLagMs = Number.NEGATIVE_INFINITY
      bed.cloud.interrupt(bed.cloud.live()[0]?.name ?? '', 120_000)
      await bed.clock.advance(15_000)
      const drain = bed.nodes()[0]?.drain
      expect(await bed.events('fleet.notice-implausible')).toEqual([])
      expect((drain?.deadlineAtMs ?? 0) - (drain?.startedAtMs ?? 0)).toBeGreaterThan(100_000)
      expect((drain?.deadlineAtMs ?? 0) - (drain?.startedAtMs ?? 0)).toBeLessThanOrEqual(120_000)
    },
  )

  it('a machine that its cloud does not delete is told of, and keeps no other from being given back', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000 })
    await bed.ask(30)
    await bed.clock.advance(240_000)
    const remove = bed.cloud.delete.bind(bed.cloud)
    const [kept] = bed.cloud.live()
    bed.cloud.delete = async (machine, signal) => {
      if (machine.name === kept?.name) throw new Error('OperationNotPermitted: termination protection')
      return remove(machine, signal)
    }
    await bed.stopAll(27)
    await bed.clock.advance(3 * 3_600_000)
    expect(bed.cloud.live().map(({ name }) => name)).toContain(kept?.name)
    expect(bed.cloud.live()).toHaveLength(2)
    expect(await bed.events('fleet.delete-stuck')).toEqual([
      expect.stringMatching(/^the cloud has not deleted .* in 10 min, and it is paid for still: OperationNotPermitted/),
    ])
  })

  it('a node that a person drains keeps no other from being given back, and has room for what is on it', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000 })
    await bed.ask(12)
    await bed.clock.advance(240_000)
    const nodes = bed.nodes()
    expect(nodes).toHaveLength(4)
    const drained = nodes.at(-1)?.id ?? ''
    await drainNode(bed, drained, {
      by: 'operator:ann',
      reason: 'maintenance',
      deleteMachine: false,
      deadlineMs: 20 * 86_400_000,
    })
    // The others are empty but for the first, which has room for two more: one of the two empty ones has to stay.
    await bed.stopAll(8)
    await bed.ask(1)
    await bed.clock.advance(3_600_000)
    expect(bed.nodes().filter(({ availability }) => availability === 'active')).toHaveLength(2)
  })

  it('§8.3: the end of all machines at once moves what can be moved, and stops nothing that has no other place', async () => {
    const bed = await fleetBed([fleetPool('small', { max: 4 })], {
      minNodeAgeMs: 1e9,
      reapIntervalMs: 10_000,
      forceGraceMs: 1_000,
    })
    await bed.ask(12)
    await bed.clock.advance(120_000)
    expect(bed.cloud.live()).toHaveLength(4)
    for (const { name } of bed.cloud.live()) bed.cloud.interrupt(name, 60_000, false)
    await bed.clock.advance(600_000)
    expect(bed.nodes().map((node) => node.drain?.by)).toEqual(Array(4).fill('cloud'))
    expect(await bed.events('node.interrupted')).toHaveLength(4)
    expect(await bed.events('fleet.mass-interruption')).toHaveLength(1)
    expect(await bed.events('node.drain-forced')).toEqual([])
    expect(bed.placed()).toBe(12)
  })

  it('row 11: two pools that fit equally are not exchanged in fourteen hours of steady and of wavering demand', async () => {
    const bed = await fleetBed([fleetPool('a'), fleetPool('b')], { minNodeAgeMs: 60_000 })
    await bed.ask(5)
    await bed.clock.advance(14 * 3_600_000)
    expect(await bed.events('machine.requested')).toHaveLength(2)
    expect(await bed.events('node.draining')).toHaveLength(0)
    for (let round = 0; round < 10; round += 1) {
      await bed.stopAll(1)
      await bed.clock.advance(300_000)
      await bed.ask(1)
      await bed.clock.advance(300_000)
    }
    expect(await bed.events('machine.requested')).toHaveLength(2)
    expect(bed.placed()).toBe(5)
  })

  it('row 37: a jump of the wall clock ends no drain and prolongs none', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000, drainDeadlineMs: 300_000, entrySettleMs: 0 })
    await bed.ask(6)
    await bed.clock.advance(120_000)
    await bed.keepPerNode(1)
    await bed.clock.until(() => bed.nodes().some((node) => node.availability === 'draining'), 'a node drains', 900_000)
    bed.clock.jumpWall(3_600_000)
    await bed.clock.advance(60_000)
    expect(await bed.events('node.drain-forced')).toHaveLength(0)
    await bed.clock.advance(300_000)
    expect((await bed.events('node.drain-forced')).length).toBeGreaterThan(0)
  })

  it('a coordinator that has just started holds, and says that it is that', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 1e9 })
    await bed.ask(3)
    await bed.clock.advance(60_000)
    await bed.ask(1)
    await bed.clock.advance(60_000)
    expect(bed.nodes()).toHaveLength(2)
    await bed.crash()
    await bed.start()
    await bed.clock.advance(40_000)
    const held = bed.fleet.view().reasons.filter(({ code }) => code === 'rebalance-holds')
    expect(held.map(({ text }) => text)).toEqual(['the coordinator has just started'])
  })

  it('B5: onto a node that joined instances move one at a time, each copy first, within the hour’s budget', async () => {
    const roomy = { capacity: { cpuMillis: 4000, memoryBytes: 4 * GiB, diskBytes: 10 * GiB, slots: 50 } }
    const bed = await fleetBed([fleetPool('small', roomy)], { minNodeAgeMs: 1e9, rebalanceMovesPerHour: 2 })
    bed.observed.runsOn = (id) => bed.state.snapshot.instances().get(id)?.nodeId ?? null
    await bed.ask(13) // of 300 MiB: one node of 4 GiB is full
    await bed.clock.advance(60_000)
    await bed.ask(1)
    await bed.clock.advance(50_000)
    expect(bed.nodes()).toHaveLength(2)
    for (let move = 1; move <= 2; move += 1) {
      await bed.clock.until(() => copies(bed).length === 1, 'a move', 300_000)
      const [copy] = copies(bed)
      expect(copy).toMatchObject({ moves: true, goal: 'run', id: copy?.replaces?.replace(/1$/, '2') })
      expect(bed.placed()).toBe(15)
      await bed.clock.advance(60_000)
      expect(copies(bed)).toHaveLength(1) // until it has taken over nothing else moves
      await takeOver(bed)
      await bed.clock.advance(1_000)
    }
    await bed.clock.advance(120_000)
    expect(copies(bed)).toHaveLength(0)
    expect(await bed.events('instance.moving')).toHaveLength(2)
    expect(bed.fleet.view().reasons.some(({ code }) => code === 'rebalance-budget')).toBe(true)
    expect(bed.placed()).toBe(14)
  })
})
