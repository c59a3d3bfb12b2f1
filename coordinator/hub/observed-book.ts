/**
 * The hub's memory of what agents said (`Observed`), and the only place that changes it. Changes gather until `publish`, so that
 * a burst of frames makes one notice. A node speaks only for instances that are its own.
 */
import type { InstanceId, NodeId } from '../../shared/model/identity.ts'
import type { Liveness } from '../../shared/model/node.ts'
import { INSTANCE_PHASES, type InstanceStatus, type InstanceUse } from '../../shared/model/observation.ts'
import type { ReportFrame } from '../../shared/protocol/frames.ts'
import type { InstanceObservation, NodeObservation, Observed, ObservedChange } from '../state/observed.ts'

export interface ObservedBook {
  readonly observed: Observed
  addNode(id: NodeId): void
  /** Forgets the node and all that it reported; returns the instances forgotten. */
  removeNode(id: NodeId): readonly InstanceId[]
  setNode(id: NodeId, change: Partial<Omit<NodeObservation, 'nodeId'>>): void
  setLiveness(id: NodeId, to: Liveness): void
  /** Of any frame; tells nobody. */
  seen(id: NodeId, monotonicMs: number): void
  setFrozen(frozen: Observed['frozen']): void
  owns(nodeId: NodeId, instance: InstanceId): boolean
  /** Replaces everything known of the node's instances; returns the ids whose status changed or went. */
  inventory(nodeId: NodeId, statuses: readonly InstanceStatus[], nowMs: number): readonly InstanceId[]
  /** Returns whether it was taken: a phase never goes back unless the container was started again. */
  status(nodeId: NodeId, status: InstanceStatus, nowMs: number): boolean
  forget(nodeId: NodeId, instance: InstanceId): boolean
  /** Takes over measured values; returns instances whose load changed. Unknown instances are skipped and counted in `skipped`. */
  report(nodeId: NodeId, report: ReportFrame, nowMs: number): { readonly loads: readonly InstanceId[]; readonly skipped: number }
  /** Tells listeners what gathered since the last time. */
  publish(): void
}

