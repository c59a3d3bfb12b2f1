/**
 * What the HTTP API needs from the rest of the coordinator: narrow interfaces owned by this consumer. `coordinator.ts` wires them.
 * Every changing function takes the actor (`operator:<name>`) and writes its audit event in the commit that changes the object;
 * expected refusals are thrown as errors of shared/errors.ts.
 */
import type { FleetView } from '../fleet/fleet-view.ts'
import type { z } from 'zod'
import type { Clock } from '../../shared/clock.ts'
import type { Ids } from '../../shared/ids.ts'
import type { Logger } from '../../shared/logger.ts'
import type { JoinTokenRecord, KeyRecord, OperatorRole, OperatorTokenRecord } from '../../shared/model/access.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import type { InstanceId, MachineId, NodeId, ServiceId } from '../../shared/model/identity.ts'
import type { Reason } from '../../shared/plan.ts'
import type { JoinRequest, JoinResponse } from '../../shared/protocol/join.ts'
import type { AppPolicy } from '../apps/context.ts'
import type { Past } from '../history/past.ts'
import type { Standing } from '../forecast/contest.ts'
import type { DemandForecast } from '../forecast/forecaster.ts'
import type { DecisionRecord } from '../scaling/decision-log.ts'
import type { ObjectiveView } from '../scaling/objective-book.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'

/** Who is asking, once the token was verified. */
export interface Operator {
  readonly id: string
  readonly name: string
  readonly role: OperatorRole
}

export interface DeployInput {
  readonly spec: AppSpec
  readonly source: string
  readonly actor: string
  /** The revision that the caller saw; a `ConflictError` when it is no longer the present one. null: whatever is there; 0: must not exist. */
  readonly ifRevision: number | null
}

export interface AppChange {
  readonly revision: number
  /** False when the app already was exactly that. */
  readonly changed: boolean
}

/** What a deploy would do, for `?dryRun=true`: lines for people, in order. */
export interface AppPreview {
  readonly changes: readonly string[]
  /** Where instances would go, or why they would wait. */
  readonly placement: readonly string[]
  readonly warnings: readonly string[]
}

export interface AppOperations {
  deploy(input: DeployInput): Promise<AppChange>
  /** Changes nothing. */
  preview(input: { readonly spec: AppSpec; readonly source: string }): Promise<AppPreview>
  /** To `revision`, or to the newest of the history when null. */
  rollback(app: string, revision: number | null, actor: string): Promise<AppChange>
  remove(app: string, actor: string): Promise<void>
  /** Pins the count (scaling keeps its hands off), or hands it back with null. */
  scale(service: ServiceId, replicas: number | null, actor: string): Promise<void>
}

export interface NodeActions {
  cordon(node: NodeId, actor: string): Promise<void>
  uncordon(node: NodeId, actor: string): Promise<void>
  drain(
    node: NodeId,
    options: {
      readonly reason: string
      readonly deadlineMs: number | null
      readonly deleteMachine: boolean
      readonly actor: string
    },
  ): Promise<void>
  /** The cloud takes its machine away `deadlineMs` from now: drains it by then, and buys what its instances need. */
  interrupt(node: NodeId, deadlineMs: number, actor: string): Promise<void>
  /** Forgets a node; refused while it runs instances unless `force`. */
  remove(node: NodeId, options: { readonly force: boolean; readonly actor: string }): Promise<void>
}

/** Fits coordinator/access/keys.ts. */
export interface KeyActions {
  create(request: {
    readonly name: string
    readonly roles: readonly string[]
    readonly expiresAtMs: number | null
    readonly actor: string
  }): Promise<{ readonly record: KeyRecord; readonly text: string }>
  list(): readonly KeyRecord[]
  revoke(idOrName: string, actor: string): Promise<KeyRecord>
}

/** Fits coordinator/access/operator-tokens.ts. */
export interface OperatorTokenActions {
  /** The operator of a token's text, or null for any bad one (unknown, expired, malformed: indistinguishable). */
  verify(text: string): Operator | null
  create(request: {
    readonly name: string
    readonly role: OperatorRole
    readonly expiresAtMs: number | null
    readonly actor: string
  }): Promise<{ readonly record: OperatorTokenRecord; readonly text: string }>
  list(): readonly OperatorTokenRecord[]
  revoke(idOrName: string, actor: string): Promise<unknown>
}

