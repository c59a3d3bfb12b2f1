/**
 * Loads of one service over time: a bounded ring of samples, each the sum over its ready instances. The sum comes first and
 * then the mean, so that load which moves between instances counts once. A sample costs O(instances), a summary
 * at most a walk over the samples of its windows.
 */
import { MAX_DEMAND } from '../../shared/model/observation.ts'
import type { LoadSummary } from './plan-replicas.ts'
import { createRequestCost } from './request-cost.ts'

/** One instance's report, as it came. */
export interface LoadReport {
  /** null: it did not report, or its node is silent. */
  readonly loadPercent: number | null
  /** Backlog in instances' worth; null when it does not tell. */
  readonly demand: number | null
}

export type Unheard = 'none' | 'lost' | 'perhaps serving'

export interface LoadWindow {
  /**
   * Adds one sample: a report of each ready instance, and the requests that arrived since the sample before. `atMs` is monotonic and
   * must not decrease. `unheard`: some instances are on nodes that are not heard, so that more load may only be more hearing;
   * `perhaps serving`: and they may carry load that nobody sees, as those of nodes that this coordinator has not heard yet.
   */
  add(atMs: number, reports: readonly LoadReport[], arrived?: number, unheard?: Unheard): void
  /** `leadMs`: how long an instance takes that is ordered now; a trend is looked for over about as long. */
  summary(atMs: number, leadMs?: number): LoadSummary
  /** Whether a sample is due: windows of hours are sampled more rarely than those of seconds. */
  isDue(atMs: number): boolean
  /** Whether nothing but time would change the summary: every sample that still counts is like the last one. */
  isConstant(atMs: number): boolean
  /** Nothing has changed since the last sample, and nobody looked: the samples that were left out are made up for. */
  holdUntil(atMs: number): void
}

interface Sample {
  readonly atMs: number
  readonly sumPercent: number
  readonly reporting: number
  /** No ready instance, or one that did not report. */
  readonly missing: boolean
  readonly backlogKnown: boolean
  readonly requests: number
  /** The sum, or what arrives when that is more and the instances are full. */
  readonly shownPercent: number
  /** Mean of the sums over the window that ended here. */
  readonly demandPercent: number | null
}

const SAMPLE_MS = 1_000
/** A sample may come so much before its time: a jump is looked at when it comes, not at the next full second. */
const EARLY_MS = 550
const MAX_SAMPLES = 512
/** Mean load from which instances hide demand. */
const FULL_PERCENT = 98
/** A jump counts when it held this part of the window: 2 s of the usual 30 s, by which two reports of the usual two seconds show it. */
const SUSTAINED_SHARE = 1 / 15

