/**
 * The coordinator's side of all agent links: sessions, liveness, what is observed, and what each agent is told (design §4, §5).
 * The only writer of `Observed`. Nothing here decides about instances; it carries decisions down and facts up.
 */
import type { Clock, Timer } from '../../shared/clock.ts'
import type { Logger } from '../../shared/logger.ts'
import { type InstanceId, type NodeId, parseInstanceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { InstanceStatus } from '../../shared/model/observation.ts'
import type { Connection } from '../../shared/protocol/connection.ts'
import {
  type AgentFrame,
  CLOSE,
  type HelloFrame,
  type ImageToPull,
  type LeaveFrame,
  type WelcomeFrame,
} from '../../shared/protocol/frames.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import { createAuditQueue } from './audit-queue.ts'
import { createLivenessWatch } from './liveness-watch.ts'
import { createLogRequests, type LogLine, type LogOptions } from './log-requests.ts'
import { createFactsKeeper } from './facts-keeper.ts'
import { factsFault } from './node-facts.ts'
import { createNodeSync, type KeysApplied } from './node-sync.ts'
import { createObservedBook } from './observed-book.ts'
import { LIVENESS_RULES, type LivenessRules } from './plan-liveness.ts'
import { createPullAheadBook } from './pull-ahead-book.ts'
import { openSession, type Session, type SessionCounters } from './session.ts'

export interface HubSettings {
  /** How often agents report. Default 2 s. */
  readonly reportIntervalMs: number
  /** The longest that an agent says nothing. Default 5 s. */
  readonly heartbeatMs: number
  /** How long agents authorize with keys that nobody confirms. Default 24 h. */
  readonly staleAfterMs: number
  /** How long changes gather before agents are told. Default 10 ms. */
  readonly coalesceMs: number
  /** Sessions that may be between their connection and their full sets at once (fault row 27). Default 256. */
  readonly maxGreeting: number
  readonly liveness: LivenessRules
}

const HUB_SETTINGS: HubSettings = {
  reportIntervalMs: 2000,
  heartbeatMs: 5000,
  staleAfterMs: 86_400_000,
  coalesceMs: 10,
  maxGreeting: 256,
  liveness: LIVENESS_RULES,
}

export interface HubDeps {
  readonly state: State
  readonly clock: Clock
  readonly logger: Logger
  readonly settings?: Partial<HubSettings>
}

export interface HubStats extends Readonly<SessionCounters> {
  readonly sessions: number
  readonly greeting: number
  readonly ignoredStatuses: number
  readonly forged: number
  readonly resyncs: number
  readonly droppedEvents: number
}

export interface Hub {
  readonly observed: Observed
  /** Takes the connection of a node that has authenticated. */
  accept(connection: Connection, nodeId: NodeId): void
  start(): void
  /** Closes all sessions (agents reconnect elsewhere or later) and waits for what is being written. */
  stop(): Promise<void>
  /** Ends the node's session; one whose record is gone is told to leave the cluster for good. */
  disconnect(nodeId: NodeId, reason: string): void
  /** Log lines of an instance; ends with the log, or when the signal aborts. */
  logs(instance: InstanceId, options: LogOptions, signal: AbortSignal): AsyncIterable<LogLine>
  /** Revision that covers every key and policy committed so far. */
  keysRevision(): number
  /** Which nodes hold (applied and saved) everything up to that revision. */
  keysAppliedBy(revision: number): KeysApplied
  /** Images that each node shall pull ahead from now on; nodes that are not in it none. */
  pullAhead(wanted: ReadonlyMap<NodeId, readonly ImageToPull[]>): void
  /** A person says that the silent nodes are really gone: ends the freeze. */
  confirmSilence(by: string): void
  stats(): HubStats
}

export function createHub(deps: HubDeps): Hub {
  const { state, clock, logger } = deps
  const settings: HubSettings = { ...HUB_SETTINGS, ...deps.settings }
  const { snapshot, epoch } = state
  const sessions = new Map<NodeId, Session>()
  const greeting = new Set<Session>()
  const counters: SessionCounters = {
    framesIn: 0,
    bytesIn: 0,
    framesOut: 0,
    bytesOut: 0,
    unknownFrames: 0,
    badFrames: 0,
    tooMany: 0,
    slow: 0,
  }
  const counts = { ignoredStatuses: 0, forged: 0, resyncs: 0 }
  const changedLoads = new Map<string, Map<InstanceId, number>>()
  const audit = createAuditQueue(state, logger)
  const facts = createFactsKeeper({ state, clock, logger, audit })
  let running = false
  let flushTimer: Timer | null = null
  let tickTimer: Timer | null = null
  let unsubscribe: (() => void) | null = null
  let lastHeartbeatMs = Number.NEGATIVE_INFINITY

  const markDirty = () => {
    if (!running || flushTimer) return
    flushTimer = clock.setTimer(settings.coalesceMs, () => {
      flushTimer = null
      flush()
    })
  }
  const book = createObservedBook(markDirty)
  const sync = createNodeSync({
    epoch,
    snapshot,
    observed: book.observed,
    clock,
    logger,
    send: (nodeId, text) => sessions.get(nodeId)?.send(text),
    onDirty: markDirty,
  })
  const liveness = createLivenessWatch({
    book,
    clock,
    logger,
    audit,
    rules: settings.liveness,
    onRoutabilityChanged(nodeId) {
      for (const instance of book.observed.instancesOn(nodeId)) sync.serviceChanged(serviceIdOf(instance.instance))
    },
  })
  const pullAhead = createPullAheadBook({
    send: (nodeId, text) => sessions.get(nodeId)?.send(text),
    onChange: (nodeId, ahead) => book.setNode(nodeId, { ahead }),
  })
  const logRequests = createLogRequests({
    nodeOf: (instance) => book.observed.instance(instance)?.nodeId ?? null,
    send(nodeId, frame) {
      const session = sessions.get(nodeId)
      session?.send(JSON.stringify(frame))
      return session !== undefined
    },
  })

  const flush = () => {
    sync.flush()
    for (const session of greeting) if (session.phase !== 'greeting') greeting.delete(session)
    book.publish()
  }

  const addNode = (nodeId: NodeId) => {
    book.addNode(nodeId)
    liveness.addNode(nodeId)
    sync.addNode(nodeId)
  }
  const removeNode = (nodeId: NodeId) => {
    leave(nodeId, 'the node was removed from the cluster')
    for (const instance of book.removeNode(nodeId)) sync.serviceChanged(serviceIdOf(instance))
    liveness.removeNode(nodeId)
    sync.removeNode(nodeId)
    facts.forget(nodeId)
  }
  const leave = (nodeId: NodeId, reason: string) => {
    const session = sessions.get(nodeId)
    session?.send(JSON.stringify({ type: 'leave', reason } satisfies LeaveFrame))
    session?.close(1000, reason)
  }

  const hello = (session: Session, frame: HelloFrame): boolean => {
    const { nodeId } = session
    const record = snapshot.get('node', nodeId)
    const cluster = snapshot.get('cluster', 'cluster')
    const refuse = (code: number, reason: string) => {
      logger.warn('an agent was refused', { nodeId, reason })
      session.close(code, reason)
      return false
    }
    if (!record) return refuse(CLOSE.foreignNode, 'this node is not in the cluster')
    if (frame.nodeId !== nodeId) return refuse(CLOSE.foreignNode, `the credential is not that of ${frame.nodeId.slice(0, 80)}`)
    if (cluster && frame.clusterId !== cluster.id) return refuse(CLOSE.foreignNode, 'this agent is of another cluster')
    if (frame.epoch > epoch) return refuse(CLOSE.lowerEpoch, `this coordinator leads epoch ${epoch}, a later one has begun`)
    const fault = factsFault(frame)
    if (fault !== null) return refuse(CLOSE.badFrame, fault)

    const older = sessions.get(nodeId)
    sessions.set(nodeId, session)
    if (older) logRequests.lostNode(nodeId)
    older?.close(CLOSE.replaced, 'a newer connection of this node took over')
    const nowMs = clock.now()
    book.seen(nodeId, clock.monotonicMs())
    book.setNode(nodeId, { connected: true, bootId: frame.bootId, inventoryReceived: true })
    liveness.seen(nodeId)
    const own = frame.inventory.filter((status) => !isForged(nodeId, status))
    if (own.length < frame.inventory.length) reportForgery(nodeId, frame.inventory.length - own.length)
    for (const instance of book.inventory(nodeId, own, nowMs)) sync.serviceChanged(serviceIdOf(instance))
    const welcome: WelcomeFrame = {
      type: 'welcome',
      epoch,
      reportIntervalMs: settings.reportIntervalMs,
      heartbeatMs: settings.heartbeatMs,
      staleAfterMs: settings.staleAfterMs,
    }
    session.send(JSON.stringify(welcome))
    sync.attach(nodeId, frame, epoch)
    pullAhead.attached(nodeId, frame.pullsAhead === true)
    logger.info('agent connected', { nodeId, bootId: frame.bootId, instances: own.length, agentVersion: frame.agentVersion })
    facts.keep(nodeId, frame)
    return true
  }

  /** Whether the instance is some other node's. */
  const isForged = (nodeId: NodeId, status: InstanceStatus) => {
    const owner = snapshot.instances().get(status.instance)?.nodeId ?? null
    return owner !== null && owner !== nodeId
  }
  const reportForgery = (nodeId: NodeId, count: number) => {
    counts.forged += count
    logger.warn("an agent spoke for another node's instances", { nodeId, count })
    audit.add({
      actor: `node:${nodeId}`,
      type: 'node.forged-status',
      subject: nodeId,
      message: `The agent reported ${count} instance(s) of other nodes; the report was refused.`,
      severity: 'error',
    })
  }

  const takeStatuses = (session: Session, statuses: readonly InstanceStatus[], gone: readonly InstanceId[]) => {
    const { nodeId } = session
    const nowMs = clock.now()
    for (const status of statuses) {
      const { instance } = status
      const owned = book.owns(nodeId, instance)
      if (isForged(nodeId, status)) {
        // What it told us of before anybody owned it is another node's by now: its word no longer counts, but it may not know yet.
        if (owned) {
          book.forget(nodeId, instance)
          counts.ignoredStatuses += 1
          continue
        }
        reportForgery(nodeId, 1)
        return session.close(CLOSE.foreignNode, "another node's instance")
      }
      const assigned = snapshot.instances().get(instance)?.nodeId === nodeId
      if ((!owned && !assigned) || parseInstanceId(instance) === null || !book.status(nodeId, status, nowMs)) {
        counts.ignoredStatuses += 1
        continue
      }
      sync.serviceChanged(serviceIdOf(instance))
    }
    for (const instance of gone) {
      if (book.forget(nodeId, instance)) sync.serviceChanged(serviceIdOf(instance))
      else counts.ignoredStatuses += 1
    }
  }

  const takeReport = (nodeId: NodeId, report: Extract<AgentFrame, { type: 'report' }>) => {
    const { loads, skipped } = book.report(nodeId, report, clock.now())
    counts.ignoredStatuses += skipped
    for (const instance of loads) {
      const load = book.observed.instance(instance)?.use?.loadPercent
      if (load === null || load === undefined) continue
      const service = serviceIdOf(instance)
      const ofService = changedLoads.get(service) ?? new Map<InstanceId, number>()
      ofService.set(instance, Math.round(load))
      changedLoads.set(service, ofService)
    }
  }

  const takeFrame = (session: Session, frame: Exclude<AgentFrame, HelloFrame>) => {
    const { nodeId } = session
    if (sessions.get(nodeId) !== session) return
    switch (frame.type) {
      case 'status':
        return takeStatuses(session, frame.statuses, frame.gone)
      case 'report':
        return takeReport(nodeId, frame)
      case 'ack':
        sync.ack(nodeId, frame.what, frame.revision)
        book.setNode(nodeId, {
          appliedDesiredRevision: sync.appliedDesired(nodeId),
          appliedKeysRevision: sync.appliedKeys(nodeId),
        })
        return
      case 'resync':
        counts.resyncs += 1
        return sync.resync(nodeId, frame.what)
      case 'pulledAhead':
        return pullAhead.told(nodeId, frame)
      case 'log':
        return logRequests.chunk(nodeId, frame)
    }
  }

  const closed = (session: Session, code: number, reason: string) => {
    greeting.delete(session)
    if (sessions.get(session.nodeId) !== session) return
    sessions.delete(session.nodeId)
    sync.detach(session.nodeId)
    pullAhead.detached(session.nodeId)
    logRequests.lostNode(session.nodeId)
    book.setNode(session.nodeId, { connected: false, inventoryReceived: false })
    logger.info('agent disconnected', { nodeId: session.nodeId, code, reason })
  }

  const tick = () => {
    tickTimer = clock.setTimer(1000, tick)
    const nowMs = clock.monotonicMs()
    liveness.tick(nowMs)
    if (changedLoads.size > 0) sync.sendLoads(changedLoads)
    changedLoads.clear()
    // A quiet agent hears from us too: that its keys are still confirmed.
    if (nowMs - lastHeartbeatMs < settings.heartbeatMs) return
    lastHeartbeatMs = nowMs
    for (const session of sessions.values()) session.send('{"type":"loads","loads":{}}')
  }

  return {
    observed: book.observed,
    accept(connection, nodeId) {
      if (!running || greeting.size >= settings.maxGreeting) return connection.close(1013, 'try again later')
      if (!snapshot.get('node', nodeId)) return connection.close(CLOSE.foreignNode, 'this node is not in the cluster')
      addNode(nodeId)
      const session = openSession(connection, nodeId, {
        clock,
        logger,
        counters,
        events: {
          hello,
          seen: (speaker) => {
            if (sessions.get(nodeId) !== speaker) return
            book.seen(nodeId, clock.monotonicMs())
            liveness.seen(nodeId)
          },
          frame: takeFrame,
          closed,
        },
      })
      if (session.phase !== 'closed') greeting.add(session)
    },
    start() {
      if (running) return
      running = true
      for (const id of snapshot.all('node').keys()) addNode(id)
      unsubscribe = state.onChange((change) => {
        for (const { kind, key } of change.keys)
          if (kind === 'node') {
            if (snapshot.get('node', key)) addNode(key)
            else removeNode(key)
          }
        sync.stateChanged(change)
      })
      liveness.start(clock.monotonicMs())
      tickTimer = clock.setTimer(1000, tick)
      markDirty()
    },
    async stop() {
      running = false
      unsubscribe?.()
      flushTimer?.cancel()
      flushTimer = null
      tickTimer?.cancel()
      for (const session of [...sessions.values(), ...greeting]) session.close(1001, 'the coordinator stops')
      await facts.idle()
      await audit.idle()
    },
    disconnect(nodeId, reason) {
      if (snapshot.get('node', nodeId)) sessions.get(nodeId)?.close(1000, reason)
      else leave(nodeId, reason)
    },
    logs: (instance, options, signal) => logRequests.read(instance, options, signal),
    keysRevision: () => sync.keysRevision(),
    keysAppliedBy: (revision) => sync.keysAppliedBy(revision),
    pullAhead: (wanted) => pullAhead.want(wanted),
    confirmSilence: (by) => liveness.confirmSilence(by),
    stats: () => ({ ...counters, ...counts, sessions: sessions.size, greeting: greeting.size, droppedEvents: audit.dropped }),
  }
}
