/**
 * Cron expressions of five fields (minute hour day-of-month month day-of-week), as POSIX crontab(5) and Vixie cron have them:
 * `*`, lists, ranges, steps, names of months and days, 7 for Sunday, and `@hourly` to `@yearly`. Pure: the time is an argument.
 *
 * Day of month and day of week: when both are restricted a day matches that matches either, else one that matches both; a
 * field that begins with `*` is not restricted (Vixie's rule).
 *
 * Daylight saving, also Vixie's: a time that the clocks skip matches once, at the first moment after the gap; one that they
 * repeat matches once, at its first occurrence. An expression for every hour (`*` in the hour field) goes by the clock as it
 * shows: nothing in a gap, both times in a repeated hour, so that "every 15 minutes" never pauses.
 */
import { InputError } from './errors.ts'

/** A parsed expression. Sorted, ascending, never empty. Days of the week 0–6, 0 is Sunday; months 1–12. */
export interface CronExpression {
  readonly minutes: readonly number[]
  readonly hours: readonly number[]
  readonly daysOfMonth: ReadonlySet<number>
  readonly months: ReadonlySet<number>
  readonly daysOfWeek: ReadonlySet<number>
  /** Whether a day has to match one of the two day fields only. */
  readonly eitherDay: boolean
  /** The hour field is `*`. */
  readonly everyHour: boolean
}

/** What is wrong with an expression; `column` is 1-based within it. */
export interface CronFault {
  readonly column: number
  readonly message: string
  readonly hint: string
}

export type CronReading = { readonly ok: true; readonly cron: CronExpression } | { readonly ok: false; readonly fault: CronFault }

/** What has not come by then never comes: the longest wait is for a February 29 on a given weekday, 40 years over 2100. */
const MAX_SEARCH_DAYS = 41 * 366

interface Field {
  readonly name: string
  readonly min: number
  readonly max: number
  readonly names: readonly string[]
}

