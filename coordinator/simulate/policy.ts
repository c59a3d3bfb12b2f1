/** What a scaling policy is to the simulator: it sees what it could measure, and decides through the world. */
import type { ScaleRules, ServiceSpec } from '../../shared/model/app.ts'
import type { SimPool, World } from './world.ts'

export interface Observation {
  /** Since the last tick. */
  readonly dtMs: number
  readonly ready: number
  /** Mean load of a ready instance since the last tick, 0–100: what a CPU meter shows. */
  readonly loadPercent: number
  /** Work that arrived since the last tick, in instances' worth: what a request counter shows to one who knows the capacity. */
  readonly arrived: number
  /** The same as a number of requests. */
  readonly requests: number
}

export interface PolicyContext {
  readonly world: World
  readonly app: string
  readonly spec: ServiceSpec
  /** Those of `spec`, present. */
  readonly rules: ScaleRules
  readonly pools: readonly SimPool[]
  readonly startTimeMs: number
  /** The fewest instances that meet the objective all the time, and on average: what a person who knew the future would fix. */
  readonly known: { readonly p99: number; readonly mean: number }
}

export interface Controller {
  /** History from before the run, minute by minute, in instances' worth; oldest first. */
  learn?(atMs: number, demand: number): void
  /** Called every tick. May change the world. */
  tick(seen: Observation): void
  /** Expected demand that it acts on now, in instances' worth; null when it has none. For the report. */
  readonly forecast?: number | null
}

export interface Policy {
  /** As given to `--policy`. */
  readonly id: string
  readonly title: string
  /** Where the rule comes from. */
  readonly source: string
  start(context: PolicyContext): Controller
}
