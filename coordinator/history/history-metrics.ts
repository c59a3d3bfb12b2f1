/** Figures of the history itself for `/metrics`, in Prometheus text form. Pure. */
import type { HistoryStatus } from './series.ts'

export function historyMetrics(status: HistoryStatus): string {
  const metric = (name: string, type: 'gauge' | 'counter', help: string, value: number) =>
    `# HELP rubato_history_${name} ${help}\n# TYPE rubato_history_${name} ${type}\nrubato_history_${name} ${value}\n`
  return [
    metric('up', 'gauge', '1 while measured values are kept, 0 while they are not.', status.fault === null ? 1 : 0),
    metric('series', 'gauge', 'Series that are kept.', status.series),
    metric('bytes', 'gauge', 'Size of what is kept.', status.bytes),
    metric('dropped_total', 'counter', 'Samples that were not kept since the start.', status.dropped),
  ].join('')
}
