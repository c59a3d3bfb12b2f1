/**
 * Why bought? Instances that fit nowhere → the cheapest set of machines that would hold them, found by packing them with the
 * very filters of placement. First what is there or coming is counted, then nodes that the fleet itself is giving back are
 * taken back, and only then is anything bought, within each pool's maximum and the budget. Pure.
 */
import type { InstanceId, MachineId, NodeId } from '../../shared/model/identity.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { earliest, type Plan, type Reason } from '../../shared/plan.ts'
import { renderExplanation } from '../placement/explain.ts'
import {
  DEFAULT_PLACEMENT_OPTIONS,
  type PlacementNode,
  type PlacementOptions,
  type PlacementRequest,
} from '../placement/model.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import { planPlacement } from '../placement/plan-placement.ts'
import type { FleetConfig } from './config.ts'
import { isAlive, isComing, mayExist } from './machine-states.ts'
import { budgetOf, type BudgetState, poolBudgetOf } from './plan-budget.ts'

export type CapacityAction =
  | { readonly kind: 'reclaim'; readonly nodeId: NodeId; readonly instances: readonly InstanceId[] }
  | { readonly kind: 'buy'; readonly pool: string; readonly instances: readonly InstanceId[]; readonly reason: string }

export interface CapacityInput {
  readonly refused: readonly PlacementRequest[]
  /** Nodes as placement sees them, with those not heard of since a take-over opened: not observed is not "not there". */
  readonly nodes: readonly PlacementNode[]
  /** Nodes that the fleet itself cordoned or drains, as they would be if it took them back. */
  readonly reclaimable: readonly PlacementNode[]
  readonly machines: readonly MachineRecord[]
  readonly pools: readonly Pool[]
  /** Joined nodes per pool beside machines (static ones that joined by hand). */
  readonly handJoined: ReadonlyMap<string, number>
  /** Pools that rest after failures, until when and why. */
  readonly cooling: ReadonlyMap<string, { readonly untilMs: number; readonly reason: string }>
  /** Providers that are configured; pools of others cannot be bought from. */
  readonly providers: ReadonlySet<string>
  readonly config: Pick<FleetConfig, 'maxBuysPerPass' | 'budgetUsdPerMonth'>
  readonly nowMs: number
}

export interface CapacityPlan extends Plan<CapacityAction> {
  /** Instances that fit a machine on its way. */
  readonly waiting: ReadonlyMap<InstanceId, MachineId>
  /** Instances that nothing is bought for, and why. */
  readonly blocked: ReadonlyMap<InstanceId, string>
  /** Set when only the budget stands in the way: the sentence with the sum. */
  readonly budgetReached: string | null
}

interface Purchase {
  readonly kind: Kind
  readonly requests: readonly PlacementRequest[]
}

/** A pool with what a new machine of it offers. */
interface Kind {
  readonly pool: Pool
  readonly node: PlacementNode
}

interface Solution {
  readonly picks: readonly Purchase[]
  readonly left: readonly PlacementRequest[]
}

/** Machines are packed full when they are bought, whatever strategy later spreads instances over them. */
const PACK: PlacementOptions = { ...DEFAULT_PLACEMENT_OPTIONS, forceStrategy: 'binpack' }

