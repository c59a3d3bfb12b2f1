/**
 * What placement decides over: requests (instances without a node) and nodes as they stand. Plain data, so that the same
 * plan runs in production, in a dry run, in the simulator and inside the fleet's "what should be bought?".
 */
import type { PlacementRules } from '../../shared/model/app.ts'
import type { InstanceId, NodeId, ServiceId } from '../../shared/model/identity.ts'
import type { Capacity, Resources } from '../../shared/model/resources.ts'

/** What one instance takes away from its node; it also takes one slot. */
export interface Charge extends Resources {
  readonly diskBytes: number
  /** Set when measured use stands for a reservation that is not there. */
  readonly learned?: boolean
}

export interface PlacementRequest {
  readonly id: InstanceId
  readonly service: ServiceId
  /** Requests with equal keys have equal requirements in every field but `id`; they are planned together. */
  readonly group: string
  readonly charge: Charge
  readonly rules: PlacementRules
  /** `80/tcp`: ports of the node that the instance takes for itself (published with `mode: host`). */
  readonly hostPorts: readonly string[]
  readonly runtime: 'docker' | 'process'
  readonly images: readonly string[]
  /** Local named volumes as `app/volume`. */
  readonly volumes: readonly string[]
  /** Node that holds the volumes of this very slot: no other will do. null when there are none yet. */
  readonly home: NodeId | null
  /** Services to be close to (`rules.affinity.near`, resolved). */
  readonly near: readonly ServiceId[]
  readonly avoid: readonly ServiceId[]
  /** Whether `near` and `avoid` must hold or are only preferred. */
  readonly affinityRequired: boolean
  /** One per node: no machine is bought for it. */
  readonly global: boolean
}

export interface PlacementNode {
  readonly id: NodeId
  readonly hostname: string
  readonly labels: Readonly<Record<string, string>>
  readonly engineLabels: Readonly<Record<string, string>>
  readonly taints: readonly string[]
  readonly platform: string
  readonly runtimes: readonly ('docker' | 'process')[]
  readonly pool: string | null
  readonly provider: string | null
  readonly zone: string | null
  readonly capacity: Capacity
  /** Capacity less what its instances are charged. May be negative when charges grew. */
  readonly free: Capacity
  /** null when it takes instances; else why not, as a label: `suspect`, `cordoned`, `draining` … */
  readonly closed: string | null
  /** Instances by service, without those that stop or are being replaced. */
  readonly services: ReadonlyMap<ServiceId, number>
  /** Services that an instance here must not share a node with. */
  readonly repels: ReadonlySet<ServiceId>
  readonly hostPorts: ReadonlySet<string>
  /** Local volumes here: `app/volume` → services that mount it. */
  readonly volumes: ReadonlyMap<string, ReadonlySet<ServiceId>>
  readonly images: ReadonlySet<string>
  /** Measured use of its scarcest resource, or its reservations weighted by the load of who made them if that is more, 0–1; null when neither is reported. */
  readonly measuredUse: number | null
}

export interface ScoreWeights {
  /** Per instance of the same service on the node (spread only). */
  readonly service: number
  /** Reserved share of the scarcest resource, 0–1 (spread: less is better; binpack: more is better). */
  readonly use: number
  readonly measuredUse: number
  /** Per preferred neighbour that is absent, or unwanted one that is present. */
  readonly affinity: number
  readonly imageAbsent: number
  /** Per instance of the service in the same zone (first `spreadOver` attribute; halves with each further one). */
  readonly spreadOver: number
}

export const DEFAULT_WEIGHTS: ScoreWeights = {
  service: 4,
  use: 1,
  measuredUse: 0.5,
  affinity: 8,
  imageAbsent: 0.1,
  spreadOver: 16,
}

export type Strategy = 'spread' | 'binpack' | 'random'

export interface PlacementOptions {
  /** For services that name none. */
  readonly strategy: Strategy
  readonly weights: ScoreWeights
  /** Overrides even the service's own strategy (used when machines are bought: full machines are cheap ones). */
  readonly forceStrategy?: Strategy
}

export const DEFAULT_PLACEMENT_OPTIONS: PlacementOptions = { strategy: 'spread', weights: DEFAULT_WEIGHTS }
