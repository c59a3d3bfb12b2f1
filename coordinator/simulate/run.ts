/**
 * One run: a demand, a policy, a model of machines and instances, in virtual time. The part of the series before the run is
 * given to the policy as history, minute by minute. Deterministic: equal inputs and seed give equal results.
 */
import type { ScaleRules, ServiceSpec } from '../../shared/model/app.ts'
import { seededRandom } from '../../shared/random.ts'
import { type Demand, poisson } from './demand.ts'
import { createElasticityMeter, type ElasticityMetrics } from './elasticity-metrics.ts'
import { DEFAULT_POLICY_SETTINGS, type Policy, type PolicySettings } from './policy.ts'
import { ratePerInstance, type ServiceTables } from './service-model.ts'
import { createWorld, type Decision, type SimPool } from './world.ts'

/** A mean over a span of old history, in instances' worth. */
export interface UsualDemand {
  readonly atMs: number
  readonly spanMs: number
  readonly demand: number
}

export interface RunSetup {
  readonly demand: Demand
  /** Where the run begins; what lies before it is history. */
  readonly fromMs: number
  readonly toMs: number
  readonly app: string
  readonly spec: ServiceSpec
  readonly tables: ServiceTables
  readonly rules: ScaleRules
  readonly pools: readonly SimPool[]
  /** Default: those of a coordinator that was told nothing. */
  readonly settings?: PolicySettings
  /** What is known of the time before the demand begins, in means over spans longer than a minute; default nothing. Oldest first. */
  readonly usual?: readonly UsualDemand[]
  /** From placement to ready and warmed up. */
  readonly startTimeMs: number
  readonly seed: number
  /** Default 5 s. */
  readonly tickMs?: number
  /** Keeps decisions and a time line for the report; else only the metrics. */
  readonly record?: boolean
  /** Called now and then with the share done, 0–1. */
  readonly onProgress?: (done: number) => void
}

/** What the report draws: one point per interval of the time line. */
export interface TimePoint {
  readonly atMs: number
  /** Fewest instances that meet the objective. */
  readonly demand: number
  readonly ready: number
  readonly wanted: number
  readonly loadPercent: number
  readonly forecast: number | null
  readonly machines: number
  readonly costUsd: number
}

export interface RunResult {
  readonly policy: string
  readonly metrics: ElasticityMetrics
  readonly decisions: readonly Decision[]
  readonly timeline: readonly TimePoint[]
}

const DEFAULT_TICK_MS = 5_000
const MINUTE_MS = 60_000
const TIMELINE_POINTS = 1_500
/** Utilization that the count at the start aims at. */
const INITIAL_LOAD = 0.7

export function runPolicy(policy: Policy, setup: RunSetup): RunResult {
  const { demand, fromMs, toMs, tables, pools, rules } = setup
  const tickMs = setup.tickMs ?? DEFAULT_TICK_MS
  const random = seededRandom(setup.seed)
  const decisions: Decision[] = []
  const timeline: TimePoint[] = []
  const world = createWorld({
    startMs: fromMs,
    service: `${setup.app}/${setup.spec.name}`,
    pools,
    startTimeMs: setup.startTimeMs,
    initial: Math.min(Math.max(1, rules.max), Math.max(1, rules.min, Math.ceil(demand.at(fromMs) / INITIAL_LOAD))),
    ...(setup.record ? { log: decisions } : {}),
  })
  const known = knownNeed(setup)
  const controller = policy.start({
    world,
    app: setup.app,
    spec: setup.spec,
    rules,
    pools,
    settings: setup.settings ?? DEFAULT_POLICY_SETTINGS,
    startTimeMs: setup.startTimeMs,
    known,
  })
  const perSecond = ratePerInstance(tables.model)
  const noisy = (atMs: number, seconds: number) => poisson(demand.at(atMs) * perSecond * seconds, random) / (perSecond * seconds)
  for (const { atMs, spanMs, demand: mean } of setup.usual ?? []) controller.learnUsual?.(atMs, spanMs, mean)
  for (let atMs = demand.startMs; atMs < fromMs && controller.learn; atMs += MINUTE_MS) controller.learn(atMs, noisy(atMs, 60))

  const meter = createElasticityMeter()
  const dtS = tickMs / 1000
  const mostWaitS = tables.model.patienceMs / 1000
  const objectiveS = (tables.model.latencyMs - tables.model.serviceMs) / 1000
  const timelineMs = Math.max(tickMs, Math.ceil((toMs - fromMs) / TIMELINE_POINTS / tickMs) * tickMs)
  let backlog = 0
  let loadSum = 0
  let loadCount = 0
  let nextPointMs = fromMs
  let nextProgressMs = fromMs
  for (let atMs = fromMs; atMs < toMs; atMs += tickMs) {
    world.advance(atMs)
    const expected = demand.at(atMs)
    const arrived = noisy(atMs, dtS)
    const supply = world.ready
    const need = tables.needed(expected)

    // A fluid queue for what is beyond capacity, the steady state of the model for what is not.
    const offered = backlog / dtS + arrived
    const served = Math.min(supply, offered)
    backlog = Math.max(0, (offered - served) * dtS)
    const gaveUp = Math.max(0, backlog - supply * mostWaitS)
    backlog -= gaveUp
    const isLate = supply === 0 || backlog / supply > objectiveS
    const arrivals = arrived * perSecond * dtS
    const late = arrivals * (isLate ? 1 : tables.late(Math.min(offered, supply * 0.999), supply))
    const loadPercent = supply === 0 ? 0 : (100 * served) / supply
    meter.add({ dtMs: tickMs, demand: need, supply, arrivals, late, failed: Math.min(arrivals, gaveUp * perSecond) })

    const queuedMs = supply === 0 ? tables.model.patienceMs : (1000 * backlog) / supply
    const answerTimes = () => tables.answerTimes(offered, supply, queuedMs, arrivals)
    controller.tick({ dtMs: tickMs, ready: supply, loadPercent, arrived, requests: arrivals, answerTimes })
    loadSum += loadPercent
    loadCount += 1
    if (setup.record && atMs >= nextPointMs) {
      timeline.push({
        atMs,
        demand: need,
        ready: supply,
        wanted: world.wanted,
        loadPercent: loadSum / loadCount,
        forecast: controller.forecast ?? null,
        machines: world.machines.length,
        costUsd: world.totals(fromMs).costUsd,
      })
      nextPointMs += timelineMs
      loadSum = 0
      loadCount = 0
    }
    if (setup.onProgress && atMs >= nextProgressMs) {
      setup.onProgress((atMs - fromMs) / (toMs - fromMs))
      nextProgressMs += (toMs - fromMs) / 100
    }
  }
  world.advance(toMs)
  const metrics = meter.result({ ...world.totals(fromMs), actions: world.actions })
  return { policy: policy.id, metrics, decisions, timeline }
}

/** p99 and mean of the need over the run, minute by minute. */
function knownNeed({ demand, fromMs, toMs, tables }: RunSetup): { p99: number; mean: number } {
  const needs: number[] = []
  for (let atMs = fromMs; atMs < toMs; atMs += MINUTE_MS) needs.push(tables.needed(demand.at(atMs)))
  needs.sort((a, b) => a - b)
  const mean = needs.reduce((sum, need) => sum + need, 0) / Math.max(1, needs.length)
  return { p99: needs[Math.min(needs.length - 1, Math.floor(0.99 * needs.length))] ?? 1, mean: Math.ceil(mean) }
}
