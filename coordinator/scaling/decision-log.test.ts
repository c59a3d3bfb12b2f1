import { describe, expect, it } from 'vitest'
import { createDecisionLog } from './decision-log.ts'
import type { ScalingDecision } from './plan-replicas.ts'

const decision = (code: ScalingDecision['code'], wish: number): ScalingDecision => ({
  serviceId: 'shop/web',
  code,
  reason: '',
  wanted: 1,
  wish,
  n: 1,
  ready: 1,
  excluded: 0,
  demandPercent: 50,
  thresholdPercent: 60,
  load: {
    demandPercent: 50,
    meanPercent: 50,
    settledMs: 0,
    coveredMs: 0,
    peakDemandPercent: 50,
    completeMs: 0,
    backlogKnown: false,
    sustainedPercent: null,
    arrivalPercent: null,
    parts: null,
    growthPercentPerS: 0,
  },
})

describe('decision log', () => {
  it('keeps changes only, newest first, at most fifty', () => {
    const log = createDecisionLog()
    for (let i = 0; i < 500; i += 1) for (let again = 0; again < 3; again += 1) log.add(decision('up', i), i * 1_000 + again)
    expect(log.records()).toHaveLength(50)
    expect(log.records()[0]).toMatchObject({ wish: 499, atMs: 499_000 })
    expect(log.records().at(-1)).toMatchObject({ wish: 450 })
  })
  it('counts changes of direction of the last hour, not steps', () => {
    const log = createDecisionLog()
    for (const [i, [from, to]] of (
      [
        [1, 2],
        [2, 4],
        [4, 2],
        [2, 3],
        [3, 5],
      ] as const
    ).entries())
      log.stepped(from, to, i * 60_000)
    expect(log.turnsPerHour(300_000)).toBe(2)
    expect(log.turnsPerHour(3_600_000 + 130_000)).toBe(1)
  })
})