/** `onDirty` is called when there is something to publish. */
export function createObservedBook(onDirty: () => void): ObservedBook {
  const nodes = new Map<NodeId, NodeObservation>()
  const instances = new Map<InstanceId, InstanceObservation>()
  const byNode = new Map<NodeId, Set<InstanceId>>()
  const listeners = new Set<(change: ObservedChange) => void>()
  let frozen: Observed['frozen'] = null
  let changed = { nodes: new Set<NodeId>(), instances: new Set<InstanceId>(), any: false }
  let used = { nodes: new Set<NodeId>(), instances: new Set<InstanceId>() }

  const touchNode = (id: NodeId) => {
    changed.nodes.add(id)
    changed.any = true
    onDirty()
  }
  const touchInstance = (id: InstanceId) => {
    changed.instances.add(id)
    changed.any = true
    onDirty()
  }
  const write = (nodeId: NodeId, status: InstanceStatus, nowMs: number) => {
    const before = instances.get(status.instance)
    instances.set(status.instance, {
      ...status,
      nodeId,
      observedAtMs: nowMs,
      use: before?.nodeId === nodeId ? before.use : null,
      useAtMs: before?.nodeId === nodeId ? before.useAtMs : null,
    })
    let own = byNode.get(nodeId)
    if (!own) {
      own = new Set()
      byNode.set(nodeId, own)
    }
    own.add(status.instance)
    if (!before || !sameStatus(before, status)) touchInstance(status.instance)
  }
  const forget = (nodeId: NodeId, instance: InstanceId) => {
    if (!byNode.get(nodeId)?.delete(instance)) return false
    if (instances.get(instance)?.nodeId === nodeId) instances.delete(instance)
    touchInstance(instance)
    return true
  }

  const observed: Observed = {
    node: (id) => nodes.get(id),
    instance: (id) => instances.get(id),
    nodes: () => nodes.values(),
    instances: () => instances.values(),
    *instancesOn(nodeId) {
      for (const id of byNode.get(nodeId) ?? []) {
        const instance = instances.get(id)
        if (instance) yield instance
      }
    },
    get frozen() {
      return frozen
    },
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }

  const setNode = (id: NodeId, change: Partial<Omit<NodeObservation, 'nodeId'>>) => {
    const before = nodes.get(id)
    if (!before) return
    nodes.set(id, { ...before, ...change })
    touchNode(id)
  }

  return {
    observed,
    addNode(id) {
      if (nodes.has(id)) return
      nodes.set(id, {
        nodeId: id,
        connected: false,
        liveness: 'unknown',
        lastSeenMonotonicMs: null,
        bootId: null,
        appliedDesiredRevision: 0,
        appliedKeysRevision: 0,
        inventoryReceived: false,
        use: null,
        foreign: [],
        ahead: null,
      })
      touchNode(id)
    },
    removeNode(id) {
      const own = [...(byNode.get(id) ?? [])]
      for (const instance of own) forget(id, instance)
      byNode.delete(id)
      if (nodes.delete(id)) touchNode(id)
      return own
    },
    setNode,
    setLiveness: (id, liveness) => setNode(id, { liveness }),
    seen(id, monotonicMs) {
      const before = nodes.get(id)
      if (before) nodes.set(id, { ...before, lastSeenMonotonicMs: monotonicMs })
    },
    setFrozen(next) {
      frozen = next
      changed.any = true
      onDirty()
    },
    owns: (nodeId, instance) => byNode.get(nodeId)?.has(instance) ?? false,
    inventory(nodeId, statuses, nowMs) {
      const listed = new Set(statuses.map((status) => status.instance))
      const gone = [...(byNode.get(nodeId) ?? [])].filter((id) => !listed.has(id))
      for (const id of gone) forget(nodeId, id)
      const news = statuses.filter((status) => {
        const before = instances.get(status.instance)
        return !before || !sameStatus(before, status)
      })
      for (const status of statuses) write(nodeId, status, nowMs)
      return [...gone, ...news.map((status) => status.instance)]
    },
    status(nodeId, status, nowMs) {
      const before = instances.get(status.instance)
      if (before?.nodeId === nodeId && !mayFollow(before, status)) return false
      write(nodeId, status, nowMs)
      return true
    },
    forget,
    report(nodeId, report, nowMs) {
      const loads: InstanceId[] = []
      let skipped = 0
      const listed = new Set<InstanceId>()
      for (const use of report.instances) {
        const before = instances.get(use.instance)
        if (!before || before.nodeId !== nodeId) {
          skipped += 1
          continue
        }
        listed.add(use.instance)
        if (before.use?.loadPercent !== use.loadPercent) loads.push(use.instance)
        instances.set(use.instance, { ...before, use, useAtMs: nowMs })
        used.instances.add(use.instance)
      }
      // What a measuring report (one with node values) does not list has not changed, so it is as fresh as what is listed. A bare
      // heartbeat measures nothing and refreshes nothing: missing metrics must stay visible (fault row 12).
      const measured = report.node !== null || report.full
      for (const id of measured ? (byNode.get(nodeId) ?? []) : []) {
        const before = instances.get(id)
        if (!before?.use || listed.has(id)) continue
        const use = report.full ? null : idle(before.use)
        instances.set(id, { ...before, use, useAtMs: report.full ? before.useAtMs : nowMs })
      }
      const node = nodes.get(nodeId)
      if (node) {
        nodes.set(nodeId, { ...node, use: report.node ?? node.use, foreign: report.foreign ?? node.foreign })
        used.nodes.add(nodeId)
        if (report.foreign) touchNode(nodeId)
      }
      onDirty()
      return { loads, skipped }
    },
    publish() {
      const structural = changed
      const uses = used
      changed = { nodes: new Set(), instances: new Set(), any: false }
      used = { nodes: new Set(), instances: new Set() }
      const notices: ObservedChange[] = []
      if (structural.any) notices.push({ nodes: structural.nodes, instances: structural.instances, useOnly: false })
      if (uses.nodes.size > 0 || uses.instances.size > 0) notices.push({ ...uses, useOnly: true })
      for (const notice of notices) for (const listener of [...listeners]) listener(notice)
    },
  }
}

/** The same use over a time without any traffic. */
function idle(use: InstanceUse): InstanceUse {
  const { latency: _, ...rest } = use
  return { ...rest, requests: 0, errors: 0, denied: 0, rxBytes: 0, txBytes: 0 }
}

const RANK: ReadonlyMap<string, number> = new Map(INSTANCE_PHASES.map((phase, index) => [phase, index]))

/** Phases only advance; a container that was started again begins anew, but not after the end. Pure. */
export function mayFollow(before: InstanceStatus, next: InstanceStatus): boolean {
  if (before.phase === 'stopped') return next.phase === 'stopped'
  // Given up, then told to stop: its agent cleared it away (docs/states.md).
  if (before.phase === 'failed' && next.phase === 'stopped') return true
  if ((RANK.get(next.phase) ?? 0) >= (RANK.get(before.phase) ?? 0)) return next.restarts >= before.restarts
  if (before.phase === 'failed' || before.phase === 'draining') return false
  return next.restarts > before.restarts
}

function sameStatus(a: InstanceStatus, b: InstanceStatus): boolean {
  return (
    a.phase === b.phase &&
    a.healthy === b.healthy &&
    a.restarts === b.restarts &&
    a.crashLooping === b.crashLooping &&
    a.specHash === b.specHash &&
    a.startedAtMs === b.startedAtMs &&
    a.readyAtMs === b.readyAtMs &&
    a.containerId === b.containerId &&
    a.message === b.message &&
    JSON.stringify(a.ports) === JSON.stringify(b.ports)
  )
}
