/**
 * Which of what fits nowhere is bought for in this pass? All of it, as a rule. Beyond a bound of groups and instances the packing would hold
 * the coordinator's one thread for seconds: then those that nothing could be bought for lately come last, the important ones first, and of
 * equally important ones a group of each app in turn, so that no app's crowd hides another's instance. Pure.
 */
import { compare } from '../../shared/compare.ts'
import { type InstanceId, parseInstanceId } from '../../shared/model/identity.ts'
import type { PlacementRequest } from '../placement/model.ts'

export interface BuyingTurns {
  readonly chosen: readonly PlacementRequest[]
  readonly postponed: ReadonlySet<InstanceId>
}

const MOST_GROUPS = 100
/** Far more than `maxBuysPerPass` machines hold. */
const MOST_INSTANCES = 2_000

/** `tried`: groups that nothing could be bought for, longest ago first. */
export function takeTurns(requests: readonly PlacementRequest[], tried: ReadonlySet<string>): BuyingTurns {
  const groups = new Map<string, PlacementRequest[]>()
  for (const request of requests) {
    const members = groups.get(request.group)
    if (members) members.push(request)
    else groups.set(request.group, [request])
  }
  if (requests.length <= MOST_INSTANCES && groups.size <= MOST_GROUPS) return { chosen: requests, postponed: new Set() }
  const chosen = new Set<InstanceId>()
  let room = MOST_INSTANCES
  const first = inOrder(groups, tried).slice(0, MOST_GROUPS)
  // Small groups whole, and large ones as much as is left for each.
  first.sort((a, b) => a.length - b.length || compare(keyOf(a), keyOf(b)))
  first.forEach((members, index) => {
    const share = Math.floor(room / (first.length - index))
    for (const { id } of members.slice(0, share)) chosen.add(id)
    room -= Math.min(share, members.length)
  })
  return {
    chosen: requests.filter(({ id }) => chosen.has(id)),
    postponed: new Set(requests.flatMap(({ id }) => (chosen.has(id) ? [] : [id]))),
  }
}

function inOrder(
  groups: ReadonlyMap<string, readonly PlacementRequest[]>,
  tried: ReadonlySet<string>,
): (readonly PlacementRequest[])[] {
  const turnOf = new Map([...tried].map((group, index) => [group, index + 1]))
  const ofApp = new Map<string, number>()
  const keyed = [...groups]
    .sort(([a], [b]) => compare(a, b))
    .map(([group, members]) => {
      const priority = members[0]?.rules.priority ?? 0
      const app = `${priority} ${parseInstanceId(members[0]?.id ?? '')?.app ?? ''}`
      const rank = ofApp.get(app) ?? 0
      ofApp.set(app, rank + 1)
      return { members, group, priority, rank, turn: turnOf.get(group) ?? 0 }
    })
  keyed.sort((a, b) => a.turn - b.turn || b.priority - a.priority || a.rank - b.rank || compare(a.group, b.group))
  return keyed.map(({ members }) => members)
}

function keyOf(members: readonly PlacementRequest[]): string {
  return members[0]?.group ?? ''
}
