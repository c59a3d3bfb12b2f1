/**
 * The resolutions that are kept (design §11), and the blocks in which they are kept. A block of a level begins where a step of every
 * coarser level begins, and lies within one block of it: so a finished block is folded into the next level by itself.
 */
import type { Point } from './series.ts'

export interface Level {
  readonly stepMs: number
  readonly stepsPerBlock: number
  readonly blockMs: number
  readonly keepMs: number
}

const MINUTE_MS = 60_000
const HOUR_MS = 60 * MINUTE_MS
const DAY_MS = 24 * HOUR_MS

/** Finest first: 10 s for 6 h, 1 min for 8 d, 15 min for 90 d. */
export const LEVELS: readonly [Level, Level, Level] = [
  { stepMs: 10_000, stepsPerBlock: 90, blockMs: 15 * MINUTE_MS, keepMs: 6 * HOUR_MS },
  { stepMs: MINUTE_MS, stepsPerBlock: 120, blockMs: 2 * HOUR_MS, keepMs: 8 * DAY_MS },
  { stepMs: 15 * MINUTE_MS, stepsPerBlock: 96, blockMs: DAY_MS, keepMs: 90 * DAY_MS },
]

/** A sample stamped further ahead of the clock is a fault, not a measurement. */
export const FUTURE_MS = DAY_MS

/** Nothing that is measured is larger; sums of any number of samples below it stay finite, and fit the file's float32. */
const LARGEST = 1e30

/** Whether a value may be recorded: reports are untrusted, and one that is infinite would stay in every mean of its step. */
export function isRecordable(value: number): boolean {
  return Math.abs(value) <= LARGEST
}

/** Last moment whose step numbers fit 32 bits and whose block numbers fit 24: in the year 2448. */
export const LAST_MS = 2 ** 24 * LEVELS[0].blockMs

/** Index in `LEVELS` of the level that answers a query for this step. */
export function levelFor(stepMs: number): 0 | 1 | 2 {
  if (stepMs <= LEVELS[0].stepMs) return 0
  return stepMs <= LEVELS[1].stepMs ? 1 : 2
}

/** Beginning of the oldest block of the level that still holds a step to be kept. */
export function oldestKeptMs(level: Level, nowMs: number): number {
  return Math.floor((nowMs - level.keepMs) / level.blockMs) * level.blockMs
}

/** Means and maxima over longer steps, a whole multiple of the points' own; each point weighs alike. `points` ascend. Pure. */
export function resample(points: readonly Point[], stepMs: number): readonly Point[] {
  const result: Point[] = []
  let atMs = Number.NaN
  let sum = 0
  let count = 0
  let max = 0
  const close = () => {
    if (count > 0) result.push({ atMs, value: sum / count, max })
  }
  for (const point of points) {
    const at = Math.floor(point.atMs / stepMs) * stepMs
    if (at !== atMs) {
      close()
      atMs = at
      sum = 0
      count = 0
      max = point.max
    }
    sum += point.value
    count += 1
    max = Math.max(max, point.max)
  }
  close()
  return result
}
