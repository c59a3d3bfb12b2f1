/** What a scaling policy is to the simulator: it sees what it could measure, and decides through the world. */
import type { ScaleRules, ServiceSpec } from '../../shared/model/app.ts'
import { DEFAULT_FLEET_CONFIG, type FleetConfig } from '../fleet/config.ts'
import { DEFAULT_PLACEMENT_OPTIONS, type PlacementOptions } from '../placement/model.ts'
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
  /** Answers since the last tick by time, one count per bucket as gateways count them (history/answer-times.ts). Costly. */
  answerTimes(): ArrayLike<number>
}

/** Settings of the coordinator that its own policy goes by; those of others know none of them. */
export interface PolicySettings {
  readonly fleet: FleetConfig
  readonly placement: PlacementOptions
  /** IANA zone in whose days and weeks demand repeats, unless the service's schedules name another. */
  readonly timeZone: string
}

export const DEFAULT_POLICY_SETTINGS: PolicySettings = {
  fleet: DEFAULT_FLEET_CONFIG,
  placement: DEFAULT_PLACEMENT_OPTIONS,
  timeZone: 'UTC',
}

export interface PolicyContext {
  readonly world: World
  readonly app: string
  readonly spec: ServiceSpec
  /** Those of `spec`, present. */
  readonly rules: ScaleRules
  readonly pools: readonly SimPool[]
  readonly settings: PolicySettings
  /** From placement to ready and warmed up. */
  readonly startTimeMs: number
  /** The fewest instances that meet the objective all the time, and on average: what a person who knew the future would fix. */
  readonly known: { readonly p99: number; readonly mean: number }
}

export interface Controller {
  /** A mean from long before the run, over a span longer than a minute: what is usual at that time. Before any `learn`; oldest first. */
  learnUsual?(atMs: number, spanMs: number, demand: number): void
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
