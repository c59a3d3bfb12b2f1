/**
 * What the nodes cost the instances of one group, and which is the cheapest. Nodes that are like others to the request stay in the
 * tree and are searched; those that are special to it (board.ts), and those it was placed on, are priced one by one. Both are
 * sources of candidates, in one heap per zone, the zones in a heap of their own. All keys are lower bounds, priced anew
 * when they come to the top: within a group costs only rise, but for the node just chosen, and that one is on top. Pure.
 */
import type { Board, ProfileRules } from './board.ts'
import { bulkTally, zoneValues } from './board.ts'
import type { Best, BoxQuery, ProfileSet } from './box-tree.ts'
import { type CostHeap, costHeap } from './cost-heap.ts'
import { type Explanation, explanationOf } from './explain.ts'
import { countOf, firstStaticRejection, firstTallyRejection, type NodeTally } from './filters.ts'
import type { PlacementOptions, PlacementRequest } from './model.ts'
import { nodeCost, stepsOf, strategyOf, zoneSteps } from './scores.ts'

export interface Market {
  /** The cheapest node that takes an instance of the group; -1 when there is none. */
  cheapest(): number
  /** Puts the member on the node that `cheapest` has just answered. After the last member nothing more may be placed. */
  take(member: PlacementRequest, isLast: boolean): void
  /** Why no node takes one more. */
  explain(): Explanation
  /** Puts the board back in order; nothing may be asked afterwards. */
  close(): void
}

interface Zone {
  /** One per attribute of `spreadOver`. */
  readonly values: readonly string[]
  /** Sources by cost without that of the zone. */
  readonly heap: CostHeap
}

/** Stands for all nodes of the zone that are in the tree; other sources are the indexes of nodes. */
const BULK = -1
const BULK_NODE: NodeTally = bulkTally()

