/** Reads `x-rubato` and the `rubato.*` labels of a service, every fault at its own place. */
import type { Affinity } from '../../shared/model/app.ts'
import type { AccessPolicy, LoadPull, LoadSource, Probe } from '../../shared/model/unit.ts'
import { parseDurationMs } from '../../shared/units.ts'
import type { z } from 'zod'
import { child, type Cursor, descend, isNull, pointerTo, toPlain } from './located.ts'
import { type Report, shorten, unknownKey } from './report.ts'
import { nearest } from '../../shared/nearest.ts'
import { listed } from './values.ts'
import { type XRubato, xRubatoSchema } from './x-rubato-schema.ts'

/** Times and thresholds where a file says nothing. */
export const SCALE_DEFAULTS = {
  lowPercent: 60,
  highPercent: 80,
  windowMs: 30_000,
  downWindowMs: 120_000,
  coolDownMs: 20_000,
} as const
export const DEFAULT_DRAIN_MS = 10_000
/** How long a strict singleton outlives the loss of the coordinator. */
export const DEFAULT_SINGLETON_MS = 60_000
/** Agents are answered every 5 s: with less, a lost answer or a slow network would end what has contact. */
export const MIN_SINGLETON_MS = 15_000
const DEFAULT_PULL_MS = 2_000

export interface XRubatoReading {
  readonly value: XRubato
  /** Where the whole of it stands (or the service itself when there is none). */
  readonly cursor: Cursor
}

/** `x-rubato` of a service, checked against its schema; {} when absent, and where it is wrong (then there are faults). */
export function readXRubato(report: Report, service: Cursor): XRubatoReading {
  const cursor = child(service, 'x-rubato')
  if (cursor === undefined) {
    if (service.node.kind === 'map')
      for (const entry of service.node.entries)
        if (entry.key.startsWith('x-') && nearest(entry.key, ['x-rubato']) !== null)
          report.warn(
            { path: pointerTo(service.path, entry.key), at: entry.at },
            `"${shorten(entry.key)}" is left alone like every "x-" key; did you mean "x-rubato"?`,
          )
    return { value: {}, cursor: service }
  }
  if (isNull(cursor.node)) return { value: {}, cursor }
  const parsed = xRubatoSchema.safeParse(toPlain(cursor.node), { reportInput: true })
  if (parsed.success) return { value: parsed.data, cursor }
  for (const issue of parsed.error.issues) schemaFault(report, cursor, issue)
  return { value: {}, cursor }
}

/** The place of a part of `x-rubato`, for faults found later. */
export function partOf(reading: XRubatoReading, ...path: (string | number)[]): Cursor {
  return descend(reading.cursor, path)
}

/** Where the load comes from: `x-rubato`, else the `rubato.load.*` labels, else CPU. */
export function loadSources(
  report: Report,
  reading: XRubatoReading,
  labels: ReadonlyMap<string, { readonly value: string; readonly cursor: Cursor }>,
  firstPort: number | null,
): LoadSource[] {
  const pull = pullOf(report, reading, firstPort) ?? pullOfLabels(report, labels, firstPort)
  const kinds = loadKinds(reading)
  const chosen = kinds.length > 0 ? kinds : pull !== null ? (['custom'] as const) : (['cpu'] as const)
  if (pull !== null && !chosen.includes('custom'))
    report.warn(partOf(reading, 'scale', 'load'), 'the load that is asked for does not count: scale.load does not name "custom"')
  return [...new Set(chosen)].map((kind): LoadSource => {
    if (kind === 'custom') return pull === null ? { kind } : { kind, pull }
    if (kind === 'requests') return { kind, capacity: reading.value.scale?.capacity ?? 1 }
    return { kind }
  })
}

/** Who may call. `services` are the names of this app's services. */
export function accessPolicy(
  report: Report,
  reading: XRubatoReading,
  app: string,
  services: ReadonlySet<string>,
  isPublished: boolean,
): AccessPolicy {
  const access = reading.value.access
  const nobodyNamed = { allow: [], roles: [], methods: [], pathPrefixes: [] }
  if (access === undefined) return { public: isPublished, sameApp: true, anyKey: true, ...nobodyNamed }
  if (access.signed === 'required')
    report.fault(
      partOf(reading, 'access', 'signed'),
      'requests cannot be required to be signed yet',
      'remove it: a key is required in any case',
    )
  else if (access.signed === 'optional')
    report.warn(partOf(reading, 'access', 'signed'), 'signatures are not looked at yet; a key is')
  if (access.public === true && access.allow !== undefined)
    report.fault(partOf(reading, 'access', 'allow'), 'access is public, so "allow" would mean nothing', 'remove one of the two')
  const allow: string[] = []
  const roles: string[] = []
  for (const [index, item] of (access.allow ?? []).entries()) {
    if (item.startsWith('role:')) {
      if (item.length > 5) roles.push(item.slice(5))
      else report.fault(partOf(reading, 'access', 'allow', index), '"role:" without the name of a role')
    } else if (/^[\w.-]+(\/[\w.-]+)?$/.test(item)) allow.push(...(services.has(item) ? [item, `${app}/${item}`] : [item]))
    else
      report.fault(
        partOf(reading, 'access', 'allow', index),
        `"${shorten(item)}" is no name of a key or service, and no "role:…"`,
      )
  }
  const anyone = access.allow === undefined
  return {
    public: access.public ?? false,
    sameApp: anyone,
    anyKey: anyone,
    allow: [...new Set(allow)],
    roles: [...new Set(roles)],
    methods: access.methods ?? [],
    pathPrefixes: access.paths ?? [],
  }
}

