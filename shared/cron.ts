/**
 * Cron expressions of five fields (minute hour day-of-month month day-of-week), as POSIX crontab(5) and Vixie cron have them:
 * `*`, lists, ranges, steps, names of months and days, 7 for Sunday, and `@hourly` to `@yearly`. When they match tells calendar.ts. Pure.
 *
 * Day of month and day of week: when both are restricted a day matches that matches either, else one that matches both; a
 * field that begins with `*` is not restricted (Vixie's rule).
 */

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
