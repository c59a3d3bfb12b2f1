/**
 * What moves onto a node that has just joined? One instance from the fullest node, when the two are far apart, the move makes
 * them more equal, and the hour's budget of moves is not used up. One move at a time: the next is planned when its effect is
 * seen. Pure. Times are epoch ms.
 */
import { compare } from '../../shared/compare.ts'
import type { InstanceId, NodeId, ServiceId } from '../../shared/model/identity.ts'
import type { Plan, Reason } from '../../shared/plan.ts'
import { zoneValues } from '../placement/board.ts'
import { attributeOf } from '../placement/filters.ts'
import type { PlacementNode, PlacementRequest, ScoreWeights } from '../placement/model.ts'
import { planPlacement } from '../placement/plan-placement.ts'
import { reservedUse } from './plan-consolidation.ts'
import { turnsOf } from './turns.ts'

export interface RebalanceAction {
  readonly kind: 'move'
  readonly instance: InstanceId
  readonly from: NodeId
  readonly to: NodeId
  readonly reason: string
}

export interface RebalanceInput {
  readonly nodes: readonly PlacementNode[]
  readonly joinedAtMsOf: (nodeId: NodeId) => number
  /** Instances on a node that may be moved: ready, of a replicated service, no data, no strict singleton, not moving yet. */
  readonly movableOn: (nodeId: NodeId) => readonly PlacementRequest[]
  /** Why nothing is moved now, or null. Asked only when there is something to even out. */
  readonly hold: () => string | null
  /** When the latest moves began. */
  readonly movedAtMs: readonly number[]
  readonly weights: ScoreWeights
  /** What the pass before answered as `tried`; default none. */
  readonly tried?: ReadonlySet<NodeId>
  readonly config: { readonly rebalanceMovesPerHour: number; readonly rebalanceImbalancePercent: number }
}

export interface RebalancePlan extends Plan<RebalanceAction> {
  /** Nodes that have had their turn to give something away since all of them last had. */
  readonly tried: ReadonlySet<NodeId>
}

const HOUR_MS = 3_600_000
/** A node that has been there for longer fills by placement alone. */
const NEW_FOR_MS = 1_800_000
/** What waited for the node is placed first. */
const SETTLE_MS = 30_000
/** Those that had no turn in a pass have one so much later. */
const NEXT_TURNS_MS = 1_000
/** Asking what may move from a node, as work (turns.ts), per instance there; asking placement about a kind of instance; and looking at one service on one node. */
const WORK_PER_INSTANCE = 0.5
const WORK_PER_GROUP = 5
const WORK_PER_HOST = 0.02

export function planRebalance(input: RebalanceInput, nowMs: number): RebalancePlan {
  const reasons: Reason[] = []
  const before: ReadonlySet<NodeId> = input.tried ?? new Set()
  const nothing = (wakeAtMs: number | null = null, tried = before) => ({ actions: [], reasons, wakeAtMs, tried })
  const { rebalanceMovesPerHour: perHour, rebalanceImbalancePercent: imbalance } = input.config
  if (perHour === 0) return nothing()
  const open = input.nodes.filter((node) => node.closed === null)
  const young = open.filter((node) => nowMs - input.joinedAtMsOf(node.id) < NEW_FOR_MS)
  const target = young.map(withUse).sort(byUse)[0]
  if (!target) return nothing()
  const donors = open
    .map(withUse)
    .filter(({ node, use }) => node.id !== target.node.id && (use - target.use) * 100 >= imbalance)
    .sort((a, b) => -byUse(a, b))
  const fullest = donors[0]
  if (!fullest) return nothing()
  const say = (code: string, text: string) => reasons.push({ subject: target.node.id, code, text })
  const hold = input.hold()
  if (hold !== null) {
    say('rebalance-holds', hold)
    return nothing()
  }
  const settledAtMs = input.joinedAtMsOf(target.node.id) + SETTLE_MS
  if (nowMs < settledAtMs) return nothing(settledAtMs)
  const lately = input.movedAtMs.filter((atMs) => nowMs - atMs < HOUR_MS)
  if (lately.length >= perHour) {
    say('rebalance-budget', `${lately.length} of at most ${perHour} moves in this hour`)
    return nothing(Math.min(...lately) + HOUR_MS)
  }
  const turns = turnsOf(before)
  const populations = populationsOf(input.nodes, (hosts) => turns.spend(hosts * WORK_PER_HOST))
  const fits = fitsOn(target.node, () => turns.spend(WORK_PER_GROUP))
  for (const donor of donors) {
    if (!turns.take(donor.node.id)) continue
    const movable = [...input.movableOn(donor.node.id)].sort(
      (a, b) => shareOf(b, donor.node) - shareOf(a, donor.node) || compare(a.id, b.id),
    )
    turns.spend(WORK_PER_INSTANCE * instancesOn(donor.node))
    for (const request of movable) {
      // Never past the middle: the next pass would move it back.
      if (donor.use - shareOf(request, donor.node) < target.use + shareOf(request, target.node)) continue
      // Even use is not worth what the service asked for: its instances apart, or near to what they need.
      const crowding = (at: PlacementNode) => crowdingOf(request, at, donor.node, populations, input.weights)
      if (crowding(target.node) > crowding(donor.node)) continue
      if (!fits(request)) continue
      const reason = `${donor.node.id} is ${percent(donor.use)} full, ${target.node.id}, which joined, ${percent(target.use)}`
      const action: RebalanceAction = { kind: 'move', instance: request.id, from: donor.node.id, to: target.node.id, reason }
      turns.leaveRest()
      return { actions: [action], reasons, wakeAtMs: null, tried: turns.tried() }
    }
  }
  const tried = turns.tried()
  if (tried.size > 0) {
    say('rebalance-turns', `is emptier than ${fullest.node.id}; of ${donors.length} fuller nodes ${tried.size} were asked so far`)
    return nothing(nowMs + NEXT_TURNS_MS, tried)
  }
  say('rebalance-none', `is emptier than ${fullest.node.id}, but nothing there can move`)
  return nothing(null, tried)
}

