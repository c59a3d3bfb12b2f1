/** What an app is, and what a new version of it would change, as data for tables and `-o json`. No secret is in it. Pure. */
import { canonicalJson } from '../../shared/canonical.ts'
import { nextMatch } from '../../shared/calendar.ts'
import type { AppSpec, JobRules, ServiceSpec } from '../../shared/model/app.ts'
import type { LoadSource } from '../../shared/model/unit.ts'
import { formatBytes } from '../../shared/units.ts'

export interface AppRow {
  readonly service: string
  /** The main image (or the command of a process). */
  readonly image: string
  readonly sidecars: readonly string[]
  /** `3`, `1–40`, `1 per node`; of a job how many must complete: `job, 3`. */
  readonly count: string
  readonly cpuMillis: number
  readonly memoryBytes: number
  readonly diskBytes: number
  /** `8080→80/http`, `9000/tcp` (not published). */
  readonly ports: readonly string[]
  /** `public`, `any key`, who may call, or `no keys (not http)` where nothing can be asked for. */
  readonly access: string
  /** What it scales by and between, and its objective; '' when it does not. */
  readonly scale: string
  /** When its bounds change: `3–9 at "0 8 * * 1-5" Europe/Berlin`. */
  readonly schedules: readonly string[]
  /** When a job runs, the next time with it; '' for what goes on running. */
  readonly runs: string
  readonly dependsOn: readonly string[]
}

/** One row per service, in file order. */
export function describeApp(app: AppSpec, nowMs: number): AppRow[] {
  return app.services.map((service) => {
    const [main, ...sidecars] = service.unit.containers
    return {
      service: service.name,
      image: main === undefined ? '' : main.image || (main.command ?? []).join(' '),
      sidecars: sidecars.map((sidecar) => sidecar.name),
      count: service.job === undefined ? countOf(service) : `job, ${completionsOf(service, service.job)}`,
      cpuMillis: service.unit.reservations.cpuMillis,
      memoryBytes: service.unit.reservations.memoryBytes,
      diskBytes: service.placement.diskBytes ?? 0,
      ports: portsOf(service),
      access: accessOf(service),
      scale: scaleOf(service),
      schedules: schedulesOf(service),
      runs: service.job === undefined ? '' : runsOf(service.job, nowMs),
      dependsOn: service.dependsOn.map((dependency) =>
        dependency.condition === 'started' ? dependency.service : `${dependency.service} (${dependency.condition})`,
      ),
    }
  })
}

export interface AppChange {
  readonly service: string
  /** `replace`: its instances are replaced; `adjust`: only rules change, instances go on. */
  readonly kind: 'create' | 'replace' | 'adjust' | 'remove'
  /** One sentence. */
  readonly message: string
  /** What differs; empty for create and remove. */
  readonly fields: readonly { readonly path: string; readonly before: string; readonly after: string }[]
}

const MAX_FIELDS = 50
const MAX_VALUE = 200
const HIDDEN = '(hidden)'

/** What deploying `after` over `before` does, by service; [] when nothing changes. */
export function diffApps(before: AppSpec | null, after: AppSpec): AppChange[] {
  const old = new Map((before?.services ?? []).map((service) => [service.name, service]))
  const changes: AppChange[] = []
  for (const service of after.services) {
    const previous = old.get(service.name)
    old.delete(service.name)
    if (previous === undefined)
      changes.push({
        service: service.name,
        kind: 'create',
        message: creationOf(service),
        fields: [],
      })
    else {
      const change = changeOf(previous, service)
      if (change !== null) changes.push(change)
    }
  }
  for (const service of old.values())
    changes.push({ service: service.name, kind: 'remove', message: 'its instances will be stopped', fields: [] })
  return changes
}

function creationOf(service: ServiceSpec): string {
  const what = service.unit.containers[0]?.image || 'process'
  if (service.job !== undefined)
    return `${completionsOf(service, service.job)} × ${what} will run to their end, ${runsOf(service.job, null)}`
  const scale = [scaleOf(service), ...schedulesOf(service)].filter((text) => text !== '')
  return `${countOf(service)} × ${what} will be started${scale.length === 0 ? '' : `; by ${scale.join('; ')}`}`
}

function changeOf(before: ServiceSpec, after: ServiceSpec): AppChange | null {
  const { specHash: hashBefore, ...left } = before
  const { specHash: hashAfter, ...right } = after
  const fields: { path: string; before: string; after: string }[] = []
  compare(left, right, '', fields)
  const isReplaced = hashBefore !== hashAfter
  if (fields.length === 0 && !isReplaced) return null
  const message = isReplaced
    ? `its instances will be replaced, ${after.update.order}, ${after.update.parallelism === 1 ? 'one' : after.update.parallelism} at a time`
    : 'its rules change; its instances go on'
  return { service: after.name, kind: isReplaced ? 'replace' : 'adjust', message, fields }
}

