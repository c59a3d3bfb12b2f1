/** The kinds of values that settings have: how each is written, read and checked. Pure. */
import { z } from 'zod'
import type { Parsed, Setting } from './settings.ts'
import { formatBytes, parseBytes, parseCpuMillis, parseDurationMs } from './units.ts'

interface Options<T> {
  readonly doc: string
  readonly default?: T
  /** How the default is written; needed where its text differs from the value's. */
  readonly defaultText?: string
  readonly secret?: boolean
}

function make<T>(kind: string, options: Options<T>, parse: (raw: unknown) => T | string | Wrapped<T>): Setting<T> {
  const hasDefault = options.default !== undefined
  return {
    kind,
    doc: options.doc,
    defaultText: options.defaultText ?? (hasDefault ? String(options.default) : null),
    ...(hasDefault ? { fallback: { value: options.default as T } } : {}),
    ...(options.secret ? { secret: true } : {}),
    parse(raw): Parsed<T> {
      const result = parse(raw)
      if (isWrapped<T>(result)) return { ok: true, value: result.value }
      return { ok: false, faults: [{ path: [], message: String(result) }] }
    },
  }
}

/** Marks a value as good, so that texts can be both values and complaints. */
interface Wrapped<T> {
  readonly wrapped: true
  readonly value: T
}
const good = <T>(value: T): Wrapped<T> => ({ wrapped: true, value })
function isWrapped<T>(result: unknown): result is Wrapped<T> {
  return typeof result === 'object' && result !== null && 'wrapped' in result
}

/** A secret must not come back in an error message. */
const shown = (raw: unknown): string => JSON.stringify(raw)?.slice(0, 80) ?? String(raw)

export function textSetting(options: Options<string>, pattern?: RegExp): Setting<string> {
  return make('text', options, (raw) => {
    if (typeof raw !== 'string' && typeof raw !== 'number') return 'Text is expected.'
    const text = String(raw)
    if (text.trim() === '') return 'The text is empty.'
    if (pattern && !pattern.test(text)) return `${options.secret ? 'The value' : shown(text)} does not have the expected form.`
    return good(text)
  })
}

export function booleanSetting(options: Options<boolean>): Setting<boolean> {
  return make('true or false', options, (raw) => {
    if (raw === true || raw === 'true') return good(true)
    if (raw === false || raw === 'false') return good(false)
    return `${shown(raw)} is neither true nor false.`
  })
}

export function oneOfSetting<const T extends string>(words: readonly T[], options: Options<T>): Setting<T> {
  return make(words.join(' | '), options, (raw) => {
    // YAML 1.2 keeps `off` a text; `false` is what a person coming from YAML 1.1 means by it.
    const word = raw === false && words.includes('off' as T) ? 'off' : raw
    const found = words.find((candidate) => candidate === word)
    return found === undefined ? `${shown(raw)} is none of ${words.join(', ')}.` : good(found)
  })
}

/** Milliseconds, written as "10m" or "1.5s". */
export function durationSetting(
  options: Omit<Options<number>, 'default'> & { readonly default: string },
  minMs = 1,
): Setting<number> {
  const fallback = parseDurationMs(options.default) ?? 0
  return make('duration such as 500ms, 30s, 10m, 24h', { ...options, default: fallback, defaultText: options.default }, (raw) => {
    const ms = typeof raw === 'string' ? parseDurationMs(raw) : null
    if (ms === null) return `${shown(raw)} is no duration.`
    return ms < minMs ? `${shown(raw)} is too short; at least ${minMs} ms.` : good(ms)
  })
}

/** Bytes, written as "512M" or "4G" (binary units). */
export function bytesSetting(
  options: Omit<Options<number>, 'default'> & { readonly default: string },
  range: { readonly min: number },
): Setting<number> {
  const fallback = parseBytes(options.default) ?? 0
  return make('size such as 512M or 4G', { ...options, default: fallback, defaultText: options.default }, (raw) => {
    const bytes = typeof raw === 'string' || typeof raw === 'number' ? parseBytes(raw) : null
    if (bytes === null) return `${shown(raw)} is no size such as 512M or 4G.`
    return bytes < range.min ? `${shown(raw)} is too small; at least ${formatBytes(range.min)}.` : good(bytes)
  })
}

export function numberSetting(options: Options<number>, range: { min: number; max: number; integer?: boolean }): Setting<number> {
  return make(`${range.integer ? 'whole number' : 'number'} from ${range.min} to ${range.max}`, options, (raw) => {
    const value = toNumber(raw)
    if (value === null || (range.integer && !Number.isInteger(value)))
      return `${shown(raw)} is no ${range.integer ? 'whole ' : ''}number.`
    return value < range.min || value > range.max ? `${value} is not within ${range.min} and ${range.max}.` : good(value)
  })
}

/** Like the setting given, but `off` stands for null. */
export function optional<T>(setting: Setting<T>, fallback: 'off' | 'none' = 'none'): Setting<T | null> {
  return {
    ...setting,
    kind: fallback === 'off' ? `${setting.kind}, or off` : setting.kind,
    defaultText: setting.defaultText ?? fallback,
    fallback: setting.fallback ?? { value: null },
    parse: (raw) => (raw === 'off' || raw === false ? { ok: true, value: null } : setting.parse(raw)),
  }
}

export interface HostPort {
  readonly host: string
  readonly port: number
}