/** True where callers must show a key, so that the port has to speak http. */
export function needsKeys(value: XRubato): boolean {
  const access = value.access
  return access !== undefined && (access.public !== true || access.methods !== undefined || access.paths !== undefined)
}

/** Affinity rules; faults for names that are no service of the app. */
export function affinityRules(report: Report, reading: XRubatoReading, services: ReadonlySet<string>): Affinity | null {
  const affinity = reading.value.affinity
  if (affinity === undefined) return null
  for (const side of ['near', 'avoid'] as const)
    for (const [index, item] of (affinity[side] ?? []).entries())
      if (!item.includes('/') && !services.has(item)) {
        const near = nearest(item, services)
        report.fault(
          partOf(reading, 'affinity', side, index),
          `this app has no service "${shorten(item)}"`,
          near === null ? 'a service of another app is "app/service"' : `did you mean "${near}"?`,
        )
      }
  return { near: affinity.near ?? [], avoid: affinity.avoid ?? [], required: affinity.required ?? false }
}

/** The probe of `x-rubato.health`, or null when there is none. */
export function probeOf(report: Report, reading: XRubatoReading, firstPort: number | null): Probe | null {
  const health = reading.value.health
  if (health === undefined) return null
  const cursor = partOf(reading, 'health')
  if ((health.http === undefined) === (health.tcp === undefined)) {
    report.fault(cursor, 'health needs either "http" or "tcp"')
    return null
  }
  const port = health.port ?? firstPort
  if (port === null) {
    report.fault(cursor, 'health needs "port": the service has no port')
    return null
  }
  return health.http === undefined ? { kind: 'tcp', port } : { kind: 'http', port, path: health.http }
}

/** Milliseconds of a duration that the schema has checked. */
export function ms(value: string | undefined): number | undefined {
  return value === undefined ? undefined : (parseDurationMs(value) ?? 0)
}

/** The load sources that the file names; empty where it names none. */
export function loadKinds(reading: XRubatoReading): readonly LoadSource['kind'][] {
  const load = reading.value.scale?.load
  return load === undefined ? [] : typeof load === 'string' ? [load] : load
}

function pullOf(report: Report, reading: XRubatoReading, firstPort: number | null): LoadPull | null {
  const load = reading.value.load
  if (load === undefined) return null
  const cursor = partOf(reading, 'load')
  if ((load.url === undefined) === (load.prometheus === undefined)) {
    report.fault(cursor, 'load needs either "url" or "prometheus"')
    return null
  }
  const target = load.url === undefined ? null : parseLoadUrl(load.url)
  const port = load.port ?? target?.port ?? firstPort
  const intervalMs = Math.max(500, ms(load.interval) ?? DEFAULT_PULL_MS)
  if (port === null) {
    report.fault(cursor, 'load needs "port": the service has no port')
    return null
  }
  if (load.prometheus !== undefined)
    return {
      kind: 'prometheus',
      port,
      path: load.prometheus.path ?? '/metrics',
      metric: load.prometheus.metric,
      full: load.prometheus.full,
      intervalMs,
    }
  return { kind: 'json', port, path: target?.path ?? '/', pointer: load.pointer ?? target?.pointer ?? '', intervalMs }
}

const LOAD_LABELS = ['url', 'pointer', 'port', 'prometheus', 'path', 'interval'].map((name) => `rubato.load.${name}`)

function pullOfLabels(
  report: Report,
  labels: ReadonlyMap<string, { readonly value: string; readonly cursor: Cursor }>,
  firstPort: number | null,
): LoadPull | null {
  for (const [name, { cursor }] of labels)
    if (name.startsWith('rubato.load.') && !LOAD_LABELS.includes(name)) unknownKey(report, cursor, name, LOAD_LABELS, 'labels')
  const url = labels.get('rubato.load.url')
  const prometheus = labels.get('rubato.load.prometheus')
  const source = url ?? prometheus
  if (source === undefined) return null
  const target = url === undefined ? null : parseLoadUrl(url.value)
  if (url !== undefined && target === null) {
    report.fault(url.cursor, 'rubato.load.url must be [:port]/path[#/json/pointer]')
    return null
  }
  const given = labels.get('rubato.load.port')?.value
  const port = given === undefined ? (target?.port ?? firstPort) : Number(given)
  if (port === null || !Number.isInteger(port) || port < 1 || port > 65_535) {
    report.fault(labels.get('rubato.load.port')?.cursor ?? source.cursor, 'the load needs a port: set the label rubato.load.port')
    return null
  }
  const intervalMs = Math.max(500, parseDurationMs(labels.get('rubato.load.interval')?.value ?? '') ?? DEFAULT_PULL_MS)
  if (target !== null)
    return {
      kind: 'json',
      port,
      path: target.path,
      pointer: labels.get('rubato.load.pointer')?.value ?? target.pointer,
      intervalMs,
    }
  const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)\/(\d+(?:\.\d+)?)$/.exec(prometheus?.value ?? '')
  if (match === null || Number(match[2]) === 0) {
    report.fault(source.cursor, 'rubato.load.prometheus must be metric/full, such as "queue_depth/100"')
    return null
  }
  return {
    kind: 'prometheus',
    port,
    path: labels.get('rubato.load.path')?.value ?? '/metrics',
    metric: match[1] ?? '',
    full: Number(match[2]),
    intervalMs,
  }
}

