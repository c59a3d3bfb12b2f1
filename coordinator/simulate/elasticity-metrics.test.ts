import { describe, expect, it } from 'vitest'
import { createElasticityMeter, elasticSpeedup } from './elasticity-metrics.ts'
import { DEFAULT_SERVICE_MODEL, lateShare, serviceTables } from './service-model.ts'

const totals = { machineHours: 4, costUsd: 0.4, actions: 6 }

function measured(steps: readonly (readonly [number, number])[]) {
  const meter = createElasticityMeter()
  for (const [demand, supply] of steps) meter.add({ dtMs: 60_000, demand, supply, arrivals: 100, late: 5, failed: 1 })
  return meter.result(totals)
}

describe('elasticity metrics', () => {
  it('B1: amounts and times of too little and too much, by hand', () => {
    const metrics = measured([
      [4, 4],
      [4, 2],
      [4, 5],
      [4, 4],
    ])
    expect(metrics).toMatchObject({
      underAmount: 12.5,
      overAmount: 6.25,
      underTime: 25,
      overTime: 25,
      beyondObjective: 5,
      failed: 1,
    })
    expect(metrics.actionsPerHour).toBeCloseTo(90)
    expect(metrics.machineHours).toBe(4)
  })

  it('a supply that moves as demand does is stable, one that stands still is not', () => {
    const following = measured([
      [1, 1],
      [2, 2],
      [3, 3],
    ])
    const standing = measured([
      [1, 1],
      [2, 1],
      [3, 1],
    ])
    expect(following.instability).toBe(0)
    expect(following.jitter).toBe(0)
    expect(standing.instability).toBeGreaterThan(50)
    expect(standing.jitter).toBeLessThan(0)
  })

  it('elastic speedup is above 1 for the better one, and floored where a part is 0', () => {
    const good = measured([[4, 4]])
    const bad = measured([[4, 2]])
    expect(elasticSpeedup(bad, good)).toBeGreaterThan(1)
    expect(elasticSpeedup(good, good)).toBeCloseTo(1)
    expect(Number.isFinite(elasticSpeedup(good, bad))).toBe(true)
  })
})

describe('service model', () => {
  it('answers as M/M/1 does for one worker: P(T > t) = exp(−(1 − ρ) t)', () => {
    const model = { ...DEFAULT_SERVICE_MODEL, workers: 1, serviceMs: 100, latencyMs: 500 }
    expect(lateShare(model, 0.5, 1)).toBeCloseTo(Math.exp(-2.5), 9)
    expect(lateShare(model, 1, 1)).toBe(1)
  })

  it('needs fewer instances per demand the more there are, and the table agrees with the formula', () => {
    const tables = serviceTables(DEFAULT_SERVICE_MODEL)
    expect(tables.needed(0)).toBe(1)
    for (const offered of [0.5, 0.9, 3, 7.7, 19.2, 60]) {
      const n = tables.needed(offered)
      expect(lateShare(DEFAULT_SERVICE_MODEL, offered, n)).toBeLessThanOrEqual(0.0501)
      if (n > 1) expect(lateShare(DEFAULT_SERVICE_MODEL, offered, n - 1)).toBeGreaterThan(0.0499)
      expect(tables.late(offered, n)).toBeGreaterThanOrEqual(lateShare(DEFAULT_SERVICE_MODEL, offered, n) - 1e-9)
    }
    expect(tables.needed(20) / 20).toBeLessThan(tables.needed(2) / 2)
  })
})
