/**
 * The embedded gateway engine: HTTP, TCP and (minimal) UDP, in this process. Good for quick starts and small nodes; HAProxy is
 * several times faster. Ingress and egress are in their own files; this one puts them together.
 */
import type { Clock } from '../../../shared/clock.ts'
import type { Logger } from '../../../shared/logger.ts'
import type { InstanceId, NodeId, ServiceId } from '../../../shared/model/identity.ts'
import { type Random, seededRandom } from '../../../shared/random.ts'
import type { GatewayEngine } from '../engine.ts'
import type { KeyRing } from '../key-ring.ts'
import { createProofChecker, createProofMinter } from '../proof.ts'
import { createVerifier } from '../verifier.ts'
import { createEgress } from './egress.ts'
import { DEFAULT_LIMITS, type FrontLimits } from './http-exchange.ts'
import { createIngresses } from './ingress.ts'
import { createListenerFactory } from './listener-factory.ts'
import { loopbackAddresses, type VirtualAddresses } from './virtual-addresses.ts'

export interface BuiltinGatewayDeps {
  readonly nodeId: NodeId
  /** The node's address: ingress and published ports are bound here. */
  readonly address: string
  readonly portRange: { readonly from: number; readonly to: number }
  /** Live view of keys and policies. */
  readonly keys: KeyRing
  /** How long keys count without confirmation; asked at every decision. */
  readonly staleAfterMs: () => number
  /** Which local container has this source address; null for anybody else. */
  readonly callerOf: (address: string) => { readonly instance: InstanceId; readonly service: ServiceId } | null
  /** CIDR of this node's virtual addresses. Default 127.96.0.0/16, which needs no privilege and serves processes on loopback. */
  readonly meshSlice?: string
  /** Puts virtual addresses where containers reach them. Default: loopback, where nothing is to be done. */
  readonly virtualAddresses?: VirtualAddresses
  /** A published port or virtual address that is not available; the others are. */
  readonly onProblem?: (problem: string) => void
  readonly limits?: Partial<FrontLimits>
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
}

export interface BuiltinGateway extends GatewayEngine {
  /** `name:address` of the services that containers of `app` may call by name, for their hosts file. */
  hostsFor(app: string): readonly string[]
  /** The virtual address of `app/service` on this node; null while no route leads there. */
  virtualAddressOf(service: ServiceId): string | null
}

/** A running engine without listeners; addresses that an earlier process left on the bridge are removed. */
export async function createBuiltinGateway(deps: BuiltinGatewayDeps): Promise<BuiltinGateway> {
  const { address, nodeId, keys, clock, logger } = deps
  const listeners = createListenerFactory(clock, { ...DEFAULT_LIMITS, ...deps.limits })
  const callerOf = (source: string): ServiceId | null => deps.callerOf(source)?.service ?? null
  const secret = () => keys.meshSecret
  const virtualAddresses = deps.virtualAddresses ?? loopbackAddresses()
  for (const left of await virtualAddresses.list()) await virtualAddresses.remove(left)
  let published: ReadonlySet<number> = new Set()
  const ingresses = createIngresses({
    address,
    portRange: deps.portRange,
    keys,
    verify: createVerifier(keys),
    proofs: createProofChecker(secret),
    clock,
    logger,
    staleAfterMs: deps.staleAfterMs,
    listeners,
    isPublished: (port) => published.has(port),
    callerOf,
  })
  const egress = createEgress({
    address,
    nodeId,
    meshSlice: deps.meshSlice ?? '127.96.0.0/16',
    virtualAddresses,
    ingresses,
    listeners,
    minter: createProofMinter(nodeId, secret),
    clock,
    // Balancing needs no strong randomness, and this runs twice per request.
    random: seededRandom(Math.floor(deps.random.next() * 2 ** 32)),
    logger,
    callerOf,
    onProblem: deps.onProblem ?? (() => {}),
  })
  return {
    name: 'builtin',
    openIngress: (port) => ingresses.open(port),
    closeIngress: (instance, drainMs) => ingresses.close(instance, drainMs),
    inFlight: (instance) => ingresses.inFlight(instance),
    setRoutes(routes) {
      published = new Set(routes.flatMap((route) => route.publishedPorts))
      return egress.setRoutes(routes)
    },
    setLoads: (loads) => egress.setLoads(loads),
    takeFlows: () => ingresses.takeFlows(),
    hostsFor: (app) => egress.hostsFor(app),
    virtualAddressOf: (service) => egress.virtualAddressOf(service),
    async stop() {
      await egress.stop()
      await ingresses.stop()
      listeners.stop()
    },
  }
}
