/**
 * Which machines would hold these instances, and for how little? Packs them with the very filters of placement. Pure.
 *
 * Instances of a group are alike, so a machine is only ever offered as many of a group as could fit it, and a machine that was
 * chosen is chosen again, unasked, as long as nothing that the choice depended on has changed: the cost grows with pools ×
 * kinds of instances × different machines chosen, not with the number of instances × machines. Where that is too much for one pass
 * (a hundred kinds, none of them many), fewer machines are chosen, and the next pass goes on.
 */
import { compare } from '../../shared/compare.ts'
import type { Pool } from '../../shared/model/node.ts'
import {
  DEFAULT_PLACEMENT_OPTIONS,
  type PlacementNode,
  type PlacementOptions,
  type PlacementRequest,
} from '../placement/model.ts'
import { planPlacement } from '../placement/plan-placement.ts'

/** A pool with what a new machine of it offers. */
export interface Kind {
  readonly pool: Pool
  readonly node: PlacementNode
}

export interface Purchase {
  readonly kind: Kind
  readonly requests: readonly PlacementRequest[]
}

export interface Packing {
  readonly picks: readonly Purchase[]
  readonly left: readonly PlacementRequest[]
  /** More could be chosen for what is left: the work of one pass was done before. */
  readonly isCut: boolean
}

export interface Budgets {
  /** Why one more machine of the pool, beside those in `also`, is beyond a limit; null when it is not. */
  refusal(pool: Pool, also: readonly Pool[]): string | null
}

export interface PackingLimits {
  /** Machines that exist, by pool. */
  readonly counts: ReadonlyMap<string, number>
  /** null: money is no object. */
  readonly budget: Budgets | null
  /** Most machines to pick. */
  readonly room: number
}

/** Machines are packed full when they are bought, whatever strategy later spreads instances over them. */
export const PACK: PlacementOptions = { ...DEFAULT_PLACEMENT_OPTIONS, forceStrategy: 'binpack' }

/**
 * Groups offered to a machine, in all, each some 50 µs of the coordinator's one thread: for the first packing, for all that prefer a pool,
 * and for each packing's exchanges. Fifty machines, no two alike, of three pools for a dozen groups are within them.
 */
const GREEDY_WORK = 4_000
const PREFERRED_WORK = 3_000
const EXCHANGE_WORK = 2_000

/** Counts down what may still be done. */
interface Work {
  left: number
}

/** Pairs of machines beyond this are not tried to be merged into one: bounds the last step. */
const MERGE_LIMIT = 24

/**
 * The cheapest of several packings: one greedy by price per work held, and one per pool that starts with that pool alone, each
 * improved by exchanging machines for cheaper ones. Most instances held first, then least price, then fewest machines, then the
 * order of `kinds` (fault row 11: a stable choice). Not always the optimum, which is NP-hard; plan-packing.test.ts says how far off.
 */
export function cheapestPacking(requests: readonly PlacementRequest[], kinds: readonly Kind[], limits: PackingLimits): Packing {
  if (requests.length === 0 || kinds.length === 0 || limits.room <= 0) return { picks: [], left: requests, isCut: false }
  const improved = (packing: Packing) => {
    const work = { left: EXCHANGE_WORK }
    return merged(rightSized(packing, kinds, limits, work), kinds, limits, work)
  }
  const first = greedy(requests, kinds, limits, null, { left: GREEDY_WORK })
  let best = improved(first)
  if (first.isCut) return best
  const work = { left: PREFERRED_WORK }
  for (const preferred of kinds) {
    const packing = greedy(requests, kinds, limits, preferred, work)
    // What was cut held less for want of time, which says nothing of its price.
    if (packing.isCut) break
    const candidate = improved(packing)
    if (isBetter(candidate, best)) best = candidate
  }
  return best
}

/** Machines by pool once those are bought too. */
export function countsAfter(counts: ReadonlyMap<string, number>, picks: readonly Purchase[]): Map<string, number> {
  const after = new Map(counts)
  for (const { kind } of picks) after.set(kind.pool.name, (after.get(kind.pool.name) ?? 0) + 1)
  return after
}

function isBetter(a: Packing, b: Packing): boolean {
  if (a.left.length !== b.left.length) return a.left.length < b.left.length
  const difference = priceOf(a) - priceOf(b)
  if (Math.abs(difference) > 1e-9) return difference < 0
  return a.picks.length < b.picks.length
}

function priceOf(packing: Packing): number {
  return packing.picks.reduce((sum, pick) => sum + pick.kind.pool.priceUsdPerHour, 0)
}

/** Requests that are alike, in the order in which placement takes them. */
interface Heap {
  readonly members: readonly PlacementRequest[]
  taken: number
}

