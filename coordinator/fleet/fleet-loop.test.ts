import { afterEach, describe, expect, it } from 'vitest'
import { fakeProvider, type FakeMachine, type FakeProvider } from '../../test/fakes/fake-provider.ts'
import { anInstanceObservation } from '../../test/builders/observed.ts'
import { aContainerSpec } from '../../test/builders/specs.ts'
import { emptyDisk, memoryStore, type MemoryStoreDisk } from '../../test/fakes/memory-store.ts'
import { type VirtualClock, virtualClock } from '../../test/fakes/virtual-clock.ts'
import { randomIds } from '../../shared/ids.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { Liveness, NodeRecord, Pool } from '../../shared/model/node.ts'
import { seededRandom } from '../../shared/random.ts'
import { createPlacementLoop } from '../placement/placement-loop.ts'
import { MACHINE_TAG } from '../providers/provider.ts'
import type { InstanceRecord } from '../state/objects.ts'
import type { NodeObservation, Observed, ObservedChange } from '../state/observed.ts'
import { openState, type State } from '../state/state.ts'
import type { FleetConfig } from './config.ts'
import { createFleetLoop } from './fleet-loop.ts'

const MiB = 2 ** 20
const GiB = 2 ** 30

/** A coordinator's placement and fleet over one disk and one model cloud; agents are played by the bed. */
interface Bed {
  readonly clock: VirtualClock
  readonly disk: MemoryStoreDisk
  readonly cloud: FakeProvider
  readonly clouds: Map<string, FakeProvider>
  state: State
  fleet: ReturnType<typeof createFleetLoop>
  observed: ReturnType<typeof fakeObserved>
  /** What scaling expects; empty at first. */
  predicted: { service: string; count: number }[]
  start(): Promise<void>
  crash(): Promise<void>
  ask(count: number, memoryBytes?: number): Promise<void>
  /** Stops instances, node by node, until so many have gone. */
  stopAll(count: number): Promise<void>
  keepPerNode(count: number): Promise<void>
  events(type: string): Promise<readonly string[]>
  nodes(): readonly NodeRecord[]
  placed(): number
  pending(): number
}

const beds: Bed[] = []
afterEach(async () => {
  for (const bed of beds.splice(0)) await bed.crash()
})

function fakeObserved() {
  const nodes = new Map<string, NodeObservation>()
  const listeners = new Set<(change: ObservedChange) => void>()
  const observed: Observed & {
    frozen: Observed['frozen']
    /** Every instance that is asked about is ready where its record says. */
    runsOn: ((id: string) => string | null) | null
    set(id: string, liveness: Liveness): void
  } = {
    frozen: null,
    runsOn: null,
    node: (id) => nodes.get(id),
    instance(id) {
      const nodeId = observed.runsOn?.(id) ?? null
      return nodeId === null ? undefined : anInstanceObservation({ instance: id, nodeId })
    },
    nodes: () => nodes.values(),
    instances: () => [],
    instancesOn: () => [],
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    set(id, liveness) {
      nodes.set(id, {
        nodeId: id,
        connected: liveness === 'live',
        liveness,
        lastSeenMonotonicMs: 0,
        bootId: 'b',
        appliedDesiredRevision: 0,
        appliedKeysRevision: 0,
        inventoryReceived: true,
        use: null,
        foreign: [],
      })
      for (const listener of listeners) listener({ nodes: new Set([id]), instances: new Set(), useOnly: false })
    },
  }
  return observed
}

function pool(name: string, overrides: Partial<Pool> = {}): Pool {
  return {
    name,
    provider: 'fake',
    offering: name,
    image: 'debian',
    zone: null,
    capacity: { cpuMillis: 4000, memoryBytes: GiB, diskBytes: 10 * GiB, slots: 50 },
    priceUsdPerHour: 0.1,
    min: 0,
    max: 10,
    labels: {},
    taints: [],
    static: false,
    userData: 'script',
    billing: 'second',
    budgetUsdPerMonth: null,
    settings: {},
    ...overrides,
  }
}

