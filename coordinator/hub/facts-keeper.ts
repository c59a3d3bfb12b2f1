/**
 * Takes what agents say of their nodes over into the nodes' records, as far as it is believed, beside everything else. One write per node
 * at a time, of what was said last; of a node that is not as it was ordered people are told once an hour, however often it changes
 * its story: an agent must not push everything else out of the audit trail.
 */
import type { Clock } from '../../shared/clock.ts'
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
const TELL_AGAIN_MS = 3_600_000

export function createFactsKeeper(deps: {
  readonly state: State
  readonly clock: Clock
  readonly logger: Logger
  readonly audit: Pick<AuditQueue, 'add'>
}): FactsKeeper {
  const { state, clock, logger, audit } = deps
  const { snapshot } = state
  const inFlight = new Map<NodeId, Promise<void>>()
  /** Said while an earlier frame of the node is being written. */
  const next = new Map<NodeId, HelloFrame>()
  /** What was told last of how a node differs from what was ordered (null once it did not), and when: monotonic. */
  const told = new Map<NodeId, { readonly difference: string | null; readonly atMs: number }>()

  const tellDifference = (nodeId: NodeId, difference: string | null) => {
    const last = told.get(nodeId)
    const atMs = clock.monotonicMs()
    if (difference === null && last) told.set(nodeId, { ...last, difference: null })
    if (difference === null || difference === last?.difference || (last && atMs - last.atMs < TELL_AGAIN_MS)) return
    told.set(nodeId, { difference, atMs })
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
      const after = withFacts(record, { ...frame, capacity }, pool?.labels ?? {})
      if (after === record) return
      const outcome = await state.commit(state.change().put('node', nodeId, after))
      if (outcome.kind === 'committed') return
      if (outcome.kind !== 'conflict') throw new Error(`${outcome.kind}: ${outcome.detail}`)
    }
    logger.warn("a node's facts were changed by others all the time", { nodeId })
  }

  const storeAll = async (nodeId: NodeId, first: HelloFrame) => {
    for (let frame: HelloFrame | undefined = first; frame !== undefined; frame = next.get(nodeId)) {
      next.delete(nodeId)
      await store(nodeId, frame).catch((error: unknown) => {
        logger.error("a node's facts could not be kept", { nodeId, error: messageOf(error) })
      })
    }
    inFlight.delete(nodeId)
  }

  return {
    keep(nodeId, frame) {
      if (inFlight.has(nodeId)) next.set(nodeId, frame)
      else inFlight.set(nodeId, storeAll(nodeId, frame))
    },
    forget: (nodeId) => void told.delete(nodeId),
    async idle() {
      await Promise.all(inFlight.values())
    },
  }
}
