/**
 * The agent link: JSON text frames over one websocket that the agent opens (design §4, `link/`).
 *
 *   agent                                coordinator
 *     | -- upgrade, Authorization ------->|  401/403 before the upgrade when the credential is bad
 *     | -- hello ------------------------>|  4406 other protocol major, 4409 lower epoch known here than there
 *     |<- welcome ------------------------|
 *     |<- desired / keys / routes --------|  full sets first (baseRevision null), deltas after
 *     | -- ack (applied revisions) ------>|
 *     | -- status (at once), report (2 s) >|
 *     |<- loads (1 Hz) -------------------|
 *     |<- pullAhead ----------------------|  only to agents whose hello says that they pull ahead
 *     | -- pulledAhead ------------------>|  answers it, and again when an image came or failed
 *
 * A frame whose `baseRevision` is not the receiver's revision is a gap: the receiver sends `resync` and gets the full set.
 * A frame of a lower epoch than the highest seen is refused. Unknown frame types of the same major are ignored and counted.
 */
import { z } from 'zod'
import type { PushedKey } from '../model/access.ts'
import { INSTANCE_PHASES, MAX_DEMAND } from '../model/observation.ts'
import type { AccessPolicy, BalanceStrategy, PortProtocol, UnitSpec } from '../model/unit.ts'

export const PROTOCOL_MAJOR = 1
/** Largest frame in either direction; a longer one closes the link with 1009. */
export const MAX_FRAME_BYTES = 1_048_576
/** Websocket path, and the close codes we use beside the standard ones. */
export const LINK_PATH = '/v1/agent'
export const CLOSE = {
  badFrame: 4400,
  foreignNode: 4403,
  wrongMajor: 4406,
  lowerEpoch: 4409,
  replaced: 4408,
  slow: 4413,
  /** More frames than an agent has reason to send. */
  tooMany: 4429,
} as const

const count = z.number().int().min(0)
/** No host has 2⁵³ of anything. Sums over every instance of a cluster, and their squares, stay finite numbers. */
const amount = z.number().min(0).max(Number.MAX_SAFE_INTEGER)

const capacitySchema = z.object({ cpuMillis: amount, memoryBytes: amount, diskBytes: amount, slots: count })

const portBindingSchema = z.object({ containerPort: count, protocol: z.enum(['http', 'tcp', 'udp']), gatewayPort: count })

export const instanceStatusSchema = z.object({
  instance: z.string().max(200),
  specHash: z.string().max(64),
  phase: z.enum(INSTANCE_PHASES),
  healthy: z.boolean(),
  restarts: count,
  crashLooping: z.boolean(),
  ports: z.array(portBindingSchema).max(256),
  startedAtMs: z.number().nullable(),
  readyAtMs: z.number().nullable(),
  containerId: z.string().max(128),
  message: z.string().max(2000),
})

export const instanceUseSchema = z.object({
  instance: z.string().max(200),
  loadPercent: z.number().min(0).max(100).nullable(),
  /** What is beyond the bound counts as not told: an older agent passes on what its container said. */
  demand: amount.nullable().transform((value) => (value !== null && value > MAX_DEMAND ? null : value)),
  cpuMillis: amount,
  memoryBytes: amount,
  rxBytes: amount,
  txBytes: amount,
  inFlight: count,
  requests: count,
  errors: count,
  denied: count,
  latency: z.array(count).max(64).optional(),
})

export const foreignServiceSchema = z.object({
  id: z.string().max(300),
  name: z.string().max(128),
  address: z.string().max(64),
  port: count,
  tags: z.array(z.string().max(256)).max(128),
  meta: z.record(z.string(), z.string()),
  passing: z.boolean(),
})

export const nodeUseSchema = z.object({
  cpuMillis: amount,
  memoryBytes: amount,
  diskBytes: amount,
  rxBytesPerS: amount,
  txBytesPerS: amount,
})

export const helloSchema = z.object({
  type: z.literal('hello'),
  major: count,
  clusterId: z.string(),
  nodeId: z.string(),
  /** Highest epoch this agent has ever seen. */
  epoch: count,
  /** New at every start of the agent's process. */
  bootId: z.string(),
  agentVersion: z.string(),
  hostname: z.string(),
  address: z.string(),
  platform: z.string(),
  runtimes: z.array(z.enum(['docker', 'process'])),
  capacity: capacitySchema,
  labels: z.record(z.string(), z.string()),
  engineLabels: z.record(z.string(), z.string()),
  desiredRevision: count,
  keysRevision: count,
  routesRevision: count,
  /** It takes `pullAhead` frames. Absent: an older one, or one without an engine that has images. */
  pullsAhead: z.boolean().optional(),
  /** Everything that runs here under our labels. */
  inventory: z.array(instanceStatusSchema),
})

export const statusSchema = z.object({
  type: z.literal('status'),
  statuses: z.array(instanceStatusSchema),
  gone: z.array(z.string()),
})

export const reportSchema = z.object({
  type: z.literal('report'),
  node: nodeUseSchema.nullable(),
  /** Only instances whose values changed since the last report, unless `full`. */
  instances: z.array(instanceUseSchema),
  full: z.boolean(),
  /** Present when the set changed: the whole set of services of containers that Rubato did not start. */
  foreign: z.array(foreignServiceSchema).optional(),
})

export const ackSchema = z.object({ type: z.literal('ack'), what: z.enum(['desired', 'keys', 'routes']), revision: count })
export const resyncSchema = z.object({ type: z.literal('resync'), what: z.enum(['desired', 'keys', 'routes']) })

