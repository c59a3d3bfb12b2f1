import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { createCalendar, nextMatch, previousMatch } from './calendar.ts'
import { parseCron } from './cron.ts'
import { InputError } from './errors.ts'

const iso = (ms: number | null, timeZone = 'UTC') =>
  ms === null ? null : Temporal.Instant.fromEpochMilliseconds(ms).toZonedDateTimeISO(timeZone).toString({ timeZoneName: 'never' })
const at = (text: string) => Temporal.Instant.from(text).epochMilliseconds
const next = (expression: string, timeZone: string, after: string) => iso(nextMatch(expression, timeZone, at(after)), timeZone)

const field = (min: number, max: number) =>
  fc.oneof(
    fc.constant('*'),
    fc.integer({ min: 2, max: 20 }).map((step) => `*/${Math.min(step, max)}`),
    fc.integer({ min, max }).map(String),
    fc.tuple(fc.integer({ min, max }), fc.integer({ min, max })).map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
    fc.array(fc.integer({ min, max }), { minLength: 1, maxLength: 4 }).map((values) => values.join(',')),
  )
const expressions = fc
  .tuple(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7))
  .map((fields) => fields.join(' '))
const zones = fc.constantFrom(
  'UTC',
  'Europe/Berlin',
  'America/New_York',
  'Australia/Lord_Howe',
  'America/Santiago',
  'Asia/Kathmandu',
)
const times = fc.integer({ min: at('2024-01-01T00:00:00Z'), max: at('2030-01-01T00:00:00Z') })

describe('times of an expression', () => {
  it.each([
    ['0 8 * * mon-fri', '2026-11-20T08:00:00Z', '2026-11-23T08:00:00+00:00'],
    ['*/15 9-10 * * *', '2026-11-20T09:47:00Z', '2026-11-20T10:00:00+00:00'],
    ['5,35 0 1 jan,jul *', '2026-01-01T00:05:00Z', '2026-01-01T00:35:00+00:00'],
    ['0 0 31 * *', '2026-11-20T00:00:00Z', '2026-12-31T00:00:00+00:00'],
    ['0 0 * * 7', '2026-11-20T00:00:00Z', '2026-11-22T00:00:00+00:00'],
    ['0 0 * * sat-sun', '2026-11-21T00:00:00Z', '2026-11-22T00:00:00+00:00'],
    ['0 0 29 2 *', '2096-03-01T00:00:00Z', '2104-02-29T00:00:00+00:00'],
    ['@daily', '2026-11-20T00:00:00Z', '2026-11-21T00:00:00+00:00'],
    ['@Weekly', '2026-11-20T00:00:00Z', '2026-11-22T00:00:00+00:00'],
  ])('%s after %s', (expression, after, expected) => {
    expect(next(expression, 'UTC', after)).toBe(expected)
  })

  it('day of month or day of week where both are restricted, both where one begins with a star', () => {
    expect(next('0 0 13 * fri', 'UTC', '2026-11-06T00:00:00Z')).toBe('2026-11-13T00:00:00+00:00')
    expect(next('0 0 13 * fri', 'UTC', '2026-11-13T00:00:00Z')).toBe('2026-11-20T00:00:00+00:00')
    expect(next('0 0 */2 * fri', 'UTC', '2026-11-06T00:00:00Z')).toBe('2026-11-13T00:00:00+00:00')
    expect(next('0 0 */2 * fri', 'UTC', '2026-11-13T00:00:00Z')).toBe('2026-11-27T00:00:00+00:00')
  })

  it('finds nothing where nothing can be', () => {
    expect(nextMatch('0 0 30 2 *', 'Europe/Berlin', 0)).toBeNull()
    expect(previousMatch('0 0 31 4,6 *', 'UTC', at('2026-01-01T00:00:00Z'))).toBeNull()
  })

  it('the previous match includes the moment asked for, the next one does not', () => {
    const noon = at('2026-11-20T12:00:00Z')
    expect(previousMatch('0 12 * * *', 'UTC', noon)).toBe(noon)
    expect(previousMatch('0 12 * * *', 'UTC', noon - 1)).toBe(noon - 86_400_000)
    expect(nextMatch('0 12 * * *', 'UTC', noon)).toBe(noon + 86_400_000)
  })
})

