/** Applies `planLiveness` to the observed nodes once a second, and tells of every change: log line, event, routes. */
import type { Clock } from '../../shared/clock.ts'
import { formatDuration } from '../../shared/units.ts'
import type { Logger } from '../../shared/logger.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { AuditQueue } from './audit-queue.ts'
import type { ObservedBook } from './observed-book.ts'
import { type Freeze, type LivenessAction, type LivenessRules, planLiveness } from './plan-liveness.ts'

/** A tick this late means that this process did not run: the silence was ours. */
const STALL_MS = 5000

export interface LivenessWatch {
  start(nowMs: number): void
  addNode(id: NodeId): void
  removeNode(id: NodeId): void
  /** A frame came: a node that was given up is back at once. */
  seen(id: NodeId): void
  tick(nowMs: number): void
  confirmSilence(by: string): void
}

export function createLivenessWatch(deps: {
  readonly book: ObservedBook
  readonly clock: Clock
  readonly logger: Logger
  readonly audit: AuditQueue
  readonly rules: LivenessRules
  onRoutabilityChanged(nodeId: NodeId): void
}): LivenessWatch {
  const { book, clock, logger, audit, rules } = deps
  const knownSinceMs = new Map<NodeId, number>()
  let startedMs = 0
  let freeze: Freeze | null = null
  let lastTickMs: number | null = null
  let confirmedUntilMs = Number.NEGATIVE_INFINITY

  const setFreeze = (next: Freeze | null) => {
    freeze = next
    book.setFrozen(next && { reason: next.reason, untilMs: clock.now() + Math.max(0, next.untilMs - clock.monotonicMs()) })
  }
  const apply = (action: LivenessAction) => {
    if (action.kind === 'set') return setLiveness(action)
    const to = action.kind === 'freeze' ? action.freeze : null
    const reason = to?.reason ?? (action.kind === 'thaw' ? action.reason : '')
    setFreeze(to)
    logger.warn(to ? 'replacement of silent nodes is frozen' : 'replacement of silent nodes is allowed again', { reason })
    audit.add({
      actor: 'hub',
      type: to ? 'cluster.frozen' : 'cluster.thawed',
      subject: 'cluster',
      message: to ? `Nothing is replaced or deleted for silence: ${reason}.` : `Silent nodes count again: ${reason}.`,
      severity: to ? 'warning' : 'info',
    })
  }
  const setLiveness = ({ nodeId, from, to, silentMs }: Extract<LivenessAction, { kind: 'set' }>) => {
    book.setLiveness(nodeId, to)
    logger[to === 'lost' ? 'warn' : 'info']('liveness changed', { nodeId, from, to, silentMs })
    if (from === 'lost' || to === 'lost') deps.onRoutabilityChanged(nodeId)
    // Everybody reports after a start; that is no news. A node that joined since is.
    if (to === 'unknown' || (from === 'unknown' && to === 'live' && knownSinceMs.get(nodeId) === startedMs)) return
    const silence = silentMs === null ? 'since the coordinator started' : `for ${formatDuration(silentMs)}`
    audit.add({
      actor: 'hub',
      type: `node.${to}`,
      subject: nodeId,
      message: to === 'live' ? `The node reports (it was ${from}).` : `The node has been silent ${silence}.`,
      severity: to === 'live' ? 'info' : to === 'suspect' ? 'warning' : 'error',
    })
  }
  const silences = () =>
    [...book.observed.nodes()].map((node) => ({
      nodeId: node.nodeId,
      liveness: node.liveness,
      lastSeenMs: node.lastSeenMonotonicMs,
      knownSinceMs: knownSinceMs.get(node.nodeId) ?? startedMs,
    }))

  return {
    start(nowMs) {
      startedMs = nowMs
      lastTickMs = nowMs
      const known = [...book.observed.nodes()]
      for (const node of known) knownSinceMs.set(node.nodeId, nowMs)
      if (known.length > 0)
        setFreeze({
          cause: 'start',
          reason: 'the coordinator just started and waits for its agents',
          sinceMs: nowMs,
          untilMs: nowMs + rules.unknownForMs,
        })
    },
    addNode(id) {
      if (!knownSinceMs.has(id)) knownSinceMs.set(id, clock.monotonicMs())
    },
    removeNode: (id) => void knownSinceMs.delete(id),
    seen(id) {
      const node = book.observed.node(id)
      if (node && node.liveness !== 'live')
        setLiveness({ kind: 'set', nodeId: id, from: node.liveness, to: 'live', silentMs: null })
    },
    tick(nowMs) {
      const lateMs = lastTickMs === null ? 0 : nowMs - lastTickMs
      lastTickMs = nowMs
      if (lateMs > STALL_MS) {
        logger.warn('the coordinator did not run for a while; that time counts for nobody as silence', { lateMs })
        for (const node of [...book.observed.nodes()])
          if (node.lastSeenMonotonicMs !== null) book.seen(node.nodeId, Math.min(nowMs, node.lastSeenMonotonicMs + lateMs))
      }
      const effective = nowMs < confirmedUntilMs ? { ...rules, massAtLeast: Number.POSITIVE_INFINITY } : rules
      for (const action of planLiveness({ nodes: silences(), freeze }, nowMs, effective).actions) apply(action)
    },
    confirmSilence(by) {
      if (freeze === null) return
      confirmedUntilMs = clock.monotonicMs() + rules.suspectAfterMs + rules.massWindowMs
      apply({ kind: 'thaw', reason: `confirmed by ${by}` })
    },
  }
}
