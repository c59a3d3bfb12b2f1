/**
 * What stands against giving back one node, or moving one instance, and what against all of them. Something is always under way in a large
 * cluster, so that only what concerns a node keeps that node: a hold for all is left to what nobody can tell the extent of. The
 * coordinator's loop and the simulator ask here. Pure.
 */
import type { NodeId, ServiceId } from '../../shared/model/identity.ts'
import type { MachineRecord } from '../../shared/model/node.ts'
import type { PlacementNode } from '../placement/model.ts'
import { isComing } from './machine-states.ts'

export interface HoldsInput {
  readonly nodes: readonly { readonly id: NodeId; readonly isSilent: boolean }[]
  readonly services: Iterable<{
    readonly id: ServiceId
    /** It is being updated. */
    readonly isUpdating: boolean
    /** Instances that have no place yet, without those that nothing can be done for. */
    readonly waiting: number
  }>
  readonly machines: readonly MachineRecord[]
  /** When capacity of the pool was last added otherwise than by buying. */
  readonly reclaimedAtMs: ReadonlyMap<string, number>
  readonly downIntervalMs: number
}

export interface Holds {
  /** Nodes that were not heard of lately: what runs there may soon need room elsewhere. */
  readonly silent: readonly NodeId[]
  /** Too many of them: it may be us. null: only few. */
  readonly manySilent: string | null
  /** So many instances wait that room for them cannot be kept one by one, or null. */
  readonly manyWaiting: string | null
  /** Why instances of the service stay where they are, by service. */
  readonly services: ReadonlyMap<ServiceId, string>
  /** Why no node of the pool goes, by pool: what has just been added there may not yet be in use. */
  readonly pools: ReadonlyMap<string, string>
}

/** A tenth of the nodes, and at least two: then the fault is more likely on our side of the link. */
const MANY_SILENT_SHARE = 0.1
const MANY_SILENT_LEAST = 2
/** For each of these, placement is asked whether it keeps its room. */
const MANY_WAITING = 200

export function planHolds(input: HoldsInput, nowMs: number): Holds {
  const silent = input.nodes.filter(({ isSilent }) => isSilent).map(({ id }) => id)
  const isMany = silent.length >= Math.max(MANY_SILENT_LEAST, MANY_SILENT_SHARE * input.nodes.length)
  const services = new Map<ServiceId, string>()
  let waiting = 0
  for (const service of input.services) {
    waiting += service.waiting
    if (service.waiting > 0) services.set(service.id, `${service.id} has instances waiting`)
    else if (service.isUpdating) services.set(service.id, `${service.id} is being updated`)
  }
  const pools = new Map<string, string>()
  for (const [pool, atMs] of input.reclaimedAtMs)
    if (nowMs - atMs < input.downIntervalMs) pools.set(pool, 'capacity of its pool was added a moment ago')
  for (const machine of input.machines) {
    if (isComing(machine)) pools.set(machine.pool, `${machine.id} of its pool is on its way`)
    else if (machine.phase === 'joined' && nowMs - machine.requestedAtMs < input.downIntervalMs && !pools.has(machine.pool))
      pools.set(machine.pool, 'capacity of its pool was added a moment ago')
  }
  return {
    silent,
    manySilent: isMany ? `${silent.length} nodes have not reported` : null,
    manyWaiting: waiting > MANY_WAITING ? `${waiting} instances wait for room` : null,
    services,
    pools,
  }
}

/** Why this node stays where it is: its pool, or a service that runs there; null when nothing is known against it. */
export function holdOn(node: Pick<PlacementNode, 'pool' | 'services'>, { pools, services }: Holds): string | null {
  const pool = node.pool === null ? undefined : pools.get(node.pool)
  if (pool !== undefined) return pool
  for (const service of node.services.keys()) {
    const why = services.get(service)
    if (why !== undefined) return why
  }
  return null
}
