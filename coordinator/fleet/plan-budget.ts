/**
 * May we afford it? What was spent this month, plus what we are bound to spend: minimum and static machines to the month's
 * end, every other machine until its shortest sensible life is over. Pure. Money in USD, times in epoch ms, months in UTC.
 */
import { compare } from '../../shared/compare.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { monthOf } from './calendar.ts'
import { isAlive } from './machine-states.ts'
import { leadOf, learnLeads, type PoolLead } from './plan-leads.ts'

const HOUR_MS = 3_600_000

export interface BudgetInput {
  readonly machines: readonly MachineRecord[]
  readonly pools: readonly Pool[]
  readonly limitUsd: number | null
  readonly nowMs: number
  /** What `learnLeads` makes of the machines, where the caller has it already. */
  readonly leads?: ReadonlyMap<string, PoolLead>
}

export interface BudgetState {
  /** Spent since the month began, all machines. */
  readonly spentUsd: number
  /** Spent and committed until the month ends, if nothing more is bought. */
  readonly projectedUsd: number
  /** Spent, and what will be whatever is given back from now on: minimum and static machines to the month's end. No statistic is in it. */
  readonly certainUsd: number
  readonly limitUsd: number | null
  /** What the projection grows by with one more machine of a pool. */
  readonly costUsdOf: (pool: Pool) => number
}

export function budgetOf(input: BudgetInput): BudgetState {
  const { machines, pools, limitUsd, nowMs } = input
  const leads = input.leads ?? learnLeads(machines)
  const month = monthOf(nowMs)
  const hoursLeft = (month.endMs - nowMs) / HOUR_MS
  const byName = new Map(pools.map((pool) => [pool.name, pool]))
  const spentUsd = machines.reduce((sum, machine) => sum + spentOn(machine, byName.get(machine.pool), month.startMs, nowMs), 0)

  let committedUsd = 0
  let certainUsd = spentUsd
  const minimumLeft = new Map(pools.map((pool) => [pool.name, pool.min]))
  for (const machine of machines.filter(isAlive).sort(byAge)) {
    const pool = byName.get(machine.pool)
    const left = minimumLeft.get(machine.pool) ?? 0
    if (left > 0) minimumLeft.set(machine.pool, left - 1)
    if (left > 0 || pool?.static) {
      committedUsd += machine.priceUsdPerHour * hoursLeft
      certainUsd += machine.priceUsdPerHour * hoursLeft
    } else {
      // Once its expected life is over a machine is bound to nothing more: it can be given back at any time.
      const aliveHours = billedHours(Math.max(0, nowMs - machine.requestedAtMs), pool)
      const lifeHours = commitmentHours(machine.pool, leads)
      committedUsd += machine.priceUsdPerHour * Math.min(hoursLeft, Math.max(0, lifeHours - aliveHours))
    }
  }
  for (const pool of pools) {
    const missingUsd = (minimumLeft.get(pool.name) ?? 0) * pool.priceUsdPerHour * hoursLeft
    committedUsd += missingUsd
    certainUsd += missingUsd
  }

  return {
    spentUsd,
    projectedUsd: spentUsd + committedUsd,
    certainUsd,
    limitUsd,
    costUsdOf: (pool) =>
      pool.priceUsdPerHour * (pool.static ? hoursLeft : Math.min(Math.max(1, hoursLeft), commitmentHours(pool.name, leads))),
  }
}

/** Why machines in use are given up for the budget's sake, or null. */
export function overrunOf({ limitUsd, certainUsd }: BudgetState): string | null {
  return limitUsd !== null && certainUsd > limitUsd
    ? `this month comes to $${certainUsd.toFixed(2)} at least, over $${limitUsd.toFixed(2)}`
    : null
}

/** The same for one pool with a limit of its own; null when it has none. */
export function poolBudgetOf(pool: Pool, input: BudgetInput): BudgetState | null {
  if (pool.budgetUsdPerMonth === null) return null
  const machines = input.machines.filter((machine) => machine.pool === pool.name)
  return budgetOf({ ...input, machines, pools: [pool], limitUsd: pool.budgetUsdPerMonth })
}

/** Share of a machine's cost that falls between `fromMs` and `nowMs`; billed hours are rounded up where the pool does so. */
export function spentOn(machine: MachineRecord, pool: Pool | undefined, fromMs: number, nowMs: number): number {
  // One that the cloud never confirmed before it was given up cost nothing.
  if (machine.providerId === null && !isAlive(machine)) return 0
  const endMs = Math.min(nowMs, machine.goneAtMs ?? nowMs)
  const startMs = Math.max(fromMs, machine.requestedAtMs)
  if (endMs <= startMs) return 0
  return machine.priceUsdPerHour * billedHours(endMs - startMs, pool)
}

function billedHours(durationMs: number, pool: Pool | undefined): number {
  const hours = durationMs / HOUR_MS
  return pool?.billing === 'hour' ? Math.ceil(hours) : hours
}

/**
 * How long a machine is expected to be kept, in hours: at least the hour, which no billing unit exceeds, and the p90 of how long
 * others of its pool were.
 */
function commitmentHours(pool: string, leads: ReadonlyMap<string, PoolLead>): number {
  return Math.max(1, (leadOf(leads, pool).lifeP90Ms ?? 0) / HOUR_MS)
}

function byAge(a: MachineRecord, b: MachineRecord): number {
  return a.requestedAtMs - b.requestedAtMs || compare(a.id, b.id)
}