export interface Joining {
  createToken(request: {
    readonly labels: Readonly<Record<string, string>>
    readonly ttlMs: number
    readonly actor: string
  }): Promise<{ readonly record: JoinTokenRecord; readonly text: string }>
  join(request: JoinRequest, remoteAddress: string | null): Promise<JoinResponse>
}

export interface LogLine {
  readonly atMs: number
  readonly stream: 'stdout' | 'stderr'
  readonly text: string
}

export interface HubAccess {
  /** Ends when the log does (or never, with `follow`), throws `UnavailableError` when the node is away, stops with the signal. */
  logs(
    instance: InstanceId,
    options: { readonly follow: boolean; readonly tail: number },
    signal: AbortSignal,
  ): AsyncIterable<LogLine>
  /** Present key-set revision, and the live nodes that have not applied it yet. */
  keysProgress(): { readonly revision: number; readonly waitingFor: readonly NodeId[] }
}

export interface Explanations {
  /** Why a service has the count it has; null when scaling has not looked at it. */
  scaling(service: ServiceId): ScalingExplanation | null
  /** What demand is expected of a service within its lead time; null when it is not forecast. */
  forecast(service: ServiceId): DemandForecast | null
  /** How its objective is kept; null without one, or before anything was measured. */
  objective(service: ServiceId): ObjectiveView | null
  /** The last changes of scaling's mind about it, newest first. */
  decisions(service: ServiceId): readonly DecisionRecord[]
  /** Scaling steps of the last hour that went the other way than the step before. */
  turnsPerHour(service: ServiceId): number
  /** How each forecaster of that service did lately; empty when it is not forecast. */
  forecasters(service: ServiceId): readonly Standing[]
  /** Why an instance fits nowhere, as one sentence; null when it has a place or was not looked at. */
  placement(instance: InstanceId): string | null
  /** The custom scheduler that is being asked where an instance shall go; null when none is. */
  asking(instance: InstanceId): string | null
  /** The machine that a waiting instance waits for. */
  waitingFor(instance: InstanceId): MachineId | null
}

export interface ScalingExplanation {
  readonly loadPercent: number | null
  readonly thresholdPercent: number | null
  readonly reasons: readonly Reason[]
}

export interface FleetFigures {
  readonly spentUsdThisMonth: number
  readonly limitUsdPerMonth: number | null
}

export interface AgentBinary {
  /** The file from its beginning; read in pieces, since many machines may fetch it at once. */
  readonly open: () => ReadableStream<Uint8Array>
  readonly sha256: string
  readonly sizeBytes: number
}

export interface ApiDeps {
  readonly clock: Clock
  readonly logger: Logger
  readonly ids: Ids
  readonly version: string
  readonly state: State
  readonly observed: Observed
  readonly apps: AppOperations
  /** Strict schema of a whole app, as `coordinator/apps` makes them: what an agent may be told to run is decided here. */
  readonly appSpecSchema: z.ZodType
  /** What apps may ask for beyond the safe default (host mounts, privileges). */
  readonly appPolicy?: Partial<AppPolicy>
  readonly nodes: NodeActions
  readonly keys: KeyActions
  readonly operatorTokens: OperatorTokenActions
  readonly joining: Joining
  readonly hub: HubAccess
  readonly explain: Explanations
  readonly fleet: { figures(): FleetFigures; view(): FleetView }
  readonly past: Past
  /** USD per hour of a provider's offering; null when it is not known. */
  offeredPrice(provider: string, offering: string): number | null
  readonly caPem: string | null
  /** null when this coordinator carries no binary for the platform. */
  agentBinary(platform: string): Promise<AgentBinary | null>
  readonly installScript: string
  readonly settings?: ApiSettings
  /** Figures of other parts in Prometheus text form, appended to `/metrics`. */
  extraMetrics?(): string
}

export interface ApiSettings {
  /** Requests per second and burst of one credential. Default 100 and 400. */
  readonly ratePerS?: number
  readonly rateBurst?: number
  /** Failed authentications of one address. Default 1 per second and 20. */
  readonly failureRatePerS?: number
  readonly failureBurst?: number
  /** Highest priority that services get from operators who are no administrators. Default 90. */
  readonly operatorMaxPriority?: number
  /** `/metrics` without a token. Default false. */
  readonly publicMetrics?: boolean
}
