/**
 * Clusters and workloads for the placement benchmark, made from a seed: equal on every machine. Shapes, not data: the file
 * holds no trace.
 */
import type { PlacementRules } from '../../shared/model/app.ts'
import type { PlacementNode, PlacementRequest } from '../../coordinator/placement/model.ts'
import { assumedNode } from '../../coordinator/placement/plan-offline.ts'
import { seededRandom } from '../../shared/random.ts'

const GIB = 2 ** 30
const MIB = 2 ** 20

export const PLAIN_RULES: PlacementRules = {
  constraints: [],
  spreadOver: [],
  maxPerNode: null,
  affinity: null,
  tolerates: [],
  pools: [],
  strategy: null,
  platform: null,
  priority: 50,
}

export interface Draw {
  unit(): number
  /** Whole, from `min` to `max`. */
  between(min: number, max: number): number
  pick<T>(items: readonly T[]): T
  /** Pareto from `min`: most are near it, few are far above. */
  pareto(min: number, alpha: number, max: number): number
}

export function drawFrom(seed: number): Draw {
  const random = seededRandom(seed)
  const unit = () => random.next()
  return {
    unit,
    between: (min, max) => min + Math.floor(unit() * (max - min + 1)),
    pick: (items) => items[Math.floor(unit() * items.length)] as (typeof items)[number],
    pareto: (min, alpha, max) => Math.min(max, min / (1 - unit()) ** (1 / alpha)),
  }
}

const ZONES = ['z1', 'z2', 'z3', 'z4', 'z5', 'z6', 'z7', 'z8']
/** vCPU and GiB of the nodes: common sizes of clouds. */
const SIZES = [
  { cpuMillis: 8_000, memoryBytes: 32 * GIB },
  { cpuMillis: 16_000, memoryBytes: 64 * GIB },
  { cpuMillis: 16_000, memoryBytes: 32 * GIB },
  { cpuMillis: 32_000, memoryBytes: 128 * GIB },
]

/** Three pools, eight zones, four sizes, half with ssd, 4 % tainted, 2 % cordoned; memory as machines report it: never twice the same. */
export function mixedNodes(count: number, seed: number): PlacementNode[] {
  const draw = drawFrom(seed)
  return Array.from({ length: count }, (_, index) => {
    const size = draw.pick(SIZES)
    const capacity = { ...size, memoryBytes: size.memoryBytes - draw.between(0, 64) * MIB, diskBytes: 100 * GIB, slots: 110 }
    const unit = draw.unit()
    return assumedNode(`node-${String(index).padStart(6, '0')}`, capacity, {
      labels: { disk: draw.unit() < 0.5 ? 'ssd' : 'hdd', generation: draw.pick(['a', 'b', 'c']) },
      pool: draw.pick(['small', 'large', 'spot']),
      zone: draw.pick(ZONES),
      taints: unit < 0.04 ? ['gpu'] : [],
      closed: unit > 0.98 ? 'cordoned' : null,
    })
  })
}

/** Replicas per service: 60 % have one, 25 % two or three, 10 % four to ten, the rest up to 2,000 (Pareto). */
function replicasOf(draw: Draw): number {
  const unit = draw.unit()
  if (unit < 0.6) return 1
  if (unit < 0.85) return draw.between(2, 3)
  return unit < 0.95 ? draw.between(4, 10) : Math.floor(draw.pareto(11, 0.8, 2000))
}

/**
 * Services with a long tail of sizes. Half of them reserve round amounts, half are charged what they were measured to use (no two
 * alike). 30 % have a constraint, 30 % of those with replicas must not share a node with their like, 15 % prefer not to, 40 % spread
 * over zones, 10 % have a limit per node, 5 % avoid another service, 10 % are packed, 2 % take a host port, 60 % have a sidecar.
 */
export function mixedRequests(count: number, seed: number): PlacementRequest[] {
  const draw = drawFrom(seed)
  const requests: PlacementRequest[] = []
  for (let number = 0; requests.length < count; number += 1)
    requests.push(...serviceRequests(number, Math.min(replicasOf(draw), count - requests.length), draw))
  return requests
}