/** Instances of the service on nodes with that value of the attribute ('' where it is absent). */
type Populations = (service: ServiceId, attribute: string, value: string) => number

/** Who is where is found out by one walk, when it is first asked. `worked`: on how many nodes it was looked for a service. */
function populationsOf(nodes: readonly PlacementNode[], worked: (hosts: number) => void): Populations {
  let hostsOf: Map<ServiceId, PlacementNode[]> | null = null
  const known = new Map<string, Map<string, number>>()
  const hosts = () => {
    const found = new Map<ServiceId, PlacementNode[]>()
    let seen = 0
    for (const node of nodes)
      for (const service of node.services.keys()) {
        const there = found.get(service)
        if (there) there.push(node)
        else found.set(service, [node])
        seen += 1
      }
    worked(seen)
    return found
  }
  return (service, attribute, value) => {
    const key = `${service}\n${attribute}`
    let counts = known.get(key)
    if (counts === undefined) {
      counts = new Map()
      hostsOf ??= hosts()
      const there = hostsOf.get(service) ?? []
      for (const node of there) {
        const here = attributeOf(node, attribute) ?? ''
        counts.set(here, (counts.get(here) ?? 0) + (node.services.get(service) ?? 0))
      }
      worked(there.length)
      known.set(key, counts)
    }
    return counts.get(value) ?? 0
  }
}

/** Whether placement's own filters let the instance onto the node; its like is asked about once. */
function fitsOn(node: PlacementNode, worked: () => void): (request: PlacementRequest) => boolean {
  const known = new Map<string, boolean>()
  return (request) => {
    let fits = known.get(request.group)
    if (fits === undefined) {
      fits = planPlacement({ requests: [request], nodes: [node] }).refusals.length === 0
      known.set(request.group, fits)
      worked()
    }
    return fits
  }
}

/**
 * What it costs at that node by placement's weights, without the node's use: instances of its service in the same zones and on the node,
 * neighbours that are missing or unwanted. The instance itself, which is still where it comes from, does not count.
 */
function crowdingOf(
  request: PlacementRequest,
  at: PlacementNode,
  from: PlacementNode,
  populations: Populations,
  { service, spreadOver, affinity }: ScoreWeights,
): number {
  const itself = Math.min(1, from.services.get(request.service) ?? 0)
  let cost = service * ((at.services.get(request.service) ?? 0) - (at.id === from.id ? itself : 0))
  const zonesFrom = zoneValues(request, from)
  zoneValues(request, at).forEach((value, level) => {
    const inZone = populations(request.service, request.rules.spreadOver[level] ?? '', value)
    cost += (spreadOver / 2 ** level) * (inZone - (value === zonesFrom[level] ? itself : 0))
  })
  for (const near of request.near) if (near !== request.service && !at.services.has(near)) cost += affinity
  for (const avoid of request.avoid) if (avoid !== request.service && at.services.has(avoid)) cost += affinity
  return cost
}

function instancesOn({ services }: PlacementNode): number {
  let count = 0
  for (const here of services.values()) count += here
  return count
}

/** Reserved share of the node's scarcest resource that the instance takes, 0–1. */
function shareOf({ charge }: PlacementRequest, { capacity }: PlacementNode): number {
  const share = (part: number, whole: number) => (whole > 0 ? part / whole : 0)
  return Math.max(
    share(charge.cpuMillis, capacity.cpuMillis),
    share(charge.memoryBytes, capacity.memoryBytes),
    share(charge.diskBytes, capacity.diskBytes),
  )
}

function withUse(node: PlacementNode): { readonly node: PlacementNode; readonly use: number } {
  return { node, use: reservedUse(node) }
}

function byUse(a: { node: PlacementNode; use: number }, b: { node: PlacementNode; use: number }): number {
  return a.use - b.use || compare(a.node.id, b.node.id)
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`
}
