/**
 * Buys machines for what fits nowhere, gives back what is not needed, and sees to it that nothing bought is lost. One pass:
 * note who joined → compare with the clouds → drains → capacity → give back → carry out. Every decision is stored before a
 * cloud is called, so a coordinator may die between any two steps.
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
import type { PlacementNode } from '../placement/model.ts'
import { createNodeView, requestOfRecord } from '../placement/node-view.ts'
import type { Refusal } from '../placement/plan-placement.ts'
import type { ChargeOf } from '../placement/requests.ts'
import type { Provider } from '../providers/provider.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import { DEFAULT_FLEET_CONFIG, type FleetConfig } from './config.ts'
import { createFleetRecords } from './fleet-records.ts'
import { fleetViewOf, type FleetView } from './fleet-view.ts'
import { createMachineExecutor } from './machine-executor.ts'
import { isComing } from './machine-states.ts'
import { drainNode, uncordonNode } from './node-actions.ts'
import { budgetOf } from './plan-budget.ts'
import { type CapacityAction, type CapacityPlan, planCapacity } from './plan-capacity.ts'
import { planConsolidation } from './plan-consolidation.ts'
import { planDrain } from './plan-drain.ts'
import { EMPTY_REAP_MEMORY, planReap, type ReapMemory } from './plan-reap.ts'

export interface FleetLoopDeps {
  readonly state: State
  readonly observed: Observed
  readonly providers: ReadonlyMap<string, Provider>
  readonly placement: {
    refusals(): readonly Refusal[]
    onRefusals?(listener: () => void): () => void
  }
  /** The user data of one machine, with a fresh join token for it. May be called again for a repeated attempt. */
  userDataFor(machine: MachineRecord, pool: Pool): Promise<string>
  readonly clock: Clock
  readonly random: Random
  readonly ids: Ids
  readonly logger: Logger
  readonly config?: Partial<FleetConfig>
  readonly chargeOf?: ChargeOf
}

export interface FleetLoop extends Loop {
  /** The machine that an unplaced instance waits for, or null. */
  waitingFor(instance: InstanceId): MachineId | null
  /** What the fleet does about an unplaced instance, for explanations: "waiting for machine m-…", "no pool fits, …"; null if nothing is known. */
  noteFor(instance: InstanceId): string | null
  view(): FleetView
}

/** Reasons on drains that are not taken back when demand returns. */
const BUDGET_REASON = 'budget:'

