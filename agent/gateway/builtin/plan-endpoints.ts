/** Which endpoints of a route this node may connect to. Pure. */
import { isOwnHostAddress } from '../../../shared/host-names.ts'
import type { NodeId } from '../../../shared/model/identity.ts'
import type { RouteEndpoint } from '../../../shared/protocol/frames.ts'

/**
 * Leaves out endpoints of other nodes whose address means this very host: a node that was taken over names its address itself, and
 * must not get at what listens on our loopback (the local API among it) through us. Nodes that live on loopback themselves
 * (local machines) may name it.
 */
export function reachableEndpoints(
  endpoints: readonly RouteEndpoint[],
  nodeId: NodeId,
  ownAddress: string,
): readonly RouteEndpoint[] {
  if (/^127\.|^::1$/.test(ownAddress)) return endpoints
  return endpoints.filter(({ node, address }) => node === nodeId || !isOwnHostAddress(address))
}