/** More images than one node is ever asked for; a list this long is refused. */
export const MAX_AHEAD = 64
const imageNames = z.array(z.string().max(500)).max(MAX_AHEAD)

/** How the images stand that the last `pullAhead` named. One that is in no list is not asked for any more. */
export const pulledAheadSchema = z.object({
  type: z.literal('pulledAhead'),
  here: imageNames,
  /** Being pulled, or waiting until nothing else is. */
  pending: imageNames,
  /** The last attempt failed; it is tried again later. */
  failing: imageNames,
})

/** One chunk of a log that the coordinator asked for. */
export const logChunkSchema = z.object({
  type: z.literal('log'),
  request: z.string(),
  lines: z.array(z.object({ atMs: z.number(), stream: z.enum(['stdout', 'stderr']), text: z.string() })),
  end: z.boolean(),
  error: z.string().optional(),
})

export const agentFrameSchema = z.discriminatedUnion('type', [
  helloSchema,
  statusSchema,
  reportSchema,
  ackSchema,
  resyncSchema,
  pulledAheadSchema,
  logChunkSchema,
])
export type AgentFrame = z.infer<typeof agentFrameSchema>
export type HelloFrame = z.infer<typeof helloSchema>
export type ReportFrame = z.infer<typeof reportSchema>
export type PulledAhead = Omit<z.infer<typeof pulledAheadSchema>, 'type'>

/** One instance that the node shall have. `stop`: take it out of service, let it finish (`drainMs`), stop and remove it. */
export interface Assignment {
  readonly instance: string
  readonly specHash: string
  readonly goal: 'run' | 'stop'
  readonly unit: UnitSpec
  /** Short-lived credentials for its registry; kept in memory only. */
  readonly registryAuth?: { readonly username: string; readonly password: string; readonly server: string }
}

export interface ServicePolicy {
  /** `app/service`. */
  readonly service: string
  readonly access: AccessPolicy
}

export interface RouteEndpoint {
  readonly instance: string
  readonly node: string
  readonly address: string
  readonly gatewayPort: number
  readonly zone: string | null
  readonly state: 'ready' | 'draining'
}

/** One port of one service that somebody on this node may call. */
export interface Route {
  readonly service: string
  readonly containerPort: number
  readonly protocol: PortProtocol
  readonly balance: BalanceStrategy
  /** Ports of every node that lead here (Compose `ports:`, mode ingress). */
  readonly publishedPorts: readonly number[]
  /** Number of the service in its app, 1-based and stable: from it each node derives the service's virtual address. */
  readonly ordinal: number
  readonly endpoints: readonly RouteEndpoint[]
}

interface Revisioned {
  readonly epoch: number
  readonly revision: number
  /** Revision that this delta builds on; null: this is the full set. */
  readonly baseRevision: number | null
  /**
   * The change goes on in the next frame of this type, which repeats epoch, revision and baseRevision: a set larger than one
   * frame comes in parts and is applied only when its last part (without `more`) is there.
   */
  readonly more?: boolean
}

export interface WelcomeFrame {
  readonly type: 'welcome'
  readonly epoch: number
  readonly reportIntervalMs: number
  readonly heartbeatMs: number
  readonly staleAfterMs: number
}

export interface DesiredFrame extends Revisioned {
  readonly type: 'desired'
  readonly put: readonly Assignment[]
  /** Instance ids that the node shall no longer have. */
  readonly remove: readonly string[]
}

export interface KeysFrame extends Revisioned {
  readonly type: 'keys'
  readonly putKeys: readonly PushedKey[]
  readonly removeKeys: readonly string[]
  readonly putPolicies: readonly ServicePolicy[]
  readonly removePolicies: readonly string[]
  /** Secret from which gateways of the cluster mint and check proofs of the calling service (base64); full sets only. */
  readonly meshSecret?: string
}

export interface RoutesFrame extends Revisioned {
  readonly type: 'routes'
  readonly put: readonly Route[]
  /** `service:containerPort` keys. */
  readonly remove: readonly string[]
}

export interface LoadsFrame {
  readonly type: 'loads'
  /** Load percent by instance id, of services that someone on this node calls. */
  readonly loads: Readonly<Record<string, number>>
}

/** An image that shall be on the node before an instance needs it. */
export interface ImageToPull {
  readonly image: string
  readonly platform?: string
  /** Pulled even when it is here: its tag may have moved (`pull_policy: always`). */
  readonly refresh?: true
}

/** Every image that the node shall pull ahead now, most urgent first, in place of those of the frame before. Kept in memory only. */
export interface PullAheadFrame {
  readonly type: 'pullAhead'
  readonly images: readonly ImageToPull[]
}

/** Asks for logs of an instance; the agent answers with `log` frames of that request id. */
export interface LogsRequestFrame {
  readonly type: 'logs'
  readonly request: string
  readonly instance: string
  readonly follow: boolean
  readonly tail: number
  /** true ends an earlier request of that id. */
  readonly cancel: boolean
}

/** Ends the agent's membership: it stops everything, forgets its credential and exits. */
export interface LeaveFrame {
  readonly type: 'leave'
  readonly reason: string
}

export type CoordinatorFrame =
  | WelcomeFrame
  | DesiredFrame
  | KeysFrame
  | RoutesFrame
  | LoadsFrame
  | PullAheadFrame
  | LogsRequestFrame
  | LeaveFrame

export function routeKey(service: string, containerPort: number): string {
  return `${service}:${containerPort}`
}
