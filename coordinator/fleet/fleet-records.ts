/**
 * What the fleet decided, as records and events: each decision is one commit, made before a cloud is called. The loop decides when;
 * plans decide what.
 */
import type { Clock } from '../../shared/clock.ts'
import { RetryableError } from '../../shared/errors.ts'
import type { Ids } from '../../shared/ids.ts'
import type { Logger } from '../../shared/logger.ts'
import { instanceId, type InstanceId, type MachineId, parseInstanceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { EventDraft } from '../../shared/model/event.ts'
import type { MachineRecord } from '../../shared/model/node.ts'
import type { Reason } from '../../shared/plan.ts'
import { nextGeneration, withGeneration } from '../services/generations.ts'
import { commitRoom, jsonBytes } from '../state/commit-room.ts'
import type { InstanceRecord } from '../state/objects.ts'
import type { Change, State } from '../state/state.ts'
import { monthOf } from './calendar.ts'
import type { FleetConfig } from './config.ts'
import type { MachineExecutor } from './machine-executor.ts'
import { changeMachine, removeNodeOf, terminateMachine } from './machine-updates.ts'
import { interruptNode } from './node-actions.ts'
import type { CapacityAction } from './plan-capacity.ts'
import type { DrainAction } from './plan-drain.ts'
import type { ReapAction } from './plan-reap.ts'
import type { PoolRests } from './pool-rests.ts'
import type { RebalanceAction } from './plan-rebalance.ts'

export interface FleetRecordsDeps {
  readonly state: State
  readonly executor: Pick<MachineExecutor, 'deleteOrphan'>
  readonly rests: Pick<PoolRests, 'rest'>
  readonly clock: Clock
  readonly ids: Ids
  readonly logger: Logger
  readonly config: FleetConfig
  clusterId(): string
  /** The same array until it changes. */
  endedMachines(): readonly MachineRecord[]
  /** Steady time of the fleet, epoch ms. */
  nowMs(): number
}

type Buy = Extract<CapacityAction, { kind: 'buy' }>

/** All reject with RetryableError when the store does not take the commit; repeating them is harmless. */
export interface FleetRecords {
  applyReap(action: ReapAction): Promise<void>
  applyDrain(action: DrainAction): Promise<void>
  /** Stores the intent; the executor acts on it in this pass or, after a crash, in the next coordinator's first. */
  buy(actions: readonly Buy[]): Promise<ReadonlyMap<InstanceId, MachineId>>
  /** Starts a copy of the instance on the other node; services stop the old one when it is ready. False: it is too late for that. */
  move(action: RebalanceAction): Promise<boolean>
  /** Forgets machines that ended long ago, some at a time. */
  prune(): Promise<void>
  /** One event per new alarm; an alarm that ended may be raised again. */
  alarm(raised: readonly Reason[]): Promise<void>
  commit(change: Change): Promise<void>
}

/** Machines that ended are kept this long beyond their month: what they cost and how long they lived. */
const KEEP_ENDED_MS = 15 * 86_400_000
/** Instances that an order names in the audit trail. */
const NAMED_PER_EVENT = 50
const PRUNE_PER_PASS = 50
/** An alarm that was not raised for this long has ended, and is told again when it comes back. Longer than between two lists. */
const ALARM_ENDED_MS = 900_000
/** The others follow with the next pass. */
const ALARMS_PER_COMMIT = 50

export function createFleetRecords(deps: FleetRecordsDeps): FleetRecords {
  const { state, executor, logger, config, clusterId, nowMs } = deps
  /** Code and text of an alarm → when it was last raised. */
  const alarms = new Map<string, number>()
  /** Of these none is to be forgotten yet. */
  let kept: { readonly machines: readonly MachineRecord[] | null; readonly sinceMs: number } = { machines: null, sinceMs: 0 }

  const applyReap = async (action: ReapAction) => {
    switch (action.kind) {
      case 'confirm':
        await changeMachine(deps, action.machineId, (machine) => {
          const early = machine.phase === 'requested' || machine.phase === 'booting'
          const phase = !early ? machine.phase : action.running ? 'joining' : 'booting'
          const bootedAtMs = action.running ? (machine.bootedAtMs ?? nowMs()) : machine.bootedAtMs
          return { ...machine, phase, bootedAtMs, providerId: machine.providerId ?? action.providerId }
        })
        return
      case 'terminate': {
        const machine = state.snapshot.get('machine', action.machineId)
        logger.warn('machine is given up', { machineId: action.machineId, reason: action.reason })
        if (action.poolRests && machine)
          deps.rests.rest(machine.pool, `${machine.id} ${action.reason}`, config.capacityCoolDownMs)
        await terminateMachine(deps, action.machineId, { reason: action.reason, by: 'fleet', nowMs: nowMs() })
        return
      }
      case 'lost':
        await changeMachine(
          deps,
          action.machineId,
          (machine) => ({ ...machine, phase: 'lost', goneAtMs: nowMs(), lastError: action.reason }),
          (change, machine) => {
            removeNodeOf(change, state.snapshot, machine)
            change.event({
              actor: 'fleet',
              type: 'machine.lost',
              subject: machine.id,
              message: `machine ${machine.id} of pool ${machine.pool} vanished: ${action.reason}`,
              severity: 'error',
              data: { pool: machine.pool },
            })
          },
        )
        return
      case 'adopt':
        await adopt(action)
        return
      case 'interrupt':
        await interruptNode(
          { state, clock: { now: nowMs } },
          action.nodeId,
          action.deadlineAtMs,
          'the provider',
          action.forceAtMs,
        )
        return
      case 'delete-orphan':
        logger.warn('unknown machine with our tag is deleted', { provider: action.provider, name: action.cloud.name })
        await alarm([
          {
            subject: action.cloud.id,
            code: 'orphan-deleted',
            text: `${action.provider} lists ${action.cloud.name}, which carries our tag but is unknown: it is deleted`,
          },
        ])
        executor.deleteOrphan(action.provider, action.cloud)
    }
  }

  const adopt = async (action: Extract<ReapAction, { kind: 'adopt' }>) => {
    const node = state.snapshot.get('node', action.nodeId)
    if (!node || state.snapshot.get('machine', action.machineId)) return
    const pool = node.pool === null ? undefined : state.snapshot.get('pool', node.pool)
    const change = state.change().put('machine', action.machineId, {
      id: action.machineId,
      name: action.cloud.name,
      pool: node.pool ?? '',
      provider: action.provider,
      phase: 'joined',
      providerId: action.cloud.id,
      nodeId: node.id,
      capacity: node.capacity,
      priceUsdPerHour: pool?.priceUsdPerHour ?? 0,
      reason: 'adopted: its agent is connected',
      requestedAtMs: Math.min(action.cloud.createdAtMs ?? node.joinedAtMs, node.joinedAtMs),
      bootedAtMs: null,
      joinedAtMs: node.joinedAtMs,
      terminatingAtMs: null,
      goneAtMs: null,
      attempts: 0,
      lastError: null,
    })
    change.event({
      actor: 'fleet',
      type: 'machine.adopted',
      subject: action.machineId,
      message: `${action.cloud.name} of ${action.provider} was unknown and is adopted, because its agent is connected`,
      severity: 'warning',
    })
    await commit(change)
  }

  const applyDrain = async (action: DrainAction) => {
    const node = state.snapshot.get('node', action.nodeId)
    if (!node) return
    if (action.kind === 'terminate') {
      await terminateMachine(deps, action.machineId, { reason: action.reason, by: 'fleet', nowMs: nowMs() })
      return
    }
    const change = state.change()
    if (action.kind === 'drained') {
      change.put('node', node.id, { ...node, availability: 'drained' })
      change.event({
        actor: 'fleet',
        type: 'node.drained',
        subject: node.id,
        message: `${node.id} is empty`,
        severity: 'info',
        data: { afterMs: nowMs() - (node.drain?.startedAtMs ?? nowMs()) },
      })
    } else {
      const assignments = state.snapshot.get('assignments', node.id)
      if (!assignments) return
      const instances = assignments.instances.map((instance) =>
        instance.goal === 'run'
          ? { ...instance, goal: 'stop' as const, stopReason: `drain of ${node.id}: its deadline is over`, stopAtMs: nowMs() }
          : instance,
      )
      change.put('assignments', node.id, { ...assignments, instances })
      change.event({
        actor: 'fleet',
        type: 'node.drain-forced',
        subject: node.id,
        message: `the drain of ${node.id} is overdue: what still runs there is stopped`,
        severity: 'warning',
      })
    }
    await commit(change)
  }

  const buy = async (actions: readonly Buy[]): Promise<ReadonlyMap<InstanceId, MachineId>> => {
    const ordered = new Map<InstanceId, MachineId>()
    let change = state.change()
    let room = commitRoom()
    for (const action of actions) {
      const pool = state.snapshot.get('pool', action.pool)
      if (!pool) continue
      const id = deps.ids.next('m')
      for (const instance of action.instances) ordered.set(instance, id)
      const machine: MachineRecord = {
        id,
        name: `${clusterId()}-${id}`,
        pool: pool.name,
        provider: pool.provider,
        phase: 'requested',
        providerId: null,
        nodeId: null,
        capacity: pool.capacity,
        priceUsdPerHour: pool.priceUsdPerHour,
        reason: action.reason,
        requestedAtMs: nowMs(),
        bootedAtMs: null,
        joinedAtMs: null,
        terminatingAtMs: null,
        goneAtMs: null,
        attempts: 0,
        lastError: null,
        ...(action.standInFor === undefined ? {} : { standInFor: action.standInFor }),
      }
      const event: EventDraft = {
        actor: 'fleet',
        type: 'machine.requested',
        subject: id,
        message: `machine ${id} of pool ${pool.name} is ordered: ${action.reason}`,
        severity: 'info',
        data: { pool: pool.name, priceUsdPerHour: pool.priceUsdPerHour, instances: action.instances.slice(0, NAMED_PER_EVENT) },
      }
      const bytes = jsonBytes(machine) + jsonBytes(event)
      if (!room.take(1, bytes)) {
        await commit(change)
        change = state.change()
        room = commitRoom()
        room.take(1, bytes)
      }
      change.put('machine', id, machine).event(event)
      logger.info('machine is ordered', { machineId: id, pool: pool.name, reason: action.reason })
    }
    await commit(change)
    return ordered
  }

  const move = async ({ instance: id, from, to, reason }: RebalanceAction): Promise<boolean> => {
    const { snapshot } = state
    const identity = parseInstanceId(id)
    const old = snapshot.get('assignments', from)?.instances.find((record) => record.id === id)
    const service = snapshot.get('service', serviceIdOf(id))
    if (!identity || !service || old?.goal !== 'run' || snapshot.get('node', to)?.availability !== 'active') return false
    const generation = nextGeneration(service, identity.slot, snapshot.instancesOf(service.id))
    const copy: InstanceRecord = {
      ...old,
      id: instanceId({ ...identity, generation }),
      nodeId: to,
      createdAtMs: deps.clock.now(),
      placedAtMs: deps.clock.now(),
      replaces: id,
      moves: true,
    }
    const present = snapshot.get('assignments', to)?.instances ?? []
    const change = state
      .change()
      .put('service', service.id, withGeneration(service, identity.slot, generation))
      .put('assignments', to, { nodeId: to, instances: [...present, copy] })
    const data = { from, to }
    change.event({
      actor: 'fleet',
      type: 'instance.moving',
      subject: id,
      message: `${id} moves: ${reason}`,
      severity: 'info',
      data,
    })
    await commit(change)
    return true
  }

  const prune = async () => {
    const keepSinceMs = monthOf(nowMs()).startMs - KEEP_ENDED_MS
    const ended = deps.endedMachines()
    if (ended === kept.machines && keepSinceMs === kept.sinceMs) return
    const old = ended.filter(({ goneAtMs }) => goneAtMs !== null && goneAtMs < keepSinceMs)
    if (old.length === 0) {
      kept = { machines: ended, sinceMs: keepSinceMs }
      return
    }
    const change = state.change()
    for (const machine of old.slice(0, PRUNE_PER_PASS)) change.delete('machine', machine.id)
    await commit(change)
  }

  const alarm = async (raised: readonly Reason[]) => {
    for (const [key, atMs] of alarms) if (nowMs() - atMs > ALARM_ENDED_MS) alarms.delete(key)
    const news = new Map<string, Reason>()
    for (const reason of raised) {
      const key = `${reason.code}\n${reason.text}`
      if (alarms.has(key)) alarms.set(key, nowMs())
      else if (news.size < ALARMS_PER_COMMIT) news.set(key, reason)
    }
    if (news.size === 0) return
    const change = state.change()
    for (const { subject, code, text } of news.values()) {
      logger.warn('fleet alarm', { subject, code, text })
      change.event({ actor: 'fleet', type: `fleet.${code}`, subject, message: text, severity: 'warning' })
    }
    await commit(change)
    for (const key of news.keys()) alarms.set(key, nowMs())
  }

  const commit = async (change: Change) => {
    const outcome = await state.commit(change)
    if (outcome.kind === 'committed') return
    throw new RetryableError(`fleet decision could not be stored: ${outcome.kind}: ${outcome.detail}`)
  }

  return { applyReap, applyDrain, buy, move, prune, alarm, commit }
}