export function planCapacity(input: CapacityInput): CapacityPlan {
  const actions: CapacityAction[] = []
  const reasons: Reason[] = []
  const waiting = new Map<InstanceId, MachineId>()
  const blocked = new Map<InstanceId, string>()
  const pools = [...input.pools].sort((a, b) => compare(a.name, b.name))
  const kinds = new Map(pools.map((pool) => [pool.name, kindOf(pool, input.nodes)]))
  const counts = new Map(pools.map((pool) => [pool.name, existingOf(pool.name, input)]))
  const budget = budgetsOf(input)

  // The minimum of each pool, whatever is asked for.
  const bought: { id: string; node: PlacementNode }[] = []
  for (const pool of pools) {
    const alive = input.machines.filter((machine) => machine.pool === pool.name && isAlive(machine)).length
    const have = alive + (input.handJoined.get(pool.name) ?? 0)
    if (!isAvailable(pool, input, counts)) continue
    for (let missing = pool.min - have; missing > 0 && actions.length < input.config.maxBuysPerPass; missing -= 1) {
      if ((counts.get(pool.name) ?? 0) >= pool.max) break
      const kind = kinds.get(pool.name) as Kind
      bought.push({ id: `~min-${pool.name}-${missing}`, node: kind.node })
      counts.set(pool.name, (counts.get(pool.name) ?? 0) + 1)
      actions.push({ kind: 'buy', pool: pool.name, instances: [], reason: `pool ${pool.name} keeps at least ${pool.min}` })
    }
  }

  // What is there, and what is on its way.
  const wanted = input.refused.filter((request) => !request.global)
  const coming = input.machines.filter(isComing)
  const virtual = coming.flatMap((machine) => {
    const kind = kinds.get(machine.pool)
    return kind ? [{ ...kind.node, id: machine.id, hostname: machine.id }] : []
  })
  virtual.push(...bought.map(({ id, node }) => ({ ...node, id, hostname: id })))
  const comingIds = new Set(coming.map((machine) => machine.id))
  const held = planPlacement({ requests: wanted, nodes: [...input.nodes, ...virtual], options: PACK })
  for (const { instance, node } of held.assignments) {
    if (!comingIds.has(node)) continue
    waiting.set(instance, node)
    reasons.push({ subject: instance, code: 'waits-for-machine', text: `waiting for machine ${node}` })
  }
  let rest = held.refusals.map((refusal) => refusal.request)

  // What we were about to give back.
  if (rest.length > 0 && input.reclaimable.length > 0) {
    const back = planPlacement({ requests: rest, nodes: input.reclaimable, options: PACK })
    const byNode = new Map<NodeId, InstanceId[]>()
    for (const { instance, node } of back.assignments) {
      const list = byNode.get(node)
      if (list) list.push(instance)
      else byNode.set(node, [instance])
    }
    for (const [nodeId, instances] of byNode) actions.push({ kind: 'reclaim', nodeId, instances })
    rest = back.refusals.map((refusal) => refusal.request)
  }

  // What must be bought.
  const room = Math.max(0, input.config.maxBuysPerPass - actions.length)
  const offered = pools.filter((pool) => isAvailable(pool, input, counts)).map((pool) => kinds.get(pool.name) as Kind)
  const solution = cheapest(rest, offered, { counts, budget, room })
  for (const { kind, requests } of solution.picks) {
    const instances = requests.map((request) => request.id)
    const reason = `${summary(instances)} fit${instances.length === 1 ? 's' : ''} nowhere; ${kind.pool.name} at ${usd(kind.pool.priceUsdPerHour)}/h is the cheapest that holds ${instances.length === 1 ? 'it' : 'them'}`
    actions.push({ kind: 'buy', pool: kind.pool.name, instances, reason })
    reasons.push({ subject: kind.pool.name, code: 'buys', text: reason })
  }

  // What is left, and why.
  let budgetReached: string | null = null
  if (solution.left.length > 0 && solution.picks.length < room) {
    const unlimited = cheapest(solution.left, offered, { counts: countsAfter(counts, solution), budget: null, room })
    for (const { kind, requests } of unlimited.picks) {
      const text =
        budget.refusal(
          kind.pool,
          solution.picks.map((pick) => pick.kind.pool),
        ) ?? `pool ${kind.pool.name}: budget reached`
      budgetReached ??= text
      for (const request of requests) blocked.set(request.id, text)
    }
    const perGroup = new Map<string, string>()
    for (const request of unlimited.left) {
      const text = perGroup.get(request.group) ?? noPoolFits(request, pools, kinds, counts, input)
      perGroup.set(request.group, text)
      blocked.set(request.id, text)
    }
  }
  for (const [subject, text] of blocked) reasons.push({ subject, code: 'not-bought', text })

  let wakeAtMs: number | null = null
  for (const { untilMs } of input.cooling.values()) if (untilMs > input.nowMs) wakeAtMs = earliest(wakeAtMs, untilMs)
  return { actions, reasons, wakeAtMs, waiting, blocked, budgetReached }
}

/** A new machine of the pool, as the latest node of that pool turned out to be: a promise that did not come true is not repeated. */
function kindOf(pool: Pool, nodes: readonly PlacementNode[]): Kind {
  const example = nodes.findLast((node) => node.pool === pool.name)
  const platform = pool.settings.platform
  const capacity = example
    ? {
        cpuMillis: Math.min(pool.capacity.cpuMillis, example.capacity.cpuMillis),
        memoryBytes: Math.min(pool.capacity.memoryBytes, example.capacity.memoryBytes),
        diskBytes: Math.min(pool.capacity.diskBytes, example.capacity.diskBytes),
        slots: Math.min(pool.capacity.slots, example.capacity.slots),
      }
    : pool.capacity
  const node = assumedNode(`~${pool.name}`, capacity, {
    labels: pool.labels,
    taints: pool.taints,
    pool: pool.name,
    provider: pool.provider,
    zone: pool.zone,
    platform: example?.platform ?? (typeof platform === 'string' ? platform : 'linux/amd64'),
    ...(example ? { runtimes: example.runtimes, engineLabels: example.engineLabels } : {}),
  })
  return { pool, node }
}

