/**
 * Everything the coordinator keeps, by kind. One object is the unit of compare-and-set. Instances are kept with the node that
 * shall run them (one object per node), or with their service while they wait for a place.
 */
import type { JoinTokenRecord, KeyRecord, OperatorTokenRecord } from '../../shared/model/access.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import type { InstanceId, NodeId } from '../../shared/model/identity.ts'
import type { MachineRecord, NodeRecord, Pool } from '../../shared/model/node.ts'

/** The cluster itself; key `cluster`. */
export interface ClusterRecord {
  readonly id: string
  readonly createdAtMs: number
  /** Base64; gateways prove the calling service to each other with it. */
  readonly meshSecret: string
  /** Services that went → highest generation they used (`*`: of all not listed), so that a namesake never repeats an identity. */
  readonly retired?: Readonly<Record<string, number>>
  /** Services that went → where the data of their slots is, so that `down` and `up` find it again. The last that went last. */
  readonly retiredHomes?: Readonly<Record<string, Readonly<Record<string, NodeId>>>>
}

/** A deployed app; key is its name. */
export interface AppRecord {
  readonly name: string
  /** Ascending with each deploy or rollback. */
  readonly revision: number
  readonly spec: AppSpec
  /** The file as it was given, for `diff` and people; secrets are not in it (env files and configs are resolved apart). */
  readonly source: string
  readonly deployedAtMs: number
  readonly deployedBy: string
  /** Newest first: the last 5, which `rollback` can return to, and older ones that instances still run. */
  readonly history: readonly {
    readonly revision: number
    readonly spec: AppSpec
    readonly source: string
    readonly deployedAtMs: number
    /** Set when it was rolled back for not running: `rollback` passes over it. */
    readonly failedReason?: string
  }[]
  /** Set when `down` was asked: instances stop, then the record goes. */
  readonly removing: boolean
}

export interface InstanceRecord {
  readonly id: InstanceId
  /** Revision of the app whose spec it runs. */
  readonly revision: number
  readonly specHash: string
  /** null while it waits for a place. */
  readonly nodeId: NodeId | null
  readonly goal: 'run' | 'stop'
  /** Why it stops, for people; '' while it runs. */
  readonly stopReason: string
  readonly createdAtMs: number
  readonly placedAtMs: number | null
  readonly stopAtMs: number | null
  /** The instance it takes the place of (rollout, drain, lost node); it stops when this one is ready. */
  readonly replaces: InstanceId | null
  /** It replaces one that is well, to even nodes out; absent for all others. */
  readonly moves?: true
  /** Present for instances of jobs. */
  readonly job?: JobTask
  /** Who chose its node, for people; only where the service names a scheduler. */
  readonly placedBy?: string
  /** How long its node may go on with it without contact, stopping included, as it was told; absent: no strict singleton. */
  readonly strictMs?: number
}

/** Which part of which run of a job an instance does. */
export interface JobTask {
  readonly run: JobRun['id']
  /** `1` … `completions`; mode global: the node's id, and no other node will do. */
  readonly key: string
  /** 1 for the first. */
  readonly attempt: number
}

/** One run of a job: at one scheduled time, or for one deployed spec. */
export interface JobRun {
  /** Unique within the service: `t<scheduled time>`, or `r<revision>`. */
  readonly id: string
  /** Epoch ms of the cron match; null for a run without cron. */
  readonly scheduledAtMs: number | null
  readonly revision: number
  readonly specHash: string
  readonly startedAtMs: number
  readonly endedAtMs: number | null
  /** `skipped`: an earlier run was not over; `missed`: no coordinator ran in time. */
  readonly outcome: 'running' | 'succeeded' | 'failed' | 'cancelled' | 'skipped' | 'missed'
  readonly message: string
  /** How many completions it needs, as far as known (mode global: nodes). */
  readonly completions: number
  readonly succeeded: number
  /** Keys of tasks that are done; kept while it runs, and of the latest run without cron (mode global: nodes may join later). */
  readonly done: readonly string[]
  /** Task key → attempts that failed, and when the next may begin (epoch ms). */
  readonly failures: Readonly<Record<string, { readonly attempts: number; readonly notBeforeMs: number }>>
  /** Failed attempts that no event tells of yet, when the last one did, and how long the next waits after it; absent: none failed. */
  readonly retried?: { readonly untold: number; readonly toldAtMs: number; readonly pauseMs: number }
}

