/**
 * The fleet's busy half: what fits nowhere gets a node back that is leaving, or machines are bought for it, within what the budget
 * allows. Says of every instance that waits what it waits for.
 */
import type { Clock } from '../../shared/clock.ts'
import { ConflictError, NotFoundError } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { InstanceId, MachineId, NodeId } from '../../shared/model/identity.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { earliest, type Reason } from '../../shared/plan.ts'
import type { Answers, GroupAnswer } from '../placement/answers.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'
import type { Refusal } from '../placement/plan-placement.ts'
import type { SchedulerDesk } from '../schedulers/desk.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import type { Apart } from './apart.ts'
import type { FleetConfig } from './config.ts'
import { BUDGET_REASON } from './drain-reasons.ts'
import type { FleetRecords } from './fleet-records.ts'
import { terminateMachine } from './machine-updates.ts'
import { uncordonNode } from './node-actions.ts'
import { createBuyHold, createRest } from './pace.ts'
import { type CapacityAction, type CapacityPlan, type Ghost, planCapacity } from './plan-capacity.ts'
import type { PoolLead } from './plan-leads.ts'
import { planTrials, type TrialInput } from './plan-trials.ts'
import type { PoolRests } from './pool-rests.ts'

export interface BuyDeps {
  readonly state: State
  readonly observed: Observed
  readonly placement: { refusals(): readonly Refusal[]; readonly desk?: Pick<SchedulerDesk, 'answer'> }
  readonly clock: Clock
  readonly logger: Logger
  readonly config: FleetConfig
  readonly records: Pick<FleetRecords, 'alarm' | 'buy' | 'commit'>
  readonly rests: Pick<PoolRests, 'all' | 'rest'>
  readonly apart: Pick<Apart, 'attempt' | 'isFailing'>
  /** Names of the providers that there are. */
  readonly providers: ReadonlySet<string>
  nodes(): readonly PlacementNode[]
  /** Those that may exist, and those that ended. */
  machines(): readonly MachineRecord[]
  endedMachines(): readonly MachineRecord[]
  pools(): readonly Pool[]
  leads(): ReadonlyMap<string, PoolLead>
  ghosts(): readonly Ghost[]
  readonly verdictsOf: TrialInput['verdictsOf']
  /** Steady time. */
  nowMs(): number
  note(part: string, reasons: readonly Reason[]): void
}

export interface Buy {
  /** One look at what waits; returns when to look again, in steady time, or null. */
  pass(): Promise<number | null>
  /** The machine that an unplaced instance waits for, or null. */
  waitingFor(instance: InstanceId): MachineId | null
  /** Instances that nothing can be bought for, and why. */
  blocked(): ReadonlyMap<InstanceId, string>
  /** When nodes of a pool were last taken back, in steady time. */
  reclaimedAtMs(): ReadonlyMap<string, number>
}

/** What cannot be bought is looked at again with every change; a thousand of them must not keep this process busy. */
const LONGEST_REST_MS = 2_000

