/**
 * Where do waiting instances go? Pure: equal input gives equal output, in any order of requests and nodes.
 *
 * Requests of a group have equal requirements, so one pass over the nodes serves the whole group; filters that cannot change
 * during a plan are asked once per distinct set of requirements. Within a group nodes sit in one heap per zone and the zones
 * in a heap of their own: an assignment changes the cost of its own node and zone only, and a node that once turned the group
 * away stays away, because resources only shrink. An instance therefore costs the logarithm of the number of nodes.
 */
import type { InstanceId, NodeId, ServiceId } from '../../shared/model/identity.ts'
import { type CostHeap, costHeap } from './cost-heap.ts'
import { type Explanation, explanationOf } from './explain.ts'
import { attributeOf, countOf, firstStaticRejection, firstTallyRejection, type NodeTally, staticKeyOf } from './filters.ts'
import { DEFAULT_PLACEMENT_OPTIONS, type PlacementNode, type PlacementOptions, type PlacementRequest } from './model.ts'
import { nodeCost, strategyOf, useWith } from './scores.ts'

export interface PlacementInput {
  readonly requests: readonly PlacementRequest[]
  readonly nodes: readonly PlacementNode[]
  readonly options?: PlacementOptions
}

export interface Assignment {
  readonly instance: InstanceId
  readonly node: NodeId
  readonly request: PlacementRequest
  /** Instances of the same service that were there already. */
  readonly siblings: number
  /** Reserved share of the node's scarcest resource afterwards, 0–1. */
  readonly use: number
}

export interface Refusal {
  readonly instance: InstanceId
  readonly request: PlacementRequest
  readonly explanation: Explanation
}

export interface PlacementPlan {
  readonly assignments: readonly Assignment[]
  readonly refusals: readonly Refusal[]
}

/** Never assigns beyond a node's free resources nor against a filter; assignments of one plan count at once. */
export function planPlacement(input: PlacementInput): PlacementPlan {
  const options = input.options ?? DEFAULT_PLACEMENT_OPTIONS
  const board = openBoard(input.nodes)
  const assignments: Assignment[] = []
  const refusals: Refusal[] = []
  for (const group of groupsInOrder(input.requests)) placeGroup(group, board, options, assignments, refusals)
  return { assignments, refusals }
}

interface Board {
  /** By node id. */
  readonly tallies: readonly NodeTally[]
  /** Per static requirements: nodes that pass, and how many each label turned away. */
  readonly eligible: Map<string, { readonly nodes: readonly number[]; readonly counts: ReadonlyMap<string, number> }>
  readonly volumes: Map<string, Map<NodeId, Set<ServiceId>>>
}

interface Zone {
  readonly levels: readonly string[]
  readonly heap: CostHeap
}

function openBoard(nodes: readonly PlacementNode[]): Board {
  const sorted = [...nodes].sort((a, b) => compare(a.id, b.id))
  const volumes: Board['volumes'] = new Map()
  for (const node of sorted)
    for (const [volume, services] of node.volumes) for (const service of services) noteVolume(volumes, volume, node.id, service)
  const tallies = sorted.map((node): NodeTally => {
    const { cpuMillis, memoryBytes, diskBytes, slots } = node.free
    return { node, cpuMillis, memoryBytes, diskBytes, slots, services: null, hostPorts: null, repels: null }
  })
  return { tallies, eligible: new Map(), volumes }
}

/**
 * Important ones first; those that must be near others after them; then large before small, which packs better; then by key.
 */
function groupsInOrder(requests: readonly PlacementRequest[]): readonly (readonly PlacementRequest[])[] {
  const groups = new Map<string, PlacementRequest[]>()
  for (const request of requests) {
    const group = groups.get(request.group)
    if (group) group.push(request)
    else groups.set(request.group, [request])
  }
  const keyed = [...groups.values()].map((members) => {
    const [first] = members as [PlacementRequest]
    members.sort((a, b) => compare(a.id, b.id))
    return { members, first, size: first.charge.memoryBytes / 2 ** 30 + first.charge.cpuMillis / 1000 }
  })
  keyed.sort(
    (a, b) =>
      b.first.rules.priority - a.first.rules.priority ||
      Math.sign(a.first.near.length) - Math.sign(b.first.near.length) ||
      b.size - a.size ||
      compare(a.first.group, b.first.group),
  )
  return keyed.map(({ members }) => members)
}

