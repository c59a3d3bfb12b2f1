/** What agents report. All of it is held in memory only and reported again after a coordinator's restart. */
import type { InstanceId } from './identity.ts'
import type { PortProtocol } from './unit.ts'

/** Monotonic per instance: a phase is never followed by an earlier one; see docs/states.md. */
export const INSTANCE_PHASES = [
  'pending',
  'placed',
  'pulling',
  'starting',
  'warming',
  'ready',
  'draining',
  'stopped',
  'failed',
  'lost',
] as const
export type InstancePhase = (typeof INSTANCE_PHASES)[number]

/** Where a port of an instance can be reached: always through its node's gateway. */
export interface PortBinding {
  readonly containerPort: number
  readonly protocol: PortProtocol
  /** Port of the node's gateway, 20000–29999. */
  readonly gatewayPort: number
}

export interface InstanceStatus {
  readonly instance: InstanceId
  readonly specHash: string
  readonly phase: InstancePhase
  readonly healthy: boolean
  readonly restarts: number
  readonly crashLooping: boolean
  readonly ports: readonly PortBinding[]
  /** Epoch ms by the node's clock of the current container's start; null while none runs. */
  readonly startedAtMs: number | null
  readonly readyAtMs: number | null
  /** The runtime's id of the main container, for people; '' while there is none. */
  readonly containerId: string
  /** Why it is where it is, for people: last error, exit code, failed probe. Never a secret. */
  readonly message: string
}

/** A backlog above this, in instances' worth, is a fault of the service, not work. */
export const MAX_DEMAND = 10_000

/** Measured use of one instance since the last report. */
export interface InstanceUse {
  readonly instance: InstanceId
  /** 0–100: the largest of its load sources; null when none gave a value. */
  readonly loadPercent: number | null
  /** Backlog in instances' worth, where the service sends it. */
  readonly demand: number | null
  readonly cpuMillis: number
  readonly memoryBytes: number
  readonly rxBytes: number
  readonly txBytes: number
  readonly inFlight: number
  /** Requests since the last report, by outcome. */
  readonly requests: number
  readonly errors: number
  readonly denied: number
  /** Requests since the last report by answer time: one count per bucket of `LATENCY_BUCKETS_MS`, and one above the last. Absent: none. */
  readonly latency?: readonly number[] | undefined
}

/** Upper bounds in ms of the answer times that gateways count. */
export const LATENCY_BUCKETS_MS = [
  1, 2, 5, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2500, 5000, 10000,
] as const

/** Measured use of the node. */
export interface NodeUse {
  readonly cpuMillis: number
  readonly memoryBytes: number
  readonly diskBytes: number
  readonly rxBytesPerS: number
  readonly txBytesPerS: number
}

/** A container that Rubato did not start but whose labels ask for registration. */
export interface ForeignService {
  /** Registration id, unique on the node. */
  readonly id: string
  readonly name: string
  readonly address: string
  readonly port: number
  readonly tags: readonly string[]
  readonly meta: Readonly<Record<string, string>>
  readonly passing: boolean
}
