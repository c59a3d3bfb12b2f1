/**
 * The settings that decisions are made by, resolved: pools and their prices, the fleet's pace and budget, placement's weights, the zone
 * of days and weeks. The coordinator goes by them, and so does a simulation that is given the same file. Pure.
 */
import type { Fault } from '../shared/errors.ts'
import type { Pool } from '../shared/model/node.ts'
import type { LoadedSettings } from '../shared/settings.ts'
import { isTimeZone, zoneOfAbbreviation } from '../shared/time-zone.ts'
import type { CoordinatorConfig, coordinatorSettings } from './config.ts'
import { DEFAULT_FLEET_CONFIG } from './fleet/config.ts'
import { weightsOf } from './placement/weights.ts'
import { type ProviderSettings, resolvePools } from './pool-settings.ts'

export type DecidingConfig = Pick<CoordinatorConfig, 'fleet' | 'forecast' | 'placement'> & { readonly pools: readonly Pool[] }

/** Every fault is added to `faults`, and what is returned then is of no use. */
export function decidingConfig(
  { values, locate }: LoadedSettings<typeof coordinatorSettings>,
  providers: Readonly<Record<string, ProviderSettings>>,
  faults: Fault[],
): DecidingConfig {
  const timeZone = values['forecast.timeZone']
  if (!isTimeZone(timeZone))
    faults.push({
      ...locate('forecast.timeZone'),
      message: `${timeZone} is no time zone that this host knows; write one of the IANA database, such as ${zoneOfAbbreviation(timeZone) ?? 'Europe/Berlin'}.`,
    })
  return {
    pools: Object.freeze(resolvePools(values.pools, providers, (path) => locate('pools', path), faults)),
    fleet: Object.freeze({
      ...DEFAULT_FLEET_CONFIG,
      enabled: values['fleet.enabled'],
      minNodeAgeMs: values['fleet.minNodeAge'],
      downIntervalMs: values['fleet.downInterval'],
      joinDeadlineMs: values['fleet.joinDeadline'],
      drainDeadlineMs: values['fleet.drainDeadline'],
      reapIntervalMs: values['fleet.reapInterval'],
      forceGraceMs: values['fleet.forceGrace'],
      entrySettleMs: values['fleet.entrySettle'],
      orphanGraceMs: values['fleet.orphanGrace'],
      missingMs: values['fleet.missing'],
      silentNodeMs: values['fleet.silentNode'],
      takeoverMs: values['fleet.takeover'],
      capacityCoolDownMs: values['fleet.capacityCoolDown'],
      quotaCoolDownMs: values['fleet.quotaCoolDown'],
      callTimeoutMs: values['fleet.callTimeout'],
      buyHoldMs: values['fleet.buyHold'],
      maxParallelCreates: values['fleet.maxParallelCreates'],
      maxBuysPerPass: values['fleet.maxBuysPerPass'],
      headroomPercent: values['fleet.headroomPercent'],
      spareSlots: values['fleet.spareSlots'],
      spareSlotCpuMillis: Math.round(values['fleet.spareSlotCpus'] * 1000),
      spareSlotMemoryBytes: values['fleet.spareSlotMemoryMiB'] * 2 ** 20,
      slowBootFactor: values['fleet.slowBootFactor'],
      maxParallelDrains: values['fleet.maxParallelDrains'],
      minSavingsRatio: values['fleet.minSavingsRatio'],
      rebalanceMovesPerHour: values['fleet.rebalance.maxMovesPerHour'],
      rebalanceImbalancePercent: values['fleet.rebalance.imbalancePercent'],
      budgetUsdPerMonth: values.budgetUsdPerMonth,
    }),
    forecast: Object.freeze({ timeZone }),
    placement: Object.freeze({
      strategy: values['placement.strategy'],
      evictedPercentPerHour: values['placement.evictedPercentPerHour'],
      operatorMaxPriority: values['placement.operatorMaxPriority'],
      pullAhead: values['placement.pullAhead'],
      weights: weightsOf(values),
    }),
  }
}
