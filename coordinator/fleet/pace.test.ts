import { describe, expect, it } from 'vitest'
import { DEFAULT_FLEET_CONFIG } from './config.ts'
import { createBuyHold, createDownTimer, createRest, firmHoldOf } from './pace.ts'

describe('what is bought for', () => {
  it('is what has fitted nowhere for long enough without a break', () => {
    const hold = createBuyHold<string>(500)
    expect(hold.lasting(['a'], 1_000)).toEqual({ lasting: new Set(), youngMs: 500 })
    expect(hold.lasting(['a', 'b'], 1_400)).toEqual({ lasting: new Set(), youngMs: 100 })
    expect(hold.lasting(['a', 'b'], 1_500)).toEqual({ lasting: new Set(['a']), youngMs: 400 })
    hold.lasting(['b'], 1_600)
    expect(hold.lasting(['a', 'b'], 2_000)).toEqual({ lasting: new Set(['b']), youngMs: 500 })
  })

  it('begins anew when a node was taken back', () => {
    const hold = createBuyHold<string>(500)
    hold.lasting(['a'], 0)
    hold.forget()
    expect(hold.lasting(['a'], 600).lasting.size).toBe(0)
  })
})

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

describe('rest after work', () => {
  it('is four times as long as the work, up to its longest, and none after work that took no time', () => {
    const rest = createRest(250)
    expect(rest.leftMs(0)).toBe(0)
    rest.worked(1_000, 1_010)
    expect([1_010, 1_049, 1_049.5, 1_050, 2_000].map((ms) => rest.leftMs(ms))).toEqual([40, 1, 1, 0, 0])
    rest.worked(2_000, 2_100)
    expect(rest.leftMs(2_100)).toBe(250)
    rest.worked(3_000, 3_000)
    expect(rest.leftMs(3_000)).toBe(0)
  })
})

describe('what stands against giving any node back', () => {
  const quiet = { frozen: null, leaving: 0, config: DEFAULT_FLEET_CONFIG }

  it('is nothing when nothing leaves', () => {
    expect(firmHoldOf(quiet)).toBeNull()
  })

  it.each([
    ['a freeze', { frozen: 'most nodes are silent' }, 'frozen: most nodes are silent'],
    ['a node that leaves', { leaving: 1 }, '1 node is being given back, 1 at a time'],
  ])('is %s', (_what, differs, text) => {
    expect(firmHoldOf({ ...quiet, ...differs })).toEqual({ text, always: true })
  })
})
