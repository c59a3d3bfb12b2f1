/**
 * Which nodes is a scheduler asked about? Those that pass every filter for one instance of the group, best first by the built-in
 * scheduler's own costs, in pages of bounded size. Pure.
 */
import type { NodeId } from '../../shared/model/identity.ts'
import { type Board, zoneValues } from '../placement/board.ts'
import { firstStaticRejection, firstTallyRejection, type NodeTally } from '../placement/filters.ts'
import { populationsOf, withoutSelf } from '../placement/market.ts'
import type { PlacementNode, PlacementOptions, PlacementRequest } from '../placement/model.ts'
import { nodeCost, stepsOf, strategyOf, zoneSteps } from '../placement/scores.ts'
import { API_VERSION, type Candidate, type Question } from './protocol.ts'

/** Looks at every node of the board once. The board was opened for requests of which `group` is one. */
export function candidatesFor(group: PlacementRequest, board: Board, options: PlacementOptions): readonly PlacementNode[] {
  const request = withoutSelf(group, board)
  const populations = populationsOf(group, board)
  const strategy = strategyOf(group, options)
  const steps = (tally: NodeTally) =>
    zoneValues(group, tally.node).reduce(
      (sum, value, level) => sum + zoneSteps(populations[level]?.get(value) ?? 0, level, options),
      stepsOf(nodeCost(request, tally, strategy, options)),
    )
  return board.tallies
    .filter(
      (tally) => firstStaticRejection(group, tally.node) === null && firstTallyRejection(request, tally, board.volumes) === null,
    )
    .map((tally) => ({ node: tally.node, steps: steps(tally) }))
    .sort((a, b) => a.steps - b.steps || (a.node.id < b.node.id ? -1 : 1))
    .map(({ node }) => node)
}

export interface QuestionContext {
  readonly scheduler: string
  readonly count: number
  readonly labels: Readonly<Record<string, string>>
  readonly dryRun: boolean
}

export function questionOf(
  request: PlacementRequest,
  page: readonly PlacementNode[],
  leftOut: number,
  context: QuestionContext,
): Question {
  const [app = '', name = ''] = request.service.split('/')
  const { cpuMillis, memoryBytes, diskBytes } = request.charge
  return {
    apiVersion: API_VERSION,
    scheduler: context.scheduler,
    dryRun: context.dryRun,
    service: {
      id: request.service,
      app,
      name,
      labels: { ...context.labels },
      priority: request.rules.priority,
      charge: { cpuMillis, memoryBytes, diskBytes },
      images: [...request.images],
      volumes: [...request.volumes],
      near: [...request.near],
      avoid: [...request.avoid],
    },
    count: context.count,
    nodes: page.map((node) => candidateOf(node, request)),
    leftOut,
  }
}

function candidateOf(node: PlacementNode, request: PlacementRequest): Candidate {
  let instances = 0
  for (const count of node.services.values()) instances += count
  return {
    id: node.id,
    hostname: node.hostname,
    labels: { ...node.labels },
    engineLabels: { ...node.engineLabels },
    taints: [...node.taints],
    platform: node.platform,
    pool: node.pool,
    provider: node.provider,
    zone: node.zone,
    capacity: { ...node.capacity },
    free: { ...node.free },
    usePercent: node.measuredUse === null ? null : Math.round(node.measuredUse * 100),
    instances,
    ofService: node.services.get(request.service) ?? 0,
    hasImages: request.images.every((image) => node.images.has(image)),
  }
}

/** Ids of a question's nodes. */
export function idsOf(question: Question): readonly NodeId[] {
  return question.nodes.map((node) => node.id)
}
