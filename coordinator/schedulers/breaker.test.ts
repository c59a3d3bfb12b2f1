import { describe, expect, it } from 'vitest'
import { asked, type Breaker, CLOSED, failed, mayAsk } from './breaker.ts'

const failTimes = (times: number, nowMs: number): Breaker => {
  let breaker = CLOSED
  for (let i = 0; i < times; i += 1) breaker = failed(breaker, nowMs)
  return breaker
}

describe('a scheduler that fails', () => {
  it('is asked on until three failures in a row, then rests for five seconds', () => {
    expect(mayAsk(failTimes(2, 0), 0)).toBe(true)
    const resting = failTimes(3, 1_000)
    expect(mayAsk(resting, 5_999)).toBe(false)
    expect(mayAsk(resting, 6_000)).toBe(true)
  })

  it('gets one question after its rest, and rests twice as long when that fails too, up to a minute', () => {
    let breaker = failTimes(3, 0)
    let nowMs = 0
    const rests: number[] = []
    for (let i = 0; i < 6; i += 1) {
      nowMs = breaker.openUntilMs ?? 0
      breaker = asked(breaker)
      expect(mayAsk(breaker, nowMs)).toBe(false)
      breaker = failed(breaker, nowMs)
      rests.push((breaker.openUntilMs ?? 0) - nowMs)
    }
    expect(rests).toEqual([10_000, 20_000, 40_000, 60_000, 60_000, 60_000])
  })

  it('is not punished for questions that were under way when its rest began', () => {
    const resting = failTimes(3, 0)
    expect(failed(resting, 100)).toEqual(resting)
  })
})
