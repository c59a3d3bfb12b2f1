/**
 * Who has to go so that something more important can run? For instances that fit nowhere and that no machine is bought for in time: the
 * node on which the least is lost, by the least important victims. Nothing is evicted for a difference below
 * PRIORITY_STEP, nothing beyond a service's disruption limit or what the beneficiary's app may still ask of others, and never what
 * cannot simply run elsewhere (strict singletons, holders of local data, one-per-node services). One pass looks at as many nodes as
 * its work allows, and the next goes on after them: the best of hundreds of nodes is good enough, and nothing else waits meanwhile. Pure.
 */
import { compare } from '../../shared/compare.ts'
import { type InstanceId, type NodeId, parseInstanceId, type ServiceId } from '../../shared/model/identity.ts'
import { firstStaticRejection, type VolumePlaces } from './filters.ts'
import type { PlacementNode, PlacementRequest } from './model.ts'
import {
  afterEviction,
  type EvictionTerms,
  type NodeState,
  roomByPriority,
  type Tenant,
  victimsFor,
  withoutStopping,
} from './plan-victims.ts'

/** Least difference of priorities (0–100): neighbours in rank must not push each other about. */
export const PRIORITY_STEP = 10
/** Refused instances helped in one pass; the others are looked at when these have a place. */
export const MAX_HELPED = 20
/** Of so many nodes that can help, the best is taken; the others are not looked at. */
const ENOUGH_OFFERS = 100
/** 10 to 20 ms, in looks at one tenant. */
const WORK_PER_PASS = 20_000
/** What it costs to learn of a tenant, and to find out whether a node is one for a request, in looks at a tenant. */
const TENANT_COST = 5
const NODE_COST = 2

export interface PreemptionInput {
  /** Instances that wait and that nothing else will help. */
  readonly refused: readonly PlacementRequest[]
  readonly nodes: readonly PlacementNode[]
  tenantsOf(node: NodeId): readonly Tenant[]
  /** How many more instances of the service may be out of service now. */
  disruptable(service: ServiceId): number
  /** How many may be evicted for the sake of the app now, with what goes for others in this pass; absent: as many as it takes. */
  allowance?(app: string, evictedForOthers: number): number
  /** The node that the pass before ended with; null: begin with the first. */
  readonly after?: NodeId | null
  readonly maxWork?: number
}

export interface PreemptionPlan {
  /** In the order in which they were decided. */
  readonly evictions: readonly Eviction[]
  /** Those that could be helped, were it not for what their app has taken from others already. */
  readonly held: readonly PlacementRequest[]
  /** The last node looked at, when there are more; null: the next pass begins anew. */
  readonly after: NodeId | null
}

export interface Eviction {
  readonly victim: InstanceId
  readonly service: ServiceId
  readonly node: NodeId
  /** For whose sake. */
  readonly beneficiary: InstanceId
  readonly reason: string
}

interface Offer {
  readonly index: number
  readonly state: NodeState
  readonly victims: readonly Tenant[]
}

/** Equal input gives equal output in any order of its lists. */
export function planPreemption(input: PreemptionInput): PreemptionPlan {
  const nodes = [...input.nodes].sort((a, b) => compare(a.id, b.id))
  const waiting = [...input.refused]
    .sort((a, b) => b.rules.priority - a.rules.priority || compare(a.id, b.id))
    .slice(0, MAX_HELPED)
  const volumes = volumePlaces(nodes)
  const taken = new Map<ServiceId, number>()
  const room = (service: ServiceId) => input.disruptable(service) - (taken.get(service) ?? 0)
  const termsOf = (request: PlacementRequest): EvictionTerms => ({
    mostPriority: request.rules.priority - PRIORITY_STEP,
    room,
    volumes,
  })
  const offerOf = (request: PlacementRequest, state: NodeState, index: number): Offer | null => {
    const victims = victimsFor(request, state, termsOf(request))
    return victims === null ? null : { index, state, victims }
  }
  const { states, offers, after } = gatherOffers(input, nodes, waiting, offerOf)

  const evictions: Eviction[] = []
  const held: PlacementRequest[] = []
  const takenFor = new Map<string, number>()
  for (const request of waiting) {
    const own = offers.get(request.group) ?? []
    const app = parseInstanceId(request.id)?.app ?? ''
    const mine = takenFor.get(app) ?? 0
    const allowed =
      input.allowance === undefined ? Number.POSITIVE_INFINITY : input.allowance(app, evictions.length - mine) - mine
    // What was decided since an offer was made may have changed it: it is made anew when its turn comes.
    let chosen: Offer | null = null
    while (chosen === null && own.length > 0) {
      const best = own.reduce((a, b) => (isLess(b, a) ? b : a))
      const state = states.get(best.index) ?? best.state
      if (state === best.state && hasRoom(best.victims, room)) {
        if (best.victims.length > allowed) break
        chosen = best
      } else {
        const again = offerOf(request, state, best.index)
        own.splice(own.indexOf(best), 1, ...(again === null ? [] : [again]))
      }
    }
    if (chosen === null) {
      if (own.length > 0) held.push(request)
      continue
    }
    states.set(chosen.index, afterEviction(chosen.state, chosen.victims, request))
    takenFor.set(app, mine + chosen.victims.length)
    for (const { id, request: victim } of chosen.victims) {
      taken.set(victim.service, (taken.get(victim.service) ?? 0) + 1)
      evictions.push({
        victim: id,
        service: victim.service,
        node: chosen.state.node.id,
        beneficiary: request.id,
        reason: `evicted: ${request.id} of priority ${request.rules.priority} needs its room, it has ${victim.rules.priority}`,
      })
    }
  }
  return { evictions, held, after }
}

