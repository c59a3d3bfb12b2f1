/**
 * When a cron expression matches in a time zone. The time is an argument, and the same question always has the same answer.
 *
 * Daylight saving, as Vixie cron has it: a time that the clocks skip matches once, at the first moment after the gap; one that
 * they repeat matches once, at its first occurrence. An expression for every hour (`*` in the hour field) goes by the clock as it
 * shows: nothing in a gap, both times in a repeated hour, so that "every 15 minutes" never pauses.
 */
import { type CronExpression, parseCron } from './cron.ts'
import { InputError } from './errors.ts'
import { createZoneClock, DAY_MS, type Stretch, type ZoneClock } from './time-zone.ts'

/** The matches around a moment: previous ≤ moment < next. null: there is none. */
export interface Matches {
  readonly previousMs: number | null
  readonly nextMs: number | null
}

/** Remembers, within bounds, what it found: the calendar is searched once per match of an expression, whoever asks how often. */
export interface Calendar {
  /** Throws InputError for what `parseCron` or `isTimeZone` refuse. */
  around(expression: string, timeZone: string, atMs: number): Matches
}

interface Entry extends Matches {
  readonly cron: CronExpression
  readonly clock: ZoneClock
}

/** What has not come by then never comes: the longest wait is for a February 29 on a given weekday, 40 years over 2100. */
const MAX_SEARCH_MONTHS = 41 * 12
/** More expressions than this are searched again at each question. */
const MAX_ENTRIES = 10_000
/** All that there are, in one spelling. */
const MAX_ZONES = 1_000

export function createCalendar(): Calendar {
  const entries = new Map<string, Entry>()
  const clocks = new Map<string, ZoneClock>()
  const clockOf = (timeZone: string): ZoneClock => {
    let clock = clocks.get(timeZone)
    if (clock === undefined) {
      clock = createZoneClock(timeZone)
      if (clocks.size >= MAX_ZONES) clocks.clear()
      clocks.set(timeZone, clock)
    }
    return clock
  }
  return {
    around(expression, timeZone, atMs) {
      const key = `${timeZone}\n${expression}`
      const known = entries.get(key)
      if (known !== undefined && (known.previousMs ?? -Infinity) <= atMs && atMs < (known.nextMs ?? Infinity)) return known
      const cron = known?.cron ?? parsed(expression)
      const clock = known?.clock ?? clockOf(timeZone)
      const entry = { cron, clock, previousMs: search(cron, clock, atMs, -1), nextMs: search(cron, clock, atMs, 1) }
      if (known === undefined && entries.size >= MAX_ENTRIES)
        for (const oldest of entries.keys()) {
          entries.delete(oldest)
          break
        }
      entries.set(key, entry)
      return entry
    },
  }
}

/**
 * The first time after `afterMs` (epoch ms, exclusive) at which the expression matches in the time zone; null when there is none,
 * as for February 30. Throws InputError for what `parseCron` or `isTimeZone` refuse. Who asks often keeps a calendar.
 */
export function nextMatch(expression: string | CronExpression, timeZone: string, afterMs: number): number | null {
  return search(parsed(expression), createZoneClock(timeZone), afterMs, 1)
}

/** The last match at or before `atMs` (epoch ms, inclusive), so that always previous ≤ t < next; null and errors as in `nextMatch`. */
export function previousMatch(expression: string | CronExpression, timeZone: string, atMs: number): number | null {
  return search(parsed(expression), createZoneClock(timeZone), atMs, -1)
}

function parsed(expression: string | CronExpression): CronExpression {
  if (typeof expression !== 'string') return expression
  const read = parseCron(expression)
  if (read.ok) return read.cron
  const { message, hint, column } = read.fault
  const shown = expression.length > 40 ? `${expression.slice(0, 40)}…` : expression
  throw new InputError(`cron expression "${shown}": ${message}`, [{ path: '', message, hint, column }])
}

function search(cron: CronExpression, clock: ZoneClock, fromMs: number, step: 1 | -1): number | null {
  const fits = (atMs: number) => (step === 1 ? atMs > fromMs : atMs <= fromMs)
  // A day to spare: a gap may carry a time of the day before into this one.
  for (const day of matchingDays(cron, clock.dayOf(Math.floor(fromMs)) - step, step)) {
    const found = matchOnDay(cron, clock, day, fits, step)
    if (found !== null) return found
  }
  return null
}

