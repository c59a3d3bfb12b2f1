/**
 * What the planners of one service read and what they decide. Everything is data: times are epoch ms, elapsed times come
 * from a monotonic clock (a jump of the wall clock replaces nothing and fails no rollout).
 */
import type { Calendar } from '../../shared/calendar.ts'
import type { Dependency, ScaleRules, ServiceSpec } from '../../shared/model/app.ts'
import type { InstanceId, NodeId } from '../../shared/model/identity.ts'
import type { Availability, Liveness } from '../../shared/model/node.ts'
import type { UnitSpec } from '../../shared/model/unit.ts'
import type { Reason } from '../../shared/plan.ts'
import type { AppRecord, InstanceRecord, JobRecord, JobRun, JobTask, RolloutState, ServiceRecord } from '../state/objects.ts'
import type { InstanceObservation } from '../state/observed.ts'
import { specOfInstance } from './kept-specs.ts'
import type { ImagesAt } from './images-first.ts'

export interface NodeView {
  readonly availability: Availability
  /** `unknown` when the hub has said nothing of it. */
  readonly liveness: Liveness
  /** null: it belongs to none. */
  readonly pool: string | null
  /** When a drain may stop an instance whose replacement is not ready; null unless it drains. */
  readonly drainDeadlineAtMs: number | null
  /** Instances of any service on it: tells the emptiest. */
  readonly instances: number
}

export interface DependencyState {
  /** Some instance has started at least. */
  readonly started: boolean
  /** Some instance is ready and healthy. */
  readonly healthy: boolean
  /** Every wanted instance ran to its end with success. */
  readonly completed: boolean
}

export interface ServiceInput {
  readonly app: AppRecord
  /** null: the app does not have this service any more. */
  readonly spec: ServiceSpec | null
  readonly service: ServiceRecord
  readonly instances: readonly InstanceRecord[]
  observe(id: InstanceId): InstanceObservation | undefined
  /** undefined: the cluster has no such node any more. */
  node(id: NodeId): NodeView | undefined
  /** How the images of the present spec stand on that node. */
  images(id: NodeId): ImagesAt
  /** Mode global: nodes that shall have an instance. */
  readonly globalNodes: readonly NodeId[]
  /** Silence proves nothing now: no node counts as lost. */
  readonly frozen: boolean
  readonly calendar: Calendar
  /** undefined: the app has no such service. */
  dependency(name: string): DependencyState | undefined
  readonly elapsed: {
    /** How long it has been ready and healthy without a break; null when it is not. */
    readyMs(id: InstanceId): number | null
    /** Since it was given its place, or was ready for the last time; 0 when it has none. */
    placedMs(record: InstanceRecord): number
    /** Since its node counts as lost; 0 when it does not. */
    lostMs(id: NodeId): number
    /** Since the run of a job began. */
    runMs(run: JobRun): number
  }
}

export type ServiceAction =
  | {
      readonly kind: 'create'
      readonly slot: number
      readonly revision: number
      readonly specHash: string
      readonly replaces: InstanceId | null
      readonly reason: string
      readonly job?: JobTask
    }
  /** Its goal becomes `stop`; one that waits for a place is forgotten at once. */
  | { readonly kind: 'stop'; readonly id: InstanceId; readonly reason: string }
  | { readonly kind: 'remove'; readonly id: InstanceId; readonly reason: string }
  | { readonly kind: 'set-rollout'; readonly rollout: RolloutState; readonly event: string; readonly severity: 'info' | 'error' }
  | { readonly kind: 'set-backoff'; readonly backoff: ServiceRecord['backoff'] }
  | { readonly kind: 'set-completed'; readonly slot: number; readonly specHash: string }
  | { readonly kind: 'set-job'; readonly job: JobRecord; readonly events: readonly JobEvent[] }
  | { readonly kind: 'rollback-app'; readonly toRevision: number; readonly reason: string }
  | { readonly kind: 'delete-service' }

/** What happened to a run, for people. */
export interface JobEvent {
  readonly type:
    | 'job.started'
    | 'job.succeeded'
    | 'job.failed'
    | 'job.cancelled'
    | 'job.skipped'
    | 'job.missed'
    | 'job.retried'
    | 'job.rescheduled'
  readonly message: string
  readonly severity: 'info' | 'warning' | 'error'
}

/** How an instance that shall run stands. `unknown`: its node has not told, which is never "not there". */
export type Standing =
  | 'waiting'
  | 'unknown'
  | 'starting'
  | 'ready'
  | 'unhealthy'
  | 'failed'
  | 'completed'
  | 'lost'
  /** Its node has left the cluster. */
  | 'gone'

/** No coordinator's clock runs faster than this against that of a node, else a strict singleton may run twice (fault row 38). */
export const CLOCK_RATE_BOUND = 1.5
/** Time that scheduling, an engine that hangs and a last kill may take beyond what a strict singleton's node promises. */
export const STRICT_MARGIN_MS = 15_000

/** How long a node may go on with such a unit without contact, stopping included, by its own clock; null: no strict singleton. */
export function strictMsOf({ singletonStrictMs, stopGraceMs }: UnitSpec): number | null {
  return singletonStrictMs === null ? null : singletonStrictMs + stopGraceMs
}