/** Offers of each group from the nodes that the work of this pass allows, from where the pass before ended. */
function gatherOffers(
  input: PreemptionInput,
  nodes: readonly PlacementNode[],
  waiting: readonly PlacementRequest[],
  offerOf: (request: PlacementRequest, state: NodeState, index: number) => Offer | null,
) {
  const groups = new Map<string, PlacementRequest>()
  for (const request of waiting) if (!groups.has(request.group)) groups.set(request.group, request)
  const offers = new Map<string, Offer[]>([...groups.keys()].map((group) => [group, []]))
  const states = new Map<number, NodeState>()
  const first = input.after === null || input.after === undefined ? 0 : nodes.findIndex(({ id }) => id > (input.after ?? ''))
  let work = input.maxWork ?? WORK_PER_PASS
  let last: NodeId | null = null
  for (let index = Math.max(0, first); index < nodes.length; index += 1) {
    if (work <= 0) return { states, offers, after: last }
    const node = nodes[index] as PlacementNode
    last = node.id
    const asking = [...groups.values()].filter(
      (request) =>
        (offers.get(request.group)?.length ?? 0) < ENOUGH_OFFERS &&
        couldHold(node, request) &&
        firstStaticRejection(request, node) === null,
    )
    work -= NODE_COST * groups.size
    if (asking.length === 0) continue
    const tenants = input.tenantsOf(node.id)
    work -= TENANT_COST * tenants.length
    const state = withoutStopping({ node, tenants })
    states.set(index, state)
    const hasRoomFor = roomByPriority(state)
    for (const request of asking) {
      if (!hasRoomFor(request.charge, request.rules.priority - PRIORITY_STEP)) continue
      work -= tenants.length
      const offer = offerOf(request, state, index)
      if (offer !== null) offers.get(request.group)?.push(offer)
    }
  }
  return { states, offers, after: null }
}

/** Whether the node is large enough, were it empty. */
function couldHold({ capacity, free }: PlacementNode, { charge }: PlacementRequest): boolean {
  return (
    Math.max(capacity.memoryBytes, free.memoryBytes) >= charge.memoryBytes &&
    Math.max(capacity.cpuMillis, free.cpuMillis) >= charge.cpuMillis
  )
}

function hasRoom(victims: readonly Tenant[], room: (service: ServiceId) => number): boolean {
  const counts = new Map<ServiceId, number>()
  for (const { request } of victims) counts.set(request.service, (counts.get(request.service) ?? 0) + 1)
  for (const [service, count] of counts) if (count > room(service)) return false
  return true
}

/** The less important the most important victim, the fewer, and the less important together, the better; ties by the node's id. */
function isLess(a: Offer, b: Offer): boolean {
  const first = lossOf(a)
  const second = lossOf(b)
  return (first.highest - second.highest || first.count - second.count || first.sum - second.sum || a.index - b.index) < 0
}

function lossOf({ victims }: Offer) {
  return {
    highest: victims.reduce((max, { request }) => Math.max(max, request.rules.priority), -1),
    count: victims.length,
    sum: victims.reduce((sum, { request }) => sum + request.rules.priority, 0),
  }
}

function volumePlaces(nodes: readonly PlacementNode[]): VolumePlaces {
  const places = new Map<string, Map<NodeId, ReadonlySet<ServiceId>>>()
  for (const node of nodes)
    for (const [volume, services] of node.volumes) {
      const on = places.get(volume) ?? new Map<NodeId, ReadonlySet<ServiceId>>()
      places.set(volume, on.set(node.id, services))
    }
  return places
}
