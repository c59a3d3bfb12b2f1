/** How well one service's objective is kept: a slice per minute over the last hour. O(buckets) per sample. */
import { LATENCY_BUCKETS_MS } from '../../shared/model/observation.ts'
import { ANSWER_TIME_BUCKETS, answerTimeMs } from '../history/answer-times.ts'

/** What users saw in the last hour. */
export interface ObjectiveView {
  readonly objectiveMs: number
  /** 95th percentile of the last full minute with enough answers; null when there was none. */
  readonly p95Ms: number | null
  /** Whether that minute was within the objective; null when there was none. */
  readonly kept: boolean | null
  /** Share (0–1) of the minutes with enough answers in which the objective was kept, and of all answers that came within it; null without any. */
  readonly shareOfTime: number | null
  readonly shareOfRequests: number | null
  /** By how much the thresholds are moved now, percentage points. */
  readonly shiftPercent: number
}

export interface ObjectiveBook {
  /**
   * Answer times that came since the last call, one count per bucket. `atMs` is monotonic. Returns the 95th percentiles of the minutes
   * that have ended with it, null for one with too few answers.
   */
  add(atMs: number, counts: ArrayLike<number>): readonly (number | null)[]
  /** Answers of all slices and of the running minute. */
  view(objectiveMs: number, shiftPercent: number): ObjectiveView
}

interface Slice {
  readonly answers: number
  readonly counts: readonly number[]
}

const SLICE_MS = 60_000
const SLICES = 60
/** Fewer answers in a minute say nothing about a 95th percentile. */
const LEAST_ANSWERS = 20

export function createObjectiveBook(): ObjectiveBook {
  let slices: Slice[] = []
  let running = new Float64Array(ANSWER_TIME_BUCKETS)
  let beganMs: number | null = null
  return {
    add(atMs, counts) {
      const closed: (number | null)[] = []
      beganMs ??= atMs
      if (atMs - beganMs >= SLICE_MS) {
        const values = [...running]
        const slice = { answers: sum(values), counts: values }
        slices = [...slices, slice].slice(-SLICES)
        closed.push(p95Of(slice))
        running = new Float64Array(ANSWER_TIME_BUCKETS)
        // Minutes that nobody looked at were without answers.
        const missed = Math.min(SLICES, Math.floor((atMs - beganMs) / SLICE_MS) - 1)
        for (let i = 0; i < missed; i += 1) {
          slices = [...slices, { answers: 0, counts: [] }].slice(-SLICES)
          closed.push(null)
        }
        beganMs = atMs
      }
      for (let i = 0; i < ANSWER_TIME_BUCKETS; i += 1) running[i] = (running[i] ?? 0) + (counts[i] ?? 0)
      return closed
    },
    view(objectiveMs, shiftPercent) {
      const judged = slices.map(p95Of).filter((p95Ms) => p95Ms !== null)
      const within = sum(slices.map((slice) => countWithin(slice.counts, objectiveMs)))
      const answers = sum(slices.map((slice) => slice.answers))
      const p95Ms = judged.at(-1) ?? null
      return {
        objectiveMs,
        p95Ms,
        kept: p95Ms === null ? null : p95Ms <= objectiveMs,
        shareOfTime: judged.length === 0 ? null : judged.filter((p95) => p95 <= objectiveMs).length / judged.length,
        shareOfRequests: answers === 0 ? null : within / answers,
        shiftPercent,
      }
    },
  }
}

function p95Of({ answers, counts }: Slice): number | null {
  return answers < LEAST_ANSWERS ? null : (answerTimeMs(counts, 0.95) ?? 0)
}

/** Answers within `limitMs`, those of its bucket spread evenly over it. */
function countWithin(counts: readonly number[], limitMs: number): number {
  let within = 0
  let from = 0
  for (const [bucket, to] of LATENCY_BUCKETS_MS.entries()) {
    const here = counts[bucket] ?? 0
    if (limitMs >= to) within += here
    else if (limitMs > from) within += (here * (limitMs - from)) / (to - from)
    from = to
  }
  return within
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
