/**
 * Who has to go so that something more important can run? For instances that fit nowhere and that no machine is bought for in time: the
 * node on which the least is lost, by the least important victims. Nothing is evicted for a difference below
 * PRIORITY_STEP, nothing beyond a service's disruption limit, and never what cannot simply run elsewhere (strict singletons,
 * holders of local data, one-per-node services). Pure.
 */
import type { InstanceId, NodeId, ServiceId } from '../../shared/model/identity.ts'
import { compare } from '../../shared/compare.ts'
import { firstStaticRejection, firstTallyRejection, type NodeTally, type VolumePlaces } from './filters.ts'
import type { PlacementNode, PlacementRequest } from './model.ts'

/** Least difference of priorities (0–100): neighbours in rank must not push each other about. */
export const PRIORITY_STEP = 10
/** Refused instances helped in one pass; the others are looked at when these have a place. */
export const MAX_HELPED = 20

export interface Tenant {
  readonly id: InstanceId
  readonly request: PlacementRequest
  /** On its way out already: its room is as good as free. */
  readonly stopping: boolean
  /** May not be evicted whatever asks for its room. */
  readonly isProtected: boolean
}

export interface PreemptionInput {
  /** Instances that wait and that nothing else will help. */
  readonly refused: readonly PlacementRequest[]
  readonly nodes: readonly PlacementNode[]
  tenantsOf(node: NodeId): readonly Tenant[]
  /** How many more instances of the service may be out of service now. */
  disruptable(service: ServiceId): number
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
  readonly victims: readonly Tenant[]
  /** Node as it would be without the victims and with the beneficiary. */
  readonly after: NodeState
}

interface NodeState {
  readonly node: PlacementNode
  readonly tenants: readonly Tenant[]
}

/** Evictions in the order in which they were decided; equal input gives equal output in any order of its lists. */
export function planPreemption(input: PreemptionInput): readonly Eviction[] {
  const evictions: Eviction[] = []
  const taken = new Map<ServiceId, number>()
  const volumes = volumePlaces(input.nodes)
  const states = [...input.nodes]
    .sort((a, b) => compare(a.id, b.id))
    .map((node): NodeState => withoutTenants({ node, tenants: input.tenantsOf(node.id) }, (tenant) => tenant.stopping))
  const waiting = [...input.refused].sort((a, b) => b.rules.priority - a.rules.priority || compare(a.id, b.id))
  const hopeless = new Set<string>()
  for (const request of waiting.slice(0, MAX_HELPED)) {
    if (hopeless.has(request.group)) continue
    const mayGo = (tenant: Tenant) =>
      !tenant.isProtected && tenant.request.rules.priority <= request.rules.priority - PRIORITY_STEP
    const room = (service: ServiceId) => input.disruptable(service) - (taken.get(service) ?? 0)
    let best: Offer | null = null
    states.forEach((state, index) => {
      const offer = offerOf(request, state, index, { mayGo, room, volumes })
      if (offer !== null && (best === null || isLess(offer, best))) best = offer
    })
    // The assignment within the callback is not seen by the compiler.
    const chosen = best as Offer | null
    if (chosen === null) {
      hopeless.add(request.group)
      continue
    }
    states[chosen.index] = chosen.after
    for (const { id, request: victim } of chosen.victims) {
      taken.set(victim.service, (taken.get(victim.service) ?? 0) + 1)
      evictions.push({
        victim: id,
        service: victim.service,
        node: chosen.after.node.id,
        beneficiary: request.id,
        reason: `evicted: ${request.id} of priority ${request.rules.priority} needs its room, it has ${victim.rules.priority}`,
      })
    }
  }
  return evictions
}

interface Terms {
  mayGo(tenant: Tenant): boolean
  room(service: ServiceId): number
  readonly volumes: VolumePlaces
}