function compare(before: unknown, after: unknown, path: string, fields: { path: string; before: string; after: string }[]): void {
  if (fields.length >= MAX_FIELDS || canonicalJson(before) === canonicalJson(after)) return
  if (isObject(before) && isObject(after)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)]))
      compare(before[key], after[key], path === '' ? key : `${path}.${key}`, fields)
    return
  }
  if (Array.isArray(before) && Array.isArray(after) && [...before, ...after].some(isObject)) {
    for (let index = 0; index < Math.max(before.length, after.length); index++)
      compare(before[index], after[index], `${path}[${index}]`, fields)
    return
  }
  fields.push({ path, before: show(before, path), after: show(after, path) })
}

/** Values of the environment and of carried files may be secrets: that they change is told, not to what. */
function show(value: unknown, path: string): string {
  if (value === undefined) return ''
  if (/\.environment(\.|$)|\.files(\[|$)|contentBase64$/.test(path)) return HIDDEN
  const text = typeof value === 'string' ? value : JSON.stringify(redact(value))
  return text.length <= MAX_VALUE ? text : `${text.slice(0, MAX_VALUE - 1)}…`
}

function redact(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(redact)
  if (!isObject(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => {
      if (key === 'contentBase64') return [key, HIDDEN]
      if (key === 'environment' && isObject(item))
        return [key, Object.fromEntries(Object.keys(item).map((name) => [name, HIDDEN]))]
      return [key, redact(item)]
    }),
  )
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}

function countOf(service: ServiceSpec): string {
  if (service.mode === 'global') return '1 per node'
  if (service.scale === null) return String(service.replicas)
  return service.scale.min === service.scale.max ? String(service.scale.min) : `${service.scale.min}–${service.scale.max}`
}

function completionsOf(service: ServiceSpec, { completions }: JobRules): string {
  return service.mode === 'global' ? '1 per node' : String(completions)
}

/** `nowMs`: the next time is told too. */
function runsOf({ cron }: JobRules, nowMs: number | null): string {
  if (cron === undefined) return 'once'
  const next = nowMs === null ? null : nextMatch(cron.at, cron.timeZone, nowMs)
  return `at "${cron.at}" ${cron.timeZone}${next === null ? '' : `, next ${new Date(next).toISOString().slice(0, 16)}Z`}`
}

function schedulesOf({ scale }: ServiceSpec): string[] {
  return (scale?.schedules ?? []).map(({ at, timeZone, min, max }) => `${min}–${max} at "${at}" ${timeZone}`)
}

function portsOf(service: ServiceSpec): string[] {
  const published = service.published.map(
    (port) => `${port.port}→${port.containerPort}/${port.protocol}${port.mode === 'host' ? ' (host)' : ''}`,
  )
  const isPublished = (containerPort: number, isUdp: boolean): boolean =>
    service.published.some((port) => port.containerPort === containerPort && (port.protocol === 'udp') === isUdp)
  const inner = service.unit.ports.filter((port) => !isPublished(port.containerPort, port.protocol === 'udp'))
  return [...published, ...inner.map((port) => `${port.containerPort}/${port.protocol}`)]
}

function accessOf(service: ServiceSpec): string {
  const { access, ports } = service.unit
  if (ports.length === 0) return ''
  const limits = [...access.methods, ...access.pathPrefixes]
  const suffix = limits.length === 0 ? '' : ` (${limits.join(', ')})`
  if (access.public) return `public${suffix}`
  // Only http carries keys.
  if (!ports.some((port) => port.protocol === 'http')) return 'no keys (not http)'
  if (access.anyKey) return `any key${suffix}`
  return `${[...access.allow, ...access.roles.map((role) => `role:${role}`), ...(access.sameApp ? ['same app'] : [])].join(', ')}${suffix}`
}

function scaleOf(service: ServiceSpec): string {
  if (service.scale === null) return ''
  const { lowPercent, highPercent, objective } = service.scale
  const wanted = objective === undefined ? '' : `, p95 ≤ ${objective.latencyP95Ms} ms`
  return `${service.unit.load.map(loadName).join(', ')} ${lowPercent}–${highPercent} %${wanted}`
}

function loadName(load: LoadSource): string {
  return load.kind === 'requests' ? `requests/${load.capacity}` : load.kind
}

/** `0.25 CPU, 128 MiB, 10 GiB disk`, or `–` where nothing is reserved. */
export function formatReservation(row: Pick<AppRow, 'cpuMillis' | 'memoryBytes' | 'diskBytes'>): string {
  const parts = [
    row.cpuMillis > 0 ? `${row.cpuMillis / 1000} CPU` : null,
    row.memoryBytes > 0 ? formatBytes(row.memoryBytes) : null,
    row.diskBytes > 0 ? `${formatBytes(row.diskBytes)} disk` : null,
  ].filter((part) => part !== null)
  return parts.length === 0 ? '–' : parts.join(', ')
}
