/**
 * Why bought? Instances that fit nowhere → the cheapest set of machines that would hold them, found by packing them with the
 * very filters of placement. First what is there or coming is counted, then nodes that the fleet itself is giving back are
 * taken back, and only then is anything bought, within each pool's maximum and the budget. What is expected soon (a forecast,
 * spare room, instances on a machine that the cloud takes away) is planned behind it in the same way, but never placed. Pure.
 */
import { compare } from '../../shared/compare.ts'
import type { InstanceId, MachineId, NodeId } from '../../shared/model/identity.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { earliest, type Plan, type Reason } from '../../shared/plan.ts'
import { type Answers, NO_ANSWERS } from '../placement/answers.ts'
import { renderExplanation } from '../placement/explain.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'
import { planPlacement } from '../placement/plan-placement.ts'
import type { FleetConfig } from './config.ts'
import { isAlive, isComing, mayExist } from './machine-states.ts'
import { budgetOf, type BudgetState, poolBudgetOf } from './plan-budget.ts'
import { type InVainPlan, planInVain } from './plan-in-vain.ts'
import { kindsOf } from './plan-kinds.ts'
import type { PoolLead } from './plan-leads.ts'
import { type Budgets, cheapestPacking, countsAfter, type Kind, PACK } from './plan-packing.ts'
import { planStandIns } from './plan-stand-ins.ts'
import { takeTurns, type BuyingTurns } from './plan-turns.ts'

export type CapacityAction =
  | { readonly kind: 'reclaim'; readonly nodeId: NodeId; readonly instances: readonly InstanceId[] }
  | {
      readonly kind: 'buy'
      readonly pool: string
      readonly instances: readonly InstanceId[]
      readonly reason: string
      /** The machine on its way that takes too long; one of the two is cancelled when the other has joined. */
      readonly standInFor?: MachineId
    }
  | { readonly kind: 'cancel'; readonly machineId: MachineId; readonly reason: string }

/** Room that is wanted for something which is not there yet. */
export interface Ghost {
  readonly request: PlacementRequest
  /** Ends "room for …": `shop/web, as forecast`. */
  readonly why: string
}

export interface CapacityInput {
  readonly refused: readonly PlacementRequest[]
  /** See `Ghost`; default none. Their priority has to be below that of every real request. */
  readonly ghosts?: readonly Ghost[]
  /** Nodes as placement sees them, with those not heard of since a take-over opened: not observed is not "not there". */
  readonly nodes: readonly PlacementNode[]
  /** Nodes that the fleet itself cordoned or drains, as they would be if it took them back. */
  readonly reclaimable: readonly PlacementNode[]
  readonly machines: readonly MachineRecord[]
  /** Those that ended, for what they cost, if they are not among `machines`; default none. */
  readonly ended?: readonly MachineRecord[]
  readonly pools: readonly Pool[]
  /** Joined nodes per pool beside machines (static ones that joined by hand). */
  readonly handJoined: ReadonlyMap<string, number>
  /** Pools that rest after failures, until when and why. */
  readonly cooling: ReadonlyMap<string, { readonly untilMs: number; readonly reason: string }>
  /** Providers that are configured; pools of others cannot be bought from. */
  readonly providers: ReadonlySet<string>
  /** What earlier machines of each pool taught; default nothing. */
  readonly leads?: ReadonlyMap<string, PoolLead>
  /** The `tried` of the plan before; default none. */
  readonly tried?: ReadonlySet<string>
  /** What custom schedulers said of the nodes that are there, open to others (answers.ts); default nothing. */
  readonly answers?: Answers
  readonly config: Pick<FleetConfig, 'maxBuysPerPass' | 'budgetUsdPerMonth' | 'slowBootFactor'>
  readonly nowMs: number
}

export interface CapacityPlan extends Plan<CapacityAction> {
  /** Instances that fit a machine on its way. */
  readonly waiting: ReadonlyMap<InstanceId, MachineId>
  /** Instances that nothing is bought for, and why. */
  readonly blocked: ReadonlyMap<InstanceId, string>
  /** What was not looked at: there was too much for one pass. */
  readonly postponed: ReadonlySet<InstanceId>
  /** Groups that had their turn for nothing, longest ago first, while there is more than one pass can look at. */
  readonly tried: ReadonlySet<string>
  /** Set when only the budget stands in the way: the sentence with the sum. */
  readonly budgetReached: string | null
  /** How many instances only the budget stands in the way of. */
  readonly unaffordable: number
}

