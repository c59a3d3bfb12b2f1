import { describe, expect, it } from 'vitest'
import type { MachineRecord } from '../../shared/model/node.ts'
import { leadOf, learnLeads } from './plan-leads.ts'

function machine(index: number, joinMs: number | null, lifeMs: number | null = null, pool = 'a'): MachineRecord {
  const requestedAtMs = index * 1000
  return {
    id: `m-${pool}${index}`,
    name: '',
    pool,
    provider: 'p',
    phase: lifeMs === null ? 'joined' : 'gone',
    providerId: null,
    nodeId: null,
    capacity: { cpuMillis: 1, memoryBytes: 1, diskBytes: 1, slots: 1 },
    priceUsdPerHour: 0,
    reason: '',
    requestedAtMs,
    bootedAtMs: null,
    joinedAtMs: joinMs === null ? null : requestedAtMs + joinMs,
    terminatingAtMs: null,
    goneAtMs: lifeMs === null ? null : requestedAtMs + lifeMs,
    attempts: 0,
    lastError: null,
  }
}

describe('what machines teach', () => {
  it('B9: the p90 of order to joined, per pool, once three have joined; those that never did teach nothing', () => {
    const two = [machine(1, 30_000), machine(2, 40_000), machine(3, null)]
    expect(leadOf(learnLeads(two), 'a').joinP90Ms).toBeNull()
    const ten = Array.from({ length: 10 }, (_, index) => machine(index, (index + 1) * 1000))
    expect(leadOf(learnLeads(ten), 'a').joinP90Ms).toBe(9000)
    expect(leadOf(learnLeads(ten), 'b')).toEqual({ joinP90Ms: null, lifeP90Ms: null })
  })

  it('forgets the old: only the latest fifty count', () => {
    const slowThenFast = Array.from({ length: 100 }, (_, index) => machine(index, index < 50 ? 500_000 : 20_000))
    expect(leadOf(learnLeads(slowThenFast), 'a').joinP90Ms).toBe(20_000)
  })

  it('learns how long machines are kept from those that ended', () => {
    const ended = [1, 2, 3, 4].map((index) => machine(index, 1000, index * 3_600_000))
    expect(leadOf(learnLeads(ended), 'a').lifeP90Ms).toBeNull()
    expect(leadOf(learnLeads([...ended, machine(5, 1000, 5 * 3_600_000)]), 'a').lifeP90Ms).toBe(5 * 3_600_000)
  })

  it('a join before its order, by a clock set back, counts as none', () => {
    expect(leadOf(learnLeads([1, 2, 3].map((index) => machine(index, -5000))), 'a').joinP90Ms).toBe(0)
  })
})