function existingOf(pool: string, input: CapacityInput): number {
  const machines = input.machines.filter((machine) => machine.pool === pool && mayExist(machine)).length
  return machines + (input.handJoined.get(pool) ?? 0)
}

function isAvailable(pool: Pool, input: CapacityInput, counts: ReadonlyMap<string, number>): boolean {
  return unavailableReason(pool, input, counts) === null
}

function unavailableReason(pool: Pool, input: CapacityInput, counts: ReadonlyMap<string, number>): string | null {
  if (!input.providers.has(pool.provider)) return `provider ${pool.provider} is not configured`
  const rest = input.cooling.get(pool.name)
  if (rest && rest.untilMs > input.nowMs)
    return `rests for ${Math.ceil((rest.untilMs - input.nowMs) / 1000)} s after: ${rest.reason}`
  return (counts.get(pool.name) ?? 0) >= pool.max ? `at its maximum of ${pool.max}` : null
}

interface Limits {
  readonly counts: ReadonlyMap<string, number>
  readonly budget: Budgets | null
  readonly room: number
}

/**
 * The cheapest of several packings: one greedy by price per work held, and one per pool that starts with that pool alone.
 * Most instances held first, then least price, then fewest machines, then the order of pools (fault row 11: a stable choice).
 */
function cheapest(requests: readonly PlacementRequest[], kinds: readonly Kind[], limits: Limits): Solution {
  let best: Solution = { picks: [], left: requests }
  if (requests.length === 0 || kinds.length === 0) return best
  for (const preferred of [null, ...kinds]) {
    const solution = rightSized(greedy(requests, kinds, limits, preferred), kinds, limits)
    if (isBetter(solution, best)) best = solution
  }
  return best
}

function isBetter(a: Solution, b: Solution): boolean {
  if (a.left.length !== b.left.length) return a.left.length < b.left.length
  const difference = priceOf(a) - priceOf(b)
  if (Math.abs(difference) > 1e-9) return difference < 0
  return a.picks.length < b.picks.length
}

function priceOf(solution: Solution): number {
  return solution.picks.reduce((sum, pick) => sum + pick.kind.pool.priceUsdPerHour, 0)
}

function greedy(requests: readonly PlacementRequest[], kinds: readonly Kind[], limits: Limits, preferred: Kind | null): Solution {
  const picks: Purchase[] = []
  const counts = new Map(limits.counts)
  let left = requests
  while (left.length > 0 && picks.length < limits.room) {
    let choice: { pick: Purchase; left: readonly PlacementRequest[]; ratio: number; work: number } | null = null
    const open = kinds.filter((kind) => mayAdd(kind.pool, counts, picks, limits))
    const tried = preferred && open.includes(preferred) ? [preferred, ...open.filter((kind) => kind !== preferred)] : open
    for (const kind of tried) {
      const plan = planPlacement({ requests: left, nodes: [kind.node], options: PACK })
      if (plan.assignments.length === 0) continue
      const work = workOf(plan.assignments.map((assignment) => assignment.request))
      const ratio = kind.pool.priceUsdPerHour / work
      if (choice === null || ratio < choice.ratio - 1e-12 || (Math.abs(ratio - choice.ratio) <= 1e-12 && work > choice.work)) {
        const pick = { kind, requests: plan.assignments.map((assignment) => assignment.request) }
        choice = { pick, left: plan.refusals.map((refusal) => refusal.request), ratio, work }
      }
      if (kind === preferred) break
    }
    if (!choice) break
    picks.push(choice.pick)
    counts.set(choice.pick.kind.pool.name, (counts.get(choice.pick.kind.pool.name) ?? 0) + 1)
    left = choice.left
  }
  return { picks, left }
}

