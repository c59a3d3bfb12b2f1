/**
 * Combination of several forecasts of one value at one distance, with weights learned from their errors: least absolute deviations,
 * by reweighted ridge regression with forgetting, drawn towards weights of inverse squared error (Bates and Granger 1969).
 * The weights sum to one, so that a forecast on which all agree is never altered.
 *
 * Cost: O(p²) per sample for p forecasts, O(p³) per solution; p² numbers kept.
 */

export interface Blend {
  /** What the forecasts said (the first one is the base), what the blend had said, and what came. */
  learn(said: ArrayLike<number>, blended: number, value: number): void
  /** Draws the weights anew from what was learned; `errors`: the recent mean absolute error of each. */
  solve(errors: ArrayLike<number>): void
  /** Their weighted sum, kept near the range of the forecasts. */
  of(said: ArrayLike<number>): number
}

/** Of each forecast's own variance: how strongly the weights are drawn to those of inverse squared error. */
const RIDGE = 0.1
/** An error smaller than this share of the usual one weighs no more: the sum of absolute errors has no curvature at 0. */
const LEAST_ERROR = 0.5
/** How far beyond what any forecast says the blend may go, as a share of their range. */
const OVERSHOOT = 0.25

/** `forgetPerSample`: what is left of a sample's weight after one more, 0–1. */
export function createBlend(forecasts: number, forgetPerSample: number): Blend {
  const p = forecasts - 1
  const gram = new Float64Array(p * p)
  const moment = new Float64Array(p)
  const weights = new Float64Array(p).fill(1 / forecasts)
  const factor = new Float64Array(p * p)
  const off = new Float64Array(p)
  const prior = new Float64Array(p)
  let usualError = 0
  let samples = 0

  return {
    learn(said, blended, value) {
      const base = said[0] ?? 0
      const error = Math.abs(value - blended)
      samples += 1
      usualError += Math.max(1 - forgetPerSample, 1 / samples) * (error - usualError)
      if (usualError === 0) return
      const weight = 1 / Math.max(error / usualError, LEAST_ERROR)
      for (let i = 0; i < p; i++) off[i] = (said[i + 1] ?? 0) - base
      const target = value - base
      for (let i = 0; i < p; i++) {
        const scaled = weight * (off[i] ?? 0)
        moment[i] = forgetPerSample * (moment[i] ?? 0) + scaled * target
        for (let k = 0; k <= i; k++) gram[i * p + k] = forgetPerSample * (gram[i * p + k] ?? 0) + scaled * (off[k] ?? 0)
      }
    },
    solve(errors) {
      const floor = 1e-3 * Math.max(1e-12, usualError)
      let total = 1 / (floor + (errors[0] ?? 0)) ** 2
      for (let i = 0; i < p; i++) {
        prior[i] = 1 / (floor + (errors[i + 1] ?? 0)) ** 2
        total += prior[i] ?? 0
      }
      for (let i = 0; i < p; i++) prior[i] = (prior[i] ?? 0) / total
      // (G + λ diag G) w = m + λ diag G prior, by Cholesky: G is lower-triangular storage of a symmetric matrix.
      let trace = 0
      for (let i = 0; i < p; i++) trace += gram[i * p + i] ?? 0
      if (trace <= 0) {
        weights.set(prior)
        return
      }
      const least = (1e-6 * trace) / p
      for (let i = 0; i < p; i++) {
        const ridge = RIDGE * (gram[i * p + i] ?? 0) + least
        let right = (moment[i] ?? 0) + ridge * (prior[i] ?? 0)
        for (let k = 0; k <= i; k++) {
          let sum = (gram[i * p + k] ?? 0) + (i === k ? ridge : 0)
          for (let m = 0; m < k; m++) sum -= (factor[i * p + m] ?? 0) * (factor[k * p + m] ?? 0)
          factor[i * p + k] = i === k ? Math.sqrt(Math.max(least, sum)) : sum / (factor[k * p + k] ?? 1)
        }
        for (let m = 0; m < i; m++) right -= (factor[i * p + m] ?? 0) * (weights[m] ?? 0)
        weights[i] = right / (factor[i * p + i] ?? 1)
      }
      for (let i = p - 1; i >= 0; i--) {
        let right = weights[i] ?? 0
        for (let m = i + 1; m < p; m++) right -= (factor[m * p + i] ?? 0) * (weights[m] ?? 0)
        weights[i] = right / (factor[i * p + i] ?? 1)
      }
      // Differences so small that their squares vanish leave nothing to divide by.
      if (!weights.every(Number.isFinite)) weights.set(prior)
    },
    of(said) {
      const base = said[0] ?? 0
      let sum = base
      let least = base
      let most = base
      for (let i = 0; i < p; i++) {
        const value = said[i + 1] ?? 0
        sum += (weights[i] ?? 0) * (value - base)
        if (value < least) least = value
        if (value > most) most = value
      }
      const beyond = OVERSHOOT * (most - least)
      return Math.max(0, Math.min(most + beyond, Math.max(least - beyond, sum)))
    },
  }
}