describe('daylight saving', () => {
  const zone = 'Europe/Berlin'

  it('a skipped time runs at the first moment after the gap', () => {
    expect(next('30 2 * * *', zone, '2026-03-28T12:00:00Z')).toBe('2026-03-29T03:00:00+02:00')
    expect(next('30 2 * * *', zone, '2026-03-29T01:00:00Z')).toBe('2026-03-30T02:30:00+02:00')
    expect(iso(previousMatch('30 2 * * *', zone, at('2026-03-29T12:00:00Z')), zone)).toBe('2026-03-29T03:00:00+02:00')
  })

  it('several skipped times run once', () => {
    expect(next('0,30 2,3 * * *', zone, '2026-03-29T00:30:00Z')).toBe('2026-03-29T03:00:00+02:00')
    expect(next('0,30 2,3 * * *', zone, '2026-03-29T01:00:00Z')).toBe('2026-03-29T03:30:00+02:00')
  })

  it('a repeated time runs once, the first time', () => {
    expect(next('30 2 * * *', zone, '2026-10-24T12:00:00Z')).toBe('2026-10-25T02:30:00+02:00')
    expect(next('30 2 * * *', zone, '2026-10-25T00:30:00Z')).toBe('2026-10-26T02:30:00+01:00')
  })

  it('an expression for every hour neither pauses in a repeated hour nor runs for a skipped one', () => {
    expect(next('30 * * * *', zone, '2026-10-25T00:30:00Z')).toBe('2026-10-25T02:30:00+01:00')
    expect(next('30 * * * *', zone, '2026-03-29T00:30:00Z')).toBe('2026-03-29T03:30:00+02:00')
  })

  it('a gap at midnight and a day that never was', () => {
    expect(next('0 0 * * *', 'America/Santiago', '2026-09-05T12:00:00Z')).toBe('2026-09-06T01:00:00-03:00')
    expect(next('0 12 30 12 *', 'Pacific/Apia', '2011-12-29T12:00:00Z')).toBe('2011-12-31T00:00:00+14:00')
  })
})

describe('properties', () => {
  it('previous ≤ t < next, and each is found from the other', () => {
    fc.assert(
      fc.property(expressions, zones, times, (expression, timeZone, t) => {
        const after = nextMatch(expression, timeZone, t)
        const before = previousMatch(expression, timeZone, t)
        if (before !== null) expect(before).toBeLessThanOrEqual(t)
        if (after === null) return
        expect(after).toBeGreaterThan(t)
        expect(previousMatch(expression, timeZone, after)).toBe(after)
        expect(previousMatch(expression, timeZone, after - 1)).toBe(before)
        if (before !== null) expect(nextMatch(expression, timeZone, before)).toBe(after)
      }),
      { numRuns: 300 },
    )
  })

  it('the same times as trying every minute around a clock change', () => {
    const around = fc.constantFrom(
      ['Europe/Berlin', '2026-03-28T20:00:00Z'],
      ['Europe/Berlin', '2026-10-24T20:00:00Z'],
      ['Australia/Lord_Howe', '2026-04-04T08:00:00Z'],
      ['Australia/Lord_Howe', '2026-10-03T08:00:00Z'],
      ['America/Santiago', '2026-04-04T20:00:00Z'],
      ['America/Santiago', '2026-09-05T20:00:00Z'],
    )
    const calendar = createCalendar()
    const walls = new Map<string, number>()
    fc.assert(
      fc.property(field(0, 59), field(0, 23), around, (minute, hour, [timeZone = '', start = '']) => {
        const expression = `${minute} ${hour} * * *`
        const found: number[] = []
        const end = at(start) + 16 * 3_600_000
        const following = (t: number) => calendar.around(expression, timeZone, t).nextMs
        for (let t = following(at(start)); t !== null && t <= end; t = following(t)) found.push(t)
        expect(found).toEqual(everyMinute(expression, timeZone, at(start), end, walls))
      }),
      { numRuns: 60 },
    )
  })
})

