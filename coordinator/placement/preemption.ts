/** Carries out what plan-preemption.ts decides: evicted instances get the goal `stop`; their services replace them as any that stopped. */
import type { Clock } from '../../shared/clock.ts'
import type { Logger } from '../../shared/logger.ts'
import { type NodeId, parseInstanceId, type ServiceId } from '../../shared/model/identity.ts'
import type { EventDraft } from '../../shared/model/event.ts'
import { commitRoom, jsonBytes } from '../state/commit-room.ts'
import { isTakingOver } from '../services/generations.ts'
import { specOfInstance } from '../services/kept-specs.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import type { PlacementNode, PlacementRequest } from './model.ts'
import { requestOfRecord } from './node-view.ts'
import { type Eviction, planPreemption } from './plan-preemption.ts'
import type { Tenant } from './plan-victims.ts'
import type { ChargeOf } from './requests.ts'

/** Of a service, so many may be out of service at once for others' sake: a quarter, at least one. */
const DISRUPTED_SHARE = 0.25
/** Of all instances, so many percent may be evicted within an hour: priorities are for the few, not for exchanging a cluster. */
export const EVICTED_PERCENT_PER_HOUR = 10
/** The same where that share would be next to nothing. */
const LEAST_EVICTIONS = 10
/** Of these, the part that one app may have for itself. */
const SHARE_OF_APP = 0.5
const HOUR_MS = 3_600_000

export interface Preemption {
  /**
   * Evicts for these requests, as far as one short pass goes; answers whether nodes are left to look at. What was not stored is decided
   * anew by the next pass.
   */
  run(refused: readonly PlacementRequest[], nodes: readonly PlacementNode[]): Promise<boolean>
}

export function createPreemption(deps: {
  readonly state: State
  readonly observed: Observed
  readonly clock: Clock
  readonly logger: Logger
  readonly chargeOf?: ChargeOf
  /** See `EVICTED_PERCENT_PER_HOUR`, the default; 0: nothing is ever evicted. */
  readonly evictedPercentPerHour?: number
}): Preemption {
  const { state, observed, clock, evictedPercentPerHour = EVICTED_PERCENT_PER_HOUR } = deps
  /** For whom others went in the last hour, oldest first. In memory only: a new coordinator begins a new hour. */
  let past: readonly { readonly atMs: number; readonly app: string }[] = []
  let after: NodeId | null = null
  /** Whether the audit trail says that evictions wait. */
  let isHeld = false

  const tenantsOf = (nodeId: NodeId): readonly Tenant[] =>
    (state.snapshot.get('assignments', nodeId)?.instances ?? []).flatMap((record): Tenant[] => {
      const pool = state.snapshot.get('node', nodeId)?.pool ?? null
      const request = requestOfRecord(record, state.snapshot, deps.chargeOf, pool)
      if (!request) return []
      const spec = specOfInstance(state.snapshot.get('app', record.id.split('/')[0] ?? ''), record)
      const isStrict = spec?.unit.singletonStrictMs !== null && spec?.unit.singletonStrictMs !== undefined
      const isProtected = isStrict || request.global || request.volumes.length > 0 || isTakingOver(state.snapshot, record)
      return [{ id: record.id, request, stopping: record.goal === 'stop', isProtected }]
    })

  const allowed = (): number =>
    evictedPercentPerHour === 0
      ? 0
      : Math.max(LEAST_EVICTIONS, Math.ceil((state.snapshot.instances().size * evictedPercentPerHour) / 100))

  const allowanceOf = (app: string, evictedForOthers: number): number => {
    const all = allowed()
    const own = past.filter((eviction) => eviction.app === app).length
    return Math.min(all - past.length - evictedForOthers, Math.ceil(all * SHARE_OF_APP) - own)
  }

  /** A quarter of what is wanted, less what is not ready as it is. */
  const disruptable = (service: ServiceId): number => {
    const desired = state.snapshot.get('service', service)?.desired ?? 0
    let ready = 0
    for (const record of state.snapshot.instancesOf(service))
      if (record.goal === 'run' && observed.instance(record.id)?.phase === 'ready') ready += 1
    return Math.max(1, Math.floor(desired * DISRUPTED_SHARE)) - Math.max(0, desired - ready)
  }

  /** Once for each time that it begins. */
  const tellHeld = async (held: readonly PlacementRequest[]) => {
    const [first] = held
    if (first === undefined || isHeld) {
      if (first === undefined && after === null) isHeld = false
      return
    }
    const change = state.change().event({
      actor: 'placement',
      type: 'placement.evictions-held',
      subject: first.id,
      message: `${first.id}${held.length > 1 ? ` and ${held.length - 1} more` : ''} could have the room of others, but in the last hour ${past.length} were evicted of at most ${allowed()}, half of them for one app (placement.evictedPercentPerHour)`,
      severity: 'warning',
      data: { instances: held.map(({ id }) => id) },
    })
    isHeld = (await state.commit(change)).kind === 'committed'
  }

  const evict = async (evictions: readonly Eviction[]) => {
    const byNode = new Map<NodeId, Eviction[]>()
    for (const eviction of evictions) {
      const here = byNode.get(eviction.node)
      if (here) here.push(eviction)
      else byNode.set(eviction.node, [eviction])
    }
    const change = state.change()
    const room = commitRoom()
    const news: { readonly atMs: number; readonly app: string }[] = []
    for (const [nodeId, here] of byNode) {
      const assignments = state.snapshot.get('assignments', nodeId)
      if (!assignments) continue
      const reasons = new Map(here.map((eviction) => [eviction.victim, eviction.reason]))
      const instances = assignments.instances.map((record) => {
        const stopReason = reasons.get(record.id)
        if (stopReason === undefined || record.goal === 'stop') return record
        return { ...record, goal: 'stop' as const, stopReason, stopAtMs: deps.clock.now() }
      })
      const value = { ...assignments, instances }
      const events = here.map(
        ({ victim, beneficiary, reason }): EventDraft => ({
          actor: 'placement',
          type: 'instance.evicted',
          subject: victim,
          message: `${victim} on ${nodeId} is ${reason}`,
          severity: 'warning',
          data: { node: nodeId, for: beneficiary },
        }),
      )
      // What does not fit beside the others is decided anew.
      if (!room.take(1, jsonBytes(value) + jsonBytes(events))) continue
      change.put('assignments', nodeId, value)
      for (const event of events) change.event(event)
      for (const { beneficiary } of here) news.push({ atMs: clock.monotonicMs(), app: parseInstanceId(beneficiary)?.app ?? '' })
    }
    if (change.isEmpty) return
    const outcome = await state.commit(change)
    if (outcome.kind === 'committed') past = [...past, ...news]
    else deps.logger.warn('evictions were not stored, decided anew', { outcome: outcome.kind })
  }

  return {
    async run(refused, nodes) {
      if (refused.length === 0 || observed.frozen !== null || evictedPercentPerHour === 0) return false
      past = past.filter(({ atMs }) => clock.monotonicMs() - atMs < HOUR_MS)
      const limits = new Map<ServiceId, number>()
      const plan = planPreemption({
        refused,
        nodes,
        tenantsOf,
        disruptable(service) {
          const limit = limits.get(service) ?? disruptable(service)
          limits.set(service, limit)
          return limit
        },
        allowance: allowanceOf,
        after,
      })
      after = plan.after
      await evict(plan.evictions)
      await tellHeld(plan.held)
      return after !== null
    },
  }
}
