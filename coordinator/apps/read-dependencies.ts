/** Which services one waits for: depends_on and links. */
import { DEPENDENCY_KEYS } from './compose-schema.ts'
import { children, type Cursor } from './located.ts'
import { type Report, shorten } from './report.ts'
import { fields, flag, oneOf, texts } from './values.ts'

export interface ReadDependency {
  readonly service: string
  readonly condition: 'started' | 'healthy' | 'completed'
  readonly required: boolean
  readonly cursor: Cursor
}

const CONDITIONS = {
  service_started: 'started',
  service_healthy: 'healthy',
  service_completed_successfully: 'completed',
} as const

/** Of `depends_on`, in both its forms. */
export function readDependsOn(report: Report, cursor: Cursor | undefined): ReadDependency[] {
  if (cursor?.node.kind !== 'map')
    return texts(report, cursor, '"depends_on"', false).map((item) => ({
      service: item.value,
      condition: 'started',
      required: true,
      cursor: item.cursor,
    }))
  return children(cursor).flatMap(({ key, keyAt, cursor: value }): ReadDependency[] => {
    if (key.startsWith('x-')) return []
    const dependency = fields(report, value, DEPENDENCY_KEYS, `the dependency on ${shorten(key)}`)
    const condition =
      oneOf(report, dependency?.get('condition'), 'condition', Object.keys(CONDITIONS) as (keyof typeof CONDITIONS)[]) ??
      'service_started'
    const required = flag(report, dependency?.get('required'), 'required') ?? true
    return [{ service: key, condition: CONDITIONS[condition], required, cursor: { ...value, at: keyAt } }]
  })
}

/** Of `links`; they only order. */
export function readLinks(report: Report, cursor: Cursor | undefined): ReadDependency[] {
  return texts(report, cursor, '"links"', false).map((item) => {
    const [service = '', alias] = item.value.split(':', 2)
    if (alias !== undefined && alias !== service)
      report.warn(
        item.cursor,
        `the alias "${shorten(alias)}" is ignored: only the name of the service itself ("${shorten(service)}") resolves`,
      )
    return { service, condition: 'started', required: true, cursor: item.cursor }
  })
}