function serviceSpec(memoryBytes: number): ServiceSpec {
  return {
    name: 'web',
    unit: {
      runtime: 'process',
      containers: [aContainerSpec()],
      ports: [],
      published: [],
      reservations: { cpuMillis: 100, memoryBytes },
      stopGraceMs: 1000,
      drainMs: 1000,
      warmUpMs: 0,
      load: [],
      access: { public: true, sameApp: true, allow: [], roles: [], anyKey: false, methods: [], pathPrefixes: [] },
      balance: 'least-load',
      singletonStrictMs: null,
    },
    specHash: 'h',
    mode: 'replicated',
    replicas: 1,
    scale: null,
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
    update: {
      parallelism: 1,
      order: 'start-first',
      delayMs: 0,
      monitorMs: 0,
      progressDeadlineMs: 1000,
      failureAction: 'rollback',
    },
    dependsOn: [],
    published: [],
    labels: {},
  }
}

async function makeBed(pools: readonly Pool[], config: Partial<FleetConfig> = {}): Promise<Bed> {
  const clock = virtualClock()
  const disk = emptyDisk()
  let ordinal = 1
  let nodeSeq = 1
  const join = (machine: FakeMachine) => {
    const id = machine.tags[MACHINE_TAG] ?? ''
    const record = bed.state.snapshot.get('machine', id)
    // As `access` does: a machine whose deletion began is refused (row 5).
    if (!record || record.phase === 'terminating' || record.phase === 'gone') return
    const source = bed.state.snapshot.get('pool', record.pool)
    if (!source) return
    const nodeId = `n-${nodeSeq++}`
    const change = bed.state.change().put('node', nodeId, {
      id: nodeId,
      hostname: nodeId,
      address: '127.0.0.1',
      labels: source.labels,
      engineLabels: {},
      taints: source.taints,
      platform: 'linux/amd64',
      runtimes: ['process'],
      capacity: source.capacity,
      pool: source.name,
      provider: source.provider,
      zone: null,
      machineId: id,
      availability: 'active',
      drain: null,
      credentialHash: '',
      joinedAtMs: clock.now(),
      agentVersion: '1',
    })
    void bed.state.commit(change).then(() => bed.observed.set(nodeId, 'live'))
  }
  const gone = (machine: FakeMachine) => {
    for (const node of bed.state.snapshot.all('node').values())
      if (node.machineId === machine.tags[MACHINE_TAG]) bed.observed.set(node.id, 'lost')
  }
  const clouds = new Map(
    [...new Set(pools.map((each) => each.provider))].map((name) => [
      name,
      fakeProvider({ name, clock, onRunning: join, onGone: gone }),
    ]),
  )
  const editService = async (edit: (pending: readonly InstanceRecord[]) => readonly InstanceRecord[]) => {
    for (;;) {
      const service = bed.state.snapshot.get('service', 'shop/web')
      const outcome = await bed.state.commit(
        bed.state.change().put('service', 'shop/web', {
          ...(service ?? {
            id: 'shop/web',
            desired: 0,
            pinned: null,
            rollout: null,
            generations: {},
            ordinal: 1,
            lastScale: null,
            backoff: null,
          }),
          pending: edit(service?.pending ?? []),
        }),
      )
      if (outcome.kind === 'committed') return
    }
  }
  let placement: ReturnType<typeof createPlacementLoop>
  const bed: Bed = {
    clock,
    disk,
    cloud: clouds.get('fake') ?? ([...clouds.values()][0] as FakeProvider),
    clouds,
    observed: fakeObserved(),
    predicted: [],
    state: undefined as unknown as State,
    fleet: undefined as unknown as Bed['fleet'],
    async start() {
      bed.state = await openState(memoryStore(disk), clock)
      const before = bed.observed
      bed.observed = fakeObserved()
      for (const node of before.nodes()) bed.observed.set(node.nodeId, node.liveness)
      const random = seededRandom(disk.epoch)
      const common = { state: bed.state, observed: bed.observed, clock, logger: silentLogger() }
      placement = createPlacementLoop(common)
      bed.fleet = createFleetLoop({
        ...common,
        providers: clouds,
        placement,
        userDataFor: async (machine) => `#!/bin/sh\n# ${machine.id}`,
        random,
        ids: randomIds(random),
        config,
        predicted: () => bed.predicted,
      })
      placement.start()
      bed.fleet.start()
    },
    async crash() {
      const stopped = Promise.all([placement.stop(), bed.fleet.stop()])
      await clock.advance(5000)
      await stopped
    },
    async ask(count, memoryBytes = 300 * MiB) {
      await bed.state.commit(
        bed.state.change().put('app', 'shop', {
          name: 'shop',
          revision: 1,
          spec: { name: 'shop', services: [serviceSpec(memoryBytes)] },
          source: '',
          deployedAtMs: 0,
          deployedBy: 'test',
          history: [],
          removing: false,
        }),
      )
      await editService((pending) => [
        ...pending,
        ...Array.from({ length: count }, (): InstanceRecord => {
          const slot = ordinal++
          return {
            id: `shop/web/${slot}/1`,
            revision: 1,
            specHash: 'h',
            nodeId: null,
            goal: 'run',
            stopReason: '',
            createdAtMs: clock.now(),
            placedAtMs: null,
            stopAtMs: null,
            replaces: null,
          }
        }),
      ])
    },
    async stopAll(count) {
      for (const [id, assignments] of [...bed.state.snapshot.all('assignments')]) {
        const keep = assignments.instances.slice(count)
        count = Math.max(0, count - assignments.instances.length)
        await bed.state.commit(bed.state.change().put('assignments', id, { ...assignments, instances: keep }))
      }
    },
    async keepPerNode(count) {
      for (const [id, assignments] of [...bed.state.snapshot.all('assignments')])
        await bed.state.commit(
          bed.state.change().put('assignments', id, { ...assignments, instances: assignments.instances.slice(0, count) }),
        )
    },
    events: async (type) => (await bed.state.events({ type, limit: 1000 })).map((event) => event.message),
    nodes: () => [...bed.state.snapshot.all('node').values()],
    placed: () => [...bed.state.snapshot.all('assignments').values()].reduce((sum, each) => sum + each.instances.length, 0),
    pending: () => bed.state.snapshot.get('service', 'shop/web')?.pending.length ?? 0,
  }
  const seed = await openState(memoryStore(disk), clock)
  const change = seed.change().put('cluster', 'cluster', { id: 'c1', createdAtMs: 0, meshSecret: '' })
  for (const each of pools) change.put('pool', each.name, each)
  await seed.commit(change)
  await bed.start()
  beds.push(bed)
  return bed
}

