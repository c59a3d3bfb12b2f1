/**
 * What is remembered of forecasters' errors, one record per forecaster and distance: the mean over days and over the last hour or so, and
 * how far above its forecast the p90 of what came lies. That distance is conditioned on the hour of the local day and on recent turbulence:
 * upper = expected + q · s, with s the mean absolute error usual at that hour, and q moved at every sample so that one in ten
 * comes out above (online quantile descent, as in adaptive conformal inference: Gibbs and Candès 2021). 232 bytes per record.
 */

export interface ErrorBook {
  /** Takes what came for that record; `hour`: local hour of the day, 0–23. */
  score(record: number, hour: number, expected: number, upper: number, value: number): void
  /** What to add to an expected value for that hour to have its p90, ≥ 0. */
  margin(record: number, hour: number): number
  samples(record: number): number
  /** Decayed mean absolute errors over days, and over the last hour or so; 0 before the first. */
  meanAbsolute(record: number): number
  recentAbsolute(record: number): number
  /** Decayed mean pinball loss of the upper quantile. */
  pinball(record: number): number
}

export interface ErrorMemory {
  readonly stepMs: number
  /** Time constants: an error older than several of these hardly counts. */
  readonly longMs: number
  readonly shortMs: number
}

export const UPPER = 0.9
const HOURS = 24
/** The mean over all hours weighs as much as so many hours' samples of the hour itself. */
const PRIOR_HOURS = 2
/** An hour comes once a day, so its mean forgets by days of its own: six times quicker than the whole, counted in its samples. */
const HOUR_FORGETS = 6
/** p90 of a normal error ÷ its mean absolute value; and beyond 12 times it no margin helps. */
const FIRST_QUANTILE = 1.6
const MOST_QUANTILE = 12
/** Share of the usual error by which `q` moves in the long run. */
const QUANTILE_RATE = 0.03

export function createErrorBook(records: number, memory: ErrorMemory): ErrorBook {
  const longShare = memory.stepMs / memory.longMs
  const shortShare = Math.min(0.3, memory.stepMs / memory.shortMs)
  const samplesPerHour = Math.max(1, 3_600_000 / memory.stepMs)
  const mostHourWeight = 1 / (longShare * HOUR_FORGETS)
  const hourMeans = new Float32Array(records * HOURS)
  const hourWeights = new Float32Array(records * HOURS)
  const samples = new Float64Array(records)
  const mean = new Float64Array(records)
  const recent = new Float64Array(records)
  const pinball = new Float64Array(records)
  const quantile = new Float64Array(records).fill(FIRST_QUANTILE)
  const at = (array: Float32Array | Float64Array, i: number) => array[i] ?? 0

  const scale = (record: number, hour: number) => {
    const cell = record * HOURS + hour
    const meanAbsolute = at(mean, record)
    if (meanAbsolute <= 0) return 0
    const weight = at(hourWeights, cell) / samplesPerHour
    const usual = (weight * at(hourMeans, cell) + PRIOR_HOURS * meanAbsolute) / (weight + PRIOR_HOURS)
    // Turbulence lasts: half of what the last hour differs (in the logarithm) is believed.
    return usual * Math.sqrt(Math.max(0.25, Math.min(4, at(recent, record) / meanAbsolute)))
  }

  return {
    score(record, hour, expected, upper, value) {
      const absolute = Math.abs(value - expected)
      const loss = value > upper ? UPPER * (value - upper) : (1 - UPPER) * (upper - value)
      const was = scale(record, hour)
      const count = at(samples, record) + 1
      const share = Math.max(longShare, 1 / count)
      samples[record] = count
      if (was > 0) {
        const rate = Math.max(QUANTILE_RATE, 1 / Math.sqrt(count))
        const moved = at(quantile, record) + rate * (value - expected > at(quantile, record) * was ? UPPER : UPPER - 1)
        quantile[record] = Math.max(0, Math.min(MOST_QUANTILE, moved))
      }
      pinball[record] = at(pinball, record) + share * (loss - at(pinball, record))
      mean[record] = at(mean, record) + share * (absolute - at(mean, record))
      recent[record] = at(recent, record) + Math.max(shortShare, 1 / count) * (absolute - at(recent, record))
      const cell = record * HOURS + hour
      const weight = Math.min(mostHourWeight, at(hourWeights, cell) + 1)
      hourWeights[cell] = weight
      hourMeans[cell] = at(hourMeans, cell) + (absolute - at(hourMeans, cell)) / weight
    },
    margin: (record, hour) => at(quantile, record) * scale(record, hour),
    samples: (record) => at(samples, record),
    meanAbsolute: (record) => at(mean, record),
    recentAbsolute: (record) => at(recent, record),
    pinball: (record) => at(pinball, record),
  }
}
