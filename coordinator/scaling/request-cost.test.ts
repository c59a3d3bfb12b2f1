import { describe, expect, it } from 'vitest'
import { createRequestCost } from './request-cost.ts'

/** 2 % of an instance per request and second. */
const feed = (from: number, to: number, perS: number, sumPercent: number, reporting: number, cost = createRequestCost()) => {
  for (let s = from; s < to; s += 1) cost.observe(s * 1_000, sumPercent, reporting, perS)
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