const FIELDS: readonly Field[] = [
  { name: 'minute', min: 0, max: 59, names: [] },
  { name: 'hour', min: 0, max: 23, names: [] },
  { name: 'day of month', min: 1, max: 31, names: [] },
  { name: 'month', min: 1, max: 12, names: ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'] },
  { name: 'day of week', min: 0, max: 7, names: ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'] },
]

const MACROS: Readonly<Record<string, string>> = {
  '@yearly': '0 0 1 1 *',
  '@annually': '0 0 1 1 *',
  '@monthly': '0 0 1 * *',
  '@weekly': '0 0 * * 0',
  '@daily': '0 0 * * *',
  '@midnight': '0 0 * * *',
  '@hourly': '0 * * * *',
}

const DAY_MS = 86_400_000
const EXAMPLE = 'five fields: minute hour day-of-month month day-of-week, for example "0 8 * * mon-fri"'

/** Parses an expression; a fault says where and how to mend it. Accepts nothing beyond five fields and the macros. */
export function parseCron(text: string): CronReading {
  const trimmed = text.trim().toLowerCase()
  if (trimmed.startsWith('@')) {
    const expanded = Object.hasOwn(MACROS, trimmed) ? MACROS[trimmed] : undefined
    if (expanded !== undefined) return parseCron(expanded)
    return failed(
      text.indexOf('@') + 1,
      `"${short(text.trim())}" is no known shorthand`,
      `one of ${Object.keys(MACROS).join(', ')}`,
    )
  }
  const words = [...text.matchAll(/\S+/g)]
  if (words.length !== FIELDS.length) {
    const hint = words.length === 6 ? `${EXAMPLE}; there are no seconds and no years` : EXAMPLE
    return failed((words[FIELDS.length]?.index ?? text.trimEnd().length) + 1, `has ${words.length} fields instead of 5`, hint)
  }
  const sets: (readonly number[])[] = []
  for (const [index, field] of FIELDS.entries()) {
    const word = words[index]
    if (word === undefined) continue
    const read = readField(word[0].toLowerCase(), field, word.index + 1)
    if ('message' in read) return { ok: false, fault: read }
    sets.push(read.values)
  }
  const [minutes = [], hours = [], daysOfMonth = [], months = [], daysOfWeek = []] = sets
  const isRestricted = (index: number) => words[index]?.[0].startsWith('*') !== true
  return {
    ok: true,
    cron: {
      minutes,
      hours,
      daysOfMonth: new Set(daysOfMonth),
      months: new Set(months),
      daysOfWeek: new Set(daysOfWeek.map((day) => day % 7)),
      eitherDay: isRestricted(2) && isRestricted(4),
      everyHour: words[1]?.[0] === '*',
    },
  }
}

/** Whether it names a time zone of the IANA database that this host knows; offsets such as `+02:00` are none. */
export function isTimeZone(name: string): boolean {
  if (!/^[A-Za-z]/.test(name)) return false
  try {
    new Intl.DateTimeFormat('en', { timeZone: name })
    return true
  } catch {
    // The only way the platform tells that it does not know one.
    return false
  }
}

/**
 * The first time after `afterMs` (epoch ms, exclusive) at which the expression matches in the time zone; null when there
 * is none, as for February 30. Throws InputError for what `parseCron` or `isTimeZone` refuse. Costs one step per day searched.
 */
export function nextMatch(expression: string | CronExpression, timeZone: string, afterMs: number): number | null {
  return search(parsed(expression), zone(timeZone), afterMs, 1)
}

/** The last match at or before `atMs` (epoch ms, inclusive), so that always previous ≤ t < next; null and errors as in `nextMatch`. */
export function previousMatch(expression: string | CronExpression, timeZone: string, atMs: number): number | null {
  return search(parsed(expression), zone(timeZone), atMs, -1)
}

function parsed(expression: string | CronExpression): CronExpression {
  if (typeof expression !== 'string') return expression
  const read = parseCron(expression)
  if (read.ok) return read.cron
  const { message, hint, column } = read.fault
  throw new InputError(`cron expression "${short(expression)}": ${message}`, [{ path: '', message, hint, column }])
}

function zone(name: string): string {
  if (isTimeZone(name)) return name
  throw new InputError(`there is no time zone "${short(name)}"`, [
    { path: '', message: 'is not in the IANA database', hint: 'for example "Europe/Berlin" or "UTC"' },
  ])
}

function search(cron: CronExpression, timeZone: string, fromMs: number, step: 1 | -1): number | null {
  const local = Temporal.Instant.fromEpochMilliseconds(Math.floor(fromMs)).toZonedDateTimeISO(timeZone)
  const today = Date.UTC(local.year, local.month - 1, local.day) / DAY_MS
  const fits = (atMs: number) => (step === 1 ? atMs > fromMs : atMs <= fromMs)
  // A day to spare on either side: a gap may carry a time of the day before into this one.
  for (let offset = -1; offset <= MAX_SEARCH_DAYS; offset += 1) {
    const day = today + offset * step
    if (!matchesDay(cron, day)) continue
    const found = matchOnDay(cron, timeZone, day, fits, step)
    if (found !== null) return found
  }
  return null
}

/** `day` counts from 1970-01-01 in local dates. */
function matchesDay(cron: CronExpression, day: number): boolean {
  const date = new Date(day * DAY_MS)
  if (!cron.months.has(date.getUTCMonth() + 1)) return false
  const ofMonth = cron.daysOfMonth.has(date.getUTCDate())
  const ofWeek = cron.daysOfWeek.has(date.getUTCDay())
  return cron.eitherDay ? ofMonth || ofWeek : ofMonth && ofWeek
}

/** A stretch of time [fromMs, untilMs) in which the local clock is `offsetMs` ahead of UTC. */
interface Stretch {
  readonly fromMs: number
  readonly untilMs: number
  readonly offsetMs: number
}

function matchOnDay(
  cron: CronExpression,
  timeZone: string,
  day: number,
  fits: (atMs: number) => boolean,
  step: 1 | -1,
): number | null {
  const stretches = stretchesAround(timeZone, day)
  const [first] = stretches
  if (stretches.length === 1 && first !== undefined) {
    const ordered = step === 1 ? ascending : descending
    for (const hour of ordered(cron.hours))
      for (const minute of ordered(cron.minutes)) {
        const atMs = localMs(day, hour, minute) - first.offsetMs
        if (fits(atMs)) return atMs
      }
    return null
  }
  // Clocks may be set back over midnight: then times of this day and of its neighbours are mixed.
  let best: number | null = null
  for (const each of [day - 1, day, day + 1])
    if (matchesDay(cron, each))
      for (const atMs of instantsOf(cron, stretches, each))
        if (fits(atMs) && (best === null || (step === 1 ? atMs < best : atMs > best))) best = atMs
  return best
}

/** The stretches that this local day and its neighbours may touch; a single one on almost every day. */
function stretchesAround(timeZone: string, day: number): readonly Stretch[] {
  // Offsets reach from -12 to +14 hours: two days and a half on either side hold three local days.
  const endMs = day * DAY_MS + 3.5 * DAY_MS
  let at = Temporal.Instant.fromEpochMilliseconds(day * DAY_MS - 2.5 * DAY_MS).toZonedDateTimeISO(timeZone)
  const stretches: Stretch[] = []
  let fromMs = Number.NEGATIVE_INFINITY
  for (;;) {
    const offsetMs = at.offsetNanoseconds / 1_000_000
    const next = at.getTimeZoneTransition('next')
    if (next === null || next.epochMilliseconds >= endMs) {
      stretches.push({ fromMs, untilMs: Number.POSITIVE_INFINITY, offsetMs })
      return stretches
    }
    stretches.push({ fromMs, untilMs: next.epochMilliseconds, offsetMs })
    fromMs = next.epochMilliseconds
    at = next
  }
}

/** Every match of one local day near which the clocks are set. */
function* instantsOf(cron: CronExpression, stretches: readonly Stretch[], day: number): Generator<number> {
  for (const hour of cron.hours)
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

function readField(word: string, field: Field, column: number): { readonly values: readonly number[] } | CronFault {
  const values = new Set<number>()
  let at = column
  for (const item of word.split(',')) {
    const read = readItem(item, field, at)
    if ('message' in read) return read
    for (let value = read.from; value <= read.to; value += read.step) values.add(value)
    at += item.length + 1
  }
  return { values: [...values].sort((a, b) => a - b) }
}

function readItem(item: string, field: Field, column: number): { from: number; to: number; step: number } | CronFault {
  const range = `${field.name} is ${field.min}–${field.max}${field.names.length > 0 ? `, or ${field.names[0]}–${field.names.at(-1)}` : ''}`
  const [, span = '', , stepText] = /^([^/]*)(\/(.*))?$/.exec(item) ?? []
  const step = stepText === undefined ? 1 : /^\d{1,4}$/.test(stepText) ? Number(stepText) : 0
  if (stepText !== undefined && (step < 1 || step > field.max))
    return fault(
      column + span.length + 1,
      `the step "${short(stepText)}" of ${field.name} must be 1–${field.max}`,
      'as in "*/15"',
    )
  if (span === '*') return { from: field.min, to: field.max === 7 ? 6 : field.max, step }
  const [fromText = '', toText, more] = span.split('-')
  const from = numberOf(fromText, field, false)
  if (from === null)
    return fault(column, item === '' ? `${field.name} has an empty item` : `"${short(fromText)}" is no ${field.name}`, range)
  if (toText === undefined) {
    if (stepText === undefined) return { from, to: from, step }
    return fault(column, `a step needs a range before it`, `write "${fromText}-${field.max}/${step}" or "*/${step}"`)
  }
  const toColumn = column + fromText.length + 1
  const to = more === undefined ? numberOf(toText, field, true) : null
  if (to === null) return fault(toColumn, `"${short(span.slice(fromText.length + 1))}" is no ${field.name}`, range)
  if (to < from) {
    const last = field.names.at(-1) ?? field.max
    const first = field.names[0] ?? field.min
    return fault(column, `the range "${short(span)}" runs backwards`, `write "${fromText}-${last},${first}-${toText}"`)
  }
  return { from, to, step }
}

/** Sunday ends a week as well as it begins one: `sat-sun` is a range. */
function numberOf(text: string, field: Field, isEnd: boolean): number | null {
  const named = field.names.indexOf(text)
  if (named >= 0) return named === 0 && isEnd && field.max === 7 ? 7 : named + field.min
  const value = /^\d{1,2}$/.test(text) ? Number(text) : -1
  return value >= field.min && value <= field.max ? value : null
}

function failed(column: number, message: string, hint: string): CronReading {
  return { ok: false, fault: fault(column, message, hint) }
}

function fault(column: number, message: string, hint: string): CronFault {
  return { column, message, hint }
}

function short(text: string): string {
  return text.length > 40 ? `${text.slice(0, 40)}…` : text
}