const NONE: ReadonlySet<string> = new Set()
/** What was postponed has its turn so soon. */
const NEXT_TURN_MS = 1_000

/** Below every priority that a service can have. */
export const GHOST_PRIORITY = -1

export function planCapacity(input: CapacityInput): CapacityPlan {
  const actions: CapacityAction[] = []
  const reasons: Reason[] = []
  const waiting = new Map<InstanceId, MachineId>()
  const blocked = new Map<InstanceId, string>()
  const pools = [...input.pools].sort((a, b) => compare(a.name, b.name))
  const kinds = once(() => kindsOf(pools, input.nodes, input.machines))
  const kindOf = (pool: Pool) => kinds().get(pool.name) as Kind
  const { counts, alive } = countsOf(pools, input)
  const budget = budgetsOf(input)
  const ghosts = new Map((input.ghosts ?? []).map(({ request, why }) => [request.id, why]))

  // The minimum of each pool, whatever is asked for.
  const bought: PlacementNode[] = []
  for (const pool of pools) {
    const have = (alive.get(pool.name) ?? 0) + (input.handJoined.get(pool.name) ?? 0)
    if (!isAvailable(pool, input, counts)) continue
    for (let missing = pool.min - have; missing > 0 && actions.length < input.config.maxBuysPerPass; missing -= 1) {
      if ((counts.get(pool.name) ?? 0) >= pool.max) break
      const id = `~min-${pool.name}-${missing}`
      bought.push({ ...kindOf(pool).node, id, hostname: id })
      counts.set(pool.name, (counts.get(pool.name) ?? 0) + 1)
      actions.push({ kind: 'buy', pool: pool.name, instances: [], reason: `pool ${pool.name} keeps at least ${pool.min}` })
    }
  }

  // What is there, and what is on its way.
  const real = input.refused.filter((request) => !request.global)
  const wanted = [...real, ...(input.ghosts ?? []).map(({ request }) => request)]
  const coming = input.machines.filter(isComing)
  const virtual = (wanted.length === 0 ? [] : coming).flatMap((machine) => {
    const kind = kinds().get(machine.pool)
    return kind ? [{ ...kind.node, id: machine.id, hostname: machine.id }] : []
  })
  const there = [...input.nodes, ...bought]
  const answers = input.answers ?? NO_ANSWERS
  const held = planPlacement({ requests: wanted, nodes: [...there, ...virtual], options: PACK, answers })
  const comingIds = new Set(coming.map((machine) => machine.id))
  const waitingOn = new Map<MachineId, PlacementRequest[]>()
  for (const { instance, node, request } of held.assignments) {
    if (!comingIds.has(node) || ghosts.has(instance)) continue
    waiting.set(instance, node)
    reasons.push({ subject: instance, code: 'waits-for-machine', text: `waiting for machine ${node}` })
    const list = waitingOn.get(node)
    if (list) list.push(request)
    else waitingOn.set(node, [request])
  }
  let rest = held.refusals.map((refusal) => refusal.request)

  // What we were about to give back.
  if (rest.length > 0 && input.reclaimable.length > 0) {
    const back = planPlacement({ requests: rest, nodes: input.reclaimable, options: PACK, answers })
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
  const isWorthAsking = rest.length > 0 || waitingOn.size > 0
  const offered = isWorthAsking ? pools.filter((pool) => isAvailable(pool, input, counts)).map(kindOf) : []
  const turns = takeTurns(rest, input.tried ?? NONE)
  const vain = planInVain({
    requests: turns.chosen,
    kinds: offered,
    pools: pools.map((pool) => pool.name),
    nodes: input.nodes,
    // Those that ended turned out to be something, too.
    machines: turns.chosen.length === 0 ? input.machines : [...input.machines, ...(input.ended ?? [])],
    nowMs: input.nowMs,
  })
  const solution = cheapestPacking(vain.wanted, offered, { counts, budget, room })
  for (const { kind, requests } of solution.picks) {
    const instances = requests.flatMap((request) => (ghosts.has(request.id) ? [] : [request.id]))
    const reason = reasonToBuy(kind.pool, instances, ghosts.get(requests[0]?.id ?? '') ?? '')
    actions.push({ kind: 'buy', pool: kind.pool.name, instances, reason })
    reasons.push({ subject: kind.pool.name, code: 'buys', text: reason })
  }

  // What is on its way and takes too long.
  const slow = planStandIns({
    machines: input.machines,
    leads: input.leads ?? new Map(),
    factor: input.config.slowBootFactor,
    waitingOn,
    kinds: offered,
    limits: { counts: countsAfter(counts, solution.picks), budget: budgetBeside(budget, solution.picks), room: 1 },
    refusedWithout: (id) =>
      planPlacement({ requests: wanted, nodes: [...there, ...virtual.filter((node) => node.id !== id)], options: PACK, answers })
        .refusals.length,
    refused: held.refusals.length,
    nowMs: input.nowMs,
  })
  actions.push(...slow.actions)
  reasons.push(...slow.reasons)

  // What is left, and why.
  let budgetReached: string | null = null
  let unaffordable = 0
  const say = (request: PlacementRequest, text: string) => {
    const why = ghosts.get(request.id)
    if (why === undefined) blocked.set(request.id, text)
    else if (!reasons.some((reason) => reason.code === 'no-room-ahead' && reason.text.includes(why)))
      reasons.push({ subject: request.service, code: 'no-room-ahead', text: `no room for ${why}: ${text}` })
  }
  const perGroup = new Map<string, string>()
  const sayNoPool = (request: PlacementRequest) => {
    const text = perGroup.get(request.group) ?? noPoolFits(request, pools, kinds(), counts, vain, input)
    perGroup.set(request.group, text)
    say(request, text)
  }
  for (const request of turns.chosen) if (vain.left.has(request.id)) sayNoPool(request)
  reasons.push(...vainReasons(vain))
  const isDone = !solution.isCut && solution.picks.length < room
  if (solution.left.length > 0 && isDone) {
    const limits = { counts: countsAfter(counts, solution.picks), budget: null, room }
    const unlimited = cheapestPacking(solution.left, offered, limits)
    for (const { kind, requests } of unlimited.picks) {
      const text =
        budget.refusal(
          kind.pool,
          solution.picks.map((pick) => pick.kind.pool),
        ) ?? `pool ${kind.pool.name}: budget reached`
      const real = requests.filter((request) => !ghosts.has(request.id))
      unaffordable += real.length
      if (real.length > 0) budgetReached ??= text
      for (const request of requests) say(request, text)
    }
    for (const request of unlimited.left) sayNoPool(request)
  }
  for (const [subject, text] of blocked) reasons.push({ subject, code: 'not-bought', text })

  let wakeAtMs = earliest(slow.wakeAtMs, vain.wakeAtMs)
  for (const { untilMs } of input.cooling.values()) if (untilMs > input.nowMs) wakeAtMs = earliest(wakeAtMs, untilMs)
  if (turns.postponed.size > 0) wakeAtMs = earliest(wakeAtMs, input.nowMs + NEXT_TURN_MS)
  const tried = triedAfter(input.tried ?? NONE, turns, isDone ? [...vain.left, ...idsOf(solution.left)] : [...vain.left])
  const { postponed } = turns
  return { actions, reasons, wakeAtMs, waiting, blocked, budgetReached, unaffordable, postponed, tried }
}

function idsOf(requests: readonly PlacementRequest[]): readonly InstanceId[] {
  return requests.map(({ id }) => id)
}

/** Those whose turn is still to come stay in their order, behind them come those that had theirs for nothing. */
function triedAfter(before: ReadonlySet<string>, turns: BuyingTurns, inVain: readonly InstanceId[]): ReadonlySet<string> {
  if (turns.postponed.size === 0) return NONE
  const nothing = new Set(inVain)
  const had = new Set(turns.chosen.map(({ group }) => group))
  const next = turns.chosen.flatMap(({ id, group }) => (nothing.has(id) ? [group] : []))
  return new Set([...[...before].filter((group) => !had.has(group)), ...next])
}

function reasonToBuy(pool: Pool, instances: readonly InstanceId[], ahead: string): string {
  const price = `${pool.name} at ${usd(pool.priceUsdPerHour)}/h is the cheapest that holds`
  if (instances.length === 0) return `room for ${ahead}; ${price} it`
  const one = instances.length === 1
  return `${summary(instances)} fit${one ? 's' : ''} nowhere; ${price} ${one ? 'it' : 'them'}`
}

/** Machines by pool: those that may exist, with what joined by hand, and those that are alive. */
function countsOf(pools: readonly Pool[], input: CapacityInput) {
  const counts = new Map(pools.map((pool) => [pool.name, input.handJoined.get(pool.name) ?? 0]))
  const alive = new Map<string, number>()
  for (const machine of input.machines) {
    if (!mayExist(machine)) continue
    counts.set(machine.pool, (counts.get(machine.pool) ?? 0) + 1)
    if (isAlive(machine)) alive.set(machine.pool, (alive.get(machine.pool) ?? 0) + 1)
  }
  return { counts, alive }
}

/** The same answer each time, found out when it is first asked for. */
function once<T>(find: () => T): () => T {
  let known: { readonly value: T } | null = null
  return () => {
    known ??= { value: find() }
    return known.value
  }
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

/** The same limits with those picks paid for. */
function budgetBeside(budget: Budgets, picks: readonly { readonly kind: Kind }[]): Budgets {
  const paid = picks.map((pick) => pick.kind.pool)
  return { refusal: (pool, also) => budget.refusal(pool, [...paid, ...also]) }
}

function budgetsOf(input: CapacityInput): Budgets {
  const base = once(() => ({
    machines: [...input.machines, ...(input.ended ?? [])],
    pools: input.pools,
    nowMs: input.nowMs,
    limitUsd: input.config.budgetUsdPerMonth,
    ...(input.leads ? { leads: input.leads } : {}),
  }))
  const whole = input.config.budgetUsdPerMonth === null ? null : once(() => budgetOf(base()))
  const perPool = new Map(input.pools.map((pool) => [pool.name, once(() => poolBudgetOf(pool, base()))]))
  return {
    refusal(pool, also) {
      const refusal = whole && overLimit(whole(), pool, also, 'the budget')
      if (refusal !== null) return refusal
      const own = pool.budgetUsdPerMonth === null ? null : (perPool.get(pool.name)?.() ?? null)
      const alsoOwn = also.filter((other) => other.name === pool.name)
      return own && overLimit(own, pool, alsoOwn, `the budget of pool ${pool.name}`)
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
  vain: InVainPlan,
  input: CapacityInput,
): string {
  if (pools.length === 0) return 'no pool is defined to buy machines from'
  const inVain = vain.inVain.get(request.group)
  const texts = pools.map((pool) => {
    const pause = inVain?.get(pool.name)
    if (pause) return `${pool.name}: ${pause.text}`
    const kind = kinds.get(pool.name) as Kind
    const refusal = planPlacement({ requests: [request], nodes: [kind.node], options: PACK }).refusals[0]
    const text = refusal
      ? renderExplanation(refusal.explanation).replace(/^0 of 1 node: 1 /, '')
      : unavailableReason(pool, input, counts)
    return `${pool.name}: ${text ?? 'cannot hold all of them'}`
  })
  return `no pool fits, ${texts.join('; ')}`
}

/** One per pool and group, the same as long as it lasts: people are told once. */
function vainReasons({ inVain }: InVainPlan): readonly Reason[] {
  return [...inVain].flatMap(([group, pools]) =>
    [...pools].flatMap(([pool, { state, text }]) => {
      const reason = { subject: pool, code: 'bought-in-vain', text: `pool ${pool} for ${group.split('@')[0]}: ${text}` }
      return state === 'paused' ? [reason] : []
    }),
  )
}

function summary(instances: readonly InstanceId[]): string {
  const shown = instances.slice(0, 3).join(', ')
  return instances.length > 3 ? `${shown} and ${instances.length - 3} more` : shown
}

function usd(amount: number): string {
  return `$${amount >= 0.1 || amount === 0 ? amount.toFixed(2) : amount.toPrecision(2)}`
}
