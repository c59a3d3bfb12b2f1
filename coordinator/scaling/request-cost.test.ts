import { describe, expect, it } from 'vitest'
import { createRequestCost } from './request-cost.ts'

/** 2 % of an instance per request and second. */
const feed = (from: number, to: number, perS: number, sumPercent: number, reporting: number, cost = createRequestCost()) => {
  for (let s = from; s < to; s += 1) cost.observe(s * 1_000, sumPercent, reporting, perS)
  return cost
}

/** Two instances that idle at 20 % and spend 10 ms on a request, at rates that go up and down; requests are reported every two seconds. */
const waves = (requestMs: (s: number) => number, seconds = 600, noise: (s: number) => number = () => 0) => {
  const cost = createRequestCost()
  let due = 0
  for (let s = 0; s < seconds; s += 1) {
    const perS = 60 + 40 * Math.sin(s / 30)
    due += perS
    const arrived = s % 2 === 1 ? due : 0
    if (s % 2 === 1) due = 0
    cost.observe(s * 1_000, 2 * 20 + (perS * requestMs(s)) / 10 + noise(s), 2, arrived)
  }
  return cost
}

describe('request cost', () => {
  it('tells the demand of arrivals beyond what full instances show', () => {
    const cost = feed(0, 60, 25, 50, 1)
    feed(60, 90, 350, 100, 1, cost)
    expect(cost.demandPercent(89_000)).toBeGreaterThan(600)
    expect(cost.demandPercent(89_000)).toBeLessThan(720)
  })
  it('does not know before it saw enough requests at a fair load, nor from idle instances, nor when samples stop', () => {
    expect(feed(0, 60, 1, 50, 1).demandPercent(59_000)).toBe(null)
    expect(feed(0, 60, 25, 5, 1).demandPercent(59_000)).toBe(null)
    expect(feed(0, 60, 25, 100, 1).demandPercent(59_000)).toBe(null)
    expect(feed(0, 60, 25, 50, 1).demandPercent(120_000)).toBe(null)
  })
  it('follows requests that become heavier', () => {
    const cost = feed(0, 60, 20, 40, 1)
    feed(60, 600, 20, 80, 1, cost)
    expect(cost.demandPercent(599_000)).toBeCloseTo(80, 0)
  })
})

describe('V20: idle use and what requests cost, apart', () => {
  it('are told by how load follows the rate, also under noise', () => {
    const clean = waves(() => 10).parts()
    expect(Math.abs((clean?.idlePercent ?? 0) - 20)).toBeLessThan(1.5)
    expect(Math.abs((clean?.requestMs ?? 0) - 10)).toBeLessThan(0.5)
    const noisy = waves(
      () => 10,
      1_200,
      (s) => 12 * Math.sin(s * 1.7),
    ).parts()
    expect(noisy?.idlePercent).toBeGreaterThan(17)
    expect(noisy?.idlePercent).toBeLessThan(23)
  })
  it('make the demand of full instances that of their requests, not of the idling that they were learned with', () => {
    const cost = waves(() => 10)
    feed(600, 640, 800, 200, 2, cost)
    // 2 × 20 % idle and 800 × 10 ms; as if idling were for requests it would be half as much again.
    expect(cost.demandPercent(639_000)).toBeGreaterThan(780)
    expect(cost.demandPercent(639_000)).toBeLessThan(880)
  })
  it('follow requests that become heavier, with the same idle part', () => {
    const parts = waves((s) => (s < 600 ? 10 : 13), 1_500).parts()
    expect(parts?.requestMs).toBeGreaterThan(12)
    expect(parts?.requestMs).toBeLessThan(13.7)
  })
  it('are not told apart while the rate stands still, nor where load goes its own way', () => {
    expect(feed(0, 600, 25, 50, 1).parts()).toBe(null)
    expect(
      waves(
        () => 0,
        600,
        (s) => 60 + 50 * Math.sin(s / 11),
      ).parts(),
    ).toBe(null)
  })
})
