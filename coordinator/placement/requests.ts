/** From a service's specification to what placement asks of a node. Pure. */
import { type AppSpec, MAX_SPREAD, type PlacementRules, type ServiceSpec } from '../../shared/model/app.ts'
import { type InstanceId, type NodeId, type ServiceId, serviceId } from '../../shared/model/identity.ts'
import type { UnitSpec } from '../../shared/model/unit.ts'
import type { Charge, PlacementRequest } from './model.ts'

/**
 * Charged where a service reserves nothing: enough that a node does not fill with hundreds of free riders, little enough that
 * a small node takes a dozen. Learned use (learned-use.ts) takes its place.
 */
export const DEFAULT_CHARGE: Charge = { cpuMillis: 50, memoryBytes: 64 * 2 ** 20, diskBytes: 0 }

/** What an instance of the unit is charged for, in the pool given or in any; dimensions that are not reserved by what is known of its use. */
export type ChargeOf = (service: ServiceId, unit: UnitSpec, pool?: string | null) => Charge

export const reservedCharge: ChargeOf = (_service, unit) => ({
  cpuMillis: unit.reservations.cpuMillis > 0 ? unit.reservations.cpuMillis : DEFAULT_CHARGE.cpuMillis,
  memoryBytes: unit.reservations.memoryBytes > 0 ? unit.reservations.memoryBytes : DEFAULT_CHARGE.memoryBytes,
  diskBytes: DEFAULT_CHARGE.diskBytes,
})

export interface RequestContext {
  readonly app: string
  readonly spec: ServiceSpec
  readonly revision: number
  /** Node that holds this slot's volumes already. */
  readonly home: NodeId | null
  readonly chargeOf?: ChargeOf
  /** Pool of the node that it runs on; absent while it waits. */
  readonly pool?: string | null
}

export function requestOf(id: InstanceId, context: RequestContext): PlacementRequest {
  const { app, spec, revision, home } = context
  const service = serviceId(app, spec.name)
  const { affinity } = spec.placement
  const volumes = volumesOf(app, spec.unit)
  const isGlobal = spec.mode === 'global'
  // One per node: whichever slot it has, its data is that of its node.
  const boundTo = volumes.length > 0 && !isGlobal ? home : null
  const resolve = (name: string) => (name.includes('/') ? name : serviceId(app, name))
  return {
    id,
    service,
    group: `${service}@${revision}@${boundTo ?? ''}`,
    charge: withDisk(
      (context.chargeOf ?? reservedCharge)(service, spec.unit, context.pool ?? onlyOf(spec.placement.pools)),
      spec.placement,
    ),
    rules: rulesOf(spec),
    hostPorts: hostPortsOf(spec.unit),
    runtime: spec.unit.runtime,
    images: imagesOf(spec.unit),
    volumes,
    home: boundTo,
    near: (affinity?.near ?? []).map(resolve),
    avoid: (affinity?.avoid ?? []).map(resolve),
    affinityRequired: affinity?.required ?? false,
    global: isGlobal,
  }
}

/** Disk is charged as reserved and never learned: what an instance has written says little of what it will. */
function withDisk(charge: Charge, { diskBytes }: PlacementRules): Charge {
  return diskBytes === undefined ? charge : { ...charge, diskBytes }
}

function rulesOf({ placement, mode }: ServiceSpec): PlacementRules {
  // Specs that were stored before there was a bound.
  const spreadOver = placement.spreadOver.length > MAX_SPREAD ? placement.spreadOver.slice(0, MAX_SPREAD) : placement.spreadOver
  if (mode !== 'global' && spreadOver === placement.spreadOver) return placement
  return { ...placement, spreadOver, maxPerNode: mode === 'global' ? 1 : placement.maxPerNode }
}

function onlyOf(pools: readonly string[]): string | null {
  return pools.length === 1 ? (pools[0] ?? null) : null
}

/** `80/tcp` for each port that an instance takes on its own node. */
export function hostPortsOf(unit: UnitSpec): readonly string[] {
  return unit.published
    .filter((port) => port.mode === 'host')
    .map((port) => `${port.port}/${port.protocol === 'udp' ? 'udp' : 'tcp'}`)
}

export function imagesOf(unit: UnitSpec): readonly string[] {
  return unit.containers.map((container) => container.image).filter((image) => image !== '')
}

/** Named volumes as `app/volume`: data that lies on one node. */
export function volumesOf(app: string, unit: UnitSpec): readonly string[] {
  const names = new Set<string>()
  for (const container of unit.containers)
    for (const mount of container.mounts) if (mount.kind === 'volume' && mount.source !== '') names.add(`${app}/${mount.source}`)
  return [...names].sort()
}

/** How many instances each service of an app that does not run yet begins with (`global` services: one per node given). */
export function countsOfApp(app: AppSpec, nodeCount: number): readonly number[] {
  return app.services.map((spec) => (spec.mode === 'global' ? nodeCount : Math.max(spec.replicas, spec.scale?.min ?? 0)))
}

/** Requests for these, slot by slot; for so many of each service as `counts` says, in the order of the app's services. */
export function requestsOfApp(
  app: AppSpec,
  nodeCount: number,
  counts: readonly number[] = countsOfApp(app, nodeCount),
): readonly PlacementRequest[] {
  return app.services.flatMap((spec, service) => {
    return Array.from({ length: counts[service] ?? 0 }, (_, index) =>
      requestOf(`${app.name}/${spec.name}/${index + 1}/1`, { app: app.name, spec, revision: 1, home: null }),
    )
  })
}
