/**
 * Placement on one core: instances per second at 500, 5,000 and 50,000 nodes, the time of a single placement in a full cluster,
 * and how good the places are: machines used against the lower bound, and how evenly instances are spread.
 */
import { planPlacement } from '../../coordinator/placement/plan-placement.ts'
import { assumedNode } from '../../coordinator/placement/plan-offline.ts'
import type { PlacementRequest } from '../../coordinator/placement/model.ts'
import {
  demandingRequest,
  drawFrom,
  fullCluster,
  type Item,
  mixedNodes,
  mixedRequests,
  PACKING_MIXES,
  PLAIN_RULES,
} from './placement-mixes.ts'
import type { BenchResult } from './result.ts'
import { median, quantile, spread } from './statistics.ts'

const ROUNDS = 3
/** Nodes → instances: twenty per node; at 50,000 nodes as many as at 5,000, two per node, which keeps the run short. */
const SIZES = [
  { nodes: 500, instances: 10_000, target: null },
  { nodes: 5_000, instances: 100_000, target: 20_000 },
  { nodes: 50_000, instances: 100_000, target: null },
] as const
const SINGLES = 1_000
const WHOLE = 1_000_000

export async function benchPlacement(): Promise<readonly BenchResult[]> {
  return [...SIZES.map(speed), singleReplicas(), single(), ...Object.keys(PACKING_MIXES).map(packing), ...spreading()]
}

function speed({ nodes, instances, target }: (typeof SIZES)[number]): BenchResult {
  const cluster = mixedNodes(nodes, 1)
  const requests = mixedRequests(instances, 2)
  const services = new Set(requests.map((request) => request.service)).size
  const wall: number[] = []
  const cpu: number[] = []
  let refused = 0
  for (let round = 0; round < ROUNDS; round += 1) {
    const timed = time(() => planPlacement({ nodes: cluster, requests }))
    refused = timed.value.refusals.length
    wall.push(instances / timed.wallS)
    cpu.push(instances / timed.cpuS)
  }
  return figure(`placement.instances_per_s_${nodes}_nodes`, median(wall), '1/s', 'higher', target, {
    peer: `${instances} instances of ${services} services, ${refused} refused; wall ${spread(wall, 0)}, per CPU second ${spread(cpu, 0)}`,
  })
}

/** The worst of mixes: every service has one replica, no two are charged alike. */
function singleReplicas(): BenchResult {
  const cluster = mixedNodes(5_000, 1)
  const requests = Array.from({ length: 20_000 }, (_, index): PlacementRequest => {
    const [request] = mixedRequests(1, index) as [PlacementRequest]
    return { ...request, id: `a/s${index}/1/1`, service: `a/s${index}`, group: `a/s${index}` }
  })
  const runs = Array.from({ length: ROUNDS }, () => time(() => planPlacement({ nodes: cluster, requests })))
  const wall = runs.map((run) => requests.length / run.wallS)
  const cpu = runs.map((run) => requests.length / run.cpuS)
  return figure('placement.instances_per_s_single_replicas', median(wall), '1/s', 'higher', null, {
    peer: `20000 services of 1 on 5000 nodes; wall ${spread(wall, 0)}, per CPU second ${spread(cpu, 0)}`,
  })
}

function single(): BenchResult {
  const cluster = fullCluster(3)
  const took: number[] = []
  let placed = 0
  for (let number = 0; number < SINGLES; number += 1) {
    const timed = time(() => planPlacement({ nodes: cluster, requests: [demandingRequest(number, 4)] }))
    placed += timed.value.assignments.length
    if (number >= SINGLES / 10) took.push(timed.wallS * 1000)
  }
  if (placed === 0) throw new Error('nothing was placed in the full cluster')
  return figure('placement.p99_ms_1000_nodes', quantile(took, 0.99), 'ms', 'lower', 400, {
    peer: `p50 ${quantile(took, 0.5).toFixed(2)} ms, the index built anew each time; ${placed} of ${SINGLES} placed; anchor: 400 ms, classic Swarm`,
  })
}

function packing(name: string): BenchResult {
  const waste: number[] = []
  let detail = ''
  for (let seed = 1; seed <= ROUNDS; seed += 1) {
    const draw = drawFrom(seed)
    const items = Array.from({ length: 2_000 }, () => PACKING_MIXES[name]?.(draw) as Item)
    const capacity = { cpuMillis: WHOLE, memoryBytes: WHOLE, diskBytes: 0, slots: 100_000 }
    const nodes = items.map((_, index) => assumedNode(`n${index}`, capacity))
    const requests = items.map((item, index) => plain(`p/s${index}`, item, 'binpack'))
    const plan = planPlacement({ nodes, requests })
    if (plan.refusals.length > 0) throw new Error(`${name}: an item found no node though there is one for each`)
    const used = new Set(plan.assignments.map((assignment) => assignment.node)).size
    const sum = (pick: (item: Item) => number) => items.reduce((total, item) => total + Math.floor(pick(item) * WHOLE), 0) / WHOLE
    const bound = Math.ceil(
      Math.max(
        sum((item) => item.cpu),
        sum((item) => item.memory),
      ),
    )
    waste.push(100 * (used / bound - 1))
    detail = `${used} machines, at least ${bound} needed`
  }
  return figure(`placement.packing_waste_percent_${name.replace('-', '_')}`, median(waste), '%', 'lower', null, {
    peer: `${spread(waste)}; last: ${detail}`,
  })
}

