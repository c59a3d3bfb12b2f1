/** An app as the coordinator keeps it: a Compose file, read, checked and resolved. Produced only by coordinator/apps. */
import type { PublishedPort, UnitSpec } from './unit.ts'

export interface Constraint {
  /** `node.labels.disk`, `node.id`, `node.hostname`, `node.pool`, `node.provider`, `node.zone`, `engine.labels.x` … */
  readonly attribute: string
  readonly operator: '==' | '!='
  readonly value: string
}

export interface Affinity {
  /** Service names of the same app, or `app/service`. */
  readonly near: readonly string[]
  readonly avoid: readonly string[]
  readonly required: boolean
}

/** Attributes that a service may be spread over; each weighs half as much as the one before. */
export const MAX_SPREAD = 5

export interface PlacementRules {
  readonly constraints: readonly Constraint[]
  /** Node attributes over which instances are spread, e.g. `node.zone`; the first `MAX_SPREAD` count. */
  readonly spreadOver: readonly string[]
  readonly maxPerNode: number | null
  readonly affinity: Affinity | null
  readonly tolerates: readonly string[]
  /** Pool names; empty for any. */
  readonly pools: readonly string[]
  readonly strategy: 'spread' | 'binpack' | 'random' | null
  readonly platform: string | null
  /** 0–100, larger is more important. Default 50. */
  readonly priority: number
  /** Disk that an instance is charged for on its node; absent: none. */
  readonly diskBytes?: number
  /** Name of a scheduler of the coordinator's configuration that narrows and orders the nodes; absent: the built-in one decides alone. */
  readonly scheduler?: string
}

/** Bounds that hold from each time the expression matches until the next expression of the list matches. */
export interface ScaleSchedule {
  /** Cron expression of five fields: minute hour day-of-month month day-of-week. */
  readonly at: string
  /** IANA time zone, e.g. `Europe/Berlin`; `UTC` when none is given. */
  readonly timeZone: string
  readonly min: number
  readonly max: number
}

/** What users shall see; turned into a load threshold by what the gateway measures (V16). */
export interface ScaleObjective {
  readonly latencyP95Ms: number
}

/** Scaling of design §8.1; all times in ms, loads in percent. */
export interface ScaleRules {
  readonly min: number
  readonly max: number
  readonly lowPercent: number
  readonly highPercent: number
  /** Explicit thresholds instead of the formula: from `replicas` on, `percent`. Ascending. */
  readonly steps: readonly { readonly replicas: number; readonly percent: number }[]
  readonly windowMs: number
  readonly downWindowMs: number
  readonly warmUpMs: number
  readonly coolDownMs: number
  readonly predict: 'auto' | 'off'
  /** Absent: none. */
  readonly schedules?: readonly ScaleSchedule[]
  readonly objective?: ScaleObjective
}

/** Work that runs to its end (Compose `replicated-job`, `global-job`), once or again at each time of `cron`. */
export interface JobRules {
  /** Instances that must complete; for `global` mode one on each node. */
  readonly completions: number
  /** Most that run at once. */
  readonly parallelism: number
  /** Runs at each match; absent: once per deployed spec. */
  readonly cron?: { readonly at: string; readonly timeZone: string; readonly overlap: 'skip' | 'replace' | 'allow' }
  /** Attempts per completion after the first; with more the job has failed. */
  readonly retries: number
  /** A run that takes longer is stopped and has failed; null for no limit. */
  readonly deadlineMs: number | null
}

export interface UpdateRules {
  readonly parallelism: number
  readonly order: 'start-first' | 'stop-first'
  readonly delayMs: number
  /** How long a new instance must stay healthy before it counts. */
  readonly monitorMs: number
  /** A new instance that is not ready by then counts as failed. */
  readonly progressDeadlineMs: number
  readonly failureAction: 'rollback' | 'pause' | 'continue'
}

export interface Dependency {
  readonly service: string
  readonly condition: 'started' | 'healthy' | 'completed'
  readonly required: boolean
}

export interface ServiceSpec {
  readonly name: string
  readonly unit: UnitSpec
  /** sha256 of the canonical JSON of `unit`, 16 hex characters: tells whether instances must be replaced. */
  readonly specHash: string
  /** `replicated`: `replicas` copies; `global`: one per node. */
  readonly mode: 'replicated' | 'global'
  /** Wanted count when `scale` is null; else the count to begin with. */
  readonly replicas: number
  readonly scale: ScaleRules | null
  /** Present for jobs. */
  readonly job?: JobRules
  readonly placement: PlacementRules
  readonly update: UpdateRules
  readonly dependsOn: readonly Dependency[]
  readonly published: readonly PublishedPort[]
  readonly labels: Readonly<Record<string, string>>
}

export interface AppSpec {
  readonly name: string
  readonly services: readonly ServiceSpec[]
}

/** Something worth telling about an app file that deploys nevertheless. */
export interface AppWarning {
  readonly path: string
  readonly message: string
  readonly line?: number
  readonly column?: number
}
