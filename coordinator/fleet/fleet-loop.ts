/**
 * Buys machines for what fits nowhere, gives back what is not needed, and sees to it that nothing bought is lost. One pass:
 * compare with the clouds → drains → capacity → give back → carry out. Every decision is stored before a
 * cloud is called, so a coordinator may die between any two steps. What fails for one node or machine stays its own (apart.ts).
 *
 * Decisions use a steady time: the wall clock at the start plus monotonic time since, so that a jump of the wall clock makes no
 * machine overdue (fault row 37).
 */
import type { Clock } from '../../shared/clock.ts'
import type { Ids } from '../../shared/ids.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop, type Loop } from '../../shared/loop.ts'
import type { InstanceId, MachineId, NodeId } from '../../shared/model/identity.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { earliest, type Reason } from '../../shared/plan.ts'
import type { Random } from '../../shared/random.ts'
import type { PlacementRequest, ScoreWeights } from '../placement/model.ts'
import { createNodeView } from '../placement/node-view.ts'
import type { Refusal } from '../placement/plan-placement.ts'
import type { LearnedUse } from '../placement/learned-use.ts'
import type { ChargeOf } from '../placement/requests.ts'
import type { SchedulerDesk } from '../schedulers/desk.ts'
import type { Provider } from '../providers/provider.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import { createApart } from './apart.ts'
import { createBuy } from './buy.ts'
import { DEFAULT_FLEET_CONFIG, type FleetConfig } from './config.ts'
import { createFleetRecords } from './fleet-records.ts'
import { fleetViewOf, type FleetView } from './fleet-view.ts'
import { ghostsOf, type Predicted } from './ghosts.ts'
import { createGiveBack } from './give-back.ts'
import { createMachineExecutor } from './machine-executor.ts'
import { createMachineIndex } from './machine-index.ts'
import { drainNode } from './node-actions.ts'
import { createDownTimer, createRest } from './pace.ts'
import { withoutDoubtful } from './plan-trials.ts'
import { createPoolRests } from './pool-rests.ts'
import { planDrain } from './plan-drain.ts'
import { leadOf, learnLeads, type PoolLead } from './plan-leads.ts'
import { EMPTY_REAP_MEMORY, planReap, type ReapAction, type ReapMemory } from './plan-reap.ts'
import { steadyTime } from './steady-time.ts'

export interface FleetLoopDeps {
  readonly state: State
  readonly observed: Observed
  readonly providers: ReadonlyMap<string, Provider>
  readonly placement: {
    refusals(): readonly Refusal[]
    onRefusals?(listener: () => void): () => void
    /** Absent: no service has a scheduler of its own. */
    readonly desk?: Pick<SchedulerDesk, 'answer' | 'poolVerdicts'>
  }
  /** The user data of one machine, with a fresh join token for it. May be called again for a repeated attempt. */
  userDataFor(machine: MachineRecord, pool: Pool): Promise<string>
  readonly clock: Clock
  readonly random: Random
  readonly ids: Ids
  readonly logger: Logger
  readonly config?: Partial<FleetConfig>
  readonly chargeOf?: ChargeOf
  readonly onChargeChange?: LearnedUse['onChange']
  /** Instances that services will want within the machine lead time; machines for them come ahead of demand. Default none. */
  predicted?(): readonly Predicted[]
  /** Of placement's costs, for moves that even nodes out; default `DEFAULT_WEIGHTS`. */
  readonly weights?: ScoreWeights
  /** Steady time that the rest of the coordinator measures deadlines with; default one of its own. */
  steadyNowMs?(): number
}

export interface FleetLoop extends Loop {
  /** The machine that an unplaced instance waits for, or null. */
  waitingFor(instance: InstanceId): MachineId | null
  /** What the fleet does about an unplaced instance, for explanations: "waiting for machine m-…", "no pool fits, …"; null if nothing is known. */
  noteFor(instance: InstanceId): string | null
  /**
   * Learned p90 of order → joined, in ms: of one pool, or the longest of those that can be bought from; null before enough
   * machines have joined.
   */
  machineLeadMs(pool?: string): number | null
  view(): FleetView
}

/** After a run that found nothing to do. What is urgent comes no later than this. */
const LONGEST_REST_MS = 250
/** What the clouds say that a person should know. */
const ALARMS: ReadonlySet<string> = new Set([
  'list-distrusted',
  'foreign',
  'notice-implausible',
  'mass-interruption',
  'delete-stuck',
])

function subjectOf(action: ReapAction): string {
  return 'machineId' in action ? action.machineId : 'nodeId' in action ? action.nodeId : action.cloud.id
}