/** Services' part of a drain: instances of draining nodes are asked for again, the old ones go. */
async function moveOff(bed: Bed, nodeId: string): Promise<void> {
  const assignments = bed.state.snapshot.get('assignments', nodeId)
  const count = assignments?.instances.length ?? 0
  await bed.state.commit(bed.state.change().put('assignments', nodeId, { nodeId, instances: [] }))
  if (count > 0) await bed.ask(count)
}

describe('fleet loop', () => {
  it('V10: a burst that fits nowhere is bought for once, waits for its machines and is then placed', async () => {
    const bed = await makeBed([pool('small')])
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
    const bed = await makeBed([pool('small')], { buyHoldMs })
    await bed.ask(1)
    await bed.clock.advance(300)
    expect(await bed.events('instance.unplaced')).toHaveLength(1)
    const service = bed.state.snapshot.get('service', 'shop/web')
    if (service) await bed.state.commit(bed.state.change().put('service', 'shop/web', { ...service, pending: [] }))
    await bed.clock.advance(5_000)
    expect(await bed.events('machine.requested')).toHaveLength(bought)
  })

  it('row 3: a machine whose creation was answered by silence is adopted, not bought twice', async () => {
    const bed = await makeBed([pool('small')])
    bed.cloud.levers.loseCreateReplies = 2
    await bed.ask(4)
    await bed.clock.advance(180_000)
    expect(bed.placed()).toBe(4)
    expect(bed.cloud.live()).toHaveLength(2)
    expect(new Set(bed.cloud.createCalls).size).toBe(2)
  })

  it('row 3: a creation that hangs is given up in time and found by its name', async () => {
    const bed = await makeBed([pool('small')], { callTimeoutMs: 20_000 })
    bed.cloud.levers.hangCreates = 1
    await bed.ask(1)
    await bed.clock.advance(180_000)
    expect(bed.placed()).toBe(1)
    expect(bed.cloud.live()).toHaveLength(1)
  })

  it('row 9: a pool without capacity rests and the next one is bought from, in few calls', async () => {
    const bed = await makeBed([pool('cheap', { priceUsdPerHour: 0.05 }), pool('dear', { priceUsdPerHour: 0.2 })])
    bed.cloud.levers.soldOut.add('cheap')
    await bed.ask(3)
    await bed.clock.advance(120_000)
    expect(bed.placed()).toBe(3)
    expect(bed.cloud.live().map((machine) => machine.request.offering)).toEqual(['dear'])
    expect(bed.cloud.createCalls.length).toBeLessThanOrEqual(3)
    expect(await bed.events('pool.cooling-down')).toHaveLength(1)
  })

  it('row 9: a quota that is reached makes no tight loop', async () => {
    const bed = await makeBed([pool('small')])
    bed.cloud.levers.quota = 1
    await bed.ask(6)
    await bed.clock.advance(600_000)
    expect(bed.placed()).toBe(3)
    expect(bed.cloud.createCalls.length).toBeLessThanOrEqual(4)
    expect(bed.fleet.noteFor('shop/web/6/1')).toMatch(/rests for/)
  })

  it('M6: beyond the budget nothing is bought, and an event says what it would have cost', async () => {
    const bed = await makeBed([pool('small', { priceUsdPerHour: 1 })], { budgetUsdPerMonth: 2.5 })
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
    const bed = await makeBed([pool('small', { taints: ['gpu'] }), pool('tiny', { max: 0 })])
    await bed.ask(1, 8 * GiB)
    await bed.clock.advance(60_000)
    expect(bed.cloud.live()).toHaveLength(0)
    expect(bed.fleet.noteFor('shop/web/1/1')).toBe('no pool fits, small: taint gpu; tiny: memory')
  })

  it('V11: a node that is no longer needed is drained, its machine deleted and confirmed absent', async () => {
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 60_000 })
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
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 60_000, downIntervalMs: 30_000 })
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

  it('row 4: a machine that never joins is deleted after the deadline and its pool rests', async () => {
    const bed = await makeBed([pool('small', { max: 1 })])
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
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 1e9 })
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
    const bed = await makeBed([pool('small')], { takeoverMs: 0 })
    bed.cloud.levers.listLagMs = 290_000
    bed.cloud.levers.bootDelayMs = 240_000
    await bed.ask(3)
    await bed.clock.advance(900_000)
    expect(bed.placed()).toBe(3)
    expect(bed.cloud.createCalls).toHaveLength(1)
  })

  it('row 8: a deletion that fails is repeated until the cloud says not found', async () => {
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 60_000 })
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
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 1e9 })
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
    const bed = await makeBed([pool('small')])
    bed.cloud.plant({ name: 'c1-m-stray', tags: { 'rubato-cluster': 'c1' } })
    bed.cloud.plant({ name: 'database-prod', tags: {} })
    bed.cloud.plant({ name: 'mislabelled', tags: { 'rubato-cluster': 'c1' } })
    await bed.clock.advance(290_000)
    expect(bed.cloud.live()).toHaveLength(3)
    await bed.clock.advance(300_000)
    expect(bed.cloud.live().map((machine) => machine.name)).toEqual(['database-prod', 'mislabelled'])
  })

  it('row 37: a jump of the wall clock makes no machine overdue', async () => {
    const bed = await makeBed([pool('small')])
    await bed.ask(1)
    await bed.clock.advance(5_000)
    bed.clock.jumpWall(3_600_000)
    await bed.clock.advance(60_000)
    expect(bed.placed()).toBe(1)
    expect(bed.cloud.createCalls).toHaveLength(1)
  })

  it('a machine whose agent stays silent is given back in the end, however many lists show it', async () => {
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 1e9 })
    await bed.ask(1)
    await bed.clock.advance(120_000)
    bed.observed.set('n-1', 'lost')
    await bed.clock.advance(1_200_000)
    expect(bed.cloud.live()).toHaveLength(1)
    await bed.clock.advance(3_000_000)
    expect(bed.cloud.live()).toHaveLength(0)
    expect(bed.nodes()).toHaveLength(0)
  })

  it('an instance that nothing could hold keeps no idle machine alive', async () => {
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 60_000 })
    await bed.ask(3)
    await bed.clock.advance(120_000)
    await bed.stopAll(3)
    await bed.ask(1, 8 * GiB)
    await bed.clock.advance(600_000)
    expect(bed.pending()).toBe(1)
    expect(bed.cloud.live()).toHaveLength(0)
  })

  it('the minimum of a pool is kept without any demand', async () => {
    const bed = await makeBed([pool('small', { min: 2 })], { minNodeAgeMs: 1000 })
    await bed.clock.advance(900_000)
    expect(bed.nodes()).toHaveLength(2)
  })

  it('rows 1, 2, 3: a coordinator that dies at any step of buying and giving back leaks nothing', async () => {
    for (const crashAfterMs of [0, 10, 60, 300, 510, 600, 5_000, 31_000, 62_000, 130_000, 190_000, 200_000, 250_000]) {
      const bed = await makeBed([pool('small')], { minNodeAgeMs: 60_000 })
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

  it('§8.3: a machine slower than its pool’s p90 × 2 while work waits gets one stand-in elsewhere; the later one is cancelled', async () => {
    const bed = await makeBed([pool('cheap', { max: 20 }), pool('dear', { priceUsdPerHour: 0.2 })], { minNodeAgeMs: 1e9 })
    await bed.ask(12) // four machines teach that `cheap` takes half a minute
    await bed.clock.advance(120_000)
    expect(bed.fleet.machineLeadMs('cheap')).toBeGreaterThan(29_000)
    expect(bed.fleet.machineLeadMs('dear')).toBeNull()
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
    const bed = await makeBed([pool('cheap', { max: 20 }), pool('dear', { priceUsdPerHour: 0.2 })], { minNodeAgeMs: 1e9 })
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
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 60_000 })
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
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 60_000, spareSlots: 2, spareSlotMemoryBytes: 300 * MiB })
    await bed.clock.advance(600_000)
    expect(bed.cloud.live()).toHaveLength(1)
    expect((await bed.events('machine.requested')).at(-1)).toContain('room for 2 spare slots')
    await bed.ask(2)
    await bed.clock.advance(600_000)
    expect(bed.cloud.live()).toHaveLength(2)
    expect(await bed.events('machine.requested')).toHaveLength(2)
  })

  it('§8.3: an interruption notice drains the node by its deadline, buys at once, and is not taken back', async () => {
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 1e9, reapIntervalMs: 10_000 })
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

  it('row 11: two pools that fit equally are not exchanged in fourteen hours of steady and of wavering demand', async () => {
    const bed = await makeBed([pool('a'), pool('b')], { minNodeAgeMs: 60_000 })
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
    const bed = await makeBed([pool('small')], { minNodeAgeMs: 60_000, drainDeadlineMs: 300_000, entrySettleMs: 0 })
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

  it('row 9: a cloud that always says "again" is not waited for alone: the next pool stands in', async () => {
    const bed = await makeBed([pool('cheap', { provider: 'busy' }), pool('dear', { priceUsdPerHour: 0.2 })])
    const busy = bed.clouds.get('busy')
    if (!busy) throw new Error('no cloud')
    busy.levers.failCalls = 1e9
    await bed.ask(1)
    await bed.clock.advance(180_000)
    expect(bed.placed()).toBe(1)
    expect(bed.clouds.get('fake')?.live()).toHaveLength(1)
    expect(busy.createCalls.length).toBeLessThan(20)
  })

  it('B5: onto a node that joined instances move one at a time, each copy first, within the hour’s budget', async () => {
    const roomy = { capacity: { cpuMillis: 4000, memoryBytes: 4 * GiB, diskBytes: 10 * GiB, slots: 50 } }
    const bed = await makeBed([pool('small', roomy)], { minNodeAgeMs: 1e9, rebalanceMovesPerHour: 2 })
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

const copies = (bed: Bed) => [...bed.state.snapshot.instances().values()].filter((record) => record.replaces !== null)

/** Services' part of a move: the old one goes, the copy stays. */
async function takeOver(bed: Bed): Promise<void> {
  const [copy] = copies(bed)
  for (const [id, assignments] of [...bed.state.snapshot.all('assignments')]) {
    const instances = assignments.instances
      .filter((record) => record.id !== copy?.replaces)
      .map((record) => (record.id === copy?.id ? { ...record, replaces: null } : record))
    await bed.state.commit(bed.state.change().put('assignments', id, { ...assignments, instances }))
  }
}
