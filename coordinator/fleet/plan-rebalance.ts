/**
 * What moves onto a node that has just joined? One instance from the fullest node, when the two are far apart, the move makes
 * them more equal, and the hour's budget of moves is not used up. One move at a time: the next is planned when its effect is
 * seen. Pure. Times are epoch ms.
 */
import { compare } from '../../shared/compare.ts'
import type { InstanceId, NodeId } from '../../shared/model/identity.ts'
import type { Plan, Reason } from '../../shared/plan.ts'
import { zoneValues } from '../placement/board.ts'
import type { PlacementNode, PlacementRequest, ScoreWeights } from '../placement/model.ts'
import { planPlacement } from '../placement/plan-placement.ts'
import { reservedUse } from './plan-consolidation.ts'

export interface RebalanceAction {
  readonly kind: 'move'
  readonly instance: InstanceId
  readonly from: NodeId
  readonly to: NodeId
  readonly reason: string
}

export interface RebalanceInput {
  readonly nodes: readonly PlacementNode[]
  readonly joinedAtMsOf: (nodeId: NodeId) => number
  /** Instances on a node that may be moved: ready, of a replicated service, no data, no strict singleton, not moving yet. */
  readonly movableOn: (nodeId: NodeId) => readonly PlacementRequest[]
  /** Why nothing is moved now, or null. */
  readonly hold: string | null
  /** When the latest moves began. */
  readonly movedAtMs: readonly number[]
  readonly weights: ScoreWeights
  readonly config: { readonly rebalanceMovesPerHour: number; readonly rebalanceImbalancePercent: number }
}

const HOUR_MS = 3_600_000
/** A node that has been there for longer fills by placement alone. */
const NEW_FOR_MS = 1_800_000
/** What waited for the node is placed first. */
const SETTLE_MS = 30_000

export function planRebalance(input: RebalanceInput, nowMs: number): Plan<RebalanceAction> {
  const reasons: Reason[] = []
  const nothing = (wakeAtMs: number | null = null) => ({ actions: [], reasons, wakeAtMs })
  const { rebalanceMovesPerHour: perHour, rebalanceImbalancePercent: imbalance } = input.config
  if (perHour === 0) return nothing()
  const open = input.nodes.filter((node) => node.closed === null)
  const young = open.filter((node) => nowMs - input.joinedAtMsOf(node.id) < NEW_FOR_MS)
  const target = young.map(withUse).sort(byUse)[0]
  if (!target || open.length < 2) return nothing()
  const donors = open
    .filter((node) => node.id !== target.node.id)
    .map(withUse)
    .sort((a, b) => -byUse(a, b))
  const fullest = donors[0]
  if (!fullest || (fullest.use - target.use) * 100 < imbalance) return nothing()
  const say = (code: string, text: string) => reasons.push({ subject: target.node.id, code, text })
  if (input.hold !== null) {
    say('rebalance-holds', input.hold)
    return nothing()
  }
  const settledAtMs = input.joinedAtMsOf(target.node.id) + SETTLE_MS
  if (nowMs < settledAtMs) return nothing(settledAtMs)
  const lately = input.movedAtMs.filter((atMs) => nowMs - atMs < HOUR_MS)
  if (lately.length >= perHour) {
    say('rebalance-budget', `${lately.length} of at most ${perHour} moves in this hour`)
    return nothing(Math.min(...lately) + HOUR_MS)
  }
  for (const donor of donors) {
    if ((donor.use - target.use) * 100 < imbalance) break
    const movable = [...input.movableOn(donor.node.id)].sort(
      (a, b) => shareOf(b, donor.node) - shareOf(a, donor.node) || compare(a.id, b.id),
    )
    for (const request of movable) {
      // Never past the middle: the next pass would move it back.
      if (donor.use - shareOf(request, donor.node) < target.use + shareOf(request, target.node)) continue
      // Even use is not worth what the service asked for: its instances apart, or near to what they need.
      const crowding = (at: PlacementNode) => crowdingOf(request, at, donor.node, input)
      if (crowding(target.node) > crowding(donor.node)) continue
      if (planPlacement({ requests: [request], nodes: [target.node] }).assignments.length === 0) continue
      const reason = `${donor.node.id} is ${percent(donor.use)} full, ${target.node.id}, which joined, ${percent(target.use)}`
      const action: RebalanceAction = { kind: 'move', instance: request.id, from: donor.node.id, to: target.node.id, reason }
      return { actions: [action], reasons, wakeAtMs: null }
    }
  }
  say('rebalance-none', `is emptier than ${fullest.node.id}, but nothing there can move`)
  return nothing()
}

/**
 * What it costs at that node by placement's weights, without the node's use: instances of its service in the same zones and on the node,
 * neighbours that are missing or unwanted. The instance itself, which is still where it comes from, does not count.
 */
function crowdingOf(
  request: PlacementRequest,
  at: PlacementNode,
  from: PlacementNode,
  { nodes, weights }: Pick<RebalanceInput, 'nodes' | 'weights'>,
): number {
  const { service, spreadOver, affinity } = weights
  const others = (node: PlacementNode) => (node.services.get(request.service) ?? 0) - (node.id === from.id ? 1 : 0)
  let cost = service * Math.max(0, others(at))
  zoneValues(request, at).forEach((value, level) => {
    let inZone = 0
    for (const node of nodes) if (zoneValues(request, node)[level] === value) inZone += Math.max(0, others(node))
    cost += (spreadOver / 2 ** level) * inZone
  })
  for (const near of request.near) if (near !== request.service && !at.services.has(near)) cost += affinity
  for (const avoid of request.avoid) if (avoid !== request.service && at.services.has(avoid)) cost += affinity
  return cost
}

/** Reserved share of the node's scarcest resource that the instance takes, 0–1. */
function shareOf({ charge }: PlacementRequest, { capacity }: PlacementNode): number {
  const share = (part: number, whole: number) => (whole > 0 ? part / whole : 0)
  return Math.max(share(charge.cpuMillis, capacity.cpuMillis), share(charge.memoryBytes, capacity.memoryBytes))
}

function withUse(node: PlacementNode): { readonly node: PlacementNode; readonly use: number } {
  return { node, use: reservedUse(node) }
}

function byUse(a: { node: PlacementNode; use: number }, b: { node: PlacementNode; use: number }): number {
  return a.use - b.use || compare(a.node.id, b.node.id)
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`
}