export function openMarket(group: PlacementRequest, board: Board, options: PlacementOptions): Market {
  const { tallies, profiles, profileOf } = board
  const strategy = strategyOf(group, options)
  const rules = board.rules(group)
  let request = withoutSelf(group, board)
  let bulkLabel = firstTallyRejection(request, BULK_NODE, board.volumes)
  const special = strategy === 'random' ? new Set(tallies.keys()) : board.special(group, bulkLabel)
  const images = board.imagesFor(group)
  const hidden: number[] = []
  const found: Best = { steps: 0, index: 0 }

  const priceOf = (index: number) => stepsOf(nodeCost(request, tallies[index] as NodeTally, strategy, options))
  const makeQuery = (): BoxQuery => ({
    charge: group.charge,
    packs: strategy === 'binpack',
    absentImages: images.rare,
    images: images.common,
    absentNeighbours: request.affinityRequired ? 0 : request.near.length,
  })
  let query = makeQuery()
  const hide = (index: number) => {
    if (board.hidden[index]) return
    board.hidden[index] = 1
    hidden.push(index)
    board.refresh(index)
  }

  const populations = populationsOf(group, board)
  // Zones in a heap by the cost of their cheapest source, with that of the zone; ties by the node's index.
  const zones: Zone[] = []
  const sets: (ProfileSet | null)[] = []
  const zoneKey: number[] = []
  const zoneTie: number[] = []
  const zoneByName = new Map<string, number>()
  // Sources of all zones: what they are, their cost and the index of their cheapest node.
  const sources: number[] = []
  const key: number[] = []
  const tie: number[] = []

  const penaltyOf = ({ values }: Zone): number => {
    let steps = 0
    for (let level = 0; level < values.length; level += 1)
      steps += zoneSteps(populations[level]?.get(values[level] ?? '') ?? 0, level, options)
    return steps
  }
  const zoneOf = (values: readonly string[]): number => {
    const name = values.join('\n')
    const known = zoneByName.get(name)
    if (known !== undefined) return known
    zones.push({ values, heap: costHeap([], key, tie) })
    sets.push(null)
    zoneByName.set(name, zones.length - 1)
    return zones.length - 1
  }
  const addSource = (zone: number, source: number, steps: number, index: number) => {
    sources.push(source)
    key.push(steps)
    tie.push(index)
    zones[zone]?.heap.push(sources.length - 1)
  }
  const addNode = (index: number): number => {
    const { node } = tallies[index] as NodeTally
    const zone = zoneOf(zoneValues(group, node))
    addSource(zone, index, priceOf(index), index)
    return zone
  }
  const priceZone = (zone: number) => {
    const { heap } = zones[zone] as Zone
    const top = heap.top()
    zoneKey[zone] = top < 0 ? Number.POSITIVE_INFINITY : (key[top] ?? 0) + penaltyOf(zones[zone] as Zone)
    zoneTie[zone] = top < 0 ? Number.POSITIVE_INFINITY : (tie[top] ?? 0)
  }

  const usesTree = bulkLabel === null && strategy !== 'random'
  if (usesTree) {
    for (const index of special) hide(index)
    for (const { values, profiles: members } of rules.zones) {
      const zone = zoneOf(values)
      sets[zone] = members
      addSource(zone, BULK, Number.NEGATIVE_INFINITY, -1)
    }
  }
  for (const index of special) if (mayHold(group, rules, profileOf[index] ?? 0, tallies[index] as NodeTally)) addNode(index)
  for (let zone = 0; zone < zones.length; zone += 1) priceZone(zone)
  const order = costHeap(
    zones.map((_, zone) => zone),
    zoneKey,
    zoneTie,
  )

  /** The cheapest node of the source at present, in `found`; false when it has none, and never will have. */
  const reprice = (source: number, zone: number): boolean => {
    if (source !== BULK) {
      if (firstTallyRejection(request, tallies[source] as NodeTally, board.volumes) !== null) return false
      found.steps = priceOf(source)
      found.index = source
      return true
    }
    const members = sets[zone]
    if (bulkLabel !== null || !members) return false
    found.steps = Number.POSITIVE_INFINITY
    found.index = Number.POSITIVE_INFINITY
    board.tree().search(query, members, found)
    return found.index !== Number.POSITIVE_INFINITY
  }
  /** Prices the zone's sources anew from the top until the top is exact. */
  const settle = (zone: number) => {
    const { heap } = zones[zone] as Zone
    while (heap.size > 0) {
      const top = heap.top()
      if (!reprice(sources[top] ?? 0, zone)) {
        heap.dropTop()
        continue
      }
      if (found.steps === key[top] && found.index === tie[top]) return
      key[top] = found.steps
      tie[top] = found.index
      heap.topChanged()
      if (heap.top() === top) return
    }
  }

  return {
    cheapest() {
      while (order.size > 0) {
        const zone = order.top()
        const keyBefore = zoneKey[zone]
        const tieBefore = zoneTie[zone]
        settle(zone)
        priceZone(zone)
        if ((zones[zone] as Zone).heap.size === 0) {
          order.dropTop()
          continue
        }
        if (keyBefore === zoneKey[zone] && tieBefore === zoneTie[zone]) return zoneTie[zone] ?? -1
        order.topChanged()
        if (order.top() === zone) return zoneTie[zone] ?? -1
      }
      return -1
    },
    take(member, isLast) {
      const zone = order.top()
      const { heap } = zones[zone] as Zone
      const source = heap.top()
      const index = tie[source] ?? 0
      board.take(member, index)
      if (isLast) {
        if (!board.hidden[index]) board.refresh(index)
        return
      }
      zoneValues(group, (tallies[index] as NodeTally).node).forEach((value, level) => {
        const population = populations[level]
        population?.set(value, (population.get(value) ?? 0) + 1)
      })
      if (request !== group) {
        request = group
        query = makeQuery()
        bulkLabel = firstTallyRejection(request, BULK_NODE, board.volumes)
      }
      if (sources[source] === index) {
        board.refresh(index)
        key[source] = priceOf(index)
        heap.topChanged()
      }
      // From now on they are unlike their like: the node, and others of its name if instances are spread over names.
      const apart = group.rules.spreadOver.includes('node.hostname') ? board.namesakes(index) : [index]
      for (const each of usesTree ? apart : []) {
        if (board.hidden[each] || rules.rejections[profileOf[each] ?? 0] !== null) continue
        hide(each)
        // An entry of its own where the zone has one already: a key within the heap must not sink below its place.
        const name = zoneValues(group, (tallies[each] as NodeTally).node).join('\n')
        if (zoneByName.get(name) !== zone) zoneByName.delete(name)
        const own = zones.length
        const added = addNode(each)
        if (added === zone) continue
        priceZone(added)
        if (added === own) order.push(added)
      }
      priceZone(zone)
      order.topChanged()
    },
    explain() {
      const counts = new Map<string, number>()
      const count = (label: string, nodes: number) => {
        if (nodes > 0) counts.set(label, (counts.get(label) ?? 0) + nodes)
      }
      for (const index of special) hide(index)
      const apart = new Int32Array(profiles.length)
      for (const index of hidden) {
        const tally = tallies[index] as NodeTally
        const profile = profileOf[index] ?? 0
        apart[profile] = (apart[profile] ?? 0) + 1
        const label = firstStaticRejection(group, tally.node) ?? firstTallyRejection(request, tally, board.volumes)
        count(label ?? 'not considered', 1)
      }
      rules.rejections.forEach((label, profile) => {
        if (label !== null) count(label, (profiles[profile]?.size ?? 0) - (apart[profile] ?? 0))
      })
      const { room, ...short } = board.shortageTree().shortages(group.charge, rules.open)
      for (const [resource, nodes] of Object.entries(short)) count(resource, nodes)
      count(bulkLabel ?? 'not considered', room)
      return explanationOf(tallies.length, counts)
    },
    close() {
      for (const index of hidden) {
        board.hidden[index] = 0
        board.refresh(index)
      }
    },
  }
}

/** The first instance of a service that wants to be near its own kind has none to be near. */
export function withoutSelf(group: PlacementRequest, board: Pick<Board, 'hosts'>): PlacementRequest {
  const alone = group.near.includes(group.service) && board.hosts(group.service).length === 0
  return alone ? { ...group, near: group.near.filter((service) => service !== group.service) } : group
}

/** Whether the node itself passes the rules: its profile tells, unless the request names nodes. */
function mayHold(request: PlacementRequest, rules: ProfileRules, profile: number, tally: NodeTally): boolean {
  const names = request.rules.constraints.some(({ attribute }) => attribute === 'node.id' || attribute === 'node.hostname')
  return names ? firstStaticRejection(request, tally.node) === null : rules.rejections[profile] === null
}

/** Instances of the service per value of each spread attribute, wherever they are. */
export function populationsOf(request: PlacementRequest, board: Board): readonly Map<string, number>[] {
  const populations = request.rules.spreadOver.map(() => new Map<string, number>())
  if (populations.length === 0) return populations
  for (const index of board.hosts(request.service)) {
    const tally = board.tallies[index] as NodeTally
    const count = countOf(tally, request.service)
    zoneValues(request, tally.node).forEach((value, level) => {
      populations[level]?.set(value, (populations[level]?.get(value) ?? 0) + count)
    })
  }
  return populations
}
