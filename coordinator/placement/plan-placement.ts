/**
 * Where do waiting instances go? Pure: equal input gives equal output, in any order of requests and nodes.
 *
 * Each instance in turn goes to a node that no filter turns it away from and that costs least (scores.ts, with the zones it shall
 * be spread over); among nodes that cost the same any, but always the same one. Requests of a group have equal requirements
 * and are placed through one market (market.ts). An instance costs about the logarithm of the number of nodes, whatever the mix
 * of services (ADR 0018).
 */
import type { InstanceId, NodeId } from '../../shared/model/identity.ts'
import { compare } from '../../shared/compare.ts'
import { type Answers, type ChosenBy, type GroupAnswer, NO_ANSWERS, verdictOf } from './answers.ts'
import { type Board, openBoard } from './board.ts'
import type { Explanation } from './explain.ts'
import { countOf, type NodeTally } from './filters.ts'
import { openMarket } from './market.ts'
import { DEFAULT_PLACEMENT_OPTIONS, type PlacementNode, type PlacementOptions, type PlacementRequest } from './model.ts'
import { openRankedMarket } from './ranked-market.ts'
import { useWith } from './scores.ts'

export interface PlacementInput {
  readonly requests: readonly PlacementRequest[]
  readonly nodes: readonly PlacementNode[]
  readonly options?: PlacementOptions
  /** What custom schedulers said; groups that are not in it are placed by the built-in one. */
  readonly answers?: Answers
}

export interface Assignment {
  readonly instance: InstanceId
  readonly node: NodeId
  readonly request: PlacementRequest
  /** Instances of the same service that were there already. */
  readonly siblings: number
  /** Reserved share of the node's scarcest resource afterwards, 0–1. */
  readonly use: number
  /** The custom scheduler that chose the node, and what it gave it; absent where the built-in one did. */
  readonly chosenBy?: ChosenBy
}

export interface Refusal {
  readonly instance: InstanceId
  readonly request: PlacementRequest
  readonly explanation: Explanation
}

export interface PlacementPlan {
  readonly assignments: readonly Assignment[]
  readonly refusals: readonly Refusal[]
}

/** Never assigns beyond a node's free resources nor against a filter; assignments of one plan count at once. */
export function planPlacement(input: PlacementInput): PlacementPlan {
  if (input.requests.length === 0) return { assignments: [], refusals: [] }
  const options = input.options ?? DEFAULT_PLACEMENT_OPTIONS
  const board = openBoard(input.nodes, input.requests, options)
  const assignments: Assignment[] = []
  const refusals: Refusal[] = []
  const answers = input.answers ?? NO_ANSWERS
  for (const group of groupsInOrder(input.requests, input.nodes)) {
    const answer = answers.get((group[0] as PlacementRequest).group) ?? null
    placeGroup(group, board, options, answer, assignments, refusals)
  }
  return { assignments, refusals }
}

/**
 * Important ones first; those that must be near others after them; then large before small, which packs better; then by key.
 */
function groupsInOrder(
  requests: readonly PlacementRequest[],
  nodes: readonly PlacementNode[],
): readonly (readonly PlacementRequest[])[] {
  const groups = new Map<string, PlacementRequest[]>()
  for (const request of requests) {
    const group = groups.get(request.group)
    if (group) group.push(request)
    else groups.set(request.group, [request])
  }
  // Size in parts of the cluster: what is scarce there makes large.
  const whole = { cpuMillis: 1, memoryBytes: 1, diskBytes: 1 }
  for (const { capacity } of nodes) {
    whole.cpuMillis += capacity.cpuMillis
    whole.memoryBytes += capacity.memoryBytes
    whole.diskBytes += capacity.diskBytes
  }
  const sizeOf = ({ charge }: PlacementRequest) =>
    charge.memoryBytes / whole.memoryBytes + charge.cpuMillis / whole.cpuMillis + charge.diskBytes / whole.diskBytes
  const keyed = [...groups.values()].map((members) => {
    const [first] = members as [PlacementRequest]
    members.sort((a, b) => compare(a.id, b.id))
    return { members, first, size: sizeOf(first) }
  })
  keyed.sort(
    (a, b) =>
      b.first.rules.priority - a.first.rules.priority ||
      Math.sign(a.first.near.length) - Math.sign(b.first.near.length) ||
      b.size - a.size ||
      compare(a.first.group, b.first.group),
  )
  return keyed.map(({ members }) => members)
}

function placeGroup(
  group: readonly PlacementRequest[],
  board: Board,
  options: PlacementOptions,
  answer: GroupAnswer | null,
  assignments: Assignment[],
  refusals: Refusal[],
): void {
  const [first] = group as readonly [PlacementRequest]
  const market = answer === null ? openMarket(first, board, options) : openRankedMarket(first, board, options, answer)
  let refusal: Explanation | null = null
  const last = group[group.length - 1]
  for (const member of group) {
    const index = refusal === null ? market.cheapest() : -1
    if (index < 0) {
      refusal ??= market.explain()
      refusals.push({ instance: member.id, request: member, explanation: refusal })
      continue
    }
    const tally = board.tallies[index] as NodeTally
    const siblings = countOf(tally, member.service)
    assignments.push({
      instance: member.id,
      node: tally.node.id,
      request: member,
      siblings,
      use: useWith(member.charge, tally),
      ...(answer === null ? {} : { chosenBy: chosenBy(answer, tally.node.id) }),
    })
    market.take(member, member === last)
  }
  market.close()
}

function chosenBy(answer: GroupAnswer, node: NodeId): ChosenBy {
  const verdict = verdictOf(answer, node)
  return { scheduler: answer.scheduler, score: verdict.kind === 'accept' ? verdict.score : 0 }
}
