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
