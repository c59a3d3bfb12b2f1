/**
 * Under which names and labels `/metrics` publishes what the history records, and so how Prometheus is asked for it again: one table
 * for both. Every series carries the cluster's id, so that several clusters can be in one Prometheus. Pure.
 */
import { type Measure, MEASURES, type SeriesId } from '../series.ts'

export type SubjectKind = 'service' | 'node' | 'pool' | 'cluster'

export interface Figure {
  /** gauge: the last sample. counter: since the start; the history has it per second. histogram: answer times; the history has the p95. */
  readonly kind: 'gauge' | 'counter' | 'histogram'
  /** Without the `_bucket` of histograms. */
  readonly name: string
  readonly help: string
  /** The history's value of 1 of Prometheus' unit. */
  readonly factor: number
}

/** Not `cluster`: that is a label that people attach themselves, and an attached one pushes ours aside. */
export const CLUSTER_LABEL = 'rubato_cluster'

const LABELS: Readonly<Record<SubjectKind, readonly string[]>> = {
  service: ['app', 'service'],
  node: ['node'],
  pool: ['pool'],
  cluster: [],
}

const of = (kind: Figure['kind'], name: string, help: string, factor = 1): Figure => ({
  kind,
  name: `rubato_${name}`,
  help,
  factor,
})
const gauge = (name: string, help: string, factor = 1) => of('gauge', name, help, factor)

const COUNTERS = {
  requests: of('counter', 'service_requests_total', 'Requests that the gateways passed to a service.'),
  errors: of('counter', 'service_request_errors_total', 'Requests that failed.'),
  denied: of('counter', 'service_requests_denied_total', 'Requests that were refused for want of a right.'),
} as const

/** Of each kind of subject what the recording loop measures of it. */
export const FIGURES: Readonly<Record<SubjectKind, Partial<Record<Measure, Figure>>>> = {
  service: {
    demand: gauge('service_demand_percent', 'Sum of the loads of the ready instances; 100 is one full instance.'),
    load: gauge('service_load_percent', 'Mean load of the ready instances, 0 to 100.'),
    wanted: gauge('service_instances_desired', 'Wanted instances of a service.'),
    ready: gauge('service_instances_ready', 'Routable instances of a service.'),
    forecast: gauge('service_forecast_demand_percent', 'Demand that was forecast for now.'),
    ...COUNTERS,
    latencyP95: of('histogram', 'service_answer_seconds', 'Answer times of the requests to a service.', 1000),
    cpuMillis: gauge('service_instance_cpu_cores', 'CPU that an instance of the service uses on average.', 1000),
    memoryBytes: gauge('service_instance_memory_bytes', 'Memory that an instance of the service uses on average.'),
    rxBytesPerS: of('counter', 'service_received_bytes_total', 'Bytes that the instances of a service received.'),
    txBytesPerS: of('counter', 'service_sent_bytes_total', 'Bytes that the instances of a service sent.'),
  },
  node: {
    cpuMillis: gauge('node_cpu_cores', 'CPU that a node uses.', 1000),
    memoryBytes: gauge('node_memory_bytes', 'Memory that a node uses.'),
    diskBytes: gauge('node_disk_bytes', 'Disk that a node uses.'),
    rxBytesPerS: gauge('node_received_bytes_per_second', 'Bytes per second that a node receives.'),
    txBytesPerS: gauge('node_sent_bytes_per_second', 'Bytes per second that a node sends.'),
    reservedPercent: gauge('node_reserved_percent', 'Reserved share of the scarcest resource of a node.'),
  },
  pool: {
    machines: gauge('pool_machines', 'Present machines of a pool.'),
    usdPerHour: gauge('pool_price_usd_per_hour', 'What the present machines of a pool cost.'),
  },
  cluster: {
    wanted: gauge('cluster_instances_desired', 'Wanted instances of all services.'),
    ready: gauge('cluster_instances_ready', 'Routable instances of all services.'),
    // Sums over the services: a counter of the whole cluster would tell nothing more.
    ...COUNTERS,
    cpuMillis: gauge('cluster_cpu_cores', 'CPU that all nodes use.', 1000),
    memoryBytes: gauge('cluster_memory_bytes', 'Memory that all nodes use.'),
    diskBytes: gauge('cluster_disk_bytes', 'Disk that all nodes use.'),
    rxBytesPerS: gauge('cluster_received_bytes_per_second', 'Bytes per second that all nodes receive.'),
    txBytesPerS: gauge('cluster_sent_bytes_per_second', 'Bytes per second that all nodes send.'),
    machines: gauge('cluster_machines', 'Present machines.'),
    usdPerHour: gauge('cluster_price_usd_per_hour', 'What the present machines cost.'),
  },
}

/** null: not recorded of such a subject. */
export function figureOf({ subject, measure }: SeriesId): Figure | null {
  const kind = kindOf(subject)
  return kind === null ? null : (FIGURES[kind][measure] ?? null)
}

/** Labels of a subject's series, without braces: `rubato_cluster="…",app="…",service="…"`. Fit for exposition and for matchers. */
export function labelsOf(subject: string, cluster: string): string {
  const kind = kindOf(subject) ?? 'cluster'
  const names = LABELS[kind]
  const id = subject.slice(kind.length + 1)
  const slash = id.indexOf('/')
  const values = names.length === 2 ? [id.slice(0, slash), id.slice(slash + 1)] : [id]
  return [`${CLUSTER_LABEL}=${quoted(cluster)}`, ...names.map((name, i) => `${name}=${quoted(values[i] ?? '')}`)].join(',')
}

/** Series that stand behind a Prometheus series of this name and these labels; empty when it is none of ours. */
export function seriesBehind(labels: Readonly<Record<string, string>>): readonly SeriesId[] {
  const found: SeriesId[] = []
  const name = labels.__name__?.replace(/_bucket$/, '') ?? ''
  for (const kind of Object.keys(LABELS) as SubjectKind[])
    for (const measure of MEASURES) {
      if (FIGURES[kind][measure]?.name !== name) continue
      const values = LABELS[kind].map((label) => labels[label])
      if (values.every((value) => value !== undefined && value !== ''))
        found.push({ subject: [kind, values.join('/')].join(' ').trim(), measure })
    }
  return found
}

export function kindOf(subject: string): SubjectKind | null {
  const kind = subject.split(' ', 1)[0] ?? ''
  return Object.hasOwn(LABELS, kind) ? (kind as SubjectKind) : null
}

/** A text in quotes as both the exposition format and PromQL read it. */
function quoted(text: string): string {
  return `"${text.replace(/[\\"\n]/g, (letter) => (letter === '\n' ? '\\n' : `\\${letter}`))}"`
}