function greedy(
  requests: readonly PlacementRequest[],
  kinds: readonly Kind[],
  limits: PackingLimits,
  preferred: Kind | null,
  work: Work,
): Packing {
  const heaps = heapsOf(requests)
  const picks: Purchase[] = []
  const counts = new Map(limits.counts)
  const spent: Pool[] = []
  const add = (pick: Purchase) => {
    picks.push(pick)
    spent.push(pick.kind.pool)
    counts.set(pick.kind.pool.name, (counts.get(pick.kind.pool.name) ?? 0) + 1)
    for (const request of pick.requests) (heaps.get(request.group) as Heap).taken += 1
  }
  const mayAdd = ({ pool }: Kind) => (counts.get(pool.name) ?? 0) < pool.max && !limits.budget?.refusal(pool, spent)
  let isCut = false
  while (picks.length < limits.room) {
    if (work.left <= 0) {
      isCut = true
      break
    }
    let choice: { kind: Kind; requests: readonly PlacementRequest[]; ratio: number; work: number } | null = null
    const open = kinds.filter(mayAdd)
    const tried = preferred && open.includes(preferred) ? [preferred, ...open.filter((kind) => kind !== preferred)] : open
    for (const kind of tried) {
      const content = holdsOf(kind, heaps, work)
      if (content.held.length === 0) continue
      const ratio = kind.pool.priceUsdPerHour / content.work
      const isEqual = choice !== null && Math.abs(ratio - choice.ratio) <= 1e-12
      if (choice === null || ratio < choice.ratio - 1e-12 || (isEqual && content.work > choice.work))
        choice = { kind, requests: content.held, ratio, work: content.work }
      if (kind === preferred || work.left <= 0) break
    }
    if (!choice) break
    const { kind } = choice
    const times = repeats(choice.requests, heaps, open)
    add({ kind, requests: choice.requests })
    for (let again = 0; again < times && picks.length < limits.room && mayAdd(kind); again += 1)
      add({ kind, requests: nextLike(choice.requests, heaps) })
  }
  const left = [...heaps.values()].flatMap(({ members, taken }) => members.slice(taken))
  return { picks, left, isCut: isCut && left.length > 0 }
}

function heapsOf(requests: readonly PlacementRequest[]): Map<string, Heap> {
  const members = new Map<string, PlacementRequest[]>()
  for (const request of requests) {
    const group = members.get(request.group)
    if (group) group.push(request)
    else members.set(request.group, [request])
  }
  const heaps = new Map<string, Heap>()
  for (const [group, list] of members) heaps.set(group, { members: list.sort((a, b) => compare(a.id, b.id)), taken: 0 })
  return heaps
}

interface Content {
  readonly held: readonly PlacementRequest[]
  readonly work: number
}

/**
 * What to put onto one new machine of that kind: what placement would, large ones first, or a mix in the proportions of all that
 * waits, whichever is more work. The mix wins where some need CPU and others memory: large ones first would fill one of the two
 * and leave the other empty.
 */
function holdsOf(kind: Kind, heaps: ReadonlyMap<string, Heap>, work: Work): Content {
  const waiting = [...heaps.values()].filter(({ members, taken }) => taken < members.length)
  const first = ({ members, taken }: Heap) => members[taken] as PlacementRequest
  const pack = (countOf: (heap: Heap) => number): Content => {
    const offered = waiting.flatMap((heap) => heap.members.slice(heap.taken, heap.taken + countOf(heap)))
    if (offered.length === 0) return { held: [], work: 0 }
    work.left -= waiting.length
    const plan = planPlacement({ requests: offered, nodes: [kind.node], options: PACK })
    const held = plan.assignments.map(({ request }) => request)
    return { held, work: workOf(held) }
  }
  const largeFirst = pack((heap) => fitOf(first(heap), kind.node))
  if (waiting.length < 2) return largeFirst
  let share = 1
  for (const key of ['cpuMillis', 'memoryBytes', 'diskBytes'] as const) {
    const all = waiting.reduce((sum, heap) => sum + first(heap).charge[key] * (heap.members.length - heap.taken), 0)
    if (all > 0) share = Math.min(share, kind.node.free[key] / all)
  }
  const mixed = pack((heap) => Math.min(fitOf(first(heap), kind.node), Math.ceil(share * (heap.members.length - heap.taken))))
  return mixed.work > largeFirst.work + 1e-9 ? mixed : largeFirst
}

/** An upper bound for how many of its group the empty machine holds. */
function fitOf(request: PlacementRequest, { free }: PlacementNode): number {
  const { charge, rules } = request
  const apart = request.hostPorts.length > 0 || (request.affinityRequired && request.avoid.includes(request.service))
  let fit = apart ? 1 : Math.min(free.slots, rules.maxPerNode ?? free.slots)
  for (const key of ['cpuMillis', 'memoryBytes', 'diskBytes'] as const)
    if (charge[key] > 0) fit = Math.min(fit, Math.floor(free[key] / charge[key]))
  return Math.max(0, fit)
}

