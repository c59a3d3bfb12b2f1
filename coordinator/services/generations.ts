/** Generations: an identity `app/service/slot/generation` never runs twice (invariant I2). Pure. */
import { parseInstanceId } from '../../shared/model/identity.ts'
import type { ClusterRecord, InstanceRecord, ServiceRecord } from '../state/objects.ts'
import type { Snapshot } from '../state/state.ts'

/** Key for "any slot not listed": keeps the record small however many slots a service ever had. */
const FLOOR = '*'
const MAX_LISTED = 256

/** A generation of `slot` that was never used, whatever the record forgot. */
export function nextGeneration(
  service: Pick<ServiceRecord, 'generations' | 'pending'>,
  slot: number,
  instances: readonly InstanceRecord[],
): number {
  let last = Math.max(service.generations[slot] ?? 0, service.generations[FLOOR] ?? 0)
  for (const record of [...instances, ...service.pending]) {
    const identity = parseInstanceId(record.id)
    if (identity?.slot === slot) last = Math.max(last, identity.generation)
  }
  return last + 1
}

/** The record with that generation marked as used. */
export function withGeneration<R extends Pick<ServiceRecord, 'generations'>>(service: R, slot: number, generation: number): R {
  const generations: Record<string, number> = { ...service.generations, [slot]: generation }
  if (Object.keys(generations).length <= MAX_LISTED) return { ...service, generations }
  return { ...service, generations: { [FLOOR]: Math.max(...Object.values(generations)) } }
}

/** It is taking the place of another, which is there yet. That it once did is remembered for ever. */
export function isTakingOver(snapshot: Pick<Snapshot, 'instances'>, { replaces }: Pick<InstanceRecord, 'replaces'>): boolean {
  return replaces !== null && snapshot.instances().has(replaces)
}

/** Generations of a service that is new, where one of its name may have been before: a node that left may still run its instances. */
export function firstGenerations(
  cluster: Pick<ClusterRecord, 'retired'> | undefined,
  id: string,
): Readonly<Record<string, number>> {
  const retired = cluster?.retired ?? {}
  const floor = Math.max((Object.hasOwn(retired, id) ? retired[id] : 0) ?? 0, retired[FLOOR] ?? 0)
  return floor === 0 ? {} : { [FLOOR]: floor }
}

/** The cluster's record when the service has gone: what it used stays known. Bounded, however many services there ever were. */
export function withRetired<C extends Pick<ClusterRecord, 'retired'>>(
  cluster: C,
  service: Pick<ServiceRecord, 'id' | 'generations'>,
): C {
  const last = Math.max(0, ...Object.values(service.generations))
  if (last === 0) return cluster
  const retired: Record<string, number> = { ...cluster.retired, [service.id]: last }
  if (Object.keys(retired).length <= MAX_LISTED) return { ...cluster, retired }
  return { ...cluster, retired: { [FLOOR]: Math.max(...Object.values(retired)) } }
}

/** Slots whose data is remembered after their services went: the record of the cluster stays small. */
const MAX_RETIRED_HOMES = 1_000

/** The cluster's record when a service with data has gone: its nodes keep the volumes, so its namesake shall find them. */
export function withRetiredHomes<C extends Pick<ClusterRecord, 'retiredHomes'>>(
  cluster: C,
  service: Pick<ServiceRecord, 'id' | 'homes'>,
): C {
  const { [service.id]: _before, ...others } = cluster.retiredHomes ?? {}
  const homes = service.homes ?? {}
  const entries = Object.entries(Object.keys(homes).length === 0 ? others : { ...others, [service.id]: homes })
  if (entries.length === 0 && cluster.retiredHomes === undefined) return cluster
  let room = MAX_RETIRED_HOMES
  // The oldest are forgotten first; a service is remembered whole or not at all.
  const kept = entries.toReversed().filter(([, slots]) => {
    room -= Object.keys(slots).length
    return room >= 0
  })
  return { ...cluster, retiredHomes: Object.fromEntries(kept.toReversed()) }
}

/** Where the data of a service is that is new, but had a namesake; {} when nothing is known. */
export function firstHomes(cluster: Pick<ClusterRecord, 'retiredHomes'> | undefined, id: string): Pick<ServiceRecord, 'homes'> {
  const homes = cluster?.retiredHomes
  return homes !== undefined && Object.hasOwn(homes, id) && homes[id] !== undefined ? { homes: homes[id] } : {}
}