/** A window over `windowMs`, and over `downWindowMs` for the peak. */
export function createLoadWindow(windowMs: number, downWindowMs: number): LoadWindow {
  const spanMs = Math.max(windowMs, downWindowMs)
  const everyMs = Math.max(SAMPLE_MS, Math.ceil(spanMs / (MAX_SAMPLES - 12)))
  const sustainedMs = Math.max(2 * everyMs, windowMs * SUSTAINED_SHARE)
  /** A longer silence of ours is a gap: what happened in it is not known. */
  const gapMs = 5 * everyMs
  const cost = createRequestCost()
  let samples: Sample[] = []
  let completeSinceMs: number | null = null
  /** When the number of reporting instances last rose. */
  let risenAtMs = Number.NEGATIVE_INFINITY
  /** When it last fell, or was not whole: what grows afterwards may be instances that are heard again. */
  let fallenAtMs = Number.NEGATIVE_INFINITY
  /** The first sample within the window, and sums over those from it on. */
  let first = 0
  let known = 0
  let sumPercent = 0
  let withoutBacklog = 0
  /** The same over samples since `risenAtMs`. */
  let settled = 0
  let settledMeans = 0
  /** Positions of samples whose mean no later one exceeds, the largest first: the peak of the stabilization window. */
  let peaks: number[] = []
  /** Since when every sample has been like the last. */
  let sameSinceMs = Number.NEGATIVE_INFINITY

  const restart = () => {
    samples = []
    peaks = []
    first = known = sumPercent = withoutBacklog = settled = settledMeans = 0
  }
  const meanOf = (sample: Sample) => Math.min(100, sample.sumPercent / sample.reporting)
  const count = (sample: Sample, sign: 1 | -1) => {
    if (sample.reporting === 0) return
    known += sign
    sumPercent += sign * sample.sumPercent
    if (!sample.backlogKnown) withoutBacklog += sign
    if (sample.atMs < risenAtMs) return
    settled += sign
    settledMeans += sign * meanOf(sample)
  }
  const leaveOld = (atMs: number) => {
    for (let old = samples[first]; old !== undefined && old.atMs <= atMs - windowMs; old = samples[first]) {
      count(old, -1)
      first += 1
    }
  }
  const rise = (atMs: number) => {
    risenAtMs = atMs
    settled = settledMeans = 0
  }
  const compact = (atMs: number) => {
    let drop = 0
    while (drop < first && (samples[drop]?.atMs ?? atMs) < atMs - spanMs - everyMs) drop += 1
    // A pile at a time, so that each sample is moved rarely.
    if (drop < 64 && samples.length < 2 * MAX_SAMPLES) return
    samples = samples.slice(drop)
    first -= drop
    peaks = peaks.flatMap((position) => (position < drop ? [] : [position - drop]))
    // Sums of decimals drift a little with each term that comes and goes.
    known = sumPercent = withoutBacklog = settled = settledMeans = 0
    for (let i = first; i < samples.length; i += 1) {
      const sample = samples[i]
      if (sample !== undefined) count(sample, 1)
    }
  }

  const add = (atMs: number, reports: readonly LoadReport[], arrived = 0, unheard: Unheard = 'none') => {
    const last = samples.at(-1)
    if (last !== undefined && atMs - last.atMs > gapMs) {
      restart()
      completeSinceMs = null
    }
    let sum = 0
    let reporting = 0
    let backlogs = 0
    for (const report of reports) {
      if (!isPercent(report.loadPercent)) continue
      reporting += 1
      const hasBacklog = isDemand(report.demand)
      if (hasBacklog) backlogs += 1
      sum += Math.max(report.loadPercent, hasBacklog ? 100 * (report.demand ?? 0) : 0)
    }
    const missing = reporting === 0 || reports.length > reporting
    leaveOld(atMs)
    // One that misses a report and is back within the window is not new.
    if (reporting > (last?.reporting ?? 0) && isMost(reporting)) rise(atMs)
    if (unheard !== 'none' || reporting < (last?.reporting ?? 0)) fallenAtMs = atMs
    if (missing || unheard === 'perhaps serving') completeSinceMs = null
    else completeSinceMs ??= atMs
    cost.observe(atMs, sum, reporting, arrived)
    push({
      atMs,
      sumPercent: sum,
      shownPercent: sum >= FULL_PERCENT * reporting ? Math.max(sum, cost.demandPercent(atMs) ?? 0) : sum,
      reporting,
      missing,
      requests: arrived,
      backlogKnown: reporting > 0 && backlogs === reporting,
    })
  }

  const isMost = (reporting: number) => {
    for (let i = first; i < samples.length; i += 1) if ((samples[i]?.reporting ?? 0) >= reporting) return false
    return true
  }

  const push = (fields: Omit<Sample, 'demandPercent'>) => {
    const last = samples.at(-1)
    if (
      last === undefined ||
      last.sumPercent !== fields.sumPercent ||
      last.reporting !== fields.reporting ||
      last.missing !== fields.missing ||
      last.backlogKnown !== fields.backlogKnown ||
      last.requests !== fields.requests
    )
      sameSinceMs = fields.atMs
    count({ ...fields, demandPercent: null }, 1)
    const sample = { ...fields, demandPercent: known === 0 ? null : sumPercent / known }
    samples.push(sample)
    if (sample.demandPercent !== null) {
      while (peaks.length > 0 && (samples[peaks.at(-1) ?? 0]?.demandPercent ?? 0) <= sample.demandPercent) peaks.pop()
      peaks.push(samples.length - 1)
    }
    compact(fields.atMs)
  }

  /** The least sum of the samples of the last moments: what held all the time, whatever came before. */
  const sustained = (atMs: number): number | null => {
    let least: number | null = null
    for (let i = samples.length - 1; i >= 0; i -= 1) {
      const sample = samples[i]
      if (sample === undefined || sample.missing) return null
      least = Math.min(least ?? sample.sumPercent, sample.sumPercent)
      if (sample.atMs <= atMs - sustainedMs) return least
    }
    return null
  }

  /** Growth per second that all of the last moments show: the least of three between four equal parts. A step is no growth. */
  const growth = (atMs: number, leadMs: number): number => {
    const partMs = Math.min(downWindowMs, Math.max(windowMs, leadMs)) / 4
    if (atMs - fallenAtMs < downWindowMs) return 0
    if ((samples[0]?.atMs ?? atMs) > atMs - 4 * partMs + everyMs) return 0
    let i = samples.length - 1
    let later: number | null = null
    let least = Number.POSITIVE_INFINITY
    for (let part = 1; part <= 4; part += 1) {
      let sum = 0
      let count = 0
      for (let sample = samples[i]; sample !== undefined && sample.atMs > atMs - part * partMs; sample = samples[i]) {
        if (sample.reporting === 0) return 0
        sum += sample.shownPercent
        count += 1
        i -= 1
      }
      if (count === 0) return 0
      if (later !== null) least = Math.min(least, later - sum / count)
      if (least <= 0) return 0
      later = sum / count
    }
    return least / (partMs / 1000)
  }

  return {
    isDue: (atMs) => atMs >= (samples.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY) + everyMs - EARLY_MS,
    isConstant: (atMs) => samples.length > 0 && atMs - sameSinceMs > spanMs + windowMs && atMs - risenAtMs > windowMs,
    holdUntil(atMs) {
      const last = samples.at(-1)
      if (last === undefined || atMs - last.atMs <= everyMs) return
      const from = Math.max(last.atMs + everyMs, atMs - spanMs - windowMs)
      for (let at = from; at < atMs; at += everyMs) {
        leaveOld(at)
        push({ ...last, atMs: at })
      }
    },
    add,
    summary(atMs, leadMs = 0) {
      leaveOld(atMs)
      while (peaks.length > 0 && (samples[peaks[0] ?? 0]?.atMs ?? 0) <= atMs - downWindowMs) peaks.shift()
      const oldest = firstKnown()
      const coveredMs = oldest === null ? 0 : Math.min(windowMs, atMs - oldest.atMs + everyMs)
      return {
        demandPercent: known === 0 ? null : sumPercent / known,
        meanPercent: settled === 0 ? null : settledMeans / settled,
        settledMs: known === 0 ? 0 : atMs - risenAtMs,
        coveredMs,
        peakDemandPercent: peaks.length === 0 ? null : (samples[peaks[0] ?? 0]?.demandPercent ?? null),
        completeMs: completeSinceMs === null ? 0 : atMs - completeSinceMs,
        backlogKnown: known > 0 && withoutBacklog === 0,
        sustainedPercent: sustained(atMs),
        growthPercentPerS: growth(atMs, leadMs),
        arrivalPercent: cost.demandPercent(atMs),
        parts: cost.parts(),
      }
    },
  }

  function firstKnown(): Sample | null {
    for (let i = first; i < samples.length; i += 1) {
      const sample = samples[i]
      if (sample !== undefined && sample.reporting > 0) return sample
    }
    return null
  }
}

/** What an agent may report; everything else is dropped as if it had not come (fault row 13). */
function isPercent(value: number | null): value is number {
  return value !== null && Number.isFinite(value) && value >= 0 && value <= 100
}

function isDemand(value: number | null): boolean {
  return value !== null && Number.isFinite(value) && value >= 0 && value <= MAX_DEMAND
}
