/**
 * What one node would have to give up for one instance: the fewest and least important of those that may go. Victims are taken away
 * and put back one at a time in a single account of the node, so that an answer costs about the number of tenants. Pure.
 */
import type { InstanceId, ServiceId } from '../../shared/model/identity.ts'
import { compare } from '../../shared/compare.ts'
import { firstTallyRejection, type NodeTally, type VolumePlaces } from './filters.ts'
import type { Charge, PlacementNode, PlacementRequest } from './model.ts'

export interface Tenant {
  readonly id: InstanceId
  readonly request: PlacementRequest
  /** On its way out already: its room is as good as free. */
  readonly stopping: boolean
  /** May not be evicted whatever asks for its room. */
  readonly isProtected: boolean
}

export interface NodeState {
  readonly node: PlacementNode
  readonly tenants: readonly Tenant[]
}

export interface EvictionTerms {
  /** Highest priority that has to give way. */
  readonly mostPriority: number
  /** How many more of the service may go. */
  room(service: ServiceId): number
  readonly volumes: VolumePlaces
}

/** Who goes, the least important first; null when the node cannot make room. Nobody goes when what is stopping there makes room enough. */
export function victimsFor(request: PlacementRequest, state: NodeState, terms: EvictionTerms): readonly Tenant[] | null {
  const left = new Map<ServiceId, number>()
  const candidates = state.tenants
    .filter((tenant) => mayGo(tenant, terms.mostPriority))
    .sort((a, b) => a.request.rules.priority - b.request.rules.priority || sizeOf(b) - sizeOf(a) || compare(a.id, b.id))
    .filter(({ request: { service } }) => {
      const room = left.get(service) ?? terms.room(service)
      left.set(service, room - 1)
      return room > 0
    })
  const account = openAccount(state)
  const fits = () => firstTallyRejection(request, account.tally, terms.volumes) === null
  const victims: Tenant[] = []
  for (const candidate of candidates) {
    if (fits()) break
    account.take(candidate)
    victims.push(candidate)
  }
  if (!fits()) return null
  // Who turned out not to be in the way stays, the most important first.
  const spared = new Set<Tenant>()
  for (const victim of [...victims].reverse()) {
    account.putBack(victim)
    if (fits()) spared.add(victim)
    else account.take(victim)
  }
  return victims.filter((victim) => !spared.has(victim))
}

/**
 * The most that could become free on the node for each priority, without a look at anything else: what asks for more need not be tried.
 * O(tenants) once, O(log tenants) a question.
 */
export function roomByPriority({ node, tenants }: NodeState): (charge: Charge, mostPriority: number) => boolean {
  const sums: { priority: number; cpuMillis: number; memoryBytes: number; diskBytes: number; slots: number }[] = []
  let { cpuMillis, memoryBytes, diskBytes, slots } = node.free
  const going = tenants.filter((tenant) => !tenant.isProtected)
  for (const { request } of going.sort((a, b) => a.request.rules.priority - b.request.rules.priority)) {
    cpuMillis += request.charge.cpuMillis
    memoryBytes += request.charge.memoryBytes
    diskBytes += request.charge.diskBytes
    slots += 1
    sums.push({ priority: request.rules.priority, cpuMillis, memoryBytes, diskBytes, slots })
  }
  return (charge, mostPriority) => {
    let low = 0
    let high = sums.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((sums[middle]?.priority ?? 0) <= mostPriority) low = middle + 1
      else high = middle
    }
    const most = sums[low - 1] ?? node.free
    return (
      most.slots >= 1 &&
      most.memoryBytes >= charge.memoryBytes &&
      most.cpuMillis >= charge.cpuMillis &&
      most.diskBytes >= charge.diskBytes
    )
  }
}

/** The node as it will be once those that stop already have gone. */
export function withoutStopping(state: NodeState): NodeState {
  return without(state, (tenant) => tenant.stopping)
}

/** The node without the victims, and with the beneficiary. */
export function afterEviction(state: NodeState, victims: readonly Tenant[], request: PlacementRequest): NodeState {
  const { node, tenants } = without(state, (tenant) => victims.includes(tenant))
  const { charge, service } = request
  return {
    tenants: [...tenants, { id: request.id, request, stopping: false, isProtected: true }],
    node: {
      ...node,
      free: {
        cpuMillis: node.free.cpuMillis - charge.cpuMillis,
        memoryBytes: node.free.memoryBytes - charge.memoryBytes,
        diskBytes: node.free.diskBytes - charge.diskBytes,
        slots: node.free.slots - 1,
      },
      services: new Map(node.services).set(service, (node.services.get(service) ?? 0) + 1),
      hostPorts: new Set([...node.hostPorts, ...request.hostPorts]),
      repels: new Set([...node.repels, ...(request.affinityRequired ? request.avoid : [])]),
    },
  }
}

function without(state: NodeState, goes: (tenant: Tenant) => boolean): NodeState {
  const gone = state.tenants.filter(goes)
  if (gone.length === 0) return state
  const account = openAccount(state)
  for (const tenant of gone) account.take(tenant)
  const { node, cpuMillis, memoryBytes, diskBytes, slots } = account.tally
  return {
    tenants: state.tenants.filter((tenant) => !goes(tenant)),
    node: { ...node, free: { cpuMillis, memoryBytes, diskBytes, slots } },
  }
}

function mayGo(tenant: Tenant, mostPriority: number): boolean {
  return !tenant.isProtected && tenant.request.rules.priority <= mostPriority
}

interface Account {
  readonly tally: NodeTally
  take(tenant: Tenant): void
  putBack(tenant: Tenant): void
}

/** A copy of what the node holds, from which tenants are taken and to which they are put back. */
function openAccount({ node, tenants }: NodeState): Account {
  const services = new Map(node.services)
  const hostPorts = new Set(node.hostPorts)
  const repels = new Set<ServiceId>()
  const repelling = new Map<ServiceId, number>()
  const uncounted = new Set<Tenant>()
  const tally: NodeTally = {
    node: { ...node, services, hostPorts, repels },
    ...node.free,
    services: null,
    hostPorts: null,
    repels: null,
  }
  const repel = ({ request }: Tenant, by: 1 | -1) => {
    if (!request.affinityRequired) return
    for (const other of request.avoid) {
      const count = (repelling.get(other) ?? 0) + by
      repelling.set(other, count)
      if (count > 0) repels.add(other)
      else repels.delete(other)
    }
  }
  const charge = ({ request }: Tenant, by: 1 | -1) => {
    tally.cpuMillis += by * request.charge.cpuMillis
    tally.memoryBytes += by * request.charge.memoryBytes
    tally.diskBytes += by * request.charge.diskBytes
    tally.slots += by
  }
  for (const tenant of tenants) repel(tenant, 1)
  return {
    tally,
    take(tenant) {
      charge(tenant, 1)
      repel(tenant, -1)
      for (const port of tenant.request.hostPorts) hostPorts.delete(port)
      const count = services.get(tenant.request.service) ?? 0
      // What stops, or is being replaced, is not among the services of its node any more (node-view.ts).
      if (tenant.stopping || count === 0) uncounted.add(tenant)
      else services.set(tenant.request.service, count - 1)
    },
    putBack(tenant) {
      charge(tenant, -1)
      repel(tenant, 1)
      for (const port of tenant.request.hostPorts) hostPorts.add(port)
      const { service } = tenant.request
      if (!uncounted.delete(tenant)) services.set(service, (services.get(service) ?? 0) + 1)
    },
  }
}

function sizeOf({ request: { charge } }: Tenant): number {
  return charge.cpuMillis / 1000 + charge.memoryBytes / 2 ** 32
}
