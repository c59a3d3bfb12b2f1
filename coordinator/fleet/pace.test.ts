import { describe, expect, it } from 'vitest'
import { createDownTimer } from './pace.ts'

describe('when to ask whether a machine can go', () => {
  it('every interval, and at once after a step down', () => {
    const timer = createDownTimer(60_000, 0)
    expect(timer.take(59_999)).toBe(false)
    expect(timer.take(60_000)).toBe(true)
    timer.scaledDown(80_000)
    expect(timer.take(80_000)).toBe(true)
    expect(timer.nextAtMs).toBe(140_000)
  })

  it('no more often than every five seconds, however many services step down', () => {
    const timer = createDownTimer(60_000, 0)
    let looks = 0
    for (let atMs = 60_000; atMs < 120_000; atMs += 500) {
      timer.scaledDown(atMs)
      if (timer.take(atMs)) looks += 1
    }
    expect(looks).toBe(12)
  })
})
