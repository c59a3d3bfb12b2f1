/** Names and identities. Pure. */

/** `app/service/slot/generation`: one running or wanted copy of a service's unit. */
export type InstanceId = string
export type NodeId = string
export type MachineId = string
/** `app/service`. */
export type ServiceId = string

export interface InstanceIdentity {
  readonly app: string
  readonly service: string
  /** 1-based place among the replicas; a replacement keeps it. */
  readonly slot: number
  /** 1-based; each replacement in a slot is a new generation. */
  readonly generation: number
}

/** App names and other names that Rubato itself hands out. */
export const NAME_PATTERN = /^[a-z0-9][a-z0-9-]{0,62}$/
/** Service names as the Compose Specification allows them. */
export const SERVICE_NAME_PATTERN = /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$/

export function instanceId(identity: InstanceIdentity): InstanceId {
  return `${identity.app}/${identity.service}/${identity.slot}/${identity.generation}`
}

/** The parts of an instance id, or null when it is none. */
export function parseInstanceId(id: string): InstanceIdentity | null {
  const [app, service, slot, generation, ...rest] = id.split('/')
  if (!app || !service || rest.length > 0) return null
  if (!/^[1-9]\d{0,8}$/.test(slot ?? '') || !/^[1-9]\d{0,8}$/.test(generation ?? '')) return null
  return { app, service, slot: Number(slot), generation: Number(generation) }
}

export function serviceId(app: string, service: string): ServiceId {
  return `${app}/${service}`
}

export function serviceIdOf(id: InstanceId): ServiceId {
  return id.split('/', 2).join('/')
}

/** The container's name: the identity with dots, and for a sidecar its own name after it. */
export function containerName(id: InstanceId, sidecar?: string): string {
  const base = id.replaceAll('/', '.')
  return sidecar === undefined ? base : `${base}.${sidecar}`
}
