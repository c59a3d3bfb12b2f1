/** Figures of scaling for `/metrics`, in Prometheus text form: a few per service that scales. Pure. */
import type { ServiceId } from '../../shared/model/identity.ts'
import type { ObjectiveView } from './objective-book.ts'
import type { UseParts } from './request-cost.ts'

export interface ScalingFigures {
  readonly service: ServiceId
  readonly directionChangesPerHour: number
  readonly thresholdPercent: number | null
  readonly parts: UseParts | null
  readonly objective: ObjectiveView | null
}

export function scalingMetrics(figures: Iterable<ScalingFigures>): string {
  const lines = new Map<string, string[]>(METRICS.map(([name]) => [name, []]))
  for (const { service: id, directionChangesPerHour, thresholdPercent, parts, objective } of figures) {
    const [app = '', service = ''] = id.split('/')
    const put = (name: string, value: number | null | undefined) => {
      if (value !== null && value !== undefined)
        lines.get(name)?.push(`rubato_service_${name}{app="${app}",service="${service}"} ${value}`)
    }
    put('direction_changes_per_hour', directionChangesPerHour)
    put('threshold_percent', thresholdPercent)
    put('idle_percent', parts?.idlePercent)
    put('request_cost_seconds', parts === null ? null : parts.requestMs / 1000)
    put('objective_seconds', objective === null ? null : objective.objectiveMs / 1000)
    put('latency_p95_seconds', objective?.p95Ms == null ? null : objective.p95Ms / 1000)
    put('objective_kept', objective?.kept == null ? null : objective.kept ? 1 : 0)
    put('objective_kept_time_ratio', objective?.shareOfTime)
    put('objective_kept_requests_ratio', objective?.shareOfRequests)
  }
  return METRICS.map(([name, help]) => {
    const own = lines.get(name) ?? []
    return own.length === 0
      ? ''
      : `# HELP rubato_service_${name} ${help}\n# TYPE rubato_service_${name} gauge\n${own.join('\n')}\n`
  }).join('')
}

const METRICS = [
  ['direction_changes_per_hour', 'Scaling steps of the last hour that went the other way than the step before.'],
  ['threshold_percent', 'Load above which the present number of instances is too small.'],
  ['idle_percent', 'Load of an instance without requests, as learned.'],
  ['request_cost_seconds', 'Time of a whole instance that one request takes, as learned.'],
  ['objective_seconds', 'Time within which 95 % of answers shall come.'],
  ['latency_p95_seconds', '95th percentile of answer times in the last full minute with enough answers.'],
  ['objective_kept', '1 while the objective is kept.'],
  ['objective_kept_time_ratio', 'Share of the last hour in which the objective was kept.'],
  ['objective_kept_requests_ratio', 'Share of the answers of the last hour that came within the objective.'],
] as const
