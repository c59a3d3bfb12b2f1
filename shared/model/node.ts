/** Nodes, machines and pools. State tables: docs/states.md. */
import type { MachineId, NodeId } from './identity.ts'
import type { Capacity } from './resources.ts'

export type Availability = 'active' | 'cordoned' | 'draining' | 'drained'
/** What the hub believes of a node's agent; `unknown` after a coordinator's start until it reports. */
export type Liveness = 'unknown' | 'live' | 'suspect' | 'lost'

export interface NodeRecord {
  readonly id: NodeId
  readonly hostname: string
  /** Address at which other nodes and users reach its gateway. */
  readonly address: string
  readonly labels: Readonly<Record<string, string>>
  /** Those of `labels` that its join token gave it: what the node says of itself never replaces them. */
  readonly grantedLabels?: Readonly<Record<string, string>>
  readonly engineLabels: Readonly<Record<string, string>>
  readonly taints: readonly string[]
  readonly platform: string
  readonly runtimes: readonly ('docker' | 'process')[]
  readonly capacity: Capacity
  readonly pool: string | null
  readonly provider: string | null
  readonly zone: string | null
  readonly machineId: MachineId | null
  readonly availability: Availability
  /** Why it drains, and who asked; null unless draining or drained. */
  readonly drain: {
    readonly reason: string
    readonly by: string
    readonly startedAtMs: number
    readonly deadlineAtMs: number
    readonly deleteMachine: boolean
  } | null
  /** SHA-256 hex of the node's credential. */
  readonly credentialHash: string
  readonly joinedAtMs: number
  readonly agentVersion: string
}

/** Monotonic; see docs/states.md. */
export const MACHINE_PHASES = ['requested', 'booting', 'joining', 'joined', 'terminating', 'gone', 'lost'] as const
export type MachinePhase = (typeof MACHINE_PHASES)[number]

export interface MachineRecord {
  readonly id: MachineId
  /** Also the provider's idempotency token: `<cluster>-<machine id>`. */
  readonly name: string
  readonly pool: string
  readonly provider: string
  readonly phase: MachinePhase
  /** The provider's own id once known. */
  readonly providerId: string | null
  readonly nodeId: NodeId | null
  /** What it was expected to offer when it was ordered. */
  readonly capacity: Capacity
  readonly priceUsdPerHour: number
  readonly reason: string
  readonly requestedAtMs: number
  readonly bootedAtMs: number | null
  readonly joinedAtMs: number | null
  readonly terminatingAtMs: number | null
  readonly goneAtMs: number | null
  readonly attempts: number
  readonly lastError: string | null
  /** The machine that took too long, for which this one was bought elsewhere; absent for most. */
  readonly standInFor?: MachineId
  /** Hash of what its cloud was told to make it of; absent until the cloud has answered, and where its answer was lost. */
  readonly madeOf?: string
  /** What its node turned out to be, kept when the machine goes: the next order goes by it. Absent while it is there. */
  readonly offered?: Offered
}

/** What a node says of itself that decides what it can hold. */
export type Offered = Pick<NodeRecord, 'capacity' | 'platform' | 'runtimes'>

export interface Pool {
  readonly name: string
  readonly provider: string
  /** The provider's name of the machine type. */
  readonly offering: string
  readonly image: string
  readonly zone: string | null
  readonly capacity: Capacity
  readonly priceUsdPerHour: number
  readonly min: number
  readonly max: number
  readonly labels: Readonly<Record<string, string>>
  readonly taints: readonly string[]
  /** Its machines are never deleted. */
  readonly static: boolean
  readonly userData: 'script' | 'cloud-config'
  readonly billing: 'second' | 'hour'
  /** USD per calendar month; null for none. */
  readonly budgetUsdPerMonth: number | null
  /** Room kept free in this pool for so many instances of the size of `fleet.spareSlot*`; absent: none. */
  readonly spareSlots?: number
  /** Settings handed to the provider as they are; no secrets (they belong into the coordinator's config). */
  readonly settings: Readonly<Record<string, unknown>>
}
