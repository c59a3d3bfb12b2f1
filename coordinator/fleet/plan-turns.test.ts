import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { requestsOf } from '../../test/builders/requests.ts'
import type { PlacementRequest } from '../placement/model.ts'
import { takeTurns } from './plan-turns.ts'

const NONE: ReadonlySet<string> = new Set()
const crowd = (app: string, groups: number, each: number, priority = 0) =>
  Array.from({ length: groups }, (_, index) => requestsOf(`${app}/s${index}`, each, {}, { priority })).flat()
const groupsOf = (requests: readonly PlacementRequest[]) => [...new Set(requests.map(({ group }) => group))]

describe('whose turn it is to be bought for', () => {
  it('everybody’s, as long as there are not too many', () => {
    const all = crowd('a', 100, 20)
    expect(takeTurns(all, NONE).chosen).toBe(all)
    expect(takeTurns(all, NONE).postponed.size).toBe(0)
  })

  it('one app’s crowd hides no other app’s instance, and no large group a small one', () => {
    const good = requestsOf('good/web', 1)
    expect(takeTurns([...crowd('evil', 500, 2), ...good], NONE).chosen).toContain(good[0])
    expect(takeTurns([...crowd('evil', 10, 500), ...good], NONE).chosen).toContain(good[0])
  })

  it('the important ones come first, but not again and again while nothing can be bought for them', () => {
    const all = [...crowd('base', 300, 1), ...crowd('vital', 150, 1, 50)]
    let tried = NONE
    const seen: string[][] = []
    for (let pass = 0; pass < 6; pass += 1) {
      const groups = groupsOf(takeTurns(all, tried).chosen)
      seen.push(groups)
      tried = new Set([...[...tried].filter((group) => !groups.includes(group)), ...groups])
    }
    expect(seen[0]?.every((group) => group.startsWith('vital/'))).toBe(true)
    expect(seen[1]?.filter((group) => group.startsWith('vital/'))).toHaveLength(50)
    expect(new Set(seen.slice(0, 5).flat()).size).toBe(450)
  })

  it('safety: never more than a pass can look at, never less than it can, and the same in any order', () => {
    const crowds = fc.array(
      fc.record({
        app: fc.constantFrom('a', 'b', 'c'),
        name: fc.nat(250),
        each: fc.integer({ min: 1, max: 60 }),
        priority: fc.nat(2),
      }),
      { maxLength: 250 },
    )
    void fc.assert(
      fc.property(crowds, (drawn) => {
        const all = [...new Map(drawn.map((each) => [`${each.app}/s${each.name}`, each]))].flatMap(
          ([service, { each, priority }]) => requestsOf(service, each, {}, { priority }),
        )
        const { chosen, postponed } = takeTurns(all, NONE)
        expect(chosen.length + postponed.size).toBe(all.length)
        expect(chosen.length).toBeLessThanOrEqual(2_000)
        expect(groupsOf(chosen).length).toBe(Math.min(100, groupsOf(all).length))
        const again = takeTurns([...all].reverse(), NONE)
        expect(new Set(groupsOf(again.chosen))).toEqual(new Set(groupsOf(chosen)))
      }),
      { numRuns: 50 },
    )
  })
})