/** Walks real minutes as Vixie cron does: jumps forward run what was skipped, jumps back run nothing again. `walls` spares the platform. */
function everyMinute(
  expression: string,
  timeZone: string,
  afterMs: number,
  untilMs: number,
  walls: Map<string, number>,
): number[] {
  const read = parseCron(expression)
  if (!read.ok) throw new Error(read.fault.message)
  const { cron } = read
  const wall = (ms: number) => {
    const key = `${timeZone} ${ms}`
    const known = walls.get(key)
    if (known !== undefined) return known
    const local = Temporal.Instant.fromEpochMilliseconds(ms).toZonedDateTimeISO(timeZone)
    const minute = Date.UTC(local.year, local.month - 1, local.day, local.hour, local.minute) / 60_000
    walls.set(key, minute)
    return minute
  }
  const hits = (minuteOfEpoch: number) =>
    cron.minutes.includes(((minuteOfEpoch % 60) + 60) % 60) && cron.hours.includes(Math.floor(minuteOfEpoch / 60) % 24)
  const found: number[] = []
  let latest = wall(afterMs)
  for (let ms = afterMs + 60_000; ms <= untilMs; ms += 60_000) {
    const here = wall(ms)
    let isDue = cron.everyHour && hits(here)
    if (!cron.everyHour) for (let minute = latest + 1; minute <= here; minute += 1) isDue ||= hits(minute)
    if (isDue) found.push(ms)
    latest = Math.max(latest, here)
  }
  return found
}

describe('a calendar that remembers', () => {
  afterEach(() => vi.restoreAllMocks())

  it('answers as a search from the beginning does, whatever was asked before', () => {
    const calendar = createCalendar()
    fc.assert(
      fc.property(expressions, zones, times, fc.integer({ min: -90, max: 90 }), (expression, timeZone, t, days) => {
        for (const atMs of [t, t + 60_000, t + days * 86_400_000, t])
          expect(calendar.around(expression, timeZone, atMs)).toMatchObject({
            previousMs: previousMatch(expression, timeZone, atMs),
            nextMs: nextMatch(expression, timeZone, atMs),
          })
      }),
      { numRuns: 100 },
    )
  })

  it('asks for a zone once per stretch of time, also for what matches once in 28 years', () => {
    const asked = vi.spyOn(Temporal.Instant.prototype, 'toZonedDateTimeISO')
    const calendar = createCalendar()
    const found: (number | null)[] = []
    for (let minute = 0; minute < 50; minute += 1)
      found.push(calendar.around(`${minute} 0 29 2 */7`, 'America/New_York', 1_796_000_000_000).nextMs)
    expect(found).toEqual(found.map((_, minute) => Date.UTC(2032, 1, 29, 5, minute)))
    // One for each expression and day searched would be 600,000.
    expect(asked.mock.calls.length).toBeLessThan(20)
  })

  it('is not asked again before the next match', () => {
    const calendar = createCalendar()
    const first = calendar.around('0 8 * * *', 'UTC', at('2026-11-29T09:00:00Z'))
    expect(calendar.around('0 8 * * *', 'UTC', at('2026-11-30T07:59:59Z'))).toBe(first)
    expect(calendar.around('0 8 * * *', 'UTC', at('2026-11-30T08:00:00Z'))).not.toBe(first)
  })

  it('what was not checked before throws an InputError', () => {
    const calendar = createCalendar()
    expect(() => nextMatch('x', 'UTC', 0)).toThrow(InputError)
    expect(() => calendar.around('x', 'UTC', 0)).toThrow(InputError)
    expect(() => calendar.around('@daily', 'Europe/Berln', 0)).toThrow(/no time zone "Europe\/Berln"/)
  })
})