export function createFleetLoop(deps: FleetLoopDeps): FleetLoop {
  const { state, observed, clock } = deps
  const logger = deps.logger.with({ loop: 'fleet' })
  const config: FleetConfig = { ...DEFAULT_FLEET_CONFIG, ...deps.config }
  const nodeView = createNodeView(deps)
  const startWallMs = clock.now()
  const startMonotonicMs = clock.monotonicMs()
  const nowMs = () => Math.floor(startWallMs + clock.monotonicMs() - startMonotonicMs)
  const clusterId = () => state.snapshot.get('cluster', 'cluster')?.id ?? 'rubato'

  const executor = createMachineExecutor({
    state,
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
  const records = createFleetRecords({ ...deps, executor, clusterId, logger, config, nowMs })
  let reapMemory: ReapMemory = EMPTY_REAP_MEMORY
  let nextListAtMs = 0
  let nextDownAtMs = startWallMs + config.downIntervalMs
  let lastUpAtMs = startWallMs
  let waiting: ReadonlyMap<InstanceId, MachineId> = new Map()
  let blocked: ReadonlyMap<InstanceId, string> = new Map()
  let budgetReached: string | null = null
  let unsubscribers: (() => void)[] = []
  const reasons = new Map<string, readonly Reason[]>()

  const machines = () => [...state.snapshot.all('machine').values()]
  const pools = () => [...state.snapshot.all('pool').values()]
  const livenessOf = (id: NodeId) => observed.node(id)?.liveness ?? 'unknown'

  const run = async (signal: AbortSignal): Promise<number | null> => {
    let wakeAtMs: number | null = null
    const wake = (atMs: number | null) => {
      wakeAtMs = earliest(wakeAtMs, atMs)
    }
    await records.noteJoined()
    wake(await reap())
    await giveUpSilent()
    wake(await drains())
    wake(await capacity())
    wake(await giveBack())
    await records.prune()
    if (signal.aborted) return null
    wake(executor.sync())
    if (nowMs() >= nextListAtMs) {
      nextListAtMs = nowMs() + config.reapIntervalMs
      executor.requestLists()
    }
    wake(nextListAtMs)
    wake(nextDownAtMs)
    return wakeAtMs === null ? null : clock.now() + Math.max(0, wakeAtMs - nowMs())
  }

  const reap = async () => {
    const plan = planReap(
      {
        clusterId: clusterId(),
        lists: executor.takeLists(),
        machines: machines(),
        nodes: [...state.snapshot.all('node').values()],
        livenessOf,
        startedAtMs: startWallMs,
        frozen: observed.frozen !== null,
        config,
      },
      reapMemory,
      nowMs(),
    )
    reapMemory = plan.memory
    if (plan.reasons.length > 0 || plan.actions.length > 0) reasons.set('reap', plan.reasons)
    await records.alarm(plan.reasons.filter((reason) => reason.code === 'list-distrusted' || reason.code === 'foreign'))
    for (const action of plan.actions) await records.applyReap(action)
    return plan.wakeAtMs
  }

  /** An agent that stays away does not come back by waiting; its instances were replaced long ago. */
  const giveUpSilent = async () => {
    if (observed.frozen) return
    for (const node of nodeView.nodes()) {
      const record = state.snapshot.get('node', node.id)
      const machine = record?.machineId ? state.snapshot.get('machine', record.machineId) : undefined
      if (node.closed !== 'lost' || record?.availability !== 'active' || machine?.phase !== 'joined' || node.volumes.size > 0)
        continue
      const silentMs = clock.monotonicMs() - (observed.node(node.id)?.lastSeenMonotonicMs ?? startMonotonicMs)
      if (silentMs < config.silentNodeMs || state.snapshot.get('pool', machine.pool)?.static !== false) continue
      const reason = `its agent has been silent for ${Math.round(silentMs / 60_000)} min`
      await drainNode(deps, node.id, { by: 'fleet', reason, deleteMachine: true, deadlineMs: config.drainDeadlineMs })
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
    for (const action of plan.actions) await records.applyDrain(action)
    return plan.wakeAtMs
  }

  const capacity = async () => {
    const refused = deps.placement
      .refusals()
      .filter((refusal) => state.snapshot.instances().get(refusal.instance)?.nodeId === null)
    const nodes = nodeView.nodes().map(asThere)
    const plan = planCapacity({
      refused: refused.map((refusal) => refusal.request),
      nodes,
      reclaimable:
        refused.length === 0 ? [] : nodes.filter((node) => mayTakeBack(node.id)).map((node) => ({ ...node, closed: null })),
      machines: machines(),
      pools: pools(),
      handJoined: handJoined(),
      cooling: executor.cooling(),
      providers: new Set(deps.providers.keys()),
      config,
      nowMs: nowMs(),
    })
    reasons.set('capacity', plan.reasons)
    blocked = plan.blocked
    const held = new Map(plan.waiting)
    waiting = held
    await noteBudget(plan)
    const buys: Extract<CapacityAction, { kind: 'buy' }>[] = []
    for (const action of plan.actions) {
      if (action.kind === 'buy') buys.push(action)
      else {
        lastUpAtMs = nowMs()
        await uncordonNode(deps, action.nodeId, 'fleet', `${action.instances.length} instances need it`)
      }
    }
    if (buys.length > 0) {
      lastUpAtMs = nowMs()
      for (const [instance, machine] of await records.buy(buys)) held.set(instance, machine)
    }
    return plan.wakeAtMs
  }

  /** Not heard of yet, or silent for seconds: not observed is never "not there", so nothing is bought in its place. */
  const asThere = (node: PlacementNode): PlacementNode => {
    if (node.closed === null || state.snapshot.get('node', node.id)?.availability !== 'active') return node
    return livenessOf(node.id) === 'lost' && observed.frozen === null ? node : { ...node, closed: null }
  }

  const mayTakeBack = (id: NodeId): boolean => {
    const node = state.snapshot.get('node', id)
    const drain = node?.drain
    if (!node || !drain) return false
    if (drain.by !== 'fleet' || drain.reason.startsWith(BUDGET_REASON)) return false
    const machine = node.machineId === null ? undefined : state.snapshot.get('machine', node.machineId)
    return node.availability === 'draining' && livenessOf(id) === 'live' && machine?.phase === 'joined'
  }

  const handJoined = (): ReadonlyMap<string, number> => {
    const counts = new Map<string, number>()
    for (const node of state.snapshot.all('node').values())
      if (node.pool !== null && (node.machineId === null || !state.snapshot.get('machine', node.machineId)))
        counts.set(node.pool, (counts.get(node.pool) ?? 0) + 1)
    return counts
  }

  const noteBudget = async (plan: CapacityPlan) => {
    const before = budgetReached
    budgetReached = plan.budgetReached
    if (before !== null || budgetReached === null) return
    const count = [...plan.blocked.values()].filter((text) => text.includes('over the budget')).length
    logger.warn('budget reached, nothing is bought', { reason: budgetReached, instances: count })
    const message = `${count} instance${count === 1 ? ' waits' : 's wait'}: ${budgetReached}`
    const event = { actor: 'fleet', type: 'fleet.budget-reached', subject: 'fleet', message, severity: 'warning' } as const
    await records.commit(state.change().event(event))
  }

  const giveBack = async () => {
    if (nowMs() < nextDownAtMs) return null
    nextDownAtMs = nowMs() + config.downIntervalMs
    const hold = holdReason()
    if (hold?.always) {
      reasons.set('consolidation', [{ subject: 'fleet', code: 'holds', text: hold.text }])
      return null
    }
    const budget = budgetOf({ machines: machines(), pools: pools(), limitUsd: config.budgetUsdPerMonth, nowMs: nowMs() })
    const overBudget =
      budget.limitUsd !== null && budget.projectedUsd > budget.limitUsd
        ? `this month comes to $${budget.projectedUsd.toFixed(2)}, over $${budget.limitUsd.toFixed(2)}`
        : null
    const plan = planConsolidation(
      {
        nodes: nodeView.nodes(),
        requestsOn: (id) =>
          (state.snapshot.get('assignments', id)?.instances ?? []).flatMap((instance) => {
            const request = instance.goal === 'run' ? requestOfRecord(instance, state.snapshot, deps.chargeOf) : null
            return request ? [request] : []
          }),
        keepsData: keepsData(),
        machineOf: (id) => {
          const machineId = state.snapshot.get('node', id)?.machineId
          return machineId ? state.snapshot.get('machine', machineId) : undefined
        },
        machines: machines(),
        pools: pools(),
        hold: hold?.text ?? null,
        overBudget,
        minNodeAgeMs: config.minNodeAgeMs,
        headroomPercent: config.headroomPercent,
      },
      nowMs(),
    )
    reasons.set('consolidation', plan.reasons)
    for (const action of plan.actions) {
      logger.info('node is given back', { nodeId: action.nodeId, reason: action.reason })
      const { drainDeadlineMs: deadlineMs } = config
      await drainNode(deps, action.nodeId, { by: 'fleet', reason: action.reason, deleteMachine: true, deadlineMs })
    }
    return null
  }

  /** A service pinned to 0, or one whose instance is being made anew, still has its data; what scaling took away has none. */
  const keepsData = (): ReadonlySet<NodeId> => {
    const kept = new Set<NodeId>()
    for (const { desired, pinned, homes } of state.snapshot.all('service').values())
      for (const [slot, nodeId] of Object.entries(homes ?? {}))
        if (Number(slot) <= Math.max(1, desired, pinned ?? 0)) kept.add(nodeId)
    return kept
  }

  /** Why no node is given back now. `always`: not even for the budget's sake. */
  const holdReason = (): { readonly text: string; readonly always: boolean } | null => {
    if (observed.frozen) return { text: `frozen: ${observed.frozen.reason}`, always: true }
    for (const node of state.snapshot.all('node').values()) {
      const liveness = livenessOf(node.id)
      if (node.availability === 'draining') return { text: `${node.id} drains, one at a time`, always: true }
      if (liveness === 'unknown' || liveness === 'suspect') return { text: `${node.id} has not reported`, always: true }
    }
    for (const machine of machines()) {
      if (machine.phase === 'terminating') return { text: `${machine.id} is being deleted, one at a time`, always: true }
      if (isComing(machine)) return { text: `${machine.id} is on its way`, always: false }
    }
    // What fits on no node and on nothing that can be bought must not keep idle machines alive for ever.
    const hopeless = new Set(blocked.keys())
    for (const refusal of deps.placement.refusals()) if (refusal.request.global) hopeless.add(refusal.instance)
    for (const service of state.snapshot.all('service').values()) {
      if (service.pending.some((instance) => !hopeless.has(instance.id)))
        return { text: `${service.id} has instances waiting`, always: false }
      const phase = service.rollout?.phase
      if (phase === 'progressing' || phase === 'monitoring' || phase === 'rolling-back')
        return { text: `${service.id} is being updated`, always: false }
    }
    return nowMs() - lastUpAtMs < config.downIntervalMs ? { text: 'capacity was added a moment ago', always: false } : null
  }

  const loop = createLoop({ name: 'fleet', clock, logger, run })
  return {
    name: 'fleet',
    start() {
      if (unsubscribers.length > 0) return
      unsubscribers = [
        state.onChange(({ kinds }) => {
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
      await executor.stop()
      await loop.stop()
    },
    waitingFor: (instance) => waiting.get(instance) ?? null,
    noteFor(instance) {
      const machine = waiting.get(instance)
      return machine === undefined ? (blocked.get(instance) ?? null) : `waiting for machine ${machine}`
    },
    view: () =>
      fleetViewOf({
        pools: pools(),
        machines: machines(),
        limitUsd: config.budgetUsdPerMonth,
        cooling: executor.cooling(),
        reasons: [...reasons.values()].flat(),
        nowMs: nowMs(),
      }),
  }
}
