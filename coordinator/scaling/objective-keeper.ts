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
  /** Whether the objective has been kept or missed for the two last minutes, other than was told last. A minute with few answers is neither. */
  readonly news: 'kept' | 'missed' | null
  /** The news are stored: nothing more is said until the other is true. */
  wasTold(news: 'kept' | 'missed'): void
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
  let told: 'kept' | 'missed' = 'kept'
  let minutes: ('kept' | 'missed' | null)[] = []
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
      for (const p95Ms of book.add(atMs, answerTimes ?? NOTHING))
        minutes = [
          ...minutes,
          p95Ms === null ? null : p95Ms <= sample.objectiveMs ? ('kept' as const) : ('missed' as const),
        ].slice(-2)
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
    get news() {
      const [before, now] = minutes
      return now === undefined || before !== now || now === told ? null : now
    },
    wasTold(news) {
      told = news
    },
  }
}

const NOTHING: readonly number[] = []
