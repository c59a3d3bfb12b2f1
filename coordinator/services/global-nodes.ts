/** Which nodes shall have an instance of a global service. Pure. */
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { NodeRecord } from '../../shared/model/node.ts'
import { constraintHolds, samePlatform } from '../placement/filters.ts'

/**
 * Active nodes that the service's rules allow, and cordoned ones that have an instance already, sorted by id. Room is not
 * asked for: where it does not fit, the instance waits and says so.
 */
export function globalNodes(
  spec: ServiceSpec,
  nodes: Iterable<NodeRecord>,
  hasInstance: (nodeId: NodeId) => boolean,
): readonly NodeId[] {
  const found: NodeId[] = []
  for (const node of nodes) {
    const stays = node.availability === 'active' || (node.availability === 'cordoned' && hasInstance(node.id))
    if (stays && isAllowed(spec, node)) found.push(node.id)
  }
  return found.sort()
}

function isAllowed({ placement, unit }: ServiceSpec, node: NodeRecord): boolean {
  return (
    node.runtimes.includes(unit.runtime) &&
    (placement.pools.length === 0 || (node.pool !== null && placement.pools.includes(node.pool))) &&
    (placement.platform === null || samePlatform(placement.platform, node.platform)) &&
    node.taints.every((taint) => placement.tolerates.includes(taint)) &&
    placement.constraints.every((constraint) => constraintHolds(constraint, node))
  )
}
