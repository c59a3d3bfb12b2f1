/** Takes what agents say of their nodes over into the nodes' records, as far as it is believed, beside everything else. */
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { HelloFrame } from '../../shared/protocol/frames.ts'
import { believedCapacity, promisedCapacity } from '../fleet/believed-capacity.ts'
import type { State } from '../state/state.ts'
import type { AuditQueue } from './audit-queue.ts'
import { withFacts } from './node-facts.ts'

export interface FactsKeeper {
  /** Stores what is new in the frame; a failure is logged, and made up for by the next hello. */
  keep(nodeId: NodeId, frame: HelloFrame): void
  forget(nodeId: NodeId): void
  /** Resolves when all that was to be kept is written or given up. */
  idle(): Promise<void>
}

const MAX_ATTEMPTS = 5

export function createFactsKeeper(deps: {
  readonly state: State
  readonly logger: Logger
  readonly audit: Pick<AuditQueue, 'add'>
}): FactsKeeper {
  const { state, logger, audit } = deps
  const { snapshot } = state
  const inFlight = new Set<Promise<void>>()
  /** What was said last of how a node differs from what was ordered. */
  const told = new Map<NodeId, string>()

  const tellDifference = (nodeId: NodeId, difference: string | null) => {
    if (difference === null) told.delete(nodeId)
    if (difference === null || told.get(nodeId) === difference) return
    told.set(nodeId, difference)
    logger.warn('a node is not as it was ordered', { nodeId, difference })
    audit.add({
      actor: `node:${nodeId}`,
      type: 'node.capacity-differs',
      subject: nodeId,
      message: `${nodeId} ${difference}. Correct its pool, or look at that node.`,
      severity: 'warning',
    })
  }

  const store = async (nodeId: NodeId, frame: HelloFrame) => {
    for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
      const record = snapshot.get('node', nodeId)
      if (!record) return
      const pool = record.pool === null ? undefined : snapshot.get('pool', record.pool)
      const machine = record.machineId === null ? undefined : snapshot.get('machine', record.machineId)
      const { capacity, difference } = believedCapacity(frame.capacity, promisedCapacity(machine, pool))
      tellDifference(nodeId, difference)
      const next = withFacts(record, { ...frame, capacity }, pool?.labels ?? {})
      if (next === record) return
      const outcome = await state.commit(state.change().put('node', nodeId, next))
      if (outcome.kind === 'committed') return
      if (outcome.kind !== 'conflict') throw new Error(`${outcome.kind}: ${outcome.detail}`)
    }
    logger.warn("a node's facts were changed by others all the time", { nodeId })
  }

  return {
    keep(nodeId, frame) {
      const kept = store(nodeId, frame).catch((error: unknown) => {
        logger.error("a node's facts could not be kept", { nodeId, error: messageOf(error) })
      })
      inFlight.add(kept)
      void kept.finally(() => inFlight.delete(kept))
    },
    forget: (nodeId) => void told.delete(nodeId),
    async idle() {
      await Promise.all([...inFlight])
    },
  }
}
