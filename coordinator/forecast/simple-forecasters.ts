/** Forecasters that know no season, and the seasonal naive ones. A few numbers each. */
import type { Forecaster } from './forecaster.ts'
import type { Profile } from './profile.ts'

/** The last value stays. The floor that every other must beat. */
export function createPersistence(): Forecaster {
  let last: number | null = null
  return {
    name: 'persistence',
    observe(_atMs, value) {
      if (value !== null) last = value
    },
    at: () => last,
  }
}

/** Shares of the newest value that `smoothed` chooses from. */
const SHARES = [0.8, 0.4, 0.2, 0.1, 0.05] as const
/** Decay per sample of their errors: about 200 samples count. */
const MEMORY = 0.995

/** Simple exponential smoothing with the share, of a few, that lately erred least one step ahead. Best on noise without season. */
export function createSmoothed(): Forecaster {
  const levels = SHARES.map(() => Number.NaN)
  const errors = SHARES.map(() => 0)
  let best = 0
  return {
    name: 'smoothed',
    observe(_atMs, value) {
      if (value === null) return
      SHARES.forEach((share, i) => {
        const level = levels[i] ?? Number.NaN
        if (Number.isNaN(level)) levels[i] = value
        else {
          errors[i] = MEMORY * (errors[i] ?? 0) + Math.abs(value - level)
          levels[i] = level + share * (value - level)
        }
        if ((errors[i] ?? 0) < (errors[best] ?? 0)) best = i
      })
    },
    at() {
      const level = levels[best] ?? Number.NaN
      return Number.isNaN(level) ? null : Math.max(0, level)
    },
  }
}

/** Time in which a slope loses half its strength: ramps of deploys and campaigns last minutes, not hours. */
const SLOPE_HALF_LIFE_MS = 1_800_000
/** In about this time a slope is learned; by time and not by step, else noise of minutes makes slopes. */
const SLOPE_TIME_MS = 3_600_000

/** Holt's linear smoothing with a damped slope (Gardner and McKenzie 1985): a ramp that has begun goes on for a while. */
export function createDrift(stepMs: number): Forecaster {
  const damping = 0.5 ** (stepMs / SLOPE_HALF_LIFE_MS)
  const slopeShare = Math.min(0.3, stepMs / SLOPE_TIME_MS)
  let level = Number.NaN
  let slope = 0
  return {
    name: 'drift',
    observe(_atMs, value) {
      if (Number.isNaN(level)) {
        if (value !== null) level = value
        return
      }
      const expected = level + damping * slope
      slope *= damping
      level = expected
      if (value === null) return
      level += 0.5 * (value - expected)
      slope += slopeShare * 0.5 * (value - expected)
    },
    at(distance) {
      if (Number.isNaN(level)) return null
      // φ + φ² + … + φ^distance
      return Math.max(0, level + (slope * damping * (1 - damping ** distance)) / (1 - damping))
    },
  }
}

/** As it was at this time a day or a week ago. The profile is observed by its owner, after this. */
export function createSeasonalNaive(profile: Profile, stepMs: number): Forecaster {
  let lastAtMs = Number.NaN
  return {
    name: `${profile.period}-naive`,
    observe(atMs) {
      lastAtMs = atMs
    },
    at: (distance) => (Number.isNaN(lastAtMs) ? null : profile.newest(lastAtMs + distance * stepMs)),
  }
}
