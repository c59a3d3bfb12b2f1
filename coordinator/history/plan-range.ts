/** Which step answers a question about a stretch of time: as asked, or as fine as is of use, but never finer than what is still kept. Pure. */
import { LEVELS } from './levels.ts'

export interface RangePlan {
  /** What to ask the history for. */
  readonly queryStepMs: number
  /** Step of the answer: a whole multiple of that. */
  readonly stepMs: number
  /** Steps in the stretch, at most. */
  readonly steps: number
}

/** Enough for a curve as wide as a screen. */
const STEPS_OF_USE = 720
const SECOND_MS = 1000
const NICE_STEPS_MS = [10, 30, 60, 300, 900, 3600, 6 * 3600, 86_400].map((seconds) => seconds * SECOND_MS)

/**
 * `wantedMs` null: the smallest round step with at most 720 steps. The finest level that still reaches back to `fromMs` bounds the
 * step from below; the coarsest one that is no coarser than the step answers.
 */
export function planRange(range: {
  readonly fromMs: number
  readonly toMs: number
  readonly wantedMs: number | null
  readonly nowMs: number
  /** Step below which nothing is known; default that of the finest level. */
  readonly finestMs?: number
}): RangePlan {
  const { fromMs, toMs, nowMs, finestMs = 0 } = range
  const spanMs = Math.max(0, toMs - fromMs)
  const wantedMs =
    range.wantedMs ?? NICE_STEPS_MS.find((stepMs) => spanMs / stepMs <= STEPS_OF_USE) ?? NICE_STEPS_MS.at(-1) ?? spanMs
  const reaching = LEVELS.filter(
    ({ stepMs, keepMs }, index) => stepMs >= finestMs && (nowMs - keepMs <= fromMs || index === LEVELS.length - 1),
  )
  const queryStepMs = reaching.findLast(({ stepMs }) => stepMs <= wantedMs)?.stepMs ?? reaching[0]?.stepMs ?? LEVELS[2].stepMs
  const stepMs = Math.max(1, Math.ceil(wantedMs / queryStepMs)) * queryStepMs
  return { queryStepMs, stepMs, steps: Math.ceil(spanMs / stepMs) }
}