export function createFleetLoop(deps: FleetLoopDeps): FleetLoop {
  const { state, observed, clock } = deps
  const logger = deps.logger.with({ loop: 'fleet' })
  const config: FleetConfig = { ...DEFAULT_FLEET_CONFIG, ...deps.config }
  const nodeView = createNodeView(deps)
  const index = createMachineIndex(state)
  const startWallMs = clock.now()
  const startMonotonicMs = clock.monotonicMs()
  const nowMs = deps.steadyNowMs ?? steadyTime(clock)
  const steady = { state, clock: { now: nowMs } }
  const clusterId = () => state.snapshot.get('cluster', 'cluster')?.id ?? 'rubato'

  const rests = createPoolRests({ state, logger, nowMs })
  const executor = createMachineExecutor({
    state,
    machines: () => index.existing(),
    rests,
    providers: deps.providers,
    clusterId,
    userDataFor: deps.userDataFor,
    clock,
    random: deps.random,
    logger,
    config,
    nowMs,
    onSettled: () => loop.poke(),
  })
  const endedMachines = () => index.ended()
  const records = createFleetRecords({ ...deps, executor, rests, clusterId, endedMachines, logger, config, nowMs })
  let reapMemory: ReapMemory = EMPTY_REAP_MEMORY
  let nextListAtMs = 0
  const rest = createRest(LONGEST_REST_MS)
  const downTimer = createDownTimer(config.downIntervalMs, startWallMs)
  let lastScaleDownAtMs = startWallMs
  let learned: ReadonlyMap<string, PoolLead> | null = null
  /** Longest lead time of the pools; undefined: to be found anew. Asked for by every service that scales. */
  let longestLeadMs: number | null | undefined
  let unsubscribers: (() => void)[] = []
  const reasons = new Map<string, readonly Reason[]>()

  const machines = () => index.existing()
  const allMachines = () => [...index.existing(), ...index.ended()]
  const pools = () => [...state.snapshot.all('pool').values()]
  const leads = () => {
    learned ??= learnLeads(allMachines())
    return learned
  }
  const ghosts = () => {
    const all = ghostsOf({
      snapshot: state.snapshot,
      predicted: deps.predicted?.() ?? [],
      pools: pools(),
      config,
      ...(deps.chargeOf ? { chargeOf: deps.chargeOf } : {}),
    })
    return withoutDoubtful(all, verdictsOf, clock.monotonicMs())
  }
  /** What a custom scheduler thinks of pools for the request, or for the group whose ghost it is. */
  const verdictsOf = (request: PlacementRequest) =>
    deps.placement.desk?.poolVerdicts({ ...request, group: request.group.replace(/^~/, '') }) ?? null
  const note = (part: string, why: readonly Reason[]) => void reasons.set(part, why)
  const apart = createApart({ state, clock, logger })
  const { attempt } = apart
  const shared = {
    ...deps,
    logger,
    config,
    records,
    apart,
    nodes: () => nodeView.nodes(),
    machines,
    endedMachines,
    pools,
    leads,
    nowMs,
    note,
  }
  const buy = createBuy({ ...shared, rests, providers: new Set(deps.providers.keys()), ghosts, verdictsOf })
  const giveBack = createGiveBack({
    ...shared,
    ghosts: () => ghosts().map(({ request }) => request),
    refusals: () => deps.placement.refusals(),
    blocked: buy.blocked,
    reclaimedAtMs: buy.reclaimedAtMs,
  })
  const livenessOf = (id: NodeId) => observed.node(id)?.liveness ?? 'unknown'

  const run = async (signal: AbortSignal): Promise<number | null> => {
    const startedMs = clock.monotonicMs()
    const leftMs = rest.leftMs(startedMs)
    if (leftMs > 0) return clock.now() + leftMs
    const { revision } = state.snapshot
    let wakeAtMs: number | null = null
    const wake = (atMs: number | null) => {
      wakeAtMs = earliest(wakeAtMs, atMs)
    }
    wake(await attempt('what the clouds list', reap))
    await giveUpSilent()
    wake(await attempt('drains', drains))
    wake(await attempt('buying', buy.pass))
    wake(await attempt('evening out', giveBack.rebalance))
    if (downTimer.take(nowMs())) {
      wake(await attempt('cancelling orders', giveBack.cancelOrders))
      wake(await attempt('giving back', giveBack.consolidate))
    }
    await attempt('old machines', records.prune)
    if (signal.aborted) return null
    rests.prune()
    wake(executor.sync())
    if (nowMs() >= nextListAtMs) {
      nextListAtMs = nowMs() + config.reapIntervalMs
      executor.requestLists()
    }
    wake(nextListAtMs)
    wake(downTimer.nextAtMs)
    const againInMs = apart.nextInMs()
    if (againInMs !== null) wake(nowMs() + againInMs)
    // While things change nothing waits.
    if (state.snapshot.revision === revision) rest.worked(startedMs, clock.monotonicMs())
    return wakeAtMs === null ? null : clock.now() + Math.max(0, wakeAtMs - nowMs())
  }

  const reap = async () => {
    const lists = executor.takeLists()
    const plan = planReap(
      {
        clusterId: clusterId(),
        lists,
        // A list may name one that ended.
        machines: lists.length > 0 ? allMachines() : machines(),
        nodes: [...state.snapshot.all('node').values()],
        livenessOf,
        startedAtMs: startWallMs,
        frozen: observed.frozen !== null,
        wallAheadMs: clock.now() - nowMs(),
        config,
      },
      reapMemory,
      nowMs(),
    )
    reapMemory = plan.memory
    if (plan.reasons.length > 0 || plan.actions.length > 0) reasons.set('reap', plan.reasons)
    await attempt('alarms', () => records.alarm(plan.reasons.filter((reason) => ALARMS.has(reason.code))))
    for (const action of plan.actions) await attempt(subjectOf(action), () => records.applyReap(action))
    return plan.wakeAtMs
  }

  /** An agent that stays away does not come back by waiting; its instances were replaced long ago. */
  const giveUpSilent = async () => {
    if (observed.frozen) return
    for (const node of nodeView.nodes()) {
      if (node.closed !== 'lost') continue
      const record = state.snapshot.get('node', node.id)
      const machine = record?.machineId ? state.snapshot.get('machine', record.machineId) : undefined
      if (record?.availability !== 'active' || machine?.phase !== 'joined' || node.volumes.size > 0) continue
      const silentMs = clock.monotonicMs() - (observed.node(node.id)?.lastSeenMonotonicMs ?? startMonotonicMs)
      if (silentMs < config.silentNodeMs || state.snapshot.get('pool', machine.pool)?.static !== false) continue
      const reason = `its agent has been silent for ${Math.round(silentMs / 60_000)} min`
      const options = { by: 'fleet', reason, deleteMachine: true, deadlineMs: config.drainDeadlineMs }
      await attempt(node.id, () => drainNode(steady, node.id, options))
    }
  }

  const drains = async () => {
    const plan = planDrain(
      {
        nodes: [...state.snapshot.all('node').values()],
        instancesOn: (id) => state.snapshot.get('assignments', id)?.instances ?? [],
        machines: state.snapshot.all('machine'),
        staticPools: new Set(pools().flatMap((pool) => (pool.static ? [pool.name] : []))),
        frozen: observed.frozen !== null,
        forceGraceMs: config.forceGraceMs,
        entrySettleMs: config.entrySettleMs,
      },
      nowMs(),
    )
    reasons.set('drain', plan.reasons)
    for (const action of plan.actions) await attempt(action.nodeId, () => records.applyDrain(action))
    return plan.wakeAtMs
  }

  const noteMachine = (id: MachineId) => {
    const machine = state.snapshot.get('machine', id)
    // One that has not joined has taught nothing.
    if (machine === undefined || machine.joinedAtMs !== null) {
      learned = null
      longestLeadMs = undefined
    }
    if (machine?.phase === 'joined' && machine.joinedAtMs !== null) rests.joined(machine.pool, machine.joinedAtMs)
  }

  /** A step down may have made a node superfluous: it is looked at then, not a minute later. */
  const noteScaleDown = (id: string) => {
    const last = state.snapshot.get('service', id)?.lastScale
    if (!last || last.to >= last.from || last.atMs <= lastScaleDownAtMs) return
    lastScaleDownAtMs = last.atMs
    downTimer.scaledDown(nowMs())
    loop.poke()
  }

  const loop = createLoop({ name: 'fleet', clock, logger, run })
  return {
    name: 'fleet',
    start() {
      if (unsubscribers.length > 0) return
      learned = null
      longestLeadMs = undefined
      for (const id of state.snapshot.all('machine').keys()) noteMachine(id)
      unsubscribers = [
        state.onChange(({ kinds, keys }) => {
          if (kinds.has('pool')) longestLeadMs = undefined
          for (const { kind, key } of keys)
            if (kind === 'service') noteScaleDown(key)
            else if (kind === 'machine') noteMachine(key)
          if (kinds.has('machine') || kinds.has('node') || kinds.has('pool') || kinds.has('assignments')) loop.poke()
        }),
        observed.onChange(({ nodes, useOnly }) => {
          if (!useOnly && nodes.size > 0) loop.poke()
        }),
        deps.placement.onRefusals?.(() => loop.poke()) ?? (() => {}),
      ]
      loop.start()
    },
    poke: () => loop.poke(),
    async stop() {
      for (const unsubscribe of unsubscribers) unsubscribe()
      unsubscribers = []
      nodeView.stop()
      index.stop()
      await executor.stop()
      await loop.stop()
    },
    waitingFor: buy.waitingFor,
    noteFor(instance) {
      const machine = buy.waitingFor(instance)
      return machine === null ? (buy.blocked().get(instance) ?? null) : `waiting for machine ${machine}`
    },
    machineLeadMs(pool) {
      if (pool !== undefined) return leadOf(leads(), pool).joinP90Ms
      if (longestLeadMs === undefined)
        longestLeadMs = pools().reduce<number | null>((longest, { name, max, provider }) => {
          // One that nothing can be bought from stretches no horizon. A full pool counts: what is expected keeps its room there.
          const joinP90Ms = max > 0 && deps.providers.has(provider) ? leadOf(leads(), name).joinP90Ms : null
          return joinP90Ms === null ? longest : Math.max(longest ?? 0, joinP90Ms)
        }, null)
      return longestLeadMs
    },
    view: () =>
      fleetViewOf({
        pools: pools(),
        leads: leads(),
        machines: allMachines(),
        limitUsd: config.budgetUsdPerMonth,
        cooling: rests.all(),
        reasons: [...reasons.values()].flat(),
        nowMs: nowMs(),
      }),
  }
}
