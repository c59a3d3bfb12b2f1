/**
 * Which of the nodes that fit? A cost per node, lower is better, compared in whole steps. Within the plan
 * of one group a node's cost changes only upwards, except that of the node just chosen: this is what lets the plan work with
 * lower bounds. Pure.
 */
import { countOf, type NodeTally } from './filters.ts'
import type { Charge, PlacementOptions, PlacementRequest, Strategy } from './model.ts'

/** Steps per unit of cost: differences below 0.025 % of a node decide nothing. */
export const STEPS_PER_UNIT = 4_096
/** Keeps round costs (0, ½, ¼ …) away from the edge between two steps, where a bound could not tell them apart. */
const STEP_OFFSET = 0.3183

/** The step that a cost falls on. */
export function stepsOf(cost: number): number {
  return Math.floor(cost * STEPS_PER_UNIT + STEP_OFFSET)
}

export function strategyOf(request: PlacementRequest, options: PlacementOptions): Strategy {
  return options.forceStrategy ?? request.rules.strategy ?? options.strategy
}

/** Reserved share of the scarcest of CPU, memory and slots once the charge is there, 0–1 (more when overcommitted). Disk only filters. */
export function useWith(charge: Charge, tally: NodeTally): number {
  const { capacity } = tally.node
  const cpu = share(capacity.cpuMillis - tally.cpuMillis + charge.cpuMillis, capacity.cpuMillis)
  const memory = share(capacity.memoryBytes - tally.memoryBytes + charge.memoryBytes, capacity.memoryBytes)
  const slots = share(capacity.slots - tally.slots + 1, capacity.slots)
  return Math.max(cpu, memory, slots)
}

/** Cost of the node for the request, without that of its zone. */
export function nodeCost(request: PlacementRequest, tally: NodeTally, strategy: Strategy, options: PlacementOptions): number {
  const { weights } = options
  const { node } = tally
  let cost = 0
  if (strategy === 'random') cost += hashUnit(`${request.group}\n${node.id}\n${countOf(tally, request.service)}`)
  else if (strategy === 'binpack') cost -= weights.use * useWith(request.charge, tally)
  else cost += weights.service * countOf(tally, request.service) + weights.use * useWith(request.charge, tally)
  if (strategy !== 'random' && node.measuredUse !== null) cost += weights.measuredUse * node.measuredUse
  for (const image of request.images) if (!node.images.has(image)) cost += weights.imageAbsent
  if (!request.affinityRequired) {
    for (const other of request.near) if (countOf(tally, other) === 0) cost += weights.affinity
    for (const other of request.avoid) if (countOf(tally, other) > 0) cost += weights.affinity
  }
  return cost
}

/** Steps that `population` instances of the service in the same zone cost, at a level of `spreadOver` (0 is the first). */
export function zoneSteps(population: number, level: number, options: PlacementOptions): number {
  return Math.round((options.weights.spreadOver / 2 ** level) * population * STEPS_PER_UNIT)
}

export function share(used: number, capacity: number): number {
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
