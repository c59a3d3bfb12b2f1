/**
 * What an instance of ours is called in a catalog, the same in Consul (registered by its agent) and in the embedded one (by the
 * coordinator). Pure. Without labels the first port carries the service's own name and further ports `<service>-<port>`; labels name
 * them by Registrator's rules. An instance without ports is registered with port 0 (V1).
 */
import { containerName, parseInstanceId } from './model/identity.ts'
import type { InstanceStatus } from './model/observation.ts'
import type { UnitSpec } from './model/unit.ts'
import { registrationsOf } from './registration.ts'

export interface InstanceRegistration {
  readonly id: string
  readonly name: string
  readonly address: string
  readonly port: number
  readonly tags: readonly string[]
  readonly meta: Readonly<Record<string, string>>
}

/** One per port of the instance; whether it may be called yet is the caller's to say. */
export function instanceRegistrations(
  status: Pick<InstanceStatus, 'instance' | 'containerId' | 'ports'>,
  unit: UnitSpec,
  node: { readonly hostname: string; readonly address: string },
): readonly InstanceRegistration[] {
  const identity = parseInstanceId(status.instance)
  const main = unit.containers[0]
  if (!identity || !main) return []
  const ports = status.ports.map((port) => ({
    internal: port.containerPort,
    protocol: port.protocol === 'udp' ? ('udp' as const) : ('tcp' as const),
    address: node.address,
    port: port.gatewayPort,
  }))
  const found = registrationsOf({
    host: node.hostname,
    name: containerName(status.instance),
    containerId: status.containerId,
    image: main.image,
    labels: main.labels,
    environment: Object.entries(main.environment).map(([key, value]) => `${key}=${value}`),
    ports: ports.length > 0 ? ports : [{ internal: 0, protocol: 'tcp', address: node.address, port: 0 }],
    defaultName: identity.service,
  })
  const first = ports[0]?.internal
  return found.map(({ id, name, internalPort, address, port, tags, meta }) => ({
    id,
    name: internalPort === first && name === `${identity.service}-${first}` ? identity.service : name,
    address,
    port,
    tags: [...new Set([identity.app, ...tags])],
    meta: { 'rubato-instance': status.instance, ...meta },
  }))
}
