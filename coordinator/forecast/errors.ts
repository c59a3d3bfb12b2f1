/**
 * What is remembered of one forecaster's errors at one distance: its mean over days and over the last hour or so, and how far above
 * its forecast the p90 of what came lies. That distance is conditioned on the hour of the local day and on recent turbulence:
 * upper = expected + q · s, with s the mean absolute error usual at that hour, and q moved at every sample so that one in ten
 * comes out above (online quantile descent, as in adaptive conformal inference: Gibbs and Candès 2021). About 130 bytes.
 */

export interface ErrorRecord {
  /** Scored samples so far. */
  readonly samples: number
  /** Decayed mean absolute errors, and mean pinball loss of the upper quantile; 0 before the first. */
  readonly meanAbsolute: number
  readonly recentAbsolute: number
  readonly pinball: number
  score(hour: number, expected: number, upper: number, value: number): void
  /** What to add to an expected value for that hour to have its p90. */
  margin(hour: number): number
}

export const UPPER = 0.9

export interface ErrorMemory {
  readonly stepMs: number
  /** Time constant of the contest: errors older than some times this hardly count. */
  readonly longMs: number
  readonly shortMs: number
}

const HOURS = 24
/** Scored samples of an hour that weigh as much as all others together. */
const PRIOR_HOURS = 2
const FIRST_QUANTILE = 1.6
/** p90 of a normal error over its mean absolute value is 1.6; beyond 12 times it no margin helps. */
const MOST_QUANTILE = 12

export function createErrorRecord(memory: ErrorMemory): ErrorRecord {
  const longShare = memory.stepMs / memory.longMs
  const shortShare = Math.min(0.3, memory.stepMs / memory.shortMs)
  const perHour = 3_600_000 / memory.stepMs
  const hourShare = longShare * 6
  const hourMeans = new Float32Array(HOURS)
  const hourWeights = new Float32Array(HOURS)
  let samples = 0
  let meanAbsolute = 0
  let recentAbsolute = 0
  let pinball = 0
  let quantile = FIRST_QUANTILE

  const scale = (hour: number) => {
    const weight = (hourWeights[hour] ?? 0) / Math.max(1, perHour)
    const usual = (weight * (hourMeans[hour] ?? 0) + PRIOR_HOURS * meanAbsolute) / (weight + PRIOR_HOURS)
    // Turbulence lasts: half of what the last hour differs (in the logarithm) is believed.
    const turbulence = meanAbsolute > 0 ? Math.sqrt(Math.max(0.25, Math.min(4, recentAbsolute / meanAbsolute))) : 1
    return usual * turbulence
  }

  return {
    get samples() {
      return samples
    },
    get meanAbsolute() {
      return meanAbsolute
    },
    get recentAbsolute() {
      return recentAbsolute
    },
    get pinball() {
      return pinball
    },
    score(hour, expected, upper, value) {
      const absolute = Math.abs(value - expected)
      const loss = value > upper ? UPPER * (value - upper) : (1 - UPPER) * (upper - value)
      const was = scale(hour)
      samples += 1
      const share = Math.max(longShare, 1 / samples)
      pinball += share * (loss - pinball)
      if (was > 0) {
        const rate = Math.max(0.03, 1 / Math.sqrt(samples))
        quantile += rate * (value - expected > quantile * was ? UPPER : UPPER - 1)
        quantile = Math.max(0, Math.min(MOST_QUANTILE, quantile))
      }
      meanAbsolute += share * (absolute - meanAbsolute)
      recentAbsolute += Math.max(shortShare, 1 / samples) * (absolute - recentAbsolute)
      const weight = Math.min(1 / hourShare, (hourWeights[hour] ?? 0) + 1)
      hourWeights[hour] = weight
      hourMeans[hour] = (hourMeans[hour] ?? 0) + (absolute - (hourMeans[hour] ?? 0)) / weight
    },
    margin: (hour) => quantile * scale(hour),
  }
}
