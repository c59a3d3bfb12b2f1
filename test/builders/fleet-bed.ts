/** A coordinator's placement and fleet over one disk and one model cloud under virtual time; agents and services are played by the bed. */
import { createFleetLoop } from '../../coordinator/fleet/fleet-loop.ts'
import type { FleetConfig } from '../../coordinator/fleet/config.ts'
import { createPlacementLoop } from '../../coordinator/placement/placement-loop.ts'
import { MACHINE_TAG } from '../../coordinator/providers/provider.ts'
import type { InstanceRecord } from '../../coordinator/state/objects.ts'
import type { NodeObservation, Observed, ObservedChange } from '../../coordinator/state/observed.ts'
import { openState, type State } from '../../coordinator/state/state.ts'
import { randomIds } from '../../shared/ids.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { Liveness, NodeRecord, Pool } from '../../shared/model/node.ts'
import { seededRandom } from '../../shared/random.ts'
import { fakeProvider, type FakeMachine, type FakeProvider } from '../fakes/fake-provider.ts'
import { emptyDisk, memoryStore, type MemoryStoreDisk } from '../fakes/memory-store.ts'
import { type VirtualClock, virtualClock } from '../fakes/virtual-clock.ts'
import { aNodeObservation, anInstanceObservation } from './observed.ts'
import { aNodeRecord, anAppRecord, anInstanceRecord, aPool, aServiceRecord } from './records.ts'
import { aServiceSpec, anUpdate, aUnitSpec } from './specs.ts'

const MiB = 2 ** 20
const GiB = 2 ** 30
const SPEC_HASH = 'h'

export interface FleetBed {
  readonly clock: VirtualClock
  readonly disk: MemoryStoreDisk
  readonly cloud: FakeProvider
  readonly clouds: Map<string, FakeProvider>
  state: State
  fleet: ReturnType<typeof createFleetLoop>
  observed: ReturnType<typeof fleetObserved>
  /** What machines turn out to be when they join, unlike what was ordered; null: just that. */
  turnsOut: Partial<Pick<NodeRecord, 'capacity' | 'runtimes'>> | null
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

/** Every bed that was made and not yet ended. */
const beds = new Set<FleetBed>()

/** Ends all beds: for `afterEach`. */
export async function endFleetBeds(): Promise<void> {
  for (const bed of beds) await bed.crash()
  beds.clear()
}

/** Started, with these pools and nobody asking for anything. */
export async function fleetBed(pools: readonly Pool[], config: Partial<FleetConfig> = {}): Promise<FleetBed> {
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
    const node = aNodeRecord({
      id: nodeId,
      address: '127.0.0.1',
      labels: source.labels,
      taints: source.taints,
      runtimes: ['process'],
      capacity: source.capacity,
      pool: source.name,
      provider: source.provider,
      machineId: id,
      joinedAtMs: clock.now(),
      ...bed.turnsOut,
    })
    const change = bed.state
      .change()
      .put('node', nodeId, node)
      .put('machine', id, { ...record, phase: 'joined', nodeId, joinedAtMs: clock.now() })
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
          ...(service ?? aServiceRecord({ desired: 0 })),
          pending: edit(service?.pending ?? []),
        }),
      )
      if (outcome.kind === 'committed') return
    }
  }
  let placement: ReturnType<typeof createPlacementLoop>
  const bed: FleetBed = {
    clock,
    disk,
    cloud: clouds.get('fake') ?? ([...clouds.values()][0] as FakeProvider),
    clouds,
    observed: fleetObserved(),
    turnsOut: null,
    predicted: [],
    state: undefined as unknown as State,
    fleet: undefined as unknown as FleetBed['fleet'],
    async start() {
      bed.state = await openState(memoryStore(disk), clock)
      const before = bed.observed
      bed.observed = fleetObserved()
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
        bed.state.change().put('app', 'shop', anAppRecord({ spec: { name: 'shop', services: [serviceSpec(memoryBytes)] } })),
      )
      await editService((pending) => [
        ...pending,
        ...Array.from({ length: count }, () =>
          anInstanceRecord({ id: `shop/web/${ordinal++}/1`, specHash: SPEC_HASH, createdAtMs: clock.now() }),
        ),
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
  beds.add(bed)
  return bed
}

/** Machines of 1 GiB: three instances of the size that `ask` asks for. */
export function fleetPool(name: string, overrides: Partial<Pool> = {}): Pool {
  const capacity = { cpuMillis: 4000, memoryBytes: GiB, diskBytes: 10 * GiB, slots: 50 }
  return aPool({ name, offering: name, capacity, ...overrides })
}

/** Services' part of a drain: instances of draining nodes are asked for again, the old ones go. */
export async function moveOff(bed: FleetBed, nodeId: string): Promise<void> {
  const assignments = bed.state.snapshot.get('assignments', nodeId)
  const count = assignments?.instances.length ?? 0
  await bed.state.commit(bed.state.change().put('assignments', nodeId, { nodeId, instances: [] }))
  if (count > 0) await bed.ask(count)
}

/** Instances that are on their way to another node. */
export function copies(bed: FleetBed): InstanceRecord[] {
  const all = bed.state.snapshot.instances()
  return [...all.values()].filter((record) => record.replaces !== null && all.has(record.replaces))
}

/** Services' part of a move: the old one goes, the copy stays. */
export async function takeOver(bed: FleetBed): Promise<void> {
  const [copy] = copies(bed)
  for (const [id, assignments] of [...bed.state.snapshot.all('assignments')]) {
    const instances = assignments.instances.filter((record) => record.id !== copy?.replaces)
    await bed.state.commit(bed.state.change().put('assignments', id, { ...assignments, instances }))
  }
}

/** Heavy in memory only, and moved without waiting. */
function serviceSpec(memoryBytes: number): ServiceSpec {
  return aServiceSpec({
    specHash: SPEC_HASH,
    unit: aUnitSpec({
      runtime: 'process',
      ports: [],
      reservations: { cpuMillis: 100, memoryBytes },
      stopGraceMs: 1000,
      drainMs: 1000,
      load: [],
    }),
    update: anUpdate({ monitorMs: 0, progressDeadlineMs: 1000 }),
  })
}

function fleetObserved() {
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
      nodes.set(id, aNodeObservation({ nodeId: id, connected: liveness === 'live', liveness }))
      for (const listener of listeners) listener({ nodes: new Set([id]), instances: new Set(), useOnly: false })
    },
  }
  return observed
}