/** How often more the same choice comes out: while every group that it takes from still has more than any machine could hold. */
function repeats(taken: readonly PlacementRequest[], heaps: ReadonlyMap<string, Heap>, open: readonly Kind[]): number {
  const perGroup = new Map<string, number>()
  for (const { group } of taken) perGroup.set(group, (perGroup.get(group) ?? 0) + 1)
  let times = Number.POSITIVE_INFINITY
  for (const [group, count] of perGroup) {
    const { members, taken: gone } = heaps.get(group) as Heap
    const first = members[gone] as PlacementRequest
    const most = open.reduce((max, kind) => Math.max(max, fitOf(first, kind.node)), 0)
    times = Math.min(times, Math.floor((members.length - gone - most) / count))
  }
  return Math.max(0, times)
}

function nextLike(pattern: readonly PlacementRequest[], heaps: ReadonlyMap<string, Heap>): readonly PlacementRequest[] {
  const ahead = new Map<string, number>()
  return pattern.map(({ group }) => {
    const heap = heaps.get(group) as Heap
    const offset = ahead.get(group) ?? 0
    ahead.set(group, offset + 1)
    return heap.members[heap.taken + offset] as PlacementRequest
  })
}

/** Each machine becomes the cheapest kind that still holds what was packed onto it: the last one is seldom full. */
function rightSized(packing: Packing, kinds: readonly Kind[], limits: PackingLimits, work: Work): Packing {
  const counts = countsAfter(limits.counts, packing.picks)
  const byPrice = [...kinds].sort(byPriceThenName)
  const chosen = packing.picks.map((pick) => pick.kind.pool)
  const seen = new Map<string, Kind>()
  const picks = packing.picks.map((pick, index) => {
    const key = `${pick.kind.pool.name}\n${pick.requests.map((request) => request.group).join('\n')}`
    const known = seen.get(key)
    for (const kind of known ? [known] : byPrice) {
      if (kind.pool.priceUsdPerHour >= pick.kind.pool.priceUsdPerHour) break
      if ((counts.get(kind.pool.name) ?? 0) >= kind.pool.max) continue
      // A cheaper machine may still be out of reach of its own pool's budget.
      const others = chosen.filter((_, other) => other !== index)
      if (limits.budget?.refusal(kind.pool, others)) continue
      if (!known && !holdsAll(kind, pick.requests, work)) continue
      move(counts, pick.kind, kind)
      chosen[index] = kind.pool
      seen.set(key, kind)
      return { kind, requests: pick.requests }
    }
    if (!known) seen.set(key, pick.kind)
    return pick
  })
  return { ...packing, picks }
}

/** Two machines become one where that is cheaper. */
function merged(packing: Packing, kinds: readonly Kind[], limits: PackingLimits, work: Work): Packing {
  const picks = [...packing.picks]
  if (picks.length > MERGE_LIMIT) return packing
  const byPrice = [...kinds].sort(byPriceThenName)
  for (let a = 0; a < picks.length; a += 1)
    for (let b = a + 1; b < picks.length; b += 1) {
      const [one, two] = [picks[a] as Purchase, picks[b] as Purchase]
      const price = one.kind.pool.priceUsdPerHour + two.kind.pool.priceUsdPerHour
      const others = picks.filter((_, index) => index !== a && index !== b)
      const counts = countsAfter(limits.counts, others)
      const requests = [...one.requests, ...two.requests]
      const kind = byPrice.find(
        ({ pool, node }) =>
          pool.priceUsdPerHour < price - 1e-9 &&
          (counts.get(pool.name) ?? 0) < pool.max &&
          !limits.budget?.refusal(
            pool,
            others.map((other) => other.kind.pool),
          ) &&
          holdsAll({ pool, node }, requests, work),
      )
      if (!kind) continue
      picks[a] = { kind, requests }
      picks.splice(b, 1)
      b = a
    }
  return { ...packing, picks }
}

/** False too when there is no more time to find out. */
function holdsAll(kind: Kind, requests: readonly PlacementRequest[], work: Work): boolean {
  if (work.left <= 0 || requests.length > kind.node.free.slots) return false
  for (const key of ['cpuMillis', 'memoryBytes', 'diskBytes'] as const)
    if (requests.reduce((sum, { charge }) => sum + charge[key], 0) > kind.node.free[key] * (1 + 1e-9)) return false
  work.left -= new Set(requests.map(({ group }) => group)).size
  return planPlacement({ requests, nodes: [kind.node], options: PACK }).refusals.length === 0
}

function move(counts: Map<string, number>, from: Kind, to: Kind): void {
  counts.set(from.pool.name, (counts.get(from.pool.name) ?? 0) - 1)
  counts.set(to.pool.name, (counts.get(to.pool.name) ?? 0) + 1)
}

/** How much of a common machine (1 CPU, 4 GiB) the requests need: what a price is compared with. */
function workOf(requests: readonly PlacementRequest[]): number {
  return requests.reduce((sum, { charge }) => sum + charge.cpuMillis / 1000 + charge.memoryBytes / 2 ** 32 + 0.001, 0)
}

function byPriceThenName(a: Kind, b: Kind): number {
  return a.pool.priceUsdPerHour - b.pool.priceUsdPerHour || compare(a.pool.name, b.pool.name)
}
