/** What agents report, built by hand: single observations, and an `Observed` that a test fills and changes. */
import type { InstanceObservation, NodeObservation, Observed, ObservedChange } from '../../coordinator/state/observed.ts'
import type { InstanceUse, NodeUse } from '../../shared/model/observation.ts'
import { T0 } from './records.ts'
import { aServiceSpec } from './specs.ts'

export function anInstanceUse(fields: Partial<InstanceUse> = {}): InstanceUse {
  return {
    instance: 'shop/web/1/1',
    loadPercent: null,
    demand: null,
    cpuMillis: 0,
    memoryBytes: 0,
    rxBytes: 0,
    txBytes: 0,
    inFlight: 0,
    requests: 0,
    errors: 0,
    denied: 0,
    ...fields,
  }
}

export function aNodeUse(fields: Partial<NodeUse> = {}): NodeUse {
  return { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, rxBytesPerS: 0, txBytesPerS: 0, ...fields }
}

/** Ready and healthy on `n-1` since `T0` unless told otherwise. */
export function anInstanceObservation(fields: Partial<InstanceObservation> = {}): InstanceObservation {
  const instance = fields.instance ?? 'shop/web/1/1'
  const phase = fields.phase ?? 'ready'
  return {
    instance,
    specHash: aServiceSpec().specHash,
    phase,
    healthy: phase === 'ready' || phase === 'warming',
    restarts: 0,
    crashLooping: false,
    ports: [],
    startedAtMs: T0,
    readyAtMs: phase === 'ready' ? T0 : null,
    containerId: 'c-1',
    message: '',
    nodeId: 'n-1',
    observedAtMs: T0,
    use: null,
    useAtMs: null,
    ...fields,
  }
}

/** A live, connected node whose inventory has arrived. */
export function aNodeObservation(fields: Partial<NodeObservation> = {}): NodeObservation {
  return {
    nodeId: 'n-1',
    connected: true,
    liveness: 'live',
    lastSeenMonotonicMs: 0,
    bootId: 'boot-1',
    appliedDesiredRevision: 0,
    appliedKeysRevision: 0,
    inventoryReceived: true,
    use: null,
    foreign: [],
    ahead: null,
    ...fields,
  }
}

export interface TestObserved extends Observed {
  setNode(observation: NodeObservation): void
  setInstance(observation: InstanceObservation): void
  /** Only its use: listeners are told `useOnly`. */
  setUse(use: InstanceUse, atMs: number): void
  removeInstance(id: string): void
  removeNode(id: string): void
  setFrozen(frozen: Observed['frozen']): void
}

/** Listeners are called at once, synchronously. */
export function testObserved(): TestObserved {
  const nodes = new Map<string, NodeObservation>()
  const instances = new Map<string, InstanceObservation>()
  const listeners = new Set<(change: ObservedChange) => void>()
  let frozen: Observed['frozen'] = null
  const tell = (nodeIds: string[], instanceIds: string[], useOnly = false) => {
    for (const listener of [...listeners]) listener({ nodes: new Set(nodeIds), instances: new Set(instanceIds), useOnly })
  }
  return {
    node: (id) => nodes.get(id),
    instance: (id) => instances.get(id),
    nodes: () => nodes.values(),
    instances: () => instances.values(),
    instancesOn: (nodeId) => [...instances.values()].filter((instance) => instance.nodeId === nodeId),
    get frozen() {
      return frozen
    },
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    setNode(observation) {
      nodes.set(observation.nodeId, observation)
      tell([observation.nodeId], [])
    },
    setInstance(observation) {
      instances.set(observation.instance, observation)
      tell([], [observation.instance])
    },
    setUse(use, atMs) {
      const instance = instances.get(use.instance)
      if (!instance) throw new Error(`no status of ${use.instance} was set before its use`)
      instances.set(use.instance, { ...instance, use, useAtMs: atMs })
      tell([], [use.instance], true)
    },
    removeInstance(id) {
      instances.delete(id)
      tell([], [id])
    },
    removeNode(id) {
      nodes.delete(id)
      tell([id], [])
    },
    setFrozen(value) {
      frozen = value
      tell([...nodes.keys()], [])
    },
  }
}
