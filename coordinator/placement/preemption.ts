/** Carries out what plan-preemption.ts decides: evicted instances get the goal `stop`; their services replace them as any that stopped. */
import type { Clock } from '../../shared/clock.ts'
import type { Logger } from '../../shared/logger.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import { specOfInstance } from '../services/kept-specs.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import type { PlacementNode, PlacementRequest } from './model.ts'
import { requestOfRecord } from './node-view.ts'
import { type Eviction, planPreemption, type Tenant } from './plan-preemption.ts'
import type { ChargeOf } from './requests.ts'

/** Of a service, so many may be out of service at once for others' sake: a quarter, at least one. */
const DISRUPTED_SHARE = 0.25
/** Nodes changed in one commit. */
const MAX_NODES_PER_COMMIT = 20

export interface Preemption {
  /** Evicts for these requests; answers how many instances. What was not stored is decided anew by the next pass. */
  run(refused: readonly PlacementRequest[], nodes: readonly PlacementNode[]): Promise<number>
}

export function createPreemption(deps: {
  readonly state: State
  readonly observed: Observed
  readonly clock: Clock
  readonly logger: Logger
  readonly chargeOf?: ChargeOf
}): Preemption {
  const { state, observed } = deps

  const tenantsOf = (nodeId: NodeId): readonly Tenant[] =>
    (state.snapshot.get('assignments', nodeId)?.instances ?? []).flatMap((record): Tenant[] => {
      const pool = state.snapshot.get('node', nodeId)?.pool ?? null
      const request = requestOfRecord(record, state.snapshot, deps.chargeOf, pool)
      if (!request) return []
      const spec = specOfInstance(state.snapshot.get('app', record.id.split('/')[0] ?? ''), record)
      const isStrict = spec?.unit.singletonStrictMs !== null && spec?.unit.singletonStrictMs !== undefined
      const isProtected = isStrict || request.global || request.volumes.length > 0 || record.replaces !== null
      return [{ id: record.id, request, stopping: record.goal === 'stop', isProtected }]
    })

  /** A quarter of what is wanted, less what is not ready as it is. */
  const disruptable = (service: string): number => {
    const desired = state.snapshot.get('service', service)?.desired ?? 0
    let ready = 0
    for (const record of state.snapshot.instancesOf(service))
      if (record.goal === 'run' && observed.instance(record.id)?.phase === 'ready') ready += 1
    return Math.max(1, Math.floor(desired * DISRUPTED_SHARE)) - Math.max(0, desired - ready)
  }

  return {
    async run(refused, nodes) {
      if (refused.length === 0 || observed.frozen !== null) return 0
      const byNode = new Map<NodeId, Eviction[]>()
      for (const eviction of planPreemption({ refused, nodes, tenantsOf, disruptable })) {
        const here = byNode.get(eviction.node)
        if (here) here.push(eviction)
        else if (byNode.size < MAX_NODES_PER_COMMIT) byNode.set(eviction.node, [eviction])
      }
      if (byNode.size === 0) return 0
      const change = state.change()
      let count = 0
      for (const [nodeId, evictions] of byNode) {
        const assignments = state.snapshot.get('assignments', nodeId)
        if (!assignments) continue
        const reasons = new Map(evictions.map((eviction) => [eviction.victim, eviction.reason]))
        const instances = assignments.instances.map((record) => {
          const stopReason = reasons.get(record.id)
          if (stopReason === undefined || record.goal === 'stop') return record
          count += 1
          return { ...record, goal: 'stop' as const, stopReason, stopAtMs: deps.clock.now() }
        })
        change.put('assignments', nodeId, { ...assignments, instances })
        for (const { victim, beneficiary, reason } of evictions)
          change.event({
            actor: 'placement',
            type: 'instance.evicted',
            subject: victim,
            message: `${victim} on ${nodeId} is ${reason}`,
            severity: 'warning',
            data: { node: nodeId, for: beneficiary },
          })
      }
      const outcome = await state.commit(change)
      if (outcome.kind === 'committed') return count
      deps.logger.warn('evictions were not stored, decided anew', { outcome: outcome.kind })
      return 0
    },
  }
}