/** Services of 1 to 60 replicas over four zones of unequal size, and how evenly the nodes end up. */
function spreading(): readonly BenchResult[] {
  const draw = drawFrom(5)
  const capacity = { cpuMillis: WHOLE, memoryBytes: WHOLE, diskBytes: 0, slots: 100_000 }
  const zones = ['a', 'a', 'a', 'a', 'b', 'b', 'b', 'c', 'c', 'd']
  const nodes = Array.from({ length: 500 }, (_, index) => assumedNode(`n${index}`, capacity, { zone: draw.pick(zones) }))
  const requests: PlacementRequest[] = []
  for (let service = 0; service < 400; service += 1) {
    const item = { cpu: draw.pareto(0.01, 1.5, 0.1), memory: draw.pareto(0.01, 1.5, 0.1) }
    const replicas = draw.between(1, 60)
    for (let slot = 0; slot < replicas; slot += 1) {
      const request = plain(`p/s${service}`, item, 'spread')
      const overZones = service % 2 === 0 ? { ...request.rules, spreadOver: ['node.zone'] } : request.rules
      requests.push({ ...request, id: `p/s${service}/${slot + 1}/1`, rules: overZones })
    }
  }
  const plan = planPlacement({ nodes, requests })
  const byId = new Map(nodes.map((node) => [node.id, node]))
  const perZone = new Map<string, Map<string, number>>()
  const load = new Map(nodes.map((node) => [node.id, { cpu: 0, memory: 0 }]))
  for (const { request, node } of plan.assignments) {
    const zone = byId.get(node)?.zone ?? ''
    if (request.rules.spreadOver.length > 0) {
      const counts = perZone.get(request.service) ?? new Map(['a', 'b', 'c', 'd'].map((each) => [each, 0]))
      counts.set(zone, (counts.get(zone) ?? 0) + 1)
      perZone.set(request.service, counts)
    }
    const here = load.get(node)
    if (here) {
      here.cpu += request.charge.cpuMillis
      here.memory += request.charge.memoryBytes
    }
  }
  const skews = [...perZone.values()].map((counts) => Math.max(...counts.values()) - Math.min(...counts.values()))
  const fills = [...load.values()].map((here) => (100 * Math.max(here.cpu, here.memory)) / WHOLE)
  const mean = fills.reduce((sum, fill) => sum + fill, 0) / fills.length
  return [
    figure('placement.zone_skew_max', Math.max(...skews), 'instances', 'lower', 1, {
      peer: `${skews.length} services over 4 zones of unequal size, ${plan.refusals.length} refused`,
    }),
    figure('placement.spread_imbalance_percent', Math.max(...fills) - mean, '% of a node', 'lower', null, {
      peer: `fullest ${Math.max(...fills).toFixed(1)} %, mean ${mean.toFixed(1)} %, emptiest ${Math.min(...fills).toFixed(1)} %; half of the services over zones of unequal size`,
    }),
  ]
}

function plain(service: string, item: Item, strategy: 'spread' | 'binpack'): PlacementRequest {
  return {
    id: `${service}/1/1`,
    service,
    group: service,
    charge: { cpuMillis: Math.floor(item.cpu * WHOLE), memoryBytes: Math.floor(item.memory * WHOLE), diskBytes: 0 },
    rules: { ...PLAIN_RULES, strategy },
    hostPorts: [],
    runtime: 'docker',
    images: [],
    volumes: [],
    home: null,
    near: [],
    avoid: [],
    affinityRequired: false,
    global: false,
  }
}

function time<T>(work: () => T): { value: T; wallS: number; cpuS: number } {
  const cpu = process.cpuUsage()
  const startedAt = performance.now()
  const value = work()
  const wallS = (performance.now() - startedAt) / 1000
  const { user, system } = process.cpuUsage(cpu)
  return { value, wallS, cpuS: (user + system) / 1e6 }
}

function figure(
  name: string,
  value: number,
  unit: string,
  better: BenchResult['better'],
  target: number | null,
  { peer }: { peer: string },
): BenchResult {
  return { name, value, unit, better, target, peer, ratio: null }
}
