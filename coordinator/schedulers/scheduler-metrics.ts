/** Figures of custom schedulers for `/metrics`, in Prometheus text form: a few per scheduler of the configuration. Pure. */
import type { FailureCode } from './scheduler.ts'

type Result = 'answered' | FailureCode

export interface SchedulerFigures {
  readonly name: string
  readonly requests: Record<Result, number>
  /** Times it was not asked because it rested. */
  skipped: number
  /** Questions by latency: as many as took no longer than the bound of the same place, and all. */
  readonly buckets: number[]
  latencySumMs: number
  readonly isResting: boolean
}

const BOUNDS_MS = [5, 10, 25, 50, 100, 250, 500, 1_000, 5_000]
const RESULTS: readonly Result[] = ['answered', 'timeout', 'unreachable', 'bad-answer', 'crashed', 'interrupted']

export function newFigures(name: string): SchedulerFigures {
  return {
    name,
    requests: { answered: 0, timeout: 0, unreachable: 0, 'bad-answer': 0, crashed: 0, interrupted: 0 },
    skipped: 0,
    buckets: BOUNDS_MS.map(() => 0),
    latencySumMs: 0,
    isResting: false,
  }
}

export function countRequest(figures: SchedulerFigures, result: Result, tookMs: number): void {
  figures.requests[result] += 1
  figures.latencySumMs += tookMs
  BOUNDS_MS.forEach((bound, index) => {
    if (tookMs <= bound) figures.buckets[index] = (figures.buckets[index] ?? 0) + 1
  })
}

export function schedulerMetrics(all: readonly SchedulerFigures[]): string {
  if (all.length === 0) return ''
  const block = (name: string, type: string, help: string, lines: readonly string[]) =>
    `# HELP rubato_scheduler_${name} ${help}\n# TYPE rubato_scheduler_${name} ${type}\n${lines.join('\n')}\n`
  const seconds = 'request_duration_seconds'
  return [
    block(
      'requests_total',
      'counter',
      'Questions to a custom scheduler, by what became of them.',
      all.flatMap(({ name, requests }) =>
        RESULTS.map((result) => `rubato_scheduler_requests_total{scheduler="${name}",result="${result}"} ${requests[result]}`),
      ),
    ),
    block(
      'skipped_total',
      'counter',
      'Times that a custom scheduler was not asked because it rested after failures.',
      all.map(({ name, skipped }) => `rubato_scheduler_skipped_total{scheduler="${name}"} ${skipped}`),
    ),
    block(
      'resting',
      'gauge',
      '1 while a custom scheduler rests after failures.',
      all.map(({ name, isResting }) => `rubato_scheduler_resting{scheduler="${name}"} ${isResting ? 1 : 0}`),
    ),
    block(
      seconds,
      'histogram',
      'Time until a custom scheduler answered, or its question was given up.',
      all.flatMap(({ name, buckets, latencySumMs, requests }) => {
        const count = RESULTS.reduce((sum, result) => sum + requests[result], 0)
        const metric = `rubato_scheduler_${seconds}`
        return [
          ...BOUNDS_MS.map((bound, index) => `${metric}_bucket{scheduler="${name}",le="${bound / 1000}"} ${buckets[index]}`),
          `${metric}_bucket{scheduler="${name}",le="+Inf"} ${count}`,
          `${metric}_sum{scheduler="${name}"} ${latencySumMs / 1000}`,
          `${metric}_count{scheduler="${name}"} ${count}`,
        ]
      }),
    ),
  ].join('')
}