function placeGroup(
  group: readonly PlacementRequest[],
  board: Board,
  options: PlacementOptions,
  assignments: Assignment[],
  refusals: Refusal[],
): void {
  const first = withoutSelfAffinity(group[0] as PlacementRequest, board)
  const strategy = strategyOf(first, options)
  const eligible = eligibleFor(first, board)
  const counts = new Map(eligible.counts)
  const reject = (label: string) => counts.set(label, (counts.get(label) ?? 0) + 1)

  const cost = new Float64Array(board.tallies.length)
  const candidates = eligible.nodes.filter((index) => {
    const tally = board.tallies[index] as NodeTally
    const label = firstTallyRejection(first, tally, board.volumes)
    if (label !== null) reject(label)
    else cost[index] = nodeCost(first, tally, strategy, options)
    return label === null
  })
  const zones = zonesOf(first, board, candidates, cost)
  const populations = zonePopulations(first, board)
  const zoneCost = new Float64Array(zones.length)
  const priceZone = (index: number) => {
    const zone = zones[index] as Zone
    let price = zone.heap.size > 0 ? (cost[zone.heap.top()] ?? 0) : Number.POSITIVE_INFINITY
    zone.levels.forEach((value, level) => {
      price += (options.weights.spreadOver / 2 ** level) * (populations[level]?.get(value) ?? 0)
    })
    zoneCost[index] = price
  }
  for (let index = 0; index < zones.length; index += 1) priceZone(index)
  const order = costHeap(
    zones.map((_, index) => index),
    zoneCost,
  )

  let refusal: Explanation | null = null
  let request = first
  for (const member of group) {
    let placed = false
    while (!placed && order.size > 0) {
      const zoneIndex = order.top()
      const { heap, levels } = zones[zoneIndex] as Zone
      const nodeIndex = heap.top()
      if (nodeIndex < 0) {
        order.dropTop()
        continue
      }
      const tally = board.tallies[nodeIndex] as NodeTally
      const label = firstTallyRejection(request, tally, board.volumes)
      if (label !== null) {
        reject(label)
        heap.dropTop()
        priceZone(zoneIndex)
        order.topChanged()
        continue
      }
      const siblings = countOf(tally, first.service)
      const use = useWith(first, tally)
      take(member, tally, board)
      assignments.push({ instance: member.id, node: tally.node.id, request: member, siblings, use })
      placed = true
      request = group[0] as PlacementRequest // from the second on, affinity to the service itself can be kept
      cost[nodeIndex] = nodeCost(first, tally, strategy, options)
      heap.topChanged()
      levels.forEach((value, level) => {
        const population = populations[level]
        population?.set(value, (population.get(value) ?? 0) + 1)
      })
      if (levels.length > 1) {
        for (let index = 0; index < zones.length; index += 1) priceZone(index)
        order.rebuild()
      } else {
        priceZone(zoneIndex)
        order.topChanged()
      }
    }
    if (placed) continue
    refusal ??= explanationOf(board.tallies.length, counts)
    refusals.push({ instance: member.id, request: member, explanation: refusal })
  }
}

/** The first instance of a service that wants to be near its own kind has none to be near. */
function withoutSelfAffinity(request: PlacementRequest, board: Board): PlacementRequest {
  if (!request.near.includes(request.service)) return request
  if (board.tallies.some((tally) => countOf(tally, request.service) > 0)) return request
  return { ...request, near: request.near.filter((service) => service !== request.service) }
}

function eligibleFor(request: PlacementRequest, board: Board) {
  const key = staticKeyOf(request)
  const known = board.eligible.get(key)
  if (known) return known
  const nodes: number[] = []
  const counts = new Map<string, number>()
  board.tallies.forEach((tally, index) => {
    const label = firstStaticRejection(request, tally.node)
    if (label === null) nodes.push(index)
    else counts.set(label, (counts.get(label) ?? 0) + 1)
  })
  const found = { nodes, counts }
  board.eligible.set(key, found)
  return found
}

function zonesOf(request: PlacementRequest, board: Board, candidates: number[], cost: Float64Array): readonly Zone[] {
  const attributes = request.rules.spreadOver
  if (attributes.length === 0) return [{ levels: [], heap: costHeap(candidates, cost) }]
  const byKey = new Map<string, { levels: string[]; items: number[] }>()
  for (const index of candidates) {
    const levels = attributes.map((attribute) => attributeOf((board.tallies[index] as NodeTally).node, attribute) ?? '')
    const key = levels.join('\n')
    const zone = byKey.get(key)
    if (zone) zone.items.push(index)
    else byKey.set(key, { levels, items: [index] })
  }
  return [...byKey.values()].map(({ levels, items }) => ({ levels, heap: costHeap(items, cost) }))
}

/** Instances of the service per value of each spread attribute, wherever they are. */
function zonePopulations(request: PlacementRequest, board: Board): readonly Map<string, number>[] {
  return request.rules.spreadOver.map((attribute) => {
    const population = new Map<string, number>()
    for (const tally of board.tallies) {
      const count = countOf(tally, request.service)
      if (count === 0) continue
      const value = attributeOf(tally.node, attribute) ?? ''
      population.set(value, (population.get(value) ?? 0) + count)
    }
    return population
  })
}

function take(request: PlacementRequest, tally: NodeTally, board: Board): void {
  tally.cpuMillis -= request.charge.cpuMillis
  tally.memoryBytes -= request.charge.memoryBytes
  tally.diskBytes -= request.charge.diskBytes
  tally.slots -= 1
  tally.services ??= new Map()
  tally.services.set(request.service, (tally.services.get(request.service) ?? 0) + 1)
  for (const port of request.hostPorts) {
    tally.hostPorts ??= new Set()
    tally.hostPorts.add(port)
  }
  if (request.affinityRequired)
    for (const other of request.avoid) {
      tally.repels ??= new Set()
      tally.repels.add(other)
    }
  for (const volume of request.volumes) noteVolume(board.volumes, volume, tally.node.id, request.service)
}

function noteVolume(volumes: Board['volumes'], volume: string, node: NodeId, service: ServiceId): void {
  let places = volumes.get(volume)
  if (!places) {
    places = new Map()
    volumes.set(volume, places)
  }
  const services = places.get(node)
  if (services) services.add(service)
  else places.set(node, new Set([service]))
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