function parseLoadUrl(url: string): { port: number | null; path: string; pointer: string } | null {
  const match = /^(?:https?:\/\/[^/:\s]*)?(?::(\d{1,5}))?(\/[^\s#]*)(?:#(\/[^\s]*)?)?$/.exec(url)
  if (match === null) return null
  return { port: match[1] === undefined ? null : Number(match[1]), path: match[2] ?? '/', pointer: match[3] ?? '' }
}

function schemaFault(report: Report, root: Cursor, issue: z.core.$ZodIssue): void {
  if (issue.code === 'invalid_union') {
    // The branch that got furthest tells most.
    const branches = issue.errors.filter((branch) => branch.length > 0)
    const best = branches.toSorted((a, b) => depthOf(b) - depthOf(a))[0]
    if (best !== undefined && depthOf(best) > 0)
      for (const inner of best) schemaFault(report, root, { ...inner, path: [...issue.path, ...inner.path] } as z.core.$ZodIssue)
    else report.fault(descend(root, issue.path), `${nameOf(issue.path)} cannot have this value`, hintFor(issue.path))
    return
  }
  const cursor = descend(root, issue.path)
  if (issue.code !== 'unrecognized_keys') {
    report.fault(cursor, `${nameOf(issue.path)} ${wordsOf(issue)}`, hintFor(issue.path))
    return
  }
  const known = keysAt(issue.path)
  for (const key of issue.keys) {
    const entry = cursor.node.kind === 'map' ? cursor.node.entries.find((candidate) => candidate.key === key) : undefined
    unknownKey(report, { path: pointerTo(cursor.path, key), at: entry?.at ?? cursor.at }, key, known, nameOf(issue.path))
  }
}

/** What is wrong, as the end of a sentence about the key. */
function wordsOf(issue: z.core.$ZodIssue): string {
  if (issue.code === 'too_small')
    return issue.origin === 'array' ? 'is empty: name at least one' : `must be at least ${issue.minimum}`
  if (issue.code === 'too_big')
    return issue.origin === 'array' ? `has too many items: at most ${issue.maximum}` : `must be at most ${issue.maximum}`
  if (issue.code === 'invalid_value') return `must be ${listed(issue.values.map(String))}`
  if (issue.message.startsWith('must ')) return issue.message
  if (issue.code === 'invalid_type') return issue.input === undefined ? 'is missing' : `must be of type ${issue.expected}`
  return `cannot have this value: ${issue.message}`
}

function depthOf(issues: readonly z.core.$ZodIssue[]): number {
  return Math.max(0, ...issues.map((issue) => issue.path.length + (issue.code === 'unrecognized_keys' ? 1 : 0)))
}

function nameOf(path: readonly PropertyKey[]): string {
  return ['x-rubato', ...path.map(String)].join('.')
}

function hintFor(path: readonly PropertyKey[]): string | undefined {
  const last = String(path.at(-1) ?? '')
  if (last === 'singleton') return 'write "strict", or { after: 60s }'
  if (last === 'load') return 'one of cpu, memory, custom, requests, or a list of them'
  return undefined
}

/** Known keys of the object at a path of the schema. */
function keysAt(path: readonly PropertyKey[]): string[] {
  let schema: unknown = xRubatoSchema
  for (const key of path) {
    schema = unwrap(schema)
    const shape = (schema as { shape?: Record<string, unknown> }).shape
    const element = (schema as { element?: unknown }).element
    schema = shape !== undefined ? shape[String(key)] : element
  }
  const object = unwrap(schema) as
    | { shape?: Record<string, unknown>; options?: readonly { shape?: Record<string, unknown> }[] }
    | undefined
  const shape = object?.shape ?? object?.options?.find((option) => option.shape !== undefined)?.shape
  return Object.keys(shape ?? {})
}

function unwrap(schema: unknown): unknown {
  let current = schema
  while (
    current !== null &&
    typeof current === 'object' &&
    'unwrap' in current &&
    typeof current.unwrap === 'function' &&
    !('shape' in current) &&
    !('element' in current)
  )
    current = current.unwrap()
  return current
}
