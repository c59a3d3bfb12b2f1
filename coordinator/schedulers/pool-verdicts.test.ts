import { describe, expect, it } from 'vitest'
import type { Verdict } from '../placement/answers.ts'
import { learnPools, NO_POOL_VERDICTS, type SeenNode } from './pool-verdicts.ts'

const ACCEPT: Verdict = { kind: 'accept', score: 1, atMost: null }
const REJECT: Verdict = { kind: 'reject', reason: 'too hot' }
const node = (id: string, verdict: Verdict, isFresh: boolean, pool: string | null = 'small'): SeenNode => ({
  id,
  pool,
  isFresh,
  verdict,
})
const HOUR = 3_600_000

describe('what is learned of pools', () => {
  it('one accepted node proves its pool; a node without a pool teaches nothing', () => {
    const learned = learnPools(
      NO_POOL_VERDICTS,
      [node('a', REJECT, true), node('b', ACCEPT, false), node('c', ACCEPT, true, null)],
      0,
    )
    expect([...learned]).toEqual([['small', { isProven: true, refusedUntilMs: 0, reason: '', refused: new Set() }]])
  })

  it('nodes that are busy and unwanted say nothing about fresh ones, but prove nothing any more', () => {
    const proven = learnPools(NO_POOL_VERDICTS, [node('a', ACCEPT, false)], 0)
    expect(learnPools(proven, [node('a', REJECT, false)], 0).get('small')).toMatchObject({ isProven: false, refusedUntilMs: 0 })
    expect(learnPools(NO_POOL_VERDICTS, [node('a', REJECT, false)], 0).size).toBe(0)
  })

  it('each further fresh node that is refused doubles the pause, the same one only prolongs it, an accepted one ends it', () => {
    let pools = NO_POOL_VERDICTS
    const pauseAfter = (id: string) => {
      pools = learnPools(pools, [node(id, REJECT, true)], 5)
      return ((pools.get('small')?.refusedUntilMs ?? 0) - 5) / HOUR
    }
    expect(['a', 'a', 'b', 'c', 'd', 'e', 'f', 'g'].map(pauseAfter)).toEqual([1, 1, 2, 4, 8, 16, 24, 24])
    expect(learnPools(pools, [node('h', ACCEPT, true)], 5).get('small')).toMatchObject({ isProven: true, refusedUntilMs: 0 })
  })
})
