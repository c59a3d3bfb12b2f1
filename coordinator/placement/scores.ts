/**
 * Which of the nodes that fit? A cost per node, lower is better, so that the plan can keep nodes in a heap. A node's cost
 * changes only when something is placed on it, which is what makes the heap valid. Pure.
 */
import { countOf, type NodeTally } from './filters.ts'
import type { PlacementOptions, PlacementRequest, Strategy } from './model.ts'

export function strategyOf(request: PlacementRequest, options: PlacementOptions): Strategy {
  return options.forceStrategy ?? request.rules.strategy ?? options.strategy
}

/** Reserved share of the node's scarcest resource once the request is there, 0–1 (more when overcommitted). */
export function useWith(request: PlacementRequest, tally: NodeTally): number {
  const { capacity } = tally.node
  const cpu = share(capacity.cpuMillis - tally.cpuMillis + request.charge.cpuMillis, capacity.cpuMillis)
  const memory = share(capacity.memoryBytes - tally.memoryBytes + request.charge.memoryBytes, capacity.memoryBytes)
  const slots = share(capacity.slots - tally.slots + 1, capacity.slots)
  return Math.max(cpu, memory, slots)
}

/** Cost of the node for the request, without that of its zone. */
export function nodeCost(request: PlacementRequest, tally: NodeTally, strategy: Strategy, options: PlacementOptions): number {
  const { weights } = options
  const { node } = tally
  let cost = 0
  const here = countOf(tally, request.service)
  if (strategy === 'random') cost += hashUnit(`${request.group}\n${node.id}\n${here}`)
  else if (strategy === 'binpack') cost -= weights.use * useWith(request, tally)
  else cost += weights.service * here + weights.use * useWith(request, tally)
  if (strategy !== 'random' && node.measuredUse !== null) cost += weights.measuredUse * node.measuredUse
  for (const image of request.images) if (!node.images.has(image)) cost += weights.imageAbsent
  if (!request.affinityRequired) {
    for (const other of request.near) if (countOf(tally, other) === 0) cost += weights.affinity
    for (const other of request.avoid) if (countOf(tally, other) > 0) cost += weights.affinity
  }
  return cost
}

function share(used: number, capacity: number): number {
  return capacity > 0 ? used / capacity : used > 0 ? 1 : 0
}

/** FNV-1a with a final mix, as a number in [0, 1): the same text always lands in the same place. */
function hashUnit(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i += 1) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x7feb352d)
  hash = Math.imul(hash ^ (hash >>> 15), 0x846ca68b)
  return ((hash ^ (hash >>> 16)) >>> 0) / 4294967296
}
