import { describe, expect, it } from 'vitest'
import { aPlacement, aServiceSpec } from '../../test/builders/specs.ts'
import { requestOf } from '../placement/requests.ts'
import type { PoolVerdict, PoolVerdicts } from '../schedulers/pool-verdicts.ts'
import { planTrials, withoutDoubtful } from './plan-trials.ts'

const request = (slot: number, scheduler?: string, pools: string[] = []) =>
  requestOf(`shop/web/${slot}/1`, {
    app: 'shop',
    spec: aServiceSpec({ placement: aPlacement({ pools, ...(scheduler ? { scheduler } : {}) }) }),
    revision: 1,
    home: null,
  })
const PROVEN: PoolVerdict = { isProven: true, refusedUntilMs: 0, reason: '', refused: new Set() }
const turnedDown = (refusedUntilMs: number): PoolVerdict => ({
  isProven: false,
  refusedUntilMs,
  reason: 'too hot',
  refused: new Set(['n']),
})
const plan = (refused: ReturnType<typeof request>[], verdicts: PoolVerdicts | null, pools = ['large', 'small']) =>
  planTrials({ refused, pools, verdictsOf: () => verdicts, nowMs: 1_000 })

describe('machines for what a custom scheduler chooses for', () => {
  it('services without one, and those that the built-in one decides for, are left as they are', () => {
    const plain = [request(1), request(2)]
    expect(plan(plain, new Map()).refused).toEqual(plain)
    const own = [request(1, 'x'), request(2, 'x')]
    expect(plan(own, null).refused).toEqual(own)
    expect(plan(own, new Map(), []).refused).toEqual(own)
  })

  it('of pools that it never saw, room for one instance is bought', () => {
    const { refused, blocked } = plan([request(1, 'x'), request(2, 'x')], new Map())
    expect(refused.map(({ id, rules }) => [id, rules.pools])).toEqual([['shop/web/1/1', ['large', 'small']]])
    expect(blocked.size).toBe(0)
  })

  it('of a proven pool, room for all', () => {
    expect(plan([request(1, 'x'), request(2, 'x')], new Map([['small', PROVEN]])).refused).toHaveLength(2)
  })

  it('none of a pool whose fresh machine it turned down, until its time is over', () => {
    const one = plan([request(1, 'x')], new Map([['small', turnedDown(5_000)]]))
    expect(one.refused[0]?.rules.pools).toEqual(['large'])
    expect(one.wakeAtMs).toBe(5_000)
    const bound = plan([request(1, 'x', ['small'])], new Map([['small', turnedDown(5_000)]]))
    expect(bound.refused).toEqual([])
    expect([...bound.blocked]).toEqual([['shop/web/1/1', 'scheduler x wanted no fresh machine of any pool, small: too hot']])
    expect(plan([request(1, 'x', ['small'])], new Map([['small', turnedDown(1_000)]])).refused).toHaveLength(1)
  })

  it('no room is bought ahead while some pool is turned down', () => {
    const ghosts = [{ request: request(1) }, { request: request(2, 'x') }]
    expect(withoutDoubtful(ghosts, () => new Map([['small', turnedDown(5_000)]]), 1_000)).toEqual([ghosts[0]])
    expect(withoutDoubtful(ghosts, () => new Map([['small', PROVEN]]), 1_000)).toEqual(ghosts)
  })
})
