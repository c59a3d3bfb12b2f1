/** Figures of the history itself for `/metrics`, in Prometheus text form. Pure. */
import type { PrometheusStatus } from './prometheus/prometheus-past.ts'
import type { HistoryStatus } from './series.ts'

export function historyMetrics(status: HistoryStatus): string {
  return [
    metric('up', 'gauge', '1 while measured values are kept, 0 while they are not.', status.fault === null ? 1 : 0),
    metric('series', 'gauge', 'Series that are kept.', status.series),
    metric('bytes', 'gauge', 'Size of what is kept.', status.bytes),
    metric('dropped_total', 'counter', 'Samples that were not kept since the start.', status.dropped),
  ].join('')
}

/** Of the Prometheus that answers for the past, where there is one. */
export function prometheusMetrics({ fault, failures, clockAheadMs }: PrometheusStatus): string {
  return [
    metric('prometheus_up', 'gauge', '1 while Prometheus answers for the past and knows this cluster.', fault === null ? 1 : 0),
    metric('prometheus_failures_total', 'counter', 'Questions to Prometheus without a usable answer since the start.', failures),
    ...(clockAheadMs === null
      ? []
      : [metric('prometheus_clock_ahead_seconds', 'gauge', 'How far the clock of Prometheus is ahead.', clockAheadMs / 1000)]),
  ].join('')
}

function metric(name: string, type: 'gauge' | 'counter', help: string, value: number): string {
  return `# HELP rubato_history_${name} ${help}\n# TYPE rubato_history_${name} ${type}\nrubato_history_${name} ${value}\n`
}
