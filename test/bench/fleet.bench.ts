/** What the fleet's plans cost the coordinator's one thread on a large cluster where nothing can be done: the longest that heartbeats wait for them. */
import { DEFAULT_FLEET_CONFIG } from '../../coordinator/fleet/config.ts'
import { planCapacity } from '../../coordinator/fleet/plan-capacity.ts'
import { planConsolidation } from '../../coordinator/fleet/plan-consolidation.ts'
import { planRebalance } from '../../coordinator/fleet/plan-rebalance.ts'
import { DEFAULT_WEIGHTS, type PlacementRequest } from '../../coordinator/placement/model.ts'
import { aMachineRecord, aPool } from '../builders/records.ts'
import { aRequest } from '../builders/requests.ts'
import { aPlacement } from '../builders/specs.ts'
import { mixedNodes } from './placement-mixes.ts'
import type { BenchResult } from './result.ts'
import { median, spread } from './statistics.ts'

const NODES = 5_000
const PER_NODE = 20
const CPU_MILLIS = 380
const ROUNDS = 9

export function benchFleet(): readonly BenchResult[] {
  const now = 1e9
  const capacity = { cpuMillis: 8_000, memoryBytes: 32 * 2 ** 30, diskBytes: 2 ** 40, slots: 110 }
  const nodes = mixedNodes(NODES, 1).map((node, index) => ({
    ...node,
    closed: null,
    taints: [],
    pool: 'large',
    capacity,
    free: { ...capacity, cpuMillis: capacity.cpuMillis - PER_NODE * CPU_MILLIS, slots: capacity.slots - PER_NODE },
    services: new Map(Array.from({ length: PER_NODE }, (_, slot) => [serviceOf(index, slot), 1] as const)),
  }))
  const pool = aPool({ name: 'large', max: 100_000, capacity })
  const machines = nodes.map(({ id }) => aMachineRecord({ id: `m-${id}`, pool: 'large', phase: 'joined', nodeId: id }))
  const machineOf = new Map(nodes.map(({ id }, index) => [id, machines[index]]))
  const runsOn = new Map(
    nodes.map(({ id }, index) => [id, Array.from({ length: PER_NODE }, (_, slot) => instanceOf(index, slot))]),
  )
  const common = { machines, pools: [pool] }
  let tried: ReadonlySet<string> = new Set()
  const giveBack = () => {
    const plan = planConsolidation(
      {
        ...common,
        nodes,
        requestsOn: (id) => runsOn.get(id) ?? [],
        keepsData: new Set(),
        machineOf: (id) => machineOf.get(id),
        hold: null,
        overBudget: null,
        ghosts: [],
        room: 1,
        tried,
        minNodeAgeMs: 0,
        headroomPercent: 10,
        minSavingsRatio: 0.5,
      },
      now,
    )
    if (plan.actions.length > 0) throw new Error('a node of the full cluster was given back')
    tried = plan.tried
  }
  const joined = { ...first(nodes), id: 'n-joined', taints: ['gpu'], free: capacity, services: new Map<string, number>() }
  const rules = aPlacement({ spreadOver: ['node.zone'] })
  const spreadOn = new Map([...runsOn].map(([id, requests]) => [id, requests.map((request) => ({ ...request, rules }))]))
  let asked: ReadonlySet<string> = new Set()
  const evenOut = () => {
    const plan = planRebalance(
      {
        nodes: [...nodes, joined],
        joinedAtMsOf: (id) => (id === joined.id ? now - 60_000 : 0),
        movableOn: (id) => spreadOn.get(id) ?? [],
        hold: () => null,
        movedAtMs: [],
        weights: DEFAULT_WEIGHTS,
        tried: asked,
        config: DEFAULT_FLEET_CONFIG,
      },
      now,
    )
    if (plan.actions.length > 0) throw new Error('an instance moved onto a node whose taint it does not tolerate')
    asked = plan.tried
  }
  const buyNothing = () =>
    planCapacity({
      ...common,
      refused: [],
      nodes,
      reclaimable: [],
      handJoined: new Map(),
      cooling: new Map(),
      providers: new Set(['fake']),
      config: DEFAULT_FLEET_CONFIG,
      nowMs: now,
    })
  return [
    figure(`fleet.consolidation_ms_${NODES}_full_nodes`, cpuMsOf(giveBack), `${NODES * PER_NODE} instances, none fits elsewhere`),
    figure(
      `fleet.rebalance_ms_${NODES}_full_nodes`,
      cpuMsOf(evenOut),
      'spread over zones; one empty node joined, none may move there',
    ),
    figure(`fleet.capacity_ms_${NODES}_nodes`, cpuMsOf(buyNothing), 'nothing waits, nothing is expected'),
  ]
}

function first<T>([item]: readonly T[]): T {
  return item as T
}

function serviceOf(node: number, slot: number): string {
  return `a/s${(node * 7 + slot * 13) % 1000}`
}

function instanceOf(node: number, slot: number): PlacementRequest {
  const charge = { cpuMillis: CPU_MILLIS, memoryBytes: 2 ** 28, diskBytes: 0 }
  return aRequest(`${serviceOf(node, slot)}/${node * PER_NODE + slot + 1}/1`, { charge })
}

function cpuMsOf(work: () => unknown): readonly number[] {
  return Array.from({ length: ROUNDS }, () => {
    const before = process.cpuUsage()
    work()
    const { user, system } = process.cpuUsage(before)
    return (user + system) / 1000
  })
}

function figure(name: string, runs: readonly number[], what: string): BenchResult {
  const peer = `CPU time of one pass, ${spread(runs)}; ${what}`
  return { name, value: median(runs), unit: 'ms', better: 'lower', target: null, peer, ratio: null }
}
