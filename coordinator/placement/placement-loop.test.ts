import { afterEach, describe, expect, it } from 'vitest'
import { type MemoryStore, memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { Liveness, NodeRecord } from '../../shared/model/node.ts'
import type { InstanceRecord } from '../state/objects.ts'
import type { Observed, ObservedChange } from '../state/observed.ts'
import { openState, type State } from '../state/state.ts'
import { renderExplanation } from './explain.ts'
import { createPlacementLoop, type PlacementLoop, type PlacementLoopDeps } from './placement-loop.ts'

const running: PlacementLoop[] = []
afterEach(async () => {
  for (const loop of running.splice(0)) await loop.stop()
})

const SPEC = {
  name: 'web',
  specHash: 'h',
  mode: 'replicated',
  unit: { runtime: 'process', containers: [], published: [], reservations: { cpuMillis: 100, memoryBytes: 100 } },
  placement: {
    constraints: [],
    spreadOver: [],
    maxPerNode: null,
    affinity: null,
    tolerates: [],
    pools: [],
    strategy: null,
    platform: null,
    priority: 50,
  },
} as unknown as ServiceSpec

function nodeRecord(id: string): NodeRecord {
  return {
    id,
    hostname: id,
    address: '127.0.0.1',
    labels: {},
    engineLabels: {},
    taints: [],
    platform: 'linux/amd64',
    runtimes: ['process'],
    capacity: { cpuMillis: 1000, memoryBytes: 1000, diskBytes: 0, slots: 10 },
    pool: null,
    provider: null,
    zone: null,
    machineId: null,
    availability: 'active',
    drain: null,
    credentialHash: '',
    joinedAtMs: 0,
    agentVersion: '1',
  }
}

function record(slot: number, overrides: Partial<InstanceRecord> = {}): InstanceRecord {
  return {
    id: `shop/web/${slot}/1`,
    revision: 1,
    specHash: 'h',
    nodeId: null,
    goal: 'run',
    stopReason: '',
    createdAtMs: 0,
    placedAtMs: null,
    stopAtMs: null,
    replaces: null,
    ...overrides,
  }
}

async function makeBed(
  nodeIds: readonly string[],
  spec: ServiceSpec = SPEC,
  others: readonly ServiceSpec[] = [],
  deps: Partial<PlacementLoopDeps> = {},
) {
  const clock = virtualClock()
  const store: MemoryStore = memoryStore()
  const state: State = await openState(store, clock)
  const liveness = new Map<string, Liveness>(nodeIds.map((id) => [id, 'live']))
  const uses = new Map<string, { node: { cpuMillis: number; memoryBytes: number }; loads: readonly number[] }>()
  const listeners = new Set<(change: ObservedChange) => void>()
  const observed = {
    frozen: null,
    instance: () => undefined,
    node: (id: string) => ({ nodeId: id, liveness: liveness.get(id) ?? 'unknown', use: uses.get(id)?.node ?? null }),
    instancesOn: (id: string) => (uses.get(id)?.loads ?? []).map((loadPercent) => ({ use: { loadPercent } })),
    onChange(listener: (change: ObservedChange) => void) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  } as unknown as Observed
  for (const id of nodeIds) await state.commit(state.change().put('node', id, nodeRecord(id)))
  const app = { name: 'shop', revision: 1, spec: { name: 'shop', services: [spec, ...others] }, source: '', deployedAtMs: 0 }
  await state.commit(state.change().put('app', 'shop', { ...app, deployedBy: 't', history: [], removing: false }))
  const loop = createPlacementLoop({ state, observed, clock, logger: silentLogger(), nothingBoughtFor: () => true, ...deps })
  running.push(loop)
  loop.start()
  return {
    clock,
    store,
    state,
    loop,
    see(id: string, what: Liveness) {
      liveness.set(id, what)
      for (const listener of listeners) listener({ nodes: new Set([id]), instances: new Set(), useOnly: false })
    },
    measure(id: string, cpuMillis: number, loads: readonly number[]) {
      uses.set(id, { node: { cpuMillis, memoryBytes: 0 }, loads })
      for (const listener of listeners) listener({ nodes: new Set([id]), instances: new Set(), useOnly: true })
    },
    async want(records: readonly InstanceRecord[], id = 'shop/web') {
      const rest = { desired: 0, pinned: null, rollout: null, generations: {}, ordinal: 1, lastScale: null, backoff: null }
      await state.commit(state.change().put('service', id, { id, ...rest, pending: records }))
    },
    pending: () => state.snapshot.get('service', 'shop/web')?.pending.length ?? 0,
    on: (id: string) => (state.snapshot.get('assignments', id)?.instances ?? []).map((instance) => instance.id),
  }
}

describe('placement loop', () => {
  it('tries again at once when what is charged by measured use is found to need less', async () => {
    let memoryBytes = 5_000
    const listeners = new Set<(service: string) => void>()
    const bed = await makeBed(['n1'], SPEC, [], {
      nothingBoughtFor: () => false,
      chargeOf: () => ({ cpuMillis: 1, memoryBytes, diskBytes: 0 }),
      onChargeChange(listener) {
        listeners.add(listener)
        return () => listeners.delete(listener)
      },
    })
    await bed.want([record(1)])
    await bed.clock.advance(100)
    expect(bed.pending()).toBe(1)
    memoryBytes = 50
    for (const listener of listeners) listener('shop/web')
    await bed.clock.advance(100)
    expect(bed.pending()).toBe(0)
  })

  it('moves waiting instances onto nodes, in as many commits as the store’s limits ask for', async () => {
    const ids = Array.from({ length: 150 }, (_, index) => `n${index}`)
    const bed = await makeBed(ids)
    await bed.want(Array.from({ length: 450 }, (_, index) => record(index + 1)))
    await bed.clock.advance(1000)
    expect(bed.pending()).toBe(0)
    expect(ids.map((id) => bed.on(id).length)).toEqual(ids.map(() => 3))
    const [event] = await bed.state.events({ type: 'instance.placed', limit: 1 })
    expect(event?.message).toMatch(/goes to n\d+: spread, \d of shop\/web there before, \d+ % reserved with it/)
    expect([...bed.state.snapshot.instances().values()].every((instance) => instance.nodeId !== null)).toBe(true)
  })

  it('keeps what fits nowhere pending, explains it, and says so once', async () => {
    const bed = await makeBed(['a', 'b'])
    bed.see('b', 'suspect')
    await bed.want(Array.from({ length: 12 }, (_, index) => record(index + 1)))
    await bed.clock.advance(120_000)
    expect(bed.on('a')).toHaveLength(10)
    expect(bed.loop.refusals()).toHaveLength(2)
    const explanation = bed.loop.explanation('shop/web/9/1') ?? bed.loop.refusals()[0]?.explanation
    expect(explanation && renderExplanation(explanation)).toBe('0 of 2 nodes: 1 slots, 1 suspect')
    expect(await bed.state.events({ type: 'instance.unplaced' })).toHaveLength(1)
    bed.see('b', 'live')
    await bed.clock.advance(1000)
    expect(bed.pending()).toBe(0)
    expect(bed.loop.refusals()).toEqual([])
  })

  it('row 18: places nothing on a node that has not reported since the coordinator started', async () => {
    const bed = await makeBed(['a'])
    bed.see('a', 'unknown')
    await bed.want([record(1)])
    await bed.clock.advance(60_000)
    expect(bed.pending()).toBe(1)
  })

  it('acts on nothing that was not stored, and repeats itself until it is', async () => {
    const bed = await makeBed(['a'])
    bed.store.failNext({ kind: 'conflict', detail: 'x' }, 0)
    await bed.clock.advance(1000)
    await bed.want([record(1)])
    bed.store.failNext({ kind: 'unavailable', detail: 'disk full' }, 2)
    bed.store.failNext({ kind: 'conflict', detail: 'changed' }, 1)
    await bed.clock.advance(10_000)
    expect(bed.pending()).toBe(0)
    expect(bed.on('a')).toEqual(['shop/web/1/1'])
  })

  it('a replacement is placed as if the instance it replaces were gone, but not onto its room', async () => {
    const bed = await makeBed(['a', 'b'])
    await bed.want([record(1), record(2)])
    await bed.clock.advance(1000)
    const [first] = bed.on('a')
    await bed.want([record(1, { id: 'shop/web/3/1', replaces: first ?? null })])
    await bed.clock.advance(1000)
    expect(bed.on('a')).toHaveLength(2)
    expect(bed.loop.nodes().map((node) => node.free.slots)).toEqual([8, 9])
  })

  it('V3: measured use and the load of instances reach the plan, in steps; what is no number does not', async () => {
    const bed = await makeBed(['a', 'b'])
    await bed.want(Array.from({ length: 10 }, (_, index) => record(index + 1)))
    await bed.clock.advance(1000)
    const measured = () => bed.loop.nodes().map((node) => node.measuredUse)
    expect(measured()).toEqual([null, null])
    bed.measure('a', 111, [])
    bed.measure('b', 111, [90, 70])
    expect(measured()).toEqual([0.1, 0.4])
    bed.measure('b', Number.NaN, [90])
    expect(measured()).toEqual([0.1, null])
  })

  it('an image counts as there for a while after its instance has gone', async () => {
    const container = { name: 'main', image: 'shop/web:1', mounts: [] }
    const spec = { ...SPEC, unit: { ...SPEC.unit, containers: [container] } } as unknown as ServiceSpec
    const bed = await makeBed(['a'], spec)
    await bed.want([record(1)])
    await bed.clock.advance(1000)
    expect([...(bed.loop.nodes()[0]?.images ?? [])]).toEqual(['shop/web:1'])
    await bed.state.commit(bed.state.change().put('assignments', 'a', { nodeId: 'a', instances: [] }))
    expect([...(bed.loop.nodes()[0]?.images ?? [])]).toEqual(['shop/web:1'])
  })

  it('something far more important takes the room of one instance, by its normal stop, when nothing is bought', async () => {
    const vip = { ...SPEC, name: 'vip', placement: { ...SPEC.placement, priority: 90 } } as ServiceSpec
    const bed = await makeBed(['a'], SPEC, [vip])
    await bed.want(Array.from({ length: 10 }, (_, index) => record(index + 1)))
    await bed.clock.advance(1000)
    expect(bed.on('a')).toHaveLength(10)
    await bed.want([record(1, { id: 'shop/vip/1/1' })], 'shop/vip')
    await bed.clock.advance(30_000)
    const stopping = () =>
      (bed.state.snapshot.get('assignments', 'a')?.instances ?? []).filter((instance) => instance.goal === 'stop')
    expect(stopping()).toHaveLength(1)
    expect(stopping()[0]?.stopReason).toBe('evicted: shop/vip/1/1 of priority 90 needs its room, it has 50')
    expect(await bed.state.events({ type: 'instance.evicted' })).toHaveLength(1)
    const left = (bed.state.snapshot.get('assignments', 'a')?.instances ?? []).filter((instance) => instance.goal === 'run')
    await bed.state.commit(bed.state.change().put('assignments', 'a', { nodeId: 'a', instances: left }))
    await bed.clock.advance(1000)
    expect(bed.on('a')).toContain('shop/vip/1/1')
  })

  describe('data on nodes', () => {
    const container = { name: 'db', image: '', mounts: [{ kind: 'volume', source: 'data', target: '/data', readOnly: false }] }
    const keeper = { ...SPEC, unit: { ...SPEC.unit, containers: [container] } } as unknown as ServiceSpec
    const next = (generation: number) => record(1, { id: `shop/web/1/${generation}` })
    const emptied = async (bed: Awaited<ReturnType<typeof makeBed>>, node: string) => {
      await bed.state.commit(bed.state.change().put('assignments', node, { nodeId: node, instances: [] }))
    }
    const wait = async (bed: Awaited<ReturnType<typeof makeBed>>, waiting: InstanceRecord) => {
      const service = bed.state.snapshot.get('service', 'shop/web')
      if (service) await bed.state.commit(bed.state.change().put('service', 'shop/web', { ...service, pending: [waiting] }))
      await bed.clock.advance(1000)
    }

    it('the next generation of a slot goes where the data of the slot is, long after the last one went', async () => {
      const bed = await makeBed(['a', 'b'], keeper)
      await bed.want([record(1)])
      await bed.clock.advance(1000)
      expect(bed.on('a')).toEqual(['shop/web/1/1'])
      await emptied(bed, 'a')
      bed.see('a', 'lost')
      await wait(bed, next(2))
      expect(bed.on('b')).toEqual([])
      expect(renderExplanation(bed.loop.explanation('shop/web/1/2') ?? { nodes: 0, rejected: [] })).toBe(
        '0 of 2 nodes: 1 lost, 1 volume on a',
      )
      bed.see('a', 'live')
      await bed.clock.advance(1000)
      expect(bed.on('a')).toEqual(['shop/web/1/2'])
    })

    it('a node that left the cluster took its data with it: the slot begins anew elsewhere', async () => {
      const bed = await makeBed(['a', 'b'], keeper)
      await bed.want([record(1)])
      await bed.clock.advance(1000)
      await bed.state.commit(bed.state.change().delete('assignments', 'a').delete('node', 'a'))
      await wait(bed, next(2))
      expect(bed.on('b')).toEqual(['shop/web/1/2'])
      expect(bed.state.snapshot.get('service', 'shop/web')?.homes).toEqual({ 1: 'b' })
    })

    it('an instance whose first revision left the history keeps its charge and its volumes', async () => {
      const bed = await makeBed(['a'], keeper)
      await bed.want([record(1)])
      await bed.clock.advance(1000)
      const app = bed.state.snapshot.get('app', 'shop')
      if (app) await bed.state.commit(bed.state.change().put('app', 'shop', { ...app, revision: 9 }))
      bed.see('a', 'live')
      const [node] = bed.loop.nodes()
      expect(node?.free.cpuMillis).toBe(900)
      expect([...(node?.volumes.keys() ?? [])]).toEqual(['shop/data'])
    })
  })
})
