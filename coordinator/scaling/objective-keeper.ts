/** Measures one service against its objective and moves its threshold once per interval. */
import type { ScaleRules } from '../../shared/model/app.ts'
import { ANSWER_TIME_BUCKETS, answerTimeMs } from '../history/answer-times.ts'
import { createObjectiveBook, type ObjectiveView } from './objective-book.ts'
import { NO_SHIFT, type ObjectivePlan, type ObjectiveState, planObjective } from './plan-objective.ts'

export interface ObjectiveSample {
  /** Monotonic ms. */
  readonly atMs: number
  readonly rules: ScaleRules
  readonly objectiveMs: number
  /** What came since the sample before, one count per bucket; null: nothing. */
  readonly answerTimes: ArrayLike<number> | null
  readonly meanPercent: number | null
  readonly thresholdPercent: number
  /** All wanted instances are ready. */
  readonly isSteady: boolean
  readonly lastStepAgoMs: number | null
  readonly atMost: boolean
}

export interface ObjectiveKeeper {
  readonly shiftPercent: number
  /** The last decision about the threshold; null before the first. */
  readonly plan: ObjectivePlan | null
  observe(sample: ObjectiveSample): void
  view(objectiveMs: number): ObjectiveView
  /** Whether the objective has been kept or missed for two minutes running, other than was told last; told once. */
  takeNews(objectiveMs: number): 'kept' | 'missed' | null
}

const INTERVAL_MS = 60_000
const FULL_PERCENT = 98

export function createObjectiveKeeper(shiftPercent: number): ObjectiveKeeper {
  const book = createObjectiveBook()
  let state: ObjectiveState = { ...NO_SHIFT, shiftPercent }
  let plan: ObjectivePlan | null = null
  let beganMs: number | null = null
  let counts = new Float64Array(ANSWER_TIME_BUCKETS)
  let loads = 0
  let loadSum = 0
  let isSteady = true
  let told: boolean | null = true
  let minutes: (boolean | null)[] = []
  return {
    get shiftPercent() {
      return state.shiftPercent
    },
    get plan() {
      return plan
    },
    observe(sample) {
      const { atMs, answerTimes, meanPercent } = sample
      beganMs ??= atMs
      if (book.add(atMs, answerTimes ?? NOTHING)) minutes = [...minutes, book.view(sample.objectiveMs, 0).kept].slice(-2)
      for (let i = 0; i < ANSWER_TIME_BUCKETS; i += 1) counts[i] = (counts[i] ?? 0) + (answerTimes?.[i] ?? 0)
      if (meanPercent !== null) {
        loads += 1
        loadSum += meanPercent
      }
      const intervalMs = Math.max(INTERVAL_MS, 2 * sample.rules.windowMs)
      // The window's mean is older than this moment: what a step changed must be through it.
      const isFresh = sample.lastStepAgoMs === null || sample.lastStepAgoMs >= atMs - beganMs + sample.rules.windowMs
      if (!sample.isSteady || !isFresh || (meanPercent ?? 0) >= FULL_PERCENT) isSteady = false
      if (atMs - beganMs < intervalMs) return
      plan = planObjective(state, {
        rules: sample.rules,
        objectiveMs: sample.objectiveMs,
        requests: counts.reduce((sum, count) => sum + count, 0),
        p95Ms: answerTimeMs(counts, 0.95),
        meanPercent: loads === 0 ? null : loadSum / loads,
        thresholdPercent: sample.thresholdPercent,
        isSteady,
        atMost: sample.atMost,
      })
      state = plan.state
      beganMs = atMs
      counts = new Float64Array(ANSWER_TIME_BUCKETS)
      loads = loadSum = 0
      isSteady = true
    },
    view: (objectiveMs) => book.view(objectiveMs, state.shiftPercent),
    takeNews() {
      const [before, now] = minutes
      if (now === undefined || now === null || before !== now || now === told) return null
      told = now
      return now ? 'kept' : 'missed'
    },
  }
}

const NOTHING: readonly number[] = []
