import { describe, expect, it } from 'vitest'
import { createCalendar } from '../../shared/calendar.ts'
import { aScale } from '../../test/builders/specs.ts'
import { boundsAt } from './plan-schedule.ts'

const calendar = createCalendar()
const at = (text: string) => Date.parse(text)
const rules = aScale({
  min: 1,
  max: 10,
  schedules: [
    { at: '0 8 * * mon-fri', timeZone: 'Europe/Berlin', min: 4, max: 20 },
    { at: '0 18 * * *', timeZone: 'Europe/Berlin', min: 2, max: 8 },
  ],
})

describe('boundsAt', () => {
  it('is the bounds of the file without schedules, for good', () => {
    expect(boundsAt(aScale({ min: 2, max: 7 }), at('2026-03-02T09:00Z'), 60_000, calendar)).toEqual({
      min: 2,
      max: 7,
      note: null,
      untilMs: null,
      fault: null,
    })
  })
  it('holds from each match until the next match of the list, in the time zone of the schedule', () => {
    // Monday, 8:00 in Berlin is 7:00 UTC.
    expect(boundsAt(rules, at('2026-03-02T07:00Z'), 0, calendar)).toMatchObject({
      min: 4,
      max: 20,
      untilMs: at('2026-03-02T17:00Z'),
    })
    expect(boundsAt(rules, at('2026-03-02T17:00Z'), 0, calendar)).toMatchObject({ min: 2, max: 8 })
    // Over the weekend the evening's bounds stay.
    expect(boundsAt(rules, at('2026-03-07T09:00Z'), 0, calendar)).toMatchObject({ min: 2, max: 8 })
    // In summer the same time is 6:00 UTC.
    expect(boundsAt(rules, at('2026-06-01T05:59Z'), 0, calendar)).toMatchObject({ min: 2 })
    expect(boundsAt(rules, at('2026-06-01T06:00Z'), 0, calendar)).toMatchObject({ min: 4 })
  })
  it('V5: a higher minimum goes ahead by the lead time, so that instances are ready at the time, and never a lower one', () => {
    const leadMs = 240_000
    expect(boundsAt(rules, at('2026-03-02T06:55Z'), leadMs, calendar)).toMatchObject({
      min: 2,
      max: 8,
      untilMs: at('2026-03-02T06:56Z'),
    })
    expect(boundsAt(rules, at('2026-03-02T06:56Z'), leadMs, calendar)).toMatchObject({
      min: 4,
      max: 8,
      untilMs: at('2026-03-02T07:00Z'),
    })
    expect(boundsAt(rules, at('2026-03-02T16:58Z'), leadMs, calendar)).toMatchObject({ min: 4, max: 20 })
  })
  it('asks to be looked at again exactly when something can change', () => {
    let now = at('2026-03-02T00:00Z')
    const seen: number[] = []
    for (let i = 0; i < 6; i += 1) {
      const bounds = boundsAt(rules, now, 60_000, calendar)
      const until = bounds.untilMs ?? Number.NaN
      expect(boundsAt(rules, until - 1, 60_000, calendar)).toMatchObject({ min: bounds.min, max: bounds.max })
      seen.push(bounds.min)
      now = until
    }
    expect(new Set(seen)).toEqual(new Set([2, 4]))
  })
})