export function createBuy(deps: BuyDeps): Buy {
  const { state, observed, clock, logger, config, records, rests, nowMs } = deps
  const { attempt, isFailing } = deps.apart
  const steady = { state, clock: { now: nowMs } }
  const buyHold = createBuyHold<InstanceId>(config.buyHoldMs)
  const reclaimedAtMs = new Map<string, number>()
  const rest = createRest(LONGEST_REST_MS)
  let waiting: ReadonlyMap<InstanceId, MachineId> = new Map()
  let blocked: ReadonlyMap<InstanceId, string> = new Map()
  let tried: ReadonlySet<string> = new Set()
  let budgetReached: string | null = null
  const livenessOf = (id: NodeId) => observed.node(id)?.liveness ?? 'unknown'

  const pass = async () => {
    const startedMs = clock.monotonicMs()
    const leftMs = rest.leftMs(startedMs)
    if (leftMs > 0) return nowMs() + leftMs
    const { refused, youngMs } = lastingRefusals(startedMs)
    const ahead = deps.ghosts()
    const trials = planTrials({
      refused: refused.map((refusal) => refusal.request),
      pools: deps.pools().map((pool) => pool.name),
      verdictsOf: deps.verdictsOf,
      nowMs: startedMs,
    })
    const isShort = trials.refused.length > 0 || ahead.length > 0
    const nodes = isShort ? deps.nodes().map(asThere) : deps.nodes()
    const plan = planCapacity({
      tried,
      refused: trials.refused,
      answers: answersAbout(trials.refused),
      nodes,
      ghosts: ahead,
      reclaimable: isShort ? nodes.filter((node) => mayTakeBack(node.id)).map((node) => ({ ...node, closed: null })) : [],
      machines: deps.machines(),
      ended: deps.endedMachines(),
      pools: deps.pools(),
      handJoined: handJoined(),
      cooling: rests.all(),
      providers: deps.providers,
      leads: deps.leads(),
      config,
      nowMs: nowMs(),
    })
    rest.worked(startedMs, clock.monotonicMs())
    deps.note('capacity', plan.reasons)
    tried = plan.tried
    const asBefore = [...blocked].filter(([instance]) => plan.postponed.has(instance))
    blocked = new Map([...asBefore, ...plan.blocked, ...trials.blocked])
    const held = new Map(plan.waiting)
    waiting = held
    await attempt('alarms', () => records.alarm(plan.reasons.filter(({ code }) => code === 'bought-in-vain')))
    await attempt('the budget', () => noteBudget(plan))
    const buys: Extract<CapacityAction, { kind: 'buy' }>[] = []
    for (const action of plan.actions) {
      if (action.kind === 'buy') {
        buys.push(action)
        // A pool that is late now is late for the next burst too.
        const late = action.standInFor === undefined ? undefined : state.snapshot.get('machine', action.standInFor)
        if (late) rests.rest(late.pool, `${late.id} takes too long`, config.capacityCoolDownMs)
      } else if (action.kind === 'cancel') {
        const options = { reason: action.reason, by: 'fleet', nowMs: nowMs() }
        await attempt(action.machineId, () => terminateMachine(deps, action.machineId, options))
      } else {
        await attempt(action.nodeId, () => reclaim(action))
      }
    }
    if (buys.length > 0) {
      for (const [instance, machine] of await records.buy(buys)) held.set(instance, machine)
    }
    const delayMs = earliest(youngMs, trials.wakeAtMs === null ? null : trials.wakeAtMs - startedMs)
    return delayMs === null ? plan.wakeAtMs : earliest(plan.wakeAtMs, nowMs() + Math.ceil(delayMs))
  }

  /** What custom schedulers said of the nodes that are there; of machines to come they will be asked when they have joined. */
  const answersAbout = (requests: readonly PlacementRequest[]): Answers => {
    const answers = new Map<string, GroupAnswer>()
    for (const { group, rules } of requests) {
      const answer = rules.scheduler === undefined || answers.has(group) ? null : deps.placement.desk?.answer(group)
      if (answer) answers.set(group, { ...answer, others: 'open' })
    }
    return answers
  }

  /** One that cannot be taken back after all (its machine is being deleted by now) must not keep the rest of the plan from being done. */
  const reclaim = async ({ nodeId, instances }: Extract<CapacityAction, { kind: 'reclaim' }>) => {
    try {
      await uncordonNode(steady, nodeId, 'fleet', `${instances.length} instances need it`)
    } catch (error) {
      if (!(error instanceof ConflictError || error instanceof NotFoundError)) throw error
      logger.info('a node could not be taken back', { nodeId, reason: error.message })
      return
    }
    const pool = state.snapshot.get('node', nodeId)?.pool
    if (pool) reclaimedAtMs.set(pool, nowMs())
    buyHold.forget()
  }

  /** A node just taken back must get the chance to serve before anything is bought: see `BuyHold`. */
  const lastingRefusals = (atMs: number) => {
    const all = deps.placement.refusals().filter((refusal) => state.snapshot.instances().get(refusal.instance)?.nodeId === null)
    const { lasting, youngMs } = buyHold.lasting(
      all.map((refusal) => refusal.instance),
      atMs,
    )
    return { refused: all.filter((refusal) => lasting.has(refusal.instance)), youngMs }
  }

  /** Not heard of yet, or silent for seconds: not observed is never "not there", so nothing is bought in its place. */
  const asThere = (node: PlacementNode): PlacementNode => {
    if (node.closed === null || state.snapshot.get('node', node.id)?.availability !== 'active') return node
    return livenessOf(node.id) === 'lost' && observed.frozen === null ? node : { ...node, closed: null }
  }

  const mayTakeBack = (id: NodeId): boolean => {
    const node = state.snapshot.get('node', id)
    const drain = node?.drain
    if (!node || !drain || isFailing(id)) return false
    if (drain.by !== 'fleet' || drain.reason.startsWith(BUDGET_REASON)) return false
    const machine = node.machineId === null ? undefined : state.snapshot.get('machine', node.machineId)
    const leaves = node.availability === 'draining' || node.availability === 'drained'
    return leaves && livenessOf(id) === 'live' && machine?.phase === 'joined'
  }

  const handJoined = (): ReadonlyMap<string, number> => {
    const counts = new Map<string, number>()
    for (const node of state.snapshot.all('node').values())
      if (node.pool !== null && (node.machineId === null || !state.snapshot.get('machine', node.machineId)))
        counts.set(node.pool, (counts.get(node.pool) ?? 0) + 1)
    return counts
  }

  const noteBudget = async (plan: CapacityPlan) => {
    const reason = plan.budgetReached
    if (budgetReached === null && reason !== null) {
      const count = plan.unaffordable
      logger.warn('budget reached, nothing is bought', { reason, instances: count })
      const message = `${count} instance${count === 1 ? ' waits' : 's wait'}: ${reason}`
      const event = { actor: 'fleet', type: 'fleet.budget-reached', subject: 'fleet', message, severity: 'warning' } as const
      await records.commit(state.change().event(event))
    }
    budgetReached = reason
  }

  return {
    pass,
    waitingFor: (instance) => waiting.get(instance) ?? null,
    blocked: () => blocked,
    reclaimedAtMs: () => reclaimedAtMs,
  }
}
