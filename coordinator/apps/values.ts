/**
 * Typed values out of a located tree. Each function answers undefined where nothing is written (or only null), and also where
 * what is written cannot be used: then the report has a fault at its place. Strings that interpolation left are cast as Compose
 * casts them.
 */
import { parseBytes, parseCpuMillis, parseDurationMs } from '../../shared/units.ts'
import { type KeyTable, SERVICE_KEYS } from './compose-schema.ts'
import { type Cursor, children, isNull, type Place } from './located.ts'
import { type Report, shorten, unknownKey } from './report.ts'

/** Longer than any wait that makes sense; keeps times within what timers can hold. */
const MAX_DURATION_MS = 20 * 24 * 3_600_000

/** The keys of a map that are supported and have a value. */
export interface Fields {
  readonly cursor: Cursor
  get(key: string): Cursor | undefined
}

/** Reads a map: unknown keys are faults with a suggestion, refused keys faults with the reason, ignored keys warnings. `x-*` passes. */
export function fields(report: Report, cursor: Cursor | undefined, table: KeyTable, what: string): Fields | undefined {
  if (cursor === undefined || isNull(cursor.node)) return undefined
  if (cursor.node.kind !== 'map') {
    report.fault(cursor, `${what} must be a map of keys`)
    return undefined
  }
  const present = new Map<string, Cursor>()
  for (const { key, keyAt, cursor: value } of children(cursor)) {
    if (key.startsWith('x-')) {
      if (key === 'x-rubato' && table !== SERVICE_KEYS)
        report.fault(
          { path: value.path, at: keyAt },
          '"x-rubato" belongs directly under a service',
          'move it to services.<name>.x-rubato',
        )
      continue
    }
    const rule = Object.hasOwn(table, key) ? table[key] : undefined
    const spot = { path: value.path, at: keyAt }
    if (rule === undefined) unknownKey(report, spot, key, Object.keys(table), what)
    else if (isEmpty(value)) continue
    else if (rule.status === 'refused') report.fault(spot, `"${key}" is not supported: ${rule.why}`, rule.hint)
    else if (rule.status === 'ignored') report.warn(spot, `"${key}" is ignored: ${rule.why}`)
    else present.set(key, value)
  }
  return { cursor, get: (key) => present.get(key) }
}

/** Text; numbers and booleans count as they are written. */
export function text(report: Report, cursor: Cursor | undefined, what: string): string | undefined {
  if (cursor === undefined || isNull(cursor.node)) return undefined
  if (cursor.node.kind !== 'scalar') {
    report.fault(cursor, `${what} must be text`)
    return undefined
  }
  return scalarText(cursor.node)
}

/** Text without control characters, of bounded length: names, paths, words. */
export function word(report: Report, cursor: Cursor | undefined, what: string, maxLength = 1024): string | undefined {
  const value = text(report, cursor, what)
  if (value === undefined || cursor === undefined) return undefined
  if (value === '' || value.length > maxLength || /[\0-\x1f\x7f]/.test(value)) {
    report.fault(cursor, value === '' ? `${what} is empty` : `${what} must be one line of at most ${maxLength} characters`)
    return undefined
  }
  return value
}

export function flag(report: Report, cursor: Cursor | undefined, what: string): boolean | undefined {
  if (cursor === undefined || isNull(cursor.node)) return undefined
  const value = cursor.node.kind === 'scalar' ? cursor.node.value : null
  if (typeof value === 'boolean') return value
  const lower = String(value).toLowerCase()
  if (['true', 'yes', 'on', 'y', '1'].includes(lower)) return true
  if (['false', 'no', 'off', 'n', '0'].includes(lower)) return false
  report.fault(cursor, `${what} must be true or false`)
  return undefined
}

export function integer(
  report: Report,
  cursor: Cursor | undefined,
  what: string,
  range: { readonly min: number; readonly max: number },
): number | undefined {
  const value = number(report, cursor, what)
  if (value === undefined || cursor === undefined) return undefined
  if (Number.isInteger(value) && value >= range.min && value <= range.max) return value
  report.fault(cursor, `${what} must be a whole number from ${range.min} to ${range.max}`)
  return undefined
}

export function number(report: Report, cursor: Cursor | undefined, what: string): number | undefined {
  if (cursor === undefined || isNull(cursor.node)) return undefined
  const value = cursor.node.kind === 'scalar' ? cursor.node.value : null
  const parsed =
    typeof value === 'number'
      ? value
      : typeof value === 'string' && /^[+-]?(\d+\.?\d*|\.\d+)$/.test(value.trim())
        ? Number(value)
        : Number.NaN
  if (Number.isFinite(parsed)) return parsed
  report.fault(cursor, `${what} must be a number`)
  return undefined
}

export function durationMs(report: Report, cursor: Cursor | undefined, what: string): number | undefined {
  const value = text(report, cursor, what)
  if (value === undefined || cursor === undefined) return undefined
  const parsed = parseDurationMs(value)
  if (parsed !== null && parsed <= MAX_DURATION_MS) return parsed
  const bare = /^\d+$/.test(value)
  report.fault(
    cursor,
    parsed === null ? `${what} must be a duration such as "30s" or "1m30s"` : `${what} must be at most 20 days`,
    bare && parsed === null ? `write "${value}s" for seconds` : undefined,
  )
  return undefined
}

