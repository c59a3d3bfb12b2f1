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

export interface PlacementRules {
  readonly constraints: readonly Constraint[]
  /** Node attributes over which instances are spread, e.g. `node.zone`. */
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
