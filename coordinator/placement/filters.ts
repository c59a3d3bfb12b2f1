/**
 * Why did it not fit? Every rule that keeps an instance off a node, in the order in which they are asked: cheap ones and those
 * that never change during a plan first. Each answers null, or the label under which the node is counted. Pure.
 */
import type { Constraint } from '../../shared/model/app.ts'
import type { ServiceId } from '../../shared/model/identity.ts'
import type { Capacity } from '../../shared/model/resources.ts'
import type { Charge, PlacementNode, PlacementRequest } from './model.ts'

/** What has been decided for a node earlier in the same plan, on top of what it was. */
export interface NodeTally {
  readonly node: PlacementNode
  cpuMillis: number
  memoryBytes: number
  diskBytes: number
  slots: number
  services: Map<ServiceId, number> | null
  hostPorts: Set<string> | null
  repels: Set<ServiceId> | null
}

/** Where volumes are, over all nodes: `app/volume` → node → services that mount it there. */
export type VolumePlaces = ReadonlyMap<string, ReadonlyMap<string, ReadonlySet<ServiceId>>>

export type StaticFilter = (request: PlacementRequest, node: PlacementNode) => string | null
export type TallyFilter = (request: PlacementRequest, tally: NodeTally, volumes: VolumePlaces) => string | null

/** Filters whose answer is the same throughout a plan. They read only the fields named in `staticKeyOf`. */
export const STATIC_FILTERS: readonly StaticFilter[] = [
  (_request, node) => node.closed,
  (request, node) => (node.runtimes.includes(request.runtime) ? null : `without runtime ${request.runtime}`),
  (request, node) => {
    const { pools } = request.rules
    return pools.length === 0 || (node.pool !== null && pools.includes(node.pool)) ? null : `pool ${pools.join('|')}`
  },
  (request, node) => {
    const { platform } = request.rules
    return platform === null || samePlatform(platform, node.platform) ? null : `platform ${platform}`
  },
  (request, node) => {
    for (const constraint of request.rules.constraints)
      if (!constraintHolds(constraint, node)) return `constraint ${constraint.attribute}${constraint.operator}${constraint.value}`
    return null
  },
  (request, node) => {
    for (const taint of node.taints) if (!request.rules.tolerates.includes(taint)) return `taint ${taint}`
    return null
  },
]

/** The first resource that the node lacks for the charge; null when it has room. */
export function shortOf(charge: Charge, tally: Capacity): 'slots' | 'memory' | 'cpu' | 'disk' | null {
  if (tally.slots < 1) return 'slots'
  if (tally.memoryBytes < charge.memoryBytes) return 'memory'
  if (tally.cpuMillis < charge.cpuMillis) return 'cpu'
  return tally.diskBytes < charge.diskBytes ? 'disk' : null
}

/** Filters that depend on what else was placed. */
export const TALLY_FILTERS: readonly TallyFilter[] = [
  (request, tally) => shortOf(request.charge, tally),
  (request, tally) => {
    for (const port of request.hostPorts)
      if (tally.node.hostPorts.has(port) || tally.hostPorts?.has(port)) return `host port ${port}`
    return null
  },
  (request, tally) => {
    const limit = request.rules.maxPerNode
    return limit !== null && countOf(tally, request.service) >= limit ? `max ${limit} per node` : null
  },
  (request, tally) => {
    if (request.affinityRequired) {
      for (const other of request.avoid) if (countOf(tally, other) > 0) return `anti-affinity ${other}`
      for (const other of request.near) if (countOf(tally, other) === 0) return `affinity ${other}`
    }
    // Required anti-affinity holds both ways, whoever came first.
    const repelled = tally.node.repels.has(request.service) || tally.repels?.has(request.service)
    return repelled ? 'anti-affinity of a neighbour' : null
  },
  (request, tally, volumes) => {
    if (request.home !== null && request.home !== tally.node.id) return `volume on ${request.home}`
    for (const volume of request.volumes) {
      const places = volumes.get(volume)
      if (places === undefined || places.has(tally.node.id)) continue
      // Services that share a volume share a node; replicas of one service have a volume each.
      for (const [nodeId, services] of places)
        for (const service of services) if (service !== request.service) return `volume ${volume} on ${nodeId}`
    }
    return null
  },
]

/** The label of the first filter that turns the request away from the node as it is, or null when it may go there for good. */
export function firstStaticRejection(request: PlacementRequest, node: PlacementNode): string | null {
  for (const filter of STATIC_FILTERS) {
    const label = filter(request, node)
    if (label !== null) return label
  }
  return null
}

export function firstTallyRejection(request: PlacementRequest, tally: NodeTally, volumes: VolumePlaces): string | null {
  for (const filter of TALLY_FILTERS) {
    const label = filter(request, tally, volumes)
    if (label !== null) return label
  }
  return null
}

/** Requests with equal keys get equal answers from every static filter. */
export function staticKeyOf(request: PlacementRequest): string {
  const { pools, platform, constraints, tolerates } = request.rules
  return JSON.stringify([request.runtime, pools, platform, constraints, tolerates])
}

/** Instances of a service on a node, with those placed earlier in this plan. */
export function countOf(tally: NodeTally, service: ServiceId): number {
  return (tally.node.services.get(service) ?? 0) + (tally.services?.get(service) ?? 0)
}

/** What constraints can ask of a node. */
export type AttributedNode = Pick<
  PlacementNode,
  'id' | 'hostname' | 'labels' | 'engineLabels' | 'platform' | 'pool' | 'provider' | 'zone'
>

/**
 * The value of a placement attribute, or undefined when the node has none. `node.role` is always `worker`: the coordinator is
 * no node, so what asks for a manager finds none.
 */
export function attributeOf(node: AttributedNode, attribute: string): string | undefined {
  switch (attribute) {
    case 'node.id':
      return node.id
    case 'node.hostname':
      return node.hostname
    case 'node.pool':
      return node.pool ?? undefined
    case 'node.provider':
      return node.provider ?? undefined
    case 'node.zone':
      return node.zone ?? undefined
    case 'node.role':
      return 'worker'
    case 'node.platform.os':
      return platformParts(node.platform).os
    case 'node.platform.arch':
      return platformParts(node.platform).arch
  }
  if (attribute.startsWith('node.labels.')) return ownValue(node.labels, attribute.slice('node.labels.'.length))
  if (attribute.startsWith('engine.labels.')) return ownValue(node.engineLabels, attribute.slice('engine.labels.'.length))
  return undefined
}

/** As in Swarm: values compare without regard to case; what is absent equals nothing. */
export function constraintHolds(constraint: Constraint, node: AttributedNode): boolean {
  const value = attributeOf(node, constraint.attribute)
  const equal = value !== undefined && value.toLowerCase() === constraint.value.toLowerCase()
  return constraint.operator === '==' ? equal : !equal
}

const ARCHITECTURES: Readonly<Record<string, string>> = { x86_64: 'amd64', x64: 'amd64', aarch64: 'arm64' }

function platformParts(platform: string): { os: string; arch: string } {
  const [os = '', arch = ''] = platform.toLowerCase().split('/')
  return { os, arch: ARCHITECTURES[arch] ?? arch }
}

/** Variants (`linux/arm64/v8`) are not told apart; a wanted platform without architecture fits any. */
export function samePlatform(wanted: string, offered: string): boolean {
  const a = platformParts(wanted)
  const b = platformParts(offered)
  return a.os === b.os && (a.arch === '' || a.arch === b.arch)
}

function ownValue(record: Readonly<Record<string, string>>, key: string): string | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined
}
