import { describe, expect, it } from 'vitest'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { aMachineRecord, aPool } from '../../test/builders/records.ts'
import { monthOf } from './calendar.ts'
import { budgetOf, poolBudgetOf, spentOn } from './plan-budget.ts'

const HOUR = 3_600_000
const NOW = Date.UTC(2026, 0, 21) // 264 hours before the month's end
const CAPACITY = { cpuMillis: 1000, memoryBytes: 2 ** 30, diskBytes: 0, slots: 10 }

function machine(id: string, overrides: Partial<MachineRecord> = {}): MachineRecord {
  const atMs = NOW - 10 * HOUR
  return aMachineRecord({
    id,
    provider: 'p',
    phase: 'joined',
    providerId: id,
    priceUsdPerHour: 1,
    requestedAtMs: atMs,
    joinedAtMs: atMs,
    ...overrides,
  })
}

function pool(overrides: Partial<Pool> = {}): Pool {
  return aPool({ provider: 'p', capacity: CAPACITY, priceUsdPerHour: 1, ...overrides })
}

const budget = (machines: MachineRecord[], pools: Pool[], limitUsd: number | null = null) =>
  budgetOf({ machines, pools, limitUsd, nowMs: NOW })

describe('budget', () => {
  it('months begin and end where the calendar says, leap years too', () => {
    for (let month = 0; month < 12 * 60; month += 1) {
      const startMs = Date.UTC(1999, month, 1)
      const endMs = Date.UTC(1999, month + 1, 1)
      expect(monthOf(startMs)).toEqual({ startMs, endMs })
      expect(monthOf(endMs - 1)).toEqual({ startMs, endMs })
    }
  })

  it('counts what was spent this month by every machine, ended ones included, and nothing before it', () => {
    const ended = machine('m-2', { phase: 'gone', requestedAtMs: NOW - 6 * HOUR, goneAtMs: NOW - 4 * HOUR })
    const old = machine('m-3', { phase: 'gone', requestedAtMs: Date.UTC(2025, 11, 31, 23), goneAtMs: Date.UTC(2026, 0, 1, 3) })
    const never = machine('m-4', { phase: 'gone', providerId: null, goneAtMs: NOW })
    expect(budget([machine('m-1'), ended, old, never], [pool()]).spentUsd).toBeCloseTo(10 + 2 + 3)
  })

  it('rounds up to hours where the pool is billed by the hour', () => {
    const one = machine('m-1', { requestedAtMs: NOW - 90 * 60_000 })
    expect(spentOn(one, pool(), 0, NOW)).toBeCloseTo(1.5)
    expect(spentOn(one, pool({ billing: 'hour' }), 0, NOW)).toBe(2)
  })

  it('commits minimum and static machines to the month’s end, bought or not, and others only to their first hour', () => {
    expect(budget([machine('m-1')], [pool({ min: 1 })]).projectedUsd).toBeCloseTo(10 + 264)
    expect(budget([machine('m-1')], [pool({ static: true })]).projectedUsd).toBeCloseTo(10 + 264)
    expect(budget([], [pool({ min: 2 })]).projectedUsd).toBeCloseTo(2 * 264)
    expect(budget([machine('m-1')], [pool()]).projectedUsd).toBeCloseTo(10)
    const fresh = machine('m-1', { requestedAtMs: NOW - HOUR / 4 })
    expect(budget([fresh], [pool()]).projectedUsd).toBeCloseTo(1)
  })

  it('expects a machine to live as long as nine in ten of its pool did', () => {
    const lives = [2, 2, 3, 3, 8].map((hours, index) =>
      machine(`m-${index}`, { phase: 'gone', requestedAtMs: NOW - 20 * HOUR, goneAtMs: NOW - (20 - hours) * HOUR }),
    )
    expect(budget(lives, [pool()]).costUsdOf(pool())).toBe(8)
    expect(budget(lives.slice(1), [pool()]).costUsdOf(pool())).toBe(1)
  })

  it('what is certain to be spent has no statistic in it: learned lives move the projection alone', () => {
    const long = Array.from({ length: 5 }, (_, index) =>
      machine(`m-${index}`, { phase: 'gone', requestedAtMs: NOW - 300 * HOUR, goneAtMs: NOW }),
    )
    const alive = machine('m-9')
    const before = budget([alive], [pool()])
    const after = budget([alive, ...long], [pool()])
    const spentOnLong = after.spentUsd - before.spentUsd
    expect(after.projectedUsd - before.projectedUsd - spentOnLong).toBeGreaterThan(200)
    expect(after.certainUsd).toBeCloseTo(before.certainUsd + spentOnLong)
    expect(budget([alive], [pool({ min: 2 })]).certainUsd).toBeCloseTo(10 + 2 * 264)
  })

  it('keeps a limit per pool apart from the others', () => {
    const other = machine('m-2', { pool: 'big', priceUsdPerHour: 100 })
    const input = { machines: [machine('m-1'), other], pools: [pool(), pool({ name: 'big' })], limitUsd: null, nowMs: NOW }
    expect(poolBudgetOf(pool(), input)).toBeNull()
    expect(poolBudgetOf(pool({ budgetUsdPerMonth: 20 }), input)).toMatchObject({ spentUsd: 10, limitUsd: 20 })
  })
})