/** Each machine becomes the cheapest kind that still holds what was packed onto it: the last one is seldom full. */
function rightSized(solution: Solution, kinds: readonly Kind[], limits: Limits): Solution {
  const counts = countsAfter(limits.counts, solution)
  const byPrice = [...kinds].sort((a, b) => a.pool.priceUsdPerHour - b.pool.priceUsdPerHour || compare(a.pool.name, b.pool.name))
  const picks = solution.picks.map((pick) => {
    for (const kind of byPrice) {
      if (kind.pool.priceUsdPerHour >= pick.kind.pool.priceUsdPerHour) return pick
      if ((counts.get(kind.pool.name) ?? 0) >= kind.pool.max) continue
      // A cheaper machine may still be out of reach of its own pool's budget.
      if (limits.budget?.refusal(kind.pool, solution.picks.map((other) => other.kind.pool).concat(kind.pool))) continue
      if (planPlacement({ requests: pick.requests, nodes: [kind.node], options: PACK }).refusals.length > 0) continue
      counts.set(pick.kind.pool.name, (counts.get(pick.kind.pool.name) ?? 0) - 1)
      counts.set(kind.pool.name, (counts.get(kind.pool.name) ?? 0) + 1)
      return { kind, requests: pick.requests }
    }
    return pick
  })
  return { picks, left: solution.left }
}

function mayAdd(pool: Pool, counts: ReadonlyMap<string, number>, picks: readonly Purchase[], limits: Limits): boolean {
  if ((counts.get(pool.name) ?? 0) >= pool.max) return false
  return !limits.budget?.refusal(
    pool,
    picks.map((pick) => pick.kind.pool),
  )
}

function countsAfter(counts: ReadonlyMap<string, number>, solution: Solution): Map<string, number> {
  const after = new Map(counts)
  for (const { kind } of solution.picks) after.set(kind.pool.name, (after.get(kind.pool.name) ?? 0) + 1)
  return after
}

/** How much of a common machine (1 CPU, 4 GiB) the requests need: what a price is compared with. */
function workOf(requests: readonly PlacementRequest[]): number {
  return requests.reduce((sum, { charge }) => sum + charge.cpuMillis / 1000 + charge.memoryBytes / 2 ** 32 + 0.001, 0)
}

interface Budgets {
  /** Why one more machine of the pool, beside those in `also`, is beyond a limit; null when it is not. */
  refusal(pool: Pool, also: readonly Pool[]): string | null
}

function budgetsOf(input: CapacityInput): Budgets {
  const base = { machines: input.machines, pools: input.pools, nowMs: input.nowMs, limitUsd: input.config.budgetUsdPerMonth }
  const whole = budgetOf(base)
  const perPool = new Map(input.pools.map((pool) => [pool.name, poolBudgetOf(pool, base)]))
  return {
    refusal(pool, also) {
      const own = perPool.get(pool.name) ?? null
      return (
        overLimit(whole, pool, also, 'the budget') ??
        (own &&
          overLimit(
            own,
            pool,
            also.filter((other) => other.name === pool.name),
            `the budget of pool ${pool.name}`,
          ))
      )
    },
  }
}

function overLimit(budget: BudgetState, pool: Pool, also: readonly Pool[], what: string): string | null {
  if (budget.limitUsd === null || pool.priceUsdPerHour === 0) return null
  const cost = budget.costUsdOf(pool)
  const total = also.reduce((sum, other) => sum + budget.costUsdOf(other), budget.projectedUsd) + cost
  if (total <= budget.limitUsd + 1e-9) return null
  return `one more ${pool.name} (${usd(cost)}) would bring this month to ${usd(total)}, over ${what} of ${usd(budget.limitUsd)}`
}

function noPoolFits(
  request: PlacementRequest,
  pools: readonly Pool[],
  kinds: ReadonlyMap<string, Kind>,
  counts: ReadonlyMap<string, number>,
  input: CapacityInput,
): string {
  if (pools.length === 0) return 'no pool is defined to buy machines from'
  const texts = pools.map((pool) => {
    const kind = kinds.get(pool.name) as Kind
    const refusal = planPlacement({ requests: [request], nodes: [kind.node], options: PACK }).refusals[0]
    const text = refusal
      ? renderExplanation(refusal.explanation).replace(/^0 of 1 node: 1 /, '')
      : unavailableReason(pool, input, counts)
    return `${pool.name}: ${text ?? 'cannot hold all of them'}`
  })
  return `no pool fits, ${texts.join('; ')}`
}

function summary(instances: readonly InstanceId[]): string {
  const shown = instances.slice(0, 3).join(', ')
  return instances.length > 3 ? `${shown} and ${instances.length - 3} more` : shown
}

function usd(amount: number): string {
  return `$${amount >= 0.1 || amount === 0 ? amount.toFixed(2) : amount.toPrecision(2)}`
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
