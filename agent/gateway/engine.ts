/**
 * Contract of a gateway engine (design §9): `builtin` now, `haproxy` later; both pass test/contracts/gateway-contract.ts.
 *
 * Ingress: one listener per instance port on the node's address. It authorizes (http), strips the credential, and forwards to
 * the container. Nothing else leads to a container. Egress: listeners for published ports (on the node's address) and for
 * virtual addresses (on the bridge); they choose an endpoint by the pushed routes and go to that endpoint's ingress.
 */
import type { InstanceId } from '../../shared/model/identity.ts'
import type { AccessPolicy, PortProtocol } from '../../shared/model/unit.ts'
import type { Route } from '../../shared/protocol/frames.ts'

export interface IngressPort {
  readonly instance: InstanceId
  readonly service: string
  readonly containerPort: number
  readonly protocol: PortProtocol
  readonly access: AccessPolicy
  /** Where the container listens. */
  readonly targetAddress: string
  readonly targetPort: number
  /** Port to bind; null lets the engine choose one of the gateway range. It is kept for the instance's life. */
  readonly gatewayPort: number | null
  /** Also bound on the node's address (Compose `ports:` with `mode: host`). */
  readonly hostPorts: readonly number[]
}

/** Counters of one instance since they were last taken. */
export interface IngressFlow {
  readonly instance: InstanceId
  readonly inFlight: number
  readonly requests: number
  readonly errors: number
  readonly denied: number
  readonly rxBytes: number
  readonly txBytes: number
  /** HTTP answers by the time from the request's head to the answer's, as `InstanceUse.latency`. Absent: none, or not measured. */
  readonly latency?: readonly number[]
}

export interface GatewayEngine {
  readonly name: 'builtin' | 'haproxy'
  /** Opens, keeps or moves the listener of one instance port; returns the bound gateway port. Rejects with ConflictError when a wanted port is taken. */
  openIngress(port: IngressPort): Promise<number>
  /** Ends all listeners of the instance; requests under way are finished first, at most `drainMs`. */
  closeIngress(instance: InstanceId, drainMs: number): Promise<void>
  /** Requests and connections under way to the instance, over all its ports. */
  inFlight(instance: InstanceId): number
  /** The complete set of routes of this node; listeners of published ports and virtual addresses follow it. */
  setRoutes(routes: readonly Route[]): Promise<void>
  /** Reported loads of instances, for `least-load`; merged into what is known. */
  setLoads(loads: Readonly<Record<string, number>>): void
  /** Counters per instance; taking them resets requests, errors, denied, bytes and answer times. */
  takeFlows(): readonly IngressFlow[]
  stop(): Promise<void>
}