/** What the node would have to give up; null when it cannot make room. No victims when what is stopping there makes room enough. */
function offerOf(request: PlacementRequest, state: NodeState, index: number, terms: Terms): Offer | null {
  if (firstStaticRejection(request, state.node) !== null) return null
  const left = new Map<ServiceId, number>()
  const candidates = [...state.tenants]
    .filter(terms.mayGo)
    .sort((a, b) => a.request.rules.priority - b.request.rules.priority || sizeOf(b) - sizeOf(a) || compare(a.id, b.id))
    .filter(({ request: { service } }) => {
      const room = left.get(service) ?? terms.room(service)
      left.set(service, room - 1)
      return room > 0
    })
  const fits = (victims: ReadonlySet<Tenant>) =>
    firstTallyRejection(request, tallyOf(withoutTenants(state, (tenant) => victims.has(tenant)).node), terms.volumes) === null
  const victims = new Set<Tenant>()
  for (const candidate of candidates) {
    if (fits(victims)) break
    victims.add(candidate)
  }
  if (!fits(victims)) return null
  // Who turned out not to be in the way stays, the most important first.
  for (const candidate of [...victims].reverse()) {
    victims.delete(candidate)
    if (!fits(victims)) victims.add(candidate)
  }
  const rest = withoutTenants(state, (tenant) => victims.has(tenant))
  const tenant: Tenant = { id: request.id, request, stopping: false, isProtected: true }
  return { index, victims: [...victims], after: withTenant(rest, tenant) }
}

/** The less important the most important victim, the fewer, and the less important together, the better; ties by the node's id. */
function isLess(a: Offer, b: Offer): boolean {
  const [first, second] = [a, b].map(({ victims }) => ({
    highest: victims.reduce((max, { request }) => Math.max(max, request.rules.priority), -1),
    count: victims.length,
    sum: victims.reduce((sum, { request }) => sum + request.rules.priority, 0),
  })) as [Loss, Loss]
  return (first.highest - second.highest || first.count - second.count || first.sum - second.sum || a.index - b.index) < 0
}

interface Loss {
  readonly highest: number
  readonly count: number
  readonly sum: number
}

function sizeOf({ request: { charge } }: Tenant): number {
  return charge.cpuMillis / 1000 + charge.memoryBytes / 2 ** 32
}

function withoutTenants(state: NodeState, goes: (tenant: Tenant) => boolean): NodeState {
  const gone = state.tenants.filter(goes)
  if (gone.length === 0) return state
  const tenants = state.tenants.filter((tenant) => !goes(tenant))
  const services = new Map(state.node.services)
  const hostPorts = new Set(state.node.hostPorts)
  let { cpuMillis, memoryBytes, diskBytes, slots } = state.node.free
  for (const { request, stopping } of gone) {
    cpuMillis += request.charge.cpuMillis
    memoryBytes += request.charge.memoryBytes
    diskBytes += request.charge.diskBytes
    slots += 1
    // What stops is not among the services of its node any more (node-view.ts).
    if (!stopping) services.set(request.service, Math.max(0, (services.get(request.service) ?? 0) - 1))
    for (const port of request.hostPorts) hostPorts.delete(port)
  }
  const repels = new Set(tenants.flatMap(({ request }) => (request.affinityRequired ? request.avoid : [])))
  return { tenants, node: { ...state.node, services, hostPorts, repels, free: { cpuMillis, memoryBytes, diskBytes, slots } } }
}

function withTenant({ node, tenants }: NodeState, tenant: Tenant): NodeState {
  const { request } = tenant
  const { charge, service } = request
  const free = {
    cpuMillis: node.free.cpuMillis - charge.cpuMillis,
    memoryBytes: node.free.memoryBytes - charge.memoryBytes,
    diskBytes: node.free.diskBytes - charge.diskBytes,
    slots: node.free.slots - 1,
  }
  return {
    tenants: [...tenants, tenant],
    node: {
      ...node,
      free,
      services: new Map(node.services).set(service, (node.services.get(service) ?? 0) + 1),
      hostPorts: new Set([...node.hostPorts, ...request.hostPorts]),
      repels: new Set([...node.repels, ...(request.affinityRequired ? request.avoid : [])]),
    },
  }
}

function tallyOf(node: PlacementNode): NodeTally {
  const { cpuMillis, memoryBytes, diskBytes, slots } = node.free
  return { node, cpuMillis, memoryBytes, diskBytes, slots, services: null, hostPorts: null, repels: null }
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
