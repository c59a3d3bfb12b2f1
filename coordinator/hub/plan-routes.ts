/** Where each port of a service is to be found at present. Pure. */
import { compare } from '../../shared/compare.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { NodeRecord } from '../../shared/model/node.ts'
import type { PortProtocol } from '../../shared/model/unit.ts'
import type { Route, RouteEndpoint } from '../../shared/protocol/frames.ts'
import type { InstanceRecord } from '../state/objects.ts'
import { type InstanceObservation, isRoutable, type NodeObservation } from '../state/observed.ts'

export interface ServiceView {
  /** `app/service`. */
  readonly id: string
  readonly spec: ServiceSpec
  readonly ordinal: number
  readonly instances: readonly InstanceRecord[]
  observation(instance: string): InstanceObservation | undefined
  nodeObservation(node: string): NodeObservation | undefined
  node(node: string): NodeRecord | undefined
}

/** One route per port of the service, ports ascending, endpoints by instance id. A service without endpoints keeps its routes: its callers get 503, not "no such name". */
export function planServiceRoutes(view: ServiceView): readonly Route[] {
  const ports = new Map<number, PortProtocol>()
  for (const port of view.spec.published) ports.set(port.containerPort, port.protocol)
  for (const port of view.spec.unit.ports) ports.set(port.containerPort, port.protocol)
  const found = view.instances
    .flatMap((record) => locate(view, record))
    .sort((a, b) => compare(a.endpoint.instance, b.endpoint.instance))
  return [...ports]
    .sort(([a], [b]) => a - b)
    .map(([containerPort, protocol]) => ({
      service: view.id,
      containerPort,
      protocol,
      balance: view.spec.unit.balance,
      publishedPorts: view.spec.published
        .filter((port) => port.mode === 'ingress' && port.containerPort === containerPort)
        .map((port) => port.port)
        .sort((a, b) => a - b),
      ordinal: view.ordinal,
      endpoints: found.filter((item) => item.containerPort === containerPort).map((item) => item.endpoint),
    }))
}

/** Everyone needs the routes of a service that is published on every node. */
export function isPublished(routes: readonly Route[]): boolean {
  return routes.some((route) => route.publishedPorts.length > 0)
}

function locate(view: ServiceView, record: InstanceRecord): { containerPort: number; endpoint: RouteEndpoint }[] {
  const observation = view.observation(record.id)
  if (record.nodeId === null || !observation || observation.nodeId !== record.nodeId) return []
  const node = view.node(record.nodeId)
  const state = stateOf(record, observation, view.nodeObservation(record.nodeId))
  if (!node || state === null) return []
  return observation.ports.map((port) => ({
    containerPort: port.containerPort,
    endpoint: {
      instance: record.id,
      node: record.nodeId ?? '',
      address: node.address,
      gatewayPort: port.gatewayPort,
      zone: node.zone,
      state,
    },
  }))
}

/** A draining instance stays in the list, marked: requests under way to it go on, new ones go elsewhere. */
function stateOf(
  record: InstanceRecord,
  observation: InstanceObservation,
  node: NodeObservation | undefined,
): RouteEndpoint['state'] | null {
  if (isRoutable(observation, node)) return record.goal === 'stop' ? 'draining' : 'ready'
  return observation.phase === 'draining' && node !== undefined && node.liveness !== 'lost' ? 'draining' : null
}