export interface JobRecord {
  /** Newest first: those under way and the last 10 others. */
  readonly runs: readonly JobRun[]
  /** Every scheduled time up to this one (epoch ms) has been decided: none is ever decided twice. */
  readonly decidedAtMs: number
  /** The cron expression and time zone that `decidedAtMs` is of; '' for none. */
  readonly schedule: string
}

export interface RolloutState {
  readonly fromRevision: number
  readonly toRevision: number
  readonly phase: 'progressing' | 'monitoring' | 'completed' | 'paused' | 'rolling-back' | 'failed'
  readonly startedAtMs: number
  readonly message: string
}

/** How one service stands; key `app/service`. */
export interface ServiceRecord {
  readonly id: string
  /** Wanted instances now; moved by scaling within its bounds, by deploys and by `scale`. */
  readonly desired: number
  /** Set by `rubato scale`: scaling keeps its hands off. */
  readonly pinned: number | null
  readonly rollout: RolloutState | null
  /** Next generation per slot (slot → last generation used), so that identities never repeat. */
  readonly generations: Readonly<Record<string, number>>
  readonly pending: readonly InstanceRecord[]
  /** Stable number within the app, 1-based. */
  readonly ordinal: number
  /** Last scaling step: when, from, to. Feeds stabilisation. */
  readonly lastScale: { readonly atMs: number; readonly from: number; readonly to: number; readonly reason: string } | null
  /** Images and unit of each revision still in use are found in the app's spec or history. */
  readonly backoff: { readonly failures: number; readonly notBeforeMs: number } | null
  /** What scaling has learned, written with its steps: p90 in ms, and by how much the objective moves the thresholds. */
  readonly learned?: {
    readonly startMs: number | null
    readonly warmUpMs: number | null
    readonly coolDownMs: number | null
    readonly shiftPercent: number
  }
  /** Jobs (restart other than `any`): slot → spec hash with which it ran to its end, so that it is not run again. */
  readonly completed?: Readonly<Record<string, string>>
  /** Services with `job`: their runs. */
  readonly job?: JobRecord
  /** Services with named volumes: slot → node with its data. Written by placement; a node that has left the cluster counts no more. */
  readonly homes?: Readonly<Record<string, NodeId>>
}

/** Instances that a node shall have; key is the node's id. */
export interface NodeAssignments {
  readonly nodeId: NodeId
  readonly instances: readonly InstanceRecord[]
}

export interface OperationRecord {
  readonly id: string
  readonly kind: 'deploy' | 'rollback' | 'remove' | 'drain' | 'fleet'
  readonly subject: string
  readonly startedAtMs: number
  readonly endedAtMs: number | null
  readonly outcome: 'running' | 'succeeded' | 'failed' | 'cancelled'
  readonly message: string
  readonly by: string
}

/** A pool that is not bought from until then, after failures in a row (0: the first). */
export interface PoolRest {
  readonly pool: string
  readonly untilMs: number
  readonly reason: string
  readonly inRow: number
}

export interface ObjectTypes {
  cluster: ClusterRecord
  app: AppRecord
  service: ServiceRecord
  assignments: NodeAssignments
  node: NodeRecord
  machine: MachineRecord
  pool: Pool
  poolRest: PoolRest
  key: KeyRecord
  operatorToken: OperatorTokenRecord
  joinToken: JoinTokenRecord
  operation: OperationRecord
}

export type Kind = keyof ObjectTypes
export const KINDS = [
  'cluster',
  'app',
  'service',
  'assignments',
  'node',
  'machine',
  'pool',
  'poolRest',
  'key',
  'operatorToken',
  'joinToken',
  'operation',
] as const satisfies readonly Kind[]
