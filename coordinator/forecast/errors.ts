/**
 * What is remembered of forecasters' errors, one record per forecaster and distance: the mean over days and over the last hour or so, and
 * how far above its forecast the p90 of what came lies. That distance is conditioned on what is expected, on the hour of the local day and
 * on recent turbulence: upper = expected + q · s, with s the mean absolute error usual at such a level, times how much more is usual
 * at that hour and lately, and q moved at every sample so that one in ten comes out above (online quantile descent, as in adaptive
 * conformal inference: Gibbs and Candès 2021). 296 bytes per record.
 */

export interface ErrorBook {
  /** Takes what came for that record; `hour`: local hour of the day, 0–23. */
  score(record: number, hour: number, expected: number, upper: number, value: number): void
  /** What to add to that expected value for that hour to have its p90, ≥ 0. */
  margin(record: number, hour: number, expected: number): number
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
/** Samples on both sides of the mean before errors are told apart by level. */
const LEAST_SIDE = 50
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
  /** Of errors in units of what is usual at their level. */
  const hourMeans = new Float32Array(records * HOURS)
  const hourWeights = new Float32Array(records * HOURS)
  const samples = new Float64Array(records)
  const mean = new Float64Array(records)
  const recent = new Float64Array(records)
  const pinball = new Float64Array(records)
  const recentRatio = new Float64Array(records).fill(1)
  const quantile = new Float64Array(records).fill(FIRST_QUANTILE)
  // Mean expected value and mean error of the samples below and above the mean expected value: two points of a line.
  const level = new Float64Array(records)
  const sides = new Float64Array(records * 2)
  const sideLevels = new Float64Array(records * 2)
  const sideErrors = new Float64Array(records * 2)
  const at = (array: Float32Array | Float64Array, i: number) => array[i] ?? 0

  /** Mean absolute error usual where so much is expected: of most demand, errors grow with it. */
  const usualAt = (record: number, expected: number) => {
    const meanAbsolute = at(mean, record)
    const low = 2 * record
    const high = low + 1
    if (Math.min(at(sides, low), at(sides, high)) < LEAST_SIDE) return meanAbsolute
    const span = at(sideLevels, high) - at(sideLevels, low)
    if (span <= 0) return meanAbsolute
    const rise = at(sideErrors, high) - at(sideErrors, low)
    const usual = at(sideErrors, low) + (rise / span) * (expected - at(sideLevels, low))
    return Math.max(Math.min(at(sideErrors, low), at(sideErrors, high)) / 2, usual)
  }

  const scale = (record: number, hour: number, expected: number) => {
    const usual = usualAt(record, expected)
    if (usual <= 0) return 0
    const cell = record * HOURS + hour
    const weight = at(hourWeights, cell) / samplesPerHour
    const ofHour = (weight * at(hourMeans, cell) + PRIOR_HOURS) / (weight + PRIOR_HOURS)
    // Turbulence lasts: half of what the last hour differs (in the logarithm) is believed.
    return usual * ofHour * Math.sqrt(Math.max(0.25, Math.min(4, at(recentRatio, record))))
  }

  const learnLevel = (record: number, expected: number, absolute: number, share: number) => {
    const side = 2 * record + (expected > at(level, record) ? 1 : 0)
    const count = Math.min(1 / longShare, at(sides, side) + 1)
    sides[side] = count
    sideLevels[side] = at(sideLevels, side) + (expected - at(sideLevels, side)) / count
    sideErrors[side] = at(sideErrors, side) + (absolute - at(sideErrors, side)) / count
    level[record] = at(level, record) + share * (expected - at(level, record))
  }

  return {
    score(record, hour, expected, upper, value) {
      const absolute = Math.abs(value - expected)
      const loss = value > upper ? UPPER * (value - upper) : (1 - UPPER) * (upper - value)
      const was = scale(record, hour, expected)
      const usual = usualAt(record, expected)
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
      const above = 2 * Math.max(0, value - expected)
      learnLevel(record, expected, above, share)
      if (usual <= 0) return
      const ratio = absolute / usual
      recentRatio[record] = at(recentRatio, record) + shortShare * (ratio - at(recentRatio, record))
      const cell = record * HOURS + hour
      const weight = Math.min(mostHourWeight, at(hourWeights, cell) + 1)
      hourWeights[cell] = weight
      hourMeans[cell] = at(hourMeans, cell) + (ratio - at(hourMeans, cell)) / weight
    },
    margin: (record, hour, expected) => at(quantile, record) * scale(record, hour, expected),
    samples: (record) => at(samples, record),
    meanAbsolute: (record) => at(mean, record),
    recentAbsolute: (record) => at(recent, record),
    pinball: (record) => at(pinball, record),
  }
}
