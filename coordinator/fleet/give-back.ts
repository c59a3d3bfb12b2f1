/**
 * The fleet's quiet half: cancels orders and gives nodes back that are not needed, and evens out what has joined. Acts only while
 * nothing else is under way, and says why it does not.
 */
import type { Clock } from '../../shared/clock.ts'
import type { InstanceId, NodeId } from '../../shared/model/identity.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import type { Reason } from '../../shared/plan.ts'
import type { Logger } from '../../shared/logger.ts'
import { DEFAULT_WEIGHTS, type PlacementNode, type PlacementRequest, type ScoreWeights } from '../placement/model.ts'
import { requestOfRecord } from '../placement/node-view.ts'
import type { Refusal } from '../placement/plan-placement.ts'
import type { ChargeOf } from '../placement/requests.ts'
import { isTakingOver } from '../services/generations.ts'
import { specOfInstance } from '../services/kept-specs.ts'
import { hasVolumes } from '../services/service-plan.ts'
import { parseInstanceId } from '../../shared/model/identity.ts'
import type { InstanceRecord } from '../state/objects.ts'
import { isRoutable, type Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import type { Apart } from './apart.ts'
import type { FleetConfig } from './config.ts'
import type { FleetRecords } from './fleet-records.ts'
import { isByPerson } from './drain-reasons.ts'
import { isDeleteStuck } from './machine-states.ts'
import { terminateMachine } from './machine-updates.ts'
import { drainNode } from './node-actions.ts'
import { budgetOf, overrunOf } from './plan-budget.ts'
import { firmHoldOf, type Hold } from './pace.ts'
import { planCancellation } from './plan-cancellation.ts'
import { planConsolidation } from './plan-consolidation.ts'
import { holdOn, type Holds, planHolds } from './plan-holds.ts'
import type { PoolLead } from './plan-leads.ts'
import { planRebalance } from './plan-rebalance.ts'

export interface GiveBackDeps {
  readonly state: State
  readonly observed: Observed
  readonly clock: Clock
  readonly logger: Logger
  readonly config: FleetConfig
  readonly records: Pick<FleetRecords, 'move'>
  readonly apart: Pick<Apart, 'attempt' | 'isFailing'>
  readonly chargeOf?: ChargeOf
  readonly weights?: ScoreWeights
  nodes(): readonly PlacementNode[]
  /** Those that may exist, and those that ended. */
  machines(): readonly MachineRecord[]
  endedMachines(): readonly MachineRecord[]
  pools(): readonly Pool[]
  leads(): ReadonlyMap<string, PoolLead>
  /** Room that has to be left. */
  ghosts(): readonly PlacementRequest[]
  refusals(): readonly Refusal[]
  /** Instances that nothing can be bought for. */
  blocked(): ReadonlyMap<InstanceId, string>
  /** When nodes of a pool were last taken back. */
  reclaimedAtMs(): ReadonlyMap<string, number>
  /** Steady time. */
  nowMs(): number
  note(part: string, reasons: readonly Reason[]): void
}

export interface GiveBack {
  /** Cancels machines on their way that nothing needs any more; returns when to look again besides the interval, or null. */
  cancelOrders(): Promise<number | null>
  /** Looks for nodes that can go; returns when to look again besides the interval, or null. */
  consolidate(): Promise<number | null>
  /** Looks for one instance to move onto a node that joined; returns when to look again, or null. */
  rebalance(): Promise<number | null>
}

/** Moves are remembered for the hour's budget. */
const HOUR_MS = 3_600_000
const UPDATING: ReadonlySet<string> = new Set(['progressing', 'monitoring', 'rolling-back'])

export function createGiveBack(deps: GiveBackDeps): GiveBack {
  const { state, observed, config, nowMs } = deps
  const startedAtMs = nowMs()
  const isSilent = (id: NodeId) => {
    const liveness = observed.node(id)?.liveness ?? 'unknown'
    return liveness === 'unknown' || liveness === 'suspect'
  }
  const machineOf = (id: NodeId) => {
    const machineId = state.snapshot.get('node', id)?.machineId
    return machineId ? state.snapshot.get('machine', machineId) : undefined
  }
  /** Nodes that consolidation has looked at in this round of all. */
  let tried: ReadonlySet<NodeId> = new Set()
  /** Nodes that rebalancing has asked for something to move, in its round. */
  let asked: ReadonlySet<NodeId> = new Set()
  let moved: readonly { readonly atMs: number; readonly copyOf: InstanceId }[] = []

  const cancelOrders = async () => {
    const holds = holdsNow()
    const hold = holdOfAll(holds, 0)
    const plan =
      hold === null
        ? planCancellation(
            {
              nodes: deps.nodes(),
              machines: deps.machines(),
              pools: deps.pools(),
              wanted: [...deps.ghosts(), ...soonRequests(holds), ...leavingRequests()],
              leastAgeMs: config.downIntervalMs,
              headroomPercent: config.headroomPercent,
            },
            nowMs(),
          )
        : null
    deps.note('cancellation', plan?.reasons ?? [])
    for (const { machineId, reason } of plan?.actions ?? []) {
      deps.logger.info('order of a machine is cancelled', { machineId, reason })
      await deps.apart.attempt(machineId, () => terminateMachine(deps, machineId, { reason, by: 'fleet', nowMs: nowMs() }))
    }
    return plan?.wakeAtMs ?? null
  }

  const consolidate = async () => {
    const holds = holdsNow()
    const hold = holdOfAll(holds, leavingCount())
    if (hold?.always) {
      deps.note('consolidation', [{ subject: 'fleet', code: 'holds', text: hold.text }])
      return null
    }
    const machines = deps.machines()
    const budget = budgetOf({
      machines: [...machines, ...deps.endedMachines()],
      pools: deps.pools(),
      limitUsd: config.budgetUsdPerMonth,
      nowMs: nowMs(),
      leads: deps.leads(),
    })
    const plan = planConsolidation(
      {
        nodes: deps.nodes(),
        requestsOn,
        keepsData: keepsData(),
        machineOf,
        machines,
        pools: deps.pools(),
        hold: hold?.text ?? null,
        heldOf: (node) => (deps.apart.isFailing(node.id) ? 'its drain could not be stored' : holdOn(node, holds)),
        overBudget: overrunOf(budget),
        ghosts: [...deps.ghosts(), ...soonRequests(holds), ...leavingRequests()],
        room: Math.max(1, config.maxParallelDrains - leavingCount()),
        tried,
        minNodeAgeMs: config.minNodeAgeMs,
        headroomPercent: config.headroomPercent,
        minSavingsRatio: config.minSavingsRatio,
      },
      nowMs(),
    )
    tried = plan.tried
    deps.note('consolidation', plan.reasons)
    for (const action of plan.actions) {
      deps.logger.info('node is given back', { nodeId: action.nodeId, reason: action.reason })
      const { drainDeadlineMs: deadlineMs } = config
      const options = { by: 'fleet', reason: action.reason, deleteMachine: true, deadlineMs }
      await deps.apart.attempt(action.nodeId, () => drainNode({ state, clock: { now: nowMs } }, action.nodeId, options))
    }
    return plan.wakeAtMs
  }

  const rebalance = async () => {
    if (config.rebalanceMovesPerHour === 0) return null
    moved = moved.filter(({ atMs }) => nowMs() - atMs < HOUR_MS)
    let known: Holds | null = null
    const holds = () => {
      known ??= holdsNow()
      return known
    }
    const plan = planRebalance(
      {
        nodes: deps.nodes(),
        joinedAtMsOf: (id) => state.snapshot.get('node', id)?.joinedAtMs ?? 0,
        movableOn: (id) => movableOn(id).filter(({ service }) => !holds().services.has(service)),
        hold: () => movingNow() ?? holdOfAll(holds(), leavingCount())?.text ?? null,
        movedAtMs: moved.map(({ atMs }) => atMs),
        weights: deps.weights ?? DEFAULT_WEIGHTS,
        tried: asked,
        config,
      },
      nowMs(),
    )
    asked = plan.tried
    deps.note('rebalance', plan.reasons)
    for (const action of plan.actions)
      if (await deps.records.move(action)) moved = [...moved, { atMs: nowMs(), copyOf: action.instance }]
    return plan.wakeAtMs
  }

  const movingNow = (): string | null => {
    const last = moved.at(-1)
    const isThere = last !== undefined && state.snapshot.instances().has(last.copyOf)
    return isThere ? `${last.copyOf} is moving, one at a time` : null
  }

  const assigned = (id: NodeId): readonly InstanceRecord[] => state.snapshot.get('assignments', id)?.instances ?? []

  const requestsOn = (id: NodeId): readonly PlacementRequest[] =>
    assigned(id).flatMap((instance) => {
      const request = instance.goal === 'run' ? requestOfRecord(instance, state.snapshot, deps.chargeOf) : null
      return request ? [request] : []
    })

  const movableOn = (id: NodeId): readonly PlacementRequest[] =>
    assigned(id).flatMap((record) => {
      const spec = specOfInstance(state.snapshot.get('app', parseInstanceId(record.id)?.app ?? ''), record)
      if (spec?.placement.scheduler !== undefined) return []
      if (spec?.mode !== 'replicated' || spec.unit.singletonStrictMs !== null || hasVolumes(spec)) return []
      if (record.goal !== 'run' || isTakingOver(state.snapshot, record) || spec.unit.containers[0]?.restart.condition !== 'any')
        return []
      if (!isRoutable(observed.instance(record.id), observed.node(id))) return []
      const request = requestOfRecord(record, state.snapshot, deps.chargeOf)
      return request ? [request] : []
    })

  /** What still has to find a place because its node drains. */
  const leavingRequests = (): readonly PlacementRequest[] => {
    const replaced = new Set<InstanceId>()
    for (const record of state.snapshot.instances().values()) if (record.replaces !== null) replaced.add(record.replaces)
    return [...state.snapshot.all('node').values()]
      .filter((node) => node.availability === 'draining')
      .flatMap((node) => requestsOn(node.id))
      .filter((request) => !request.global && !replaced.has(request.id))
  }

  /** What people drain is their affair, and what its cloud does not delete ends nothing here: both may last for days. */
  const leavingCount = () => {
    let count = 0
    for (const node of state.snapshot.all('node').values())
      if (node.availability === 'draining' && !isByPerson(node.drain?.by ?? '')) count += 1
    for (const machine of deps.machines()) if (machine.phase === 'terminating' && !isDeleteStuck(machine, nowMs())) count += 1
    return count
  }

  /** A service pinned to 0, or one whose instance is being made anew, still has its data; what scaling took away has none. */
  const keepsData = (): ReadonlySet<NodeId> => {
    const kept = new Set<NodeId>()
    for (const { desired, pinned, homes } of state.snapshot.all('service').values())
      for (const [slot, nodeId] of Object.entries(homes ?? {}))
        if (Number(slot) <= Math.max(1, desired, pinned ?? 0)) kept.add(nodeId)
    return kept
  }

  /** What fits on no node and on nothing that can be bought must not keep idle machines alive for ever. */
  const hopeless = (): ReadonlySet<InstanceId> => {
    const found = new Set(deps.blocked().keys())
    for (const refusal of deps.refusals()) if (refusal.request.global) found.add(refusal.instance)
    return found
  }

  const holdsNow = (): Holds => {
    const without = hopeless()
    return planHolds(
      {
        nodes: [...state.snapshot.all('node').keys()].map((id) => ({ id, isSilent: isSilent(id) })),
        services: [...state.snapshot.all('service').values()].map(({ id, pending, rollout }) => ({
          id,
          isUpdating: UPDATING.has(rollout?.phase ?? ''),
          waiting: pending.filter((instance) => !without.has(instance.id)).length,
        })),
        machines: deps.machines(),
        reclaimedAtMs: deps.reclaimedAtMs(),
        downIntervalMs: config.downIntervalMs,
      },
      nowMs(),
    )
  }

  /** Against everything at once. */
  const holdOfAll = ({ manySilent, manyWaiting }: Holds, leaving: number): Hold | null => {
    if (manySilent !== null) return { text: manySilent, always: true }
    const firm = firmHoldOf({ frozen: observed.frozen?.reason ?? null, leaving, config })
    if (firm !== null) return firm
    if (manyWaiting !== null) return { text: manyWaiting, always: false }
    const isFresh = nowMs() - startedAtMs < config.downIntervalMs
    return isFresh ? { text: 'the coordinator has just started', always: false } : null
  }

  /** What may need a place in a moment: what waits for one, and what runs on nodes that are silent. */
  const soonRequests = ({ silent, services }: Holds): readonly PlacementRequest[] => {
    const without = hopeless()
    const waiting = [...services.keys()].flatMap((id) => state.snapshot.get('service', id)?.pending ?? [])
    return [
      ...waiting.flatMap((record) => {
        const request = without.has(record.id) ? null : requestOfRecord(record, state.snapshot, deps.chargeOf)
        return request && !request.global ? [request] : []
      }),
      ...silent.flatMap(requestsOn).filter((request) => !request.global),
    ]
  }

  return { cancelOrders, consolidate, rebalance }
}
