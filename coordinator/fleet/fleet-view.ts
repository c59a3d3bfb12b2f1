/** The fleet as API, metrics and dashboard show it. Pure. */
import { compare } from '../../shared/compare.ts'
import type { MachinePhase, MachineRecord, Pool } from '../../shared/model/node.ts'
import type { Reason } from '../../shared/plan.ts'
import { budgetOf } from './plan-budget.ts'
import { leadOf, type PoolLead } from './plan-leads.ts'

export interface PoolView {
  readonly name: string
  readonly provider: string
  readonly priceUsdPerHour: number
  readonly min: number
  readonly max: number
  readonly static: boolean
  /** Machines by phase, without those that ended. */
  readonly counts: Readonly<Partial<Record<MachinePhase, number>>>
  /** Epoch ms until which it rests after failures, and why; null when it does not. */
  readonly cooling: { readonly untilMs: number; readonly reason: string } | null
  /** Learned p90 of order → joined and of a machine's life, ms; null before enough machines taught it. */
  readonly joinP90Ms: number | null
  readonly lifeP90Ms: number | null
}

export interface FleetView {
  readonly pools: readonly PoolView[]
  /** USD this calendar month (UTC): spent so far, and with what is committed. */
  readonly spentUsd: number
  readonly projectedUsd: number
  readonly budgetUsdPerMonth: number | null
  /** Why the last passes acted, waited or refused. */
  readonly reasons: readonly Reason[]
}

export function fleetViewOf(input: {
  readonly pools: readonly Pool[]
  readonly machines: readonly MachineRecord[]
  readonly limitUsd: number | null
  readonly cooling: ReadonlyMap<string, { readonly untilMs: number; readonly reason: string }>
  readonly reasons: readonly Reason[]
  readonly leads: ReadonlyMap<string, PoolLead>
  readonly nowMs: number
}): FleetView {
  const { machines, nowMs } = input
  const budget = budgetOf({ machines, pools: input.pools, limitUsd: input.limitUsd, nowMs, leads: input.leads })
  const pools = [...input.pools].sort((a, b) => compare(a.name, b.name))
  return {
    pools: pools.map((pool) => {
      const counts: Partial<Record<MachinePhase, number>> = {}
      for (const machine of machines)
        if (machine.pool === pool.name && machine.phase !== 'gone' && machine.phase !== 'lost')
          counts[machine.phase] = (counts[machine.phase] ?? 0) + 1
      const rest = input.cooling.get(pool.name)
      return {
        name: pool.name,
        provider: pool.provider,
        priceUsdPerHour: pool.priceUsdPerHour,
        min: pool.min,
        max: pool.max,
        static: pool.static,
        counts,
        ...leadOf(input.leads, pool.name),
        cooling: rest && rest.untilMs > nowMs ? { untilMs: rest.untilMs, reason: rest.reason } : null,
      }
    }),
    spentUsd: budget.spentUsd,
    projectedUsd: budget.projectedUsd,
    budgetUsdPerMonth: input.limitUsd,
    reasons: input.reasons,
  }
}
