/**
 * How well a supply followed a demand. θ and τ: SPEC-RG-2016-01 (arXiv 1604.03470) and Herbst et al., TOMPECS 2018; the formulae
 * of τ, instability and jitter are quoted from memory of these, not checked against the text. Pure.
 */

export interface ElasticityMetrics {
  /** θ_U: 100/T · Σ max(d − s, 0)/d · dt, percent. */
  readonly underAmount: number
  /** θ_O: 100/T · Σ max(s − d, 0)/d · dt, percent. */
  readonly overAmount: number
  /** τ_U: share of the time in which d > s, percent. */
  readonly underTime: number
  /** τ_O: share of the time in which s > d, percent. */
  readonly overTime: number
  /** υ: share of the minutes in which demand or supply moved and not both the same way, percent. */
  readonly instability: number
  /** Changes of supply less changes of demand, per hour: positive means restless, negative sluggish. */
  readonly jitter: number
  /** Share of the requests answered later than the objective, or never, percent. */
  readonly beyondObjective: number
  /** Share of the requests that were never answered, percent. */
  readonly failed: number
  readonly machineHours: number
  readonly costUsd: number
  /** Changes of the wanted count per hour. */
  readonly actionsPerHour: number
  readonly hours: number
}

export interface ElasticityMeter {
  /** One step of the run: demand and supply held for `dtMs`. */
  add(step: {
    readonly dtMs: number
    readonly demand: number
    readonly supply: number
    readonly arrivals: number
    readonly late: number
    readonly failed: number
  }): void
  result(totals: { readonly machineHours: number; readonly costUsd: number; readonly actions: number }): ElasticityMetrics
}

/** Movements are compared minute by minute: within a tick hardly anything moves. */
const MOVE_MS = 60_000

export function createElasticityMeter(): ElasticityMeter {
  let spanMs = 0
  let under = 0
  let over = 0
  let underMs = 0
  let overMs = 0
  let arrivals = 0
  let late = 0
  let failed = 0
  let demandChanges = 0
  let supplyChanges = 0
  let moves = 0
  let disagreements = 0
  let before: { demand: number; supply: number } | null = null
  let atMinute: { demand: number; supply: number } | null = null
  let sinceMoveMs = 0
  return {
    add(step) {
      const { dtMs, demand, supply } = step
      spanMs += dtMs
      if (supply < demand) {
        under += ((demand - supply) / demand) * dtMs
        underMs += dtMs
      } else if (supply > demand) {
        over += ((supply - demand) / Math.max(1, demand)) * dtMs
        overMs += dtMs
      }
      arrivals += step.arrivals
      late += step.late
      failed += step.failed
      if (before !== null) {
        if (before.demand !== demand) demandChanges += 1
        if (before.supply !== supply) supplyChanges += 1
      }
      before = { demand, supply }
      sinceMoveMs += dtMs
      atMinute ??= before
      if (sinceMoveMs < MOVE_MS) return
      sinceMoveMs = 0
      moves += 1
      if (Math.sign(demand - atMinute.demand) !== Math.sign(supply - atMinute.supply)) disagreements += 1
      atMinute = before
    },
    result({ machineHours, costUsd, actions }) {
      const hours = spanMs / 3_600_000
      const share = (part: number, whole: number) => (whole > 0 ? (100 * part) / whole : 0)
      return {
        underAmount: share(under, spanMs),
        overAmount: share(over, spanMs),
        underTime: share(underMs, spanMs),
        overTime: share(overMs, spanMs),
        instability: share(disagreements, moves),
        jitter: hours > 0 ? (supplyChanges - demandChanges) / hours : 0,
        beyondObjective: share(late, arrivals),
        failed: share(failed, arrivals),
        machineHours,
        costUsd,
        actionsPerHour: hours > 0 ? actions / hours : 0,
        hours,
      }
    },
  }
}

/** Values below these count as these: a ratio to nothing says nothing. Percent. */
export const SPEEDUP_FLOOR = 0.05

/**
 * ε: geometric mean over θ_U, θ_O, τ_U, τ_O of baseline / policy (SPEC-RG-2016-01, from memory); above 1 the policy is the more
 * elastic of the two. Each part is floored at `SPEEDUP_FLOOR` percent.
 */
export function elasticSpeedup(baseline: ElasticityMetrics, policy: ElasticityMetrics): number {
  const parts = (metrics: ElasticityMetrics) =>
    [metrics.underAmount, metrics.overAmount, metrics.underTime, metrics.overTime].map((value) => Math.max(SPEEDUP_FLOOR, value))
  const ours = parts(policy)
  const logs = parts(baseline).map((value, index) => Math.log(value / (ours[index] ?? value)))
  return Math.exp(logs.reduce((sum, value) => sum + value, 0) / logs.length)
}

export function geometricMean(values: readonly number[]): number {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length)
}