export function bytes(report: Report, cursor: Cursor | undefined, what: string): number | undefined {
  const value = text(report, cursor, what)
  if (value === undefined || cursor === undefined) return undefined
  const parsed = parseBytes(value)
  if (parsed !== null) return parsed
  const kubernetes = /^(\d+(?:\.\d+)?)([KMGT])i$/.exec(value)
  report.fault(
    cursor,
    `${what} must be a size such as "512M" or "2g"`,
    kubernetes === null ? undefined : `write "${kubernetes[1]}${kubernetes[2]}"; units are binary`,
  )
  return undefined
}

export function cpuMillis(report: Report, cursor: Cursor | undefined, what: string): number | undefined {
  const value = text(report, cursor, what)
  if (value === undefined || cursor === undefined) return undefined
  const parsed = parseCpuMillis(value.startsWith('.') ? `0${value}` : value)
  if (parsed !== null && parsed <= 10_000_000) return parsed
  const milli = /^(\d+)m$/.exec(value)
  report.fault(
    cursor,
    `${what} must be a number of CPUs such as "0.5"`,
    milli === null ? undefined : `write "${Number(milli[1]) / 1000}"`,
  )
  return undefined
}

export function oneOf<T extends string>(
  report: Report,
  cursor: Cursor | undefined,
  what: string,
  allowed: readonly T[],
): T | undefined {
  const value = text(report, cursor, what)
  if (value === undefined || cursor === undefined) return undefined
  const found = allowed.find((candidate) => candidate === value)
  if (found === undefined) report.fault(cursor, `${what} must be ${listed(allowed)}, not "${shorten(value)}"`)
  return found
}

/** A list of texts, or a single text where Compose allows it. Each with its place. */
export function texts(
  report: Report,
  cursor: Cursor | undefined,
  what: string,
  single = true,
): { value: string; cursor: Cursor }[] {
  if (cursor === undefined || isNull(cursor.node)) return []
  const items = cursor.node.kind === 'list' ? children(cursor).map((item) => item.cursor) : [cursor]
  if (cursor.node.kind === 'map' || (cursor.node.kind === 'scalar' && !single)) {
    report.fault(cursor, `${what} must be a list${single ? ' or text' : ''}`)
    return []
  }
  return items.flatMap((item) => {
    if (item.node.kind === 'scalar' && item.node.value !== null) return [{ value: scalarText(item.node), cursor: item }]
    report.fault(item, `an item of ${what} must be text`)
    return []
  })
}

/** One of a map or of a `NAME=value` list; a null value is one that was not given. A later one of a name wins. */
export function pairs(
  report: Report,
  cursor: Cursor | undefined,
  what: string,
): { name: string; value: string | null; cursor: Cursor; nameAt: Place }[] {
  if (cursor === undefined || isNull(cursor.node)) return []
  if (cursor.node.kind === 'map')
    return children(cursor).flatMap(({ key, keyAt, cursor: value }) => {
      if (value.node.kind !== 'scalar') {
        report.fault(value, `the value of ${shorten(key)} in ${what} must be text, a number, true or false`)
        return []
      }
      if (key === '' || key.includes('=')) {
        report.fault({ path: value.path, at: keyAt }, `"${shorten(key)}" is no name for ${what}`)
        return []
      }
      return [{ name: key, value: value.node.value === null ? null : scalarText(value.node), cursor: value, nameAt: keyAt }]
    })
  if (cursor.node.kind !== 'list') {
    report.fault(cursor, `${what} must be a map, or a list of NAME=value`)
    return []
  }
  return texts(report, cursor, what).flatMap((item) => {
    const at = item.value.indexOf('=')
    const name = at < 0 ? item.value : item.value.slice(0, at)
    if (name !== '' && name !== '__proto__')
      return [{ name, value: at < 0 ? null : item.value.slice(at + 1), cursor: item.cursor, nameAt: item.cursor.at }]
    report.fault(item.cursor, `an item of ${what} must be NAME=value`)
    return []
  })
}

/** A record of pairs; what was not given is ''. */
export function record(report: Report, cursor: Cursor | undefined, what: string): Record<string, string> {
  return Object.fromEntries(pairs(report, cursor, what).map((pair) => [pair.name, pair.value ?? '']))
}

/** `a, b or c`. */
export function listed(words: readonly string[]): string {
  const quoted = words.map((item) => `"${item}"`)
  return quoted.length < 2 ? (quoted[0] ?? '') : `${quoted.slice(0, -1).join(', ')} or ${quoted.at(-1)}`
}

/** The value as written; a plain number or boolean keeps its spelling (`1.10` stays `1.10`). */
function scalarText(node: {
  readonly value: string | number | boolean | null
  readonly text: string
  readonly plain: boolean
}): string {
  return typeof node.value === 'string' ? node.value : node.text
}

/** A file mode in octal: `0440` and `"0440"` both mean it. */
export function fileMode(report: Report, cursor: Cursor | undefined, what: string): number | undefined {
  const value = text(report, cursor, what)
  if (value === undefined || cursor === undefined) return undefined
  const match = /^(?:0o?)?([0-7]{1,4})$/.exec(value)
  if (match !== null) {
    // A plain number without leading zero is decimal in YAML, as Compose takes it.
    const isDecimal = cursor.node.kind === 'scalar' && typeof cursor.node.value === 'number' && /^[1-9]/.test(value)
    return isDecimal ? Number(value) & 0o7777 : Number.parseInt(match[1] ?? '0', 8)
  }
  if (/^[1-9]\d{0,3}$/.test(value) && Number(value) <= 0o7777) return Number(value)
  report.fault(cursor, `${what} must be an octal file mode such as 0440`)
  return undefined
}

function isEmpty(cursor: Cursor): boolean {
  return isNull(cursor.node)
}