/**
 * How long a strict singleton's node must be lost before it has been stopped there for certain, by our clock; null: not strict.
 * It follows from what the node was given with the instance, whatever was deployed since: a node that is cut off hears of no deploy.
 * What the node promises it counts by its own clock (ADR 0022).
 */
export function strictWaitMs(input: Pick<ServiceInput, 'app' | 'spec'>, record: InstanceRecord): number | null {
  const strictMs = record.strictMs ?? givenStrictMs(input, record)
  return strictMs === null ? null : Math.ceil(strictMs * CLOCK_RATE_BOUND) + STRICT_MARGIN_MS
}

/** For records of before `strictMs` was kept, and all that are not strict. */
function givenStrictMs({ app, spec }: Pick<ServiceInput, 'app' | 'spec'>, record: InstanceRecord): number | null {
  const given = spec?.specHash === record.specHash ? spec : specOfInstance(app, record)
  return given === undefined ? null : strictMsOf(given.unit)
}

/** Whether the silence of its node may be acted upon for this instance now. */
export function isNodeLost(input: ServiceInput, spec: ServiceSpec, record: InstanceRecord): boolean {
  const node = record.nodeId === null ? undefined : input.node(record.nodeId)
  if (record.nodeId === null || node?.liveness !== 'lost' || input.frozen || spec.mode === 'global') return false
  return input.elapsed.lostMs(record.nodeId) >= (strictWaitMs(input, record) ?? 0)
}

export function standingOf(input: ServiceInput, spec: ServiceSpec, record: InstanceRecord): Standing {
  if (record.nodeId === null) return 'waiting'
  const node = input.node(record.nodeId)
  if (node === undefined) return 'gone'
  if (node.liveness === 'lost') return isNodeLost(input, spec, record) ? 'lost' : 'unknown'
  const seen = input.observe(record.id)
  if (seen === undefined || seen.nodeId !== record.nodeId) return 'unknown'
  switch (seen.phase) {
    case 'ready':
      return seen.healthy ? 'ready' : 'unhealthy'
    case 'failed':
      return 'failed'
    case 'stopped':
      return mainRestart(spec) === 'any' ? 'failed' : 'completed'
    case 'lost':
      return 'unknown'
    default:
      return 'starting'
  }
}

/** Whether it keeps data on its node: then no other node will do (placement's `home`). */
export function hasVolumes({ mode, unit }: ServiceSpec): boolean {
  return (
    mode !== 'global' &&
    unit.containers.some(({ mounts }) => mounts.some(({ kind, source }) => kind === 'volume' && source !== ''))
  )
}

export function mainRestart(spec: ServiceSpec): 'any' | 'on-failure' | 'none' {
  return spec.unit.containers[0]?.restart.condition ?? 'any'
}

/** Draining, or drained and yet with an instance on it. */
export function isLeaving(input: ServiceInput, nodeId: NodeId | null): boolean {
  const availability = nodeId === null ? undefined : input.node(nodeId)?.availability
  return availability === 'draining' || availability === 'drained'
}

/** On a node of a pool that its service no longer allows (`rubato migrate`, or another app file): it moves. */
export function isMisplaced(input: ServiceInput, spec: ServiceSpec, nodeId: NodeId | null): boolean {
  const { pools } = spec.placement
  const node = nodeId === null || pools.length === 0 ? undefined : input.node(nodeId)
  return node !== undefined && !pools.includes(node.pool ?? '')
}

/** Wanted instances of a replicated service: pinned before desired, within the bounds of its scaling. */
export function wantedCount(spec: ServiceSpec, service: Pick<ServiceRecord, 'pinned' | 'desired'>): number {
  const wish = service.pinned ?? service.desired
  const whole = Number.isFinite(wish) ? Math.max(0, Math.floor(wish)) : 0
  if (spec.scale === null) return whole
  const { min, max } = scaleLimits(spec.scale)
  return Math.min(Math.max(whole, min), max)
}

/** Between what a count may ever be: the widest of the file's bounds and those of its schedules. */
export function scaleLimits({ min, max, schedules = [] }: ScaleRules): { readonly min: number; readonly max: number } {
  return {
    min: Math.min(min, ...schedules.map((schedule) => schedule.min)),
    max: Math.max(max, ...schedules.map((schedule) => schedule.max)),
  }
}

/** The newest revision of the app in which this service has that hash; null when none is kept. */
export function revisionWithHash(app: AppRecord, serviceName: string, hash: string): number | null {
  const has = (spec: AppRecord['spec']) =>
    spec.services.some((service) => service.name === serviceName && service.specHash === hash)
  if (has(app.spec)) return app.revision
  return app.history.find((entry) => has(entry.spec))?.revision ?? null
}

/** The first dependency that is not yet met, if any. One that the app does not have, or does not require, holds nothing up. */
export function unmetDependency(input: ServiceInput, spec: ServiceSpec): Dependency | undefined {
  return spec.dependsOn.find((dependency) => {
    const state = input.dependency(dependency.service)
    return dependency.required && state !== undefined && !state[dependency.condition]
  })
}

const ACTIVE: ReadonlySet<RolloutState['phase']> = new Set(['progressing', 'monitoring', 'rolling-back'])

/** Whether a rollout still exchanges or watches instances. */
export function isActive(rollout: RolloutState | null): rollout is RolloutState {
  return rollout !== null && ACTIVE.has(rollout.phase)
}

export function reason(subject: string, code: string, text: string): Reason {
  return { subject, code, text }
}
