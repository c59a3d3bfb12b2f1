/**
 * How many instances each forecast service will want by the time that a machine ordered now could run one. Machines for them come
 * ahead of demand, while the instances themselves are started only when scaling wants them.
 */
import type { ServiceId } from '../../shared/model/identity.ts'
import type { ScaleRules } from '../../shared/model/app.ts'
import type { DemandForecast } from '../forecast/forecaster.ts'
import { horizonOf, leadOfOrder } from '../forecast/horizon.ts'
import { smallestFor } from '../scaling/plan-replicas.ts'
import type { Snapshot } from '../state/state.ts'
import type { Predicted } from './ghosts.ts'

export interface PredictedDeps {
  readonly snapshot: Snapshot
  /** Services that are forecast. */
  forecast(): Iterable<readonly [ServiceId, DemandForecast]>
  forecastOf(id: ServiceId, horizonMs: number): DemandForecast | null
  /** Learned time from placement to readiness, ms; null while unknown. */
  startTimeMs(id: ServiceId): number | null
  /** Does the work for one service; null when it threw, which stops no other (isolation.ts). */
  attempt<T>(id: ServiceId, work: () => T): T | null
  /** Learned time from the order of a machine until it joins, ms; null while unknown. */
  machineLeadMs(): number | null
  /** The rules that scaling goes by now, with what the schedule and the objective make of them; null: it does not scale. */
  rulesOf(id: ServiceId): ScaleRules | null
  /** Instances that are there and of no use, and that scaling therefore has others beside. */
  uselessOf(id: ServiceId): number
}

/** Only of services that nobody pinned; by the very rules, in the bounds and with the thresholds, that scaling will want them by. */
export function predictedInstances(deps: PredictedDeps): readonly Predicted[] {
  const machineMs = deps.machineLeadMs()
  // Before a machine was ever bought nobody knows how far to look ahead.
  if (machineMs === null) return []
  const predicted: Predicted[] = []
  for (const [service] of deps.forecast()) {
    const count = deps.attempt(service, () => predictedOf(deps, service, machineMs))
    if (count !== null) predicted.push({ service, count })
  }
  return predicted
}

function predictedOf(deps: PredictedDeps, service: ServiceId, machineMs: number): number | null {
  const record = deps.snapshot.get('service', service)
  const rules = deps.rulesOf(service)
  if (!record || record.pinned !== null || !rules) return null
  const leadMs = leadOfOrder({ startMs: deps.startTimeMs(service), machineMs }) ?? machineMs
  const forecast = deps.forecastOf(service, horizonOf(leadMs))
  return forecast === null ? null : countAhead(forecast, rules, deps.uselessOf(service))
}

/**
 * Instances that carry the peak of the forecast, within the bounds; null while it has not been scored. Never fewer than scaling would
 * want by the same forecast: `useless` instances are replaced in number as it does. One that does not beat persistence counts too: it,
 * or persistence itself, brings the p90 of its own errors over that time, which is the room that demand has been seen to take while a
 * machine boots.
 */
export function countAhead(forecast: DemandForecast, rules: ScaleRules, useless = 0): number | null {
  const isScored = forecast.isTrusted || forecast.errorVsPersistence !== null
  if (!isScored || !Number.isFinite(forecast.peak)) return null
  const least = Math.max(1, rules.min)
  const most = Math.max(least, rules.max)
  const count = smallestFor(rules, forecast.peak, least, most)
  return Math.min(most, count + Math.min(useless, count))
}
