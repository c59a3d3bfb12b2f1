/** Forecasts of one demand series of equal steps (design §8.2). Every implementation costs O(1) per sample, or says what it costs. */

export interface Forecaster {
  readonly name: string
  /** The next sample of the series, `atMs` is the beginning of its step (epoch ms); null: it is missing. */
  observe(atMs: number, value: number | null): void
  /**
   * Expected value of the step that lies `distance` (≥ 1) steps after the last observed one; null while it has seen too little (a
   * daily season needs a day). O(1). Never negative, never NaN. May not change what later calls answer.
   */
  at(distance: number): number | null
}

/** What a contest between forecasters concluded for one series. */
export interface DemandForecast {
  /** The winner's name; `persistence` when nothing beats it. */
  readonly method: string
  /** Peak of the upper quantile (p90 of the winner's own past errors at that distance) within the horizon, in the series' unit. */
  readonly peak: number
  /** Expected values per step within the horizon. */
  readonly expected: readonly number[]
  /** Same with the upper quantile. */
  readonly upper: readonly number[]
  /** Beginning of the last observed step, epoch ms: `expected[0]` is for the step after it. */
  readonly atMs: number
  readonly stepMs: number
  readonly horizonMs: number
  /** Mean absolute error of that method over the contest's days, persistence = 1 at that distance; null before it is known. */
  readonly errorVsPersistence: number | null
  /** Whether it is good enough to act on: it beats persistence by a margin and did not just fail. Else the forecast is persistence's. */
  readonly isTrusted: boolean
  /** Whether a day of demand has been scored: before that there is nothing to choose a method by. */
  readonly isJudged: boolean
}
