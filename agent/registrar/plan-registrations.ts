/**
 * Which registrations this node should have, and what differs from those it has. Pure. Ready instances of ours, and containers
 * of others that carry labels or publish ports. Our instances get TTL checks (we probe the container ourselves, the gateway
 * would refuse Consul's probe without a key); containers of others get the native check that their labels ask for.
 */
import { instanceRegistrations } from '../../shared/instance-registrations.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import type { ForeignService, InstanceStatus } from '../../shared/model/observation.ts'
import type { UnitSpec } from '../../shared/model/unit.ts'
import { type LabelCheck, registrationsOf, type ServiceRegistration } from '../../shared/registration.ts'
import { parseDurationMs } from '../../shared/units.ts'
import type { ForeignContainer } from '../runtime/runtime.ts'
import type { Registration, RegistrationCheck } from './catalog-backend.ts'

/** A TTL check that nobody refreshes for so long turns critical: three of our heartbeats. */
export const TTL_MS = 30_000

/** An instance whose agent is gone for good leaves Consul by itself; one that comes back registers it again. */
const FORGOTTEN_AFTER = '30m'

export interface NodeFacts {
  readonly hostname: string
  readonly address: string
  /** Also register containers of others that publish ports but carry no label of ours (Registrator's default). */
  readonly registerUnlabelled: boolean
}

export interface ManagedInstance {
  readonly status: InstanceStatus
  readonly unit: UnitSpec
}

export interface WantedRegistration extends Registration {
  readonly instance: InstanceId | null
  readonly passing: boolean
  readonly note: string
}

/** Registrations of one of our instances; empty unless it is ready. */
export function managedRegistrations({ status, unit }: ManagedInstance, node: NodeFacts): readonly WantedRegistration[] {
  if (status.phase !== 'ready') return []
  return instanceRegistrations(status, unit, node).map((registration) => ({
    ...registration,
    check: { kind: 'ttl', ttlMs: TTL_MS },
    initialStatus: status.healthy ? 'passing' : 'critical',
    deregisterAfter: FORGOTTEN_AFTER,
    instance: status.instance,
    passing: status.healthy,
    note: status.message,
  }))
}

/** Registrations of a container that Rubato did not start: those of its ports that the host publishes. */
export function foreignRegistrations(container: ForeignContainer, node: NodeFacts): readonly WantedRegistration[] {
  if (!container.running) return []
  const labelled = [...Object.keys(container.labels), ...container.environment].some((text) =>
    /^(SERVICE_|rubato\.service)/i.test(text),
  )
  if (!labelled && !node.registerUnlabelled) return []
  const found = registrationsOf({
    host: node.hostname,
    name: container.name,
    containerId: container.id,
    image: container.image,
    labels: container.labels,
    environment: container.environment,
    ports: container.ports
      .filter((port) => port.hostPort !== null)
      .map((port) => ({
        internal: port.containerPort,
        protocol: port.protocol,
        address: port.hostIp && port.hostIp !== '0.0.0.0' && port.hostIp !== '::' ? port.hostIp : node.address,
        port: port.hostPort ?? 0,
      })),
  })
  return found.map((registration) => {
    const native = nativeCheck(registration, container.id)
    const healthCheck: RegistrationCheck | null = container.healthy === null ? null : { kind: 'ttl', ttlMs: TTL_MS }
    const initial =
      registration.initialStatus ??
      (native === null && healthCheck !== null ? (container.healthy ? 'passing' : 'critical') : null)
    return {
      id: registration.id,
      name: registration.name,
      address: registration.address,
      port: registration.port,
      tags: registration.tags,
      meta: registration.meta,
      check: native ?? healthCheck,
      ...(initial === null ? {} : { initialStatus: initial }),
      ...(registration.deregisterAfter === null ? {} : { deregisterAfter: registration.deregisterAfter }),
      instance: null,
      passing: container.healthy !== false,
      note: '',
    }
  })
}

export function toForeignService(registration: WantedRegistration): ForeignService {
  const { id, name, address, port, tags, meta, passing } = registration
  return { id, name, address, port, tags, meta, passing }
}

export interface RegistrationChanges {
  readonly register: readonly WantedRegistration[]
  readonly deregister: readonly string[]
}

/** What to do so that `present` becomes `wanted`. A registration whose text differs is registered again: Consul replaces it. */
export function planRegistrations(
  wanted: readonly WantedRegistration[],
  present: ReadonlyMap<string, string>,
): RegistrationChanges {
  const ids = new Set(wanted.map((registration) => registration.id))
  return {
    register: wanted.filter((registration) => present.get(registration.id) !== registrationKey(registration)),
    deregister: [...present.keys()].filter((id) => !ids.has(id)).sort(),
  }
}

/** Equal keys: nothing that a catalog stores differs. */
export function registrationKey(registration: Registration): string {
  const { id, name, address, port, tags, meta, check } = registration
  return JSON.stringify([id, name, address, port, tags, Object.entries(meta).sort(), check])
}

function nativeCheck(registration: ServiceRegistration, containerId: string): RegistrationCheck | null {
  const check = registration.check
  if (check === null) return null
  const at = `${registration.address}:${registration.port}`
  const timing = (of: Exclude<LabelCheck, { kind: 'ttl' }>) => {
    const timeoutMs = of.timeout === null ? null : parseDurationMs(of.timeout)
    return { intervalMs: parseDurationMs(of.interval) ?? 10_000, ...(timeoutMs === null ? {} : { timeoutMs }) }
  }
  switch (check.kind) {
    case 'http':
    case 'https':
      return {
        kind: 'http',
        url: `${check.kind}://${at}${check.path.startsWith('/') ? '' : '/'}${check.path}`,
        ...(check.method === null ? {} : { method: check.method }),
        ...(check.tlsSkipVerify ? { tlsSkipVerify: true } : {}),
        ...timing(check),
      }
    case 'cmd':
      return {
        kind: 'script',
        argv: ['check-cmd', containerId.slice(0, 12), String(registration.internalPort), check.command],
        ...timing(check),
      }
    case 'script':
      return {
        kind: 'script',
        argv: [
          '/bin/sh',
          '-c',
          check.command.replaceAll('$SERVICE_IP', registration.address).replaceAll('$SERVICE_PORT', String(registration.port)),
        ],
        ...timing(check),
      }
    case 'ttl':
      return { kind: 'ttl', ttlMs: parseDurationMs(check.ttl) ?? TTL_MS }
    case 'tcp':
      return { kind: 'tcp', address: at, ...timing(check) }
    case 'grpc':
      return { kind: 'grpc', address: at, useTls: check.useTls, ...timing(check) }
  }
}
