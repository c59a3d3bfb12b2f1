/** Loops over a state so large that a commit of "some" objects would be larger than the store takes. */
import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import type { InstanceRecord } from './objects.ts'
import { endFleetBeds, fleetBed, fleetPool } from '../../test/builders/fleet-bed.ts'
import { aNodeObservation, anInstanceObservation, testObserved } from '../../test/builders/observed.ts'
import { aCapacity, anAppRecord, anInstanceRecord, aNodeRecord, aServiceRecord } from '../../test/builders/records.ts'
import { anAppSpec, aPlacement, aScale, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { createNodeView, requestOfRecord } from '../placement/node-view.ts'
import { createPlacementLoop } from '../placement/placement-loop.ts'
import { createPreemption } from '../placement/preemption.ts'
import { createScalingLoop } from '../scaling/scaling-loop.ts'
import { applyActions } from '../services/apply-actions.ts'
import { commitRoom, jsonBytes, mostWaiting, roomOnNode } from './commit-room.ts'
import { openState } from './state.ts'
import { MAX_COMMIT_BYTES } from './store.ts'

const HASH = 'h'.repeat(64)
const LONG = 'n'.repeat(60)
const SMALL = aUnitSpec({ runtime: 'process', reservations: { cpuMillis: 10, memoryBytes: 2 ** 24 }, ports: [] })

async function emptyCluster() {
  const clock = virtualClock()
  return { clock, state: await openState(memoryStore(), clock), observed: testObserved() }
}
type Cluster = Awaited<ReturnType<typeof emptyCluster>>

async function addNodes({ state, observed }: Cluster, count: number, slots: number, cpuMillis = 64_000): Promise<void> {
  for (let n = 0; n < count; n += 1) {
    const id = `n-${n}`
    const capacity = aCapacity({ cpuMillis, memoryBytes: 2 ** 40, slots })
    await state.commit(state.change().put('node', id, aNodeRecord({ id, capacity, runtimes: ['process'] })))
    observed.setNode(aNodeObservation({ nodeId: id }))
  }
}

/** An app with services of so many waiting instances each. */
async function addWaiting({ state }: Cluster, app: string, services: readonly string[], waiting: number): Promise<void> {
  const specs = services.map((name) => aServiceSpec({ name, specHash: HASH, unit: SMALL }))
  await state.commit(state.change().put('app', app, anAppRecord({ name: app, spec: anAppSpec({ name: app, services: specs }) })))
  for (const name of services) {
    const id = `${app}/${name}`
    const pending = Array.from({ length: waiting }, (_, k) => anInstanceRecord({ id: `${id}/${k + 1}/1`, specHash: HASH }))
    const outcome = await state.commit(
      state.change().put('service', id, aServiceRecord({ id, desired: waiting, pending, generations: {} })),
    )
    if (outcome.kind !== 'committed') throw new Error(outcome.kind)
  }
}

function warnings() {
  const lines: string[] = []
  const log = (message: string, fields: unknown) => void lines.push(`${message} ${JSON.stringify(fields)}`)
  const logger = { ...silentLogger(), warn: log, error: log, with: () => logger }
  return { lines, logger }
}

const running = ({ state }: Cluster) => [...state.snapshot.all('assignments').values()].flatMap(({ instances }) => instances)

describe('placement', () => {
  it.each([
    ['short names', 'web', 'shop'],
    ['the longest names', LONG, LONG],
  ])('places everything in as many commits as it takes: %s', async (_, service, app) => {
    const cluster = await emptyCluster()
    await addNodes(cluster, 6, 300)
    const services = Array.from({ length: 4 }, (__, k) => `${service}${k}`)
    await addWaiting(cluster, app, services, mostWaiting(`${app}/${service}0`))
    await addWaiting(cluster, 'other', ['web'], 1)
    const { lines, logger } = warnings()
    const loop = createPlacementLoop({ ...cluster, logger })
    loop.start()
    await cluster.clock.advance(10_000)
    await loop.stop()
    expect(running(cluster)).toHaveLength(4 * mostWaiting(`${app}/${service}0`) + 1)
    expect(lines).toEqual([])
  })

  it('fills a node of many slots as far as its record goes, and says of the rest that they lack slots; others are placed', async () => {
    const cluster = await emptyCluster()
    await addNodes(cluster, 1, 10_000)
    await addWaiting(cluster, 'shop', ['a', 'b', 'c', 'd'], 250)
    const { lines, logger } = warnings()
    const loop = createPlacementLoop({ ...cluster, logger })
    loop.start()
    await cluster.clock.advance(10_000)
    const held = running(cluster).length
    expect(held).toBeGreaterThan(350)
    expect(held).toBeLessThan(500)
    expect(loop.refusals()).toHaveLength(1_000 - held)
    expect(loop.explanation(loop.refusals()[0]?.instance ?? '')?.rejected).toEqual([{ label: 'slots', count: 1 }])
    await addNodes(cluster, 2, 10_000)
    loop.poke()
    await cluster.clock.advance(10_000)
    await loop.stop()
    expect(running(cluster).length).toBeGreaterThan(2 * 350)
    expect(lines).toEqual([])
  })

  it('tells of an outage in which thousands of groups fit nowhere, once, in a few events', async () => {
    const cluster = await emptyCluster()
    await addNodes(cluster, 1, 10, 1)
    for (let a = 0; a < 20; a += 1)
      await addWaiting(
        cluster,
        `team-${a}`,
        Array.from({ length: 50 }, (_, k) => `service-of-some-length-${k}`),
        1,
      )
    const { lines, logger } = warnings()
    const loop = createPlacementLoop({ ...cluster, logger })
    loop.start()
    await cluster.clock.advance(30_000)
    loop.poke()
    await cluster.clock.advance(30_000)
    await loop.stop()
    const events = await cluster.state.events({ type: 'instance.unplaced', limit: 1_000 })
    expect(events).toHaveLength(41)
    expect(events.at(-1)).toMatchObject({ data: { count: 960 } })
    expect(events.at(-1)?.message).toContain('and 959 more of 960 services: 0 of 1 node: 1 cpu')
    expect(lines).toEqual([])
  })

  it('evicts on dense nodes, as many as fit into a commit in each pass', async () => {
    const cluster = await emptyCluster()
    const { state, observed } = cluster
    const unit = aUnitSpec({ runtime: 'process', reservations: { cpuMillis: 100, memoryBytes: 2 ** 20 } })
    const low = aServiceSpec({ name: 'low', specHash: HASH, unit, placement: aPlacement({ priority: 20 }) })
    const high = aServiceSpec({ name: 'high', specHash: HASH, unit, placement: aPlacement({ priority: 80, maxPerNode: 1 }) })
    await state.commit(
      state
        .change()
        .put('app', 'shop', anAppRecord({ spec: anAppSpec({ services: [low, high] }) }))
        .put('service', 'shop/low', aServiceRecord({ id: 'shop/low', desired: 4_000 })),
    )
    await addNodes(cluster, 20, 250, 20_000)
    for (let n = 0; n < 20; n += 1) {
      const nodeId = `n-${n}`
      const instances = Array.from({ length: 200 }, (_, k) =>
        anInstanceRecord({ id: `shop/low/${200 * n + k + 1}/1`, nodeId, specHash: HASH }),
      )
      expect((await state.commit(state.change().put('assignments', nodeId, { nodeId, instances }))).kind).toBe('committed')
      for (const { id } of instances) observed.setInstance(anInstanceObservation({ instance: id, nodeId }))
    }
    const view = createNodeView(cluster)
    const { lines, logger } = warnings()
    const preemption = createPreemption({ ...cluster, logger })
    const asked = Array.from({ length: 20 }, (_, k) => anInstanceRecord({ id: `shop/high/${k + 1}/1`, specHash: HASH }))
    const requests = asked.flatMap((record) => requestOfRecord(record, state.snapshot) ?? [])
    for (let pass = 0; pass < 20; pass += 1) {
      await preemption.run(requests, view.nodes())
      await cluster.clock.advance(1_000)
    }
    expect(running(cluster).filter(({ goal }) => goal === 'stop').length).toBeGreaterThanOrEqual(20)
    expect(lines).toEqual([])
  })
})

describe('scaling', () => {
  it('goes on for everybody when several services have as much waiting as they may', async () => {
    const cluster = await emptyCluster()
    const { state } = cluster
    const names = Array.from({ length: 6 }, (_, k) => `${LONG}${k}`)
    const scale = (min: number) => aScale({ min, max: 1_000 })
    const services = [
      ...names.map((name) => aServiceSpec({ name, scale: scale(600) })),
      aServiceSpec({ name: 'small', scale: scale(3) }),
    ]
    await addWaiting(cluster, 'shop', names, mostWaiting(`shop/${names[0]}`))
    await state.commit(state.change().put('app', 'shop', anAppRecord({ spec: anAppSpec({ services }) })))
    await state.commit(state.change().put('service', 'shop/small', aServiceRecord({ id: 'shop/small', desired: 1 })))
    const { lines, logger } = warnings()
    const loop = createScalingLoop({ ...cluster, logger })
    loop.start()
    await cluster.clock.advance(10_000)
    await loop.stop()
    expect(state.snapshot.get('service', 'shop/small')?.desired).toBe(3)
    for (const name of names) expect(state.snapshot.get('service', `shop/${name}`)?.desired).toBe(600)
    expect(lines).toEqual([])
  })
})

describe('the fleet', () => {
  it('orders more machines in one pass than one commit holds', async () => {
    const bed = await fleetBed([fleetPool('small', { max: 1_000 })], { maxBuysPerPass: 200, maxParallelCreates: 200 })
    await bed.ask(300)
    await bed.clock.advance(60_000)
    expect(bed.cloud.live()).toHaveLength(100)
    await endFleetBeds()
  })
})

describe('services', () => {
  it('replaces a thousand instances at once in parts, each of which fits', async () => {
    const { state } = await emptyCluster()
    const id = `shop/${LONG}`
    const app = anAppRecord({ spec: anAppSpec({ services: [aServiceSpec({ name: LONG })] }) })
    const actions = Array.from({ length: 1_000 }, (_, k) => ({
      kind: 'create' as const,
      slot: k + 1,
      revision: 1,
      specHash: HASH,
      replaces: `${id}/${k + 1}/1`,
      reason: 'its node is lost',
    }))
    let done = 0
    let rounds = 0
    while (done < 1_000 && rounds < 20) {
      const service = state.snapshot.get('service', id) ?? aServiceRecord({ id, generations: {} })
      const change = state.change()
      applyActions(change, state.snapshot, app, service, actions.slice(done), 1)
      expect((await state.commit(change)).kind).toBe('committed')
      const now = state.snapshot.get('service', id)
      if (!now) throw new Error('there is no service')
      expect(now.pending.length).toBeLessThanOrEqual(mostWaiting(id))
      done += now.pending.length
      rounds += 1
      // All of them find a place.
      await state.commit(state.change().put('service', id, { ...now, pending: [] }))
    }
    expect(done).toBe(1_000)
    expect(jsonBytes(state.snapshot.get('service', id))).toBeLessThan(10_000)
  })
})

describe('the limits of records', () => {
  it('let what a service has waiting and what a node holds be in one commit, also when all is told to stop', () => {
    for (const name of ['w', LONG]) {
      const id = `${name}/${name}`
      const record = (slot: number): InstanceRecord =>
        anInstanceRecord({ id: `${id}/${slot}/10`, replaces: `${id}/${slot}/9`, specHash: HASH, stopReason: 'x'.repeat(100) })
      const pending = Array.from({ length: mostWaiting(id) }, (_, k) => record(k))
      const instances: InstanceRecord[] = []
      while (roomOnNode(instances) > 0) instances.push({ ...record(instances.length), placedBy: 'p'.repeat(100) })
      expect(instances.length).toBeGreaterThan(150)
      const bytes = jsonBytes(pending) + jsonBytes(instances)
      expect(bytes).toBeLessThan(MAX_COMMIT_BYTES - 10_000)
      expect(commitRoom().take(2, bytes)).toBe(true)
    }
  })

  it('a commit takes what fits beside what was taken, and nothing of what does not', () => {
    const room = commitRoom()
    expect(room.take(59, MAX_COMMIT_BYTES - 10)).toBe(true)
    expect(room.take(1, 11)).toBe(false)
    expect(room.take(2, 1)).toBe(false)
    expect(room.take(1, 10)).toBe(true)
  })
})