/** Days that match, from `fromDay` on or back; months that do not match are passed over. Days count from 1970-01-01 in local dates. */
function* matchingDays(cron: CronExpression, fromDay: number, step: 1 | -1): Generator<number> {
  const from = new Date(fromDay * DAY_MS)
  let year = from.getUTCFullYear()
  let month = from.getUTCMonth()
  for (let months = 0; months <= MAX_SEARCH_MONTHS; months += 1) {
    if (cron.months.has(month + 1)) {
      const first = Date.UTC(year, month, 1) / DAY_MS
      const last = Date.UTC(year, month + 1, 1) / DAY_MS - 1
      const begin = step === 1 ? Math.max(first, fromDay) : Math.min(last, fromDay)
      for (let day = begin; day >= first && day <= last; day += step) if (matchesDay(cron, day, day - first + 1)) yield day
    }
    month += step
    if (month < 0 || month > 11) {
      year += step
      month = step === 1 ? 0 : 11
    }
  }
}

function matchesDay(cron: CronExpression, day: number, date: number): boolean {
  const ofMonth = cron.daysOfMonth.has(date)
  // 1970-01-01 was a Thursday.
  const ofWeek = cron.daysOfWeek.has((((day + 4) % 7) + 7) % 7)
  return cron.eitherDay ? ofMonth || ofWeek : ofMonth && ofWeek
}

function matchOnDay(
  cron: CronExpression,
  clock: ZoneClock,
  day: number,
  fits: (atMs: number) => boolean,
  step: 1 | -1,
): number | null {
  // Offsets reach from -12 to +14 hours: two days and a half on either side hold three local days.
  const stretches = clock.stretches((day - 2.5) * DAY_MS, (day + 3.5) * DAY_MS)
  const [first] = stretches
  const ordered = step === 1 ? ascending : descending
  if (stretches.length === 1 && first !== undefined) {
    const outermost = step === 1 ? 59 : 0
    for (const hour of ordered(cron.hours)) {
      if (!fits(localMs(day, hour, outermost) - first.offsetMs)) continue
      for (const minute of ordered(cron.minutes)) {
        const atMs = localMs(day, hour, minute) - first.offsetMs
        if (fits(atMs)) return atMs
      }
    }
    return null
  }
  // Clocks may be set back over midnight: then times of this day and of its neighbours are mixed.
  const offsets = stretches.map(({ offsetMs }) => offsetMs)
  const ahead = { most: Math.max(...offsets), least: Math.min(...offsets) }
  let best: number | null = null
  for (const each of [day - step, day, day + step]) {
    if (!matchesDate(cron, each)) continue
    for (const hour of ordered(cron.hours)) {
      // What this hour can be in real time, however the clocks are set; mostly too early, or later than what was found.
      const earliestMs = localMs(each, hour, 0) - ahead.most
      const latestMs = localMs(each, hour, 59) - ahead.least
      if (!fits(step === 1 ? latestMs : earliestMs)) continue
      if (best !== null && (step === 1 ? earliestMs >= best : latestMs <= best)) continue
      for (const atMs of instantsOf(cron, stretches, each, hour))
        if (fits(atMs) && (best === null || (step === 1 ? atMs < best : atMs > best))) best = atMs
    }
  }
  return best
}

function matchesDate(cron: CronExpression, day: number): boolean {
  const date = new Date(day * DAY_MS)
  return cron.months.has(date.getUTCMonth() + 1) && matchesDay(cron, day, date.getUTCDate())
}

/** Every match of one local hour near which the clocks are set. */
function* instantsOf(cron: CronExpression, stretches: readonly Stretch[], day: number, hour: number): Generator<number> {
  for (const minute of cron.minutes) {
    const local = localMs(day, hour, minute)
    let isSkipped = true
    for (const { fromMs, untilMs, offsetMs } of stretches) {
      const atMs = local - offsetMs
      if (atMs < fromMs || atMs >= untilMs) continue
      if (isSkipped || cron.everyHour) yield atMs
      isSkipped = false
    }
    if (!isSkipped || cron.everyHour) continue
    const before = stretches.findLast(({ untilMs, offsetMs }) => local - offsetMs >= untilMs)
    if (before !== undefined) yield before.untilMs
  }
}

/** The local time as if it were UTC. */
function localMs(day: number, hour: number, minute: number): number {
  return day * DAY_MS + hour * 3_600_000 + minute * 60_000
}

function ascending(values: readonly number[]): readonly number[] {
  return values
}

function descending(values: readonly number[]): readonly number[] {
  return values.toReversed()
}
