/**
 * The usual value of that time × how today compares: level = median over the last hour of actual / usual, so that one burst does not
 * raise the whole hour ahead, and clamped, so that a quiet night's small numbers do not either.
 */
import type { Forecaster } from './forecaster.ts'
import type { Profile } from './profile.ts'

const LEVEL_WINDOW_MS = 3_600_000
/** More samples than this tell no better median. */
const MOST_SAMPLES = 15
const LEAST_LEVEL = 1 / 3
const MOST_LEVEL = 3
/** Share of the long mean added on both sides of the division: of almost nothing, no ratio is known. */
const SOFTENING = 0.05

/** The profile is observed by its owner, after this. O(15 log 15) per sample. */
export function createProfileLevel(profile: Profile, stepMs: number): Forecaster {
  const size = Math.max(3, Math.min(MOST_SAMPLES, Math.round(LEVEL_WINDOW_MS / stepMs)))
  // With fine steps each ratio is of a few steps' sums, so that the window spans its hour.
  const stepsPerRatio = Math.max(1, Math.round(LEVEL_WINDOW_MS / stepMs / size))
  const ratios = new Float64Array(size)
  const sorted = new Float64Array(size)
  let filled = 0
  let next = 0
  let actualSum = 0
  let usualSum = 0
  let steps = 0
  let level = 1
  let longMean = 0
  let samples = 0
  let lastAtMs = Number.NaN

  const rank = () => {
    sorted.fill(Number.POSITIVE_INFINITY)
    sorted.set(ratios.subarray(0, filled))
    sorted.sort()
    const middle = filled >> 1
    const median = filled % 2 === 1 ? (sorted[middle] ?? 1) : ((sorted[middle - 1] ?? 1) + (sorted[middle] ?? 1)) / 2
    level = Math.max(LEAST_LEVEL, Math.min(MOST_LEVEL, median))
  }

  return {
    name: `${profile.period}-profile`,
    observe(atMs, value) {
      lastAtMs = atMs
      if (value === null) return
      samples += 1
      longMean += Math.max(0.0005, 1 / samples) * (value - longMean)
      const usual = profile.at(atMs)
      if (usual === null) return
      actualSum += value
      usualSum += usual
      steps += 1
      if (steps < stepsPerRatio) return
      const soft = SOFTENING * longMean * steps
      ratios[next] = usualSum + soft > 0 ? (actualSum + soft) / (usualSum + soft) : 1
      next = (next + 1) % size
      filled = Math.min(size, filled + 1)
      actualSum = 0
      usualSum = 0
      steps = 0
      rank()
    },
    at(distance) {
      if (Number.isNaN(lastAtMs)) return null
      const usual = profile.at(lastAtMs + distance * stepMs)
      return usual === null ? null : Math.max(0, usual * level)
    },
  }
}
