/**
 * What is known of nodes and instances from their agents, in memory only. Written by the hub alone; every reader treats a
 * missing entry as "not observed", which is never "not there".
 */
import type { InstanceId, NodeId } from '../../shared/model/identity.ts'
import type { Liveness } from '../../shared/model/node.ts'
import type { ForeignService, InstanceStatus, InstanceUse, NodeUse } from '../../shared/model/observation.ts'
import type { PulledAhead } from '../../shared/protocol/frames.ts'

export interface NodeObservation {
  readonly nodeId: NodeId
  readonly connected: boolean
  readonly liveness: Liveness
  /** Monotonic ms of the last frame of any kind; null when none came since this coordinator started. */
  readonly lastSeenMonotonicMs: number | null
  readonly bootId: string | null
  readonly appliedDesiredRevision: number
  readonly appliedKeysRevision: number
  /** Full inventory of this session has arrived. */
  readonly inventoryReceived: boolean
  readonly use: NodeUse | null
  readonly foreign: readonly ForeignService[]
  /** How the images stand that it was asked to pull ahead; null while it is not connected, or pulls none ahead. */
  readonly ahead: PulledAhead | null
}

export interface InstanceObservation extends InstanceStatus {
  readonly nodeId: NodeId
  /** Epoch ms by the coordinator's clock when the status came. */
  readonly observedAtMs: number
  readonly use: InstanceUse | null
  /** Epoch ms of the last use report, by the coordinator's clock. */
  readonly useAtMs: number | null
}

export interface Observed {
  node(id: NodeId): NodeObservation | undefined
  instance(id: InstanceId): InstanceObservation | undefined
  nodes(): Iterable<NodeObservation>
  instances(): Iterable<InstanceObservation>
  /** Instances that this node reported, whether we want them or not. */
  instancesOn(nodeId: NodeId): Iterable<InstanceObservation>
  /** Set while too many nodes went silent at once (or right after a start): nothing is replaced or deleted for silence. */
  readonly frozen: { readonly reason: string; readonly untilMs: number } | null
  /** Called after any change, with what changed; returns the unsubscriber. */
  onChange(listener: (change: ObservedChange) => void): () => void
}

export interface ObservedChange {
  readonly nodes: ReadonlySet<NodeId>
  readonly instances: ReadonlySet<InstanceId>
  /** Only loads and uses changed: no phase, health or liveness. */
  readonly useOnly: boolean
}

/** Routable = ready ∧ healthy ∧ observed on a node that is not lost (design §5). */
export function isRoutable(instance: InstanceObservation | undefined, node: NodeObservation | undefined): boolean {
  return (
    instance !== undefined && instance.phase === 'ready' && instance.healthy && node !== undefined && node.liveness !== 'lost'
  )
}