function serviceRequests(number: number, replicas: number, draw: Draw): PlacementRequest[] {
  const service = `app-${number % 97}/s${number}`
  const several = replicas > 1
  const round = draw.unit() < 0.5
  const charge = {
    cpuMillis: round ? draw.pick([50, 100, 250, 500, 1000]) : Math.floor(draw.pareto(20, 1.2, 4000)),
    memoryBytes: round ? draw.pick([64, 128, 256, 512, 1024, 2048]) * MIB : Math.floor(draw.pareto(40 * MIB, 1.1, 8 * GIB)),
    diskBytes: 0,
  }
  const apart = several ? draw.unit() : 1
  const constraint = draw.unit()
  const rules: PlacementRules = {
    ...PLAIN_RULES,
    constraints:
      constraint < 0.1
        ? [{ attribute: 'node.labels.disk', operator: '==', value: 'ssd' }]
        : constraint < 0.2
          ? [{ attribute: 'node.labels.generation', operator: '!=', value: draw.pick(['a', 'b', 'c']) }]
          : constraint < 0.3
            ? [{ attribute: 'node.pool', operator: '==', value: draw.pick(['small', 'large']) }]
            : [],
    spreadOver: several && draw.unit() < 0.4 ? ['node.zone'] : [],
    maxPerNode: draw.unit() < 0.1 ? draw.between(1, 3) : null,
    strategy: draw.unit() < 0.1 ? 'binpack' : null,
  }
  const avoid = apart < 0.45 ? [service] : draw.unit() < 0.05 ? [`app-${(number + 1) % 97}/s${Math.max(0, number - 97)}`] : []
  const base = {
    service,
    group: `${service}@1@`,
    charge,
    rules,
    hostPorts: draw.unit() < 0.02 ? [`${draw.between(8000, 8020)}/tcp`] : [],
    runtime: 'docker' as const,
    images: draw.unit() < 0.6 ? [`image-${number}`, 'sidecar'] : [`image-${number}`],
    volumes: [],
    home: null,
    near: [],
    avoid,
    affinityRequired: apart < 0.3 || apart === 1,
    global: false,
  }
  return Array.from({ length: replicas }, (_, slot) => ({ ...base, id: `${service}/${slot + 1}/1` }))
}

/** 1,000 nodes with 30 instances each, of which nine in ten have little room left; `near` finds a service on about ten of them. */
export function fullCluster(seed: number): PlacementNode[] {
  const draw = drawFrom(seed)
  return mixedNodes(1000, seed).map((node) => {
    const services = new Map<string, number>()
    while (services.size < 30) services.set(`app/s${draw.between(0, 2999)}`, 1)
    const left = draw.unit() < 0.9 ? draw.between(0, 3) / 100 : draw.between(5, 30) / 100
    const { capacity } = node
    const free = {
      cpuMillis: Math.floor(capacity.cpuMillis * left),
      memoryBytes: Math.floor(capacity.memoryBytes * draw.unit() * 0.2),
      diskBytes: capacity.diskBytes,
      slots: capacity.slots - 30,
    }
    return { ...node, services, free, images: new Set([...services.keys()].map((id) => `image-${id}`)), measuredUse: draw.unit() }
  })
}

/** One instance that prefers a neighbour, keeps away from another and from its like, has a constraint and is spread over zones. */
export function demandingRequest(number: number, seed: number): PlacementRequest {
  const draw = drawFrom(seed * 7919 + number)
  const [base] = serviceRequests(number, 1, draw) as [PlacementRequest]
  const required = draw.unit() < 0.5
  return {
    ...base,
    service: `app/s${draw.between(0, 2999)}`,
    near: [`app/s${draw.between(0, 2999)}`],
    avoid: [`app/s${draw.between(0, 2999)}`],
    affinityRequired: required,
    rules: { ...base.rules, spreadOver: ['node.zone'], strategy: null },
  }
}

/** Amounts in parts of one node, for packing. */
export interface Item {
  readonly cpu: number
  readonly memory: number
}

/**
 * Mixes to pack. `even`: 2–50 % of a node in both. `opposed`: what needs much of one needs little of the other. `long-tail`:
 * Pareto, many at 1 %, few at half a node. `vm-sizes` is real-shaped: cores in the shares that Cortez et al. published for a
 * large public cloud (Resource Central, SOSP 2017: about half of the machines have one core, eight in ten one or two), and
 * memory per core around 1.75 GB, at times four times that; on nodes of 32 cores and 112 GB.
 */
export const PACKING_MIXES: Readonly<Record<string, (draw: Draw) => Item>> = {
  even: (draw) => ({ cpu: 0.02 + 0.48 * draw.unit(), memory: 0.02 + 0.48 * draw.unit() }),
  opposed: (draw) => {
    const size = 0.05 + 0.4 * draw.unit()
    return draw.unit() < 0.5
      ? { cpu: size, memory: 0.45 - 0.9 * (size - 0.05) }
      : { cpu: 0.45 - 0.9 * (size - 0.05), memory: size }
  },
  'long-tail': (draw) => ({ cpu: draw.pareto(0.01, 1.1, 0.5), memory: draw.pareto(0.01, 1.1, 0.5) }),
  'vm-sizes': (draw) => {
    const unit = draw.unit()
    const cores = unit < 0.5 ? 1 : unit < 0.8 ? 2 : unit < 0.93 ? 4 : unit < 0.98 ? 8 : 16
    return { cpu: cores / 32, memory: Math.min(1, (cores * draw.pick([0.75, 1.75, 1.75, 1.75, 3.5, 7])) / 112) }
  },
}