/** `host:port`, `[::1]:port`, or `:port` for every address. Port 0 lets the system choose. */
export function hostPortSetting(options: Omit<Options<HostPort>, 'default'> & { readonly default: string }): Setting<HostPort> {
  return make(
    'host:port',
    { ...options, default: parseHostPort(options.default) ?? { host: '127.0.0.1', port: 0 }, defaultText: options.default },
    (raw) => {
      const parsed = typeof raw === 'string' ? parseHostPort(raw) : null
      return parsed === null ? `${shown(raw)} is no host:port.` : good(parsed)
    },
  )
}

/** The two parts of `host:port`, or null. An empty host stands for every address. */
function parseHostPort(text: string): HostPort | null {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:[\]/]*)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (!match || port > 65_535) return null
  return { host: match[1] ?? (match[2] === '' ? '0.0.0.0' : (match[2] ?? '')), port }
}

/** A list; in flags and variables its items are separated by commas. */
export function listSetting(
  options: Options<readonly string[]>,
  item: (text: string) => string | null,
  kind = 'list of texts',
): Setting<readonly string[]> {
  return make(
    kind,
    { ...options, defaultText: options.defaultText ?? (options.default?.length === 0 ? 'none' : String(options.default)) },
    (raw) => {
      const items = typeof raw === 'string' ? raw.split(',').map((part) => part.trim()) : raw
      if (!Array.isArray(items)) return 'A list is expected.'
      for (const entry of items) {
        const fault = typeof entry === 'string' && entry !== '' ? item(entry) : 'The list has an entry that is no text.'
        if (fault !== null) return fault
      }
      return good(items as string[])
    },
  )
}

/** A list of http(s) URLs without path, query or credentials. */
export function urlListSetting(options: Options<readonly string[]>): Setting<readonly string[]> {
  return listSetting(
    options,
    (text) => (isBaseUrl(text) ? null : `${shown(text)} is no URL such as https://host:7600.`),
    'list of URLs',
  )
}

export function isBaseUrl(text: string): boolean {
  if (!URL.canParse(text)) return false
  const url = new URL(text)
  const isPlain = url.username === '' && url.password === '' && url.search === '' && url.hash === ''
  return (url.protocol === 'http:' || url.protocol === 'https:') && isPlain && url.pathname === '/'
}

/** Labels: a mapping; in flags and variables `key=value,key=value`. */
export function labelsSetting(
  options: Omit<Options<Readonly<Record<string, string>>>, 'default'>,
): Setting<Readonly<Record<string, string>>> {
  return make('labels: key=value,key=value', { ...options, default: {}, defaultText: 'none' }, (raw) => {
    const entries: (readonly [string, unknown])[] = []
    if (typeof raw === 'string')
      for (const part of raw.split(',')) {
        const equals = part.indexOf('=')
        if (equals < 1) return `${shown(part)} is no key=value.`
        entries.push([part.slice(0, equals).trim(), part.slice(equals + 1).trim()])
      }
    else if (raw !== null && typeof raw === 'object' && !Array.isArray(raw)) entries.push(...Object.entries(raw))
    else return 'Labels are expected: keys and values.'
    for (const [key, value] of entries) {
      if (!/^[a-zA-Z0-9][a-zA-Z0-9._/-]{0,127}$/.test(key))
        return `${shown(key)} is no label: letters, digits, dots, dashes, slashes.`
      if (!['string', 'number', 'boolean'].includes(typeof value)) return `The label ${key} needs a text as its value.`
    }
    return good(Object.fromEntries(entries.map(([key, value]) => [key, String(value)])))
  })
}

/** A structure checked by a schema; only the file can give it. */
export function structureSetting<T>(
  schema: z.ZodType<T>,
  kind: string,
  options: { readonly doc: string; readonly default: T },
): Setting<T> {
  return {
    kind,
    doc: options.doc,
    defaultText: 'none',
    fallback: { value: options.default },
    fileOnly: true,
    parse(raw) {
      const result = schema.safeParse(raw)
      if (result.success) return { ok: true, value: result.data }
      return {
        ok: false,
        faults: result.error.issues.flatMap((issue) => {
          const path = issue.path.map((part) => (typeof part === 'number' ? part : String(part)))
          if (issue.code === 'unrecognized_keys')
            return issue.keys.map((key) => ({ path: [...path, key], message: 'There is no such key.' }))
          return [{ path, message: `${issue.message}.` }]
        }),
      }
    },
  }
}

/** Schema pieces for structures, in the same notation as the settings above. */
export const cpusSchema = z.union([z.string(), z.number()]).transform((raw, context) => {
  const millis = parseCpuMillis(raw)
  if (millis !== null && millis > 0) return millis
  context.addIssue({ code: 'custom', message: `${shown(raw)} is no number of CPUs` })
  return z.NEVER
})

export const bytesSchema = z.union([z.string(), z.number()]).transform((raw, context) => {
  const bytes = parseBytes(raw)
  if (bytes !== null) return bytes
  context.addIssue({ code: 'custom', message: `${shown(raw)} is no size such as 512M or 4G` })
  return z.NEVER
})

export const durationSchema = z.string().transform((raw, context) => {
  const ms = parseDurationMs(raw)
  if (ms !== null && ms > 0) return ms
  context.addIssue({ code: 'custom', message: `${shown(raw)} is no duration such as 30s or 10m` })
  return z.NEVER
})

function toNumber(raw: unknown): number | null {
  const value =
    typeof raw === 'number' ? raw : typeof raw === 'string' && /^-?\d+(\.\d+)?$/.test(raw.trim()) ? Number(raw) : Number.NaN
  return Number.isFinite(value) ? value : null
}
