/**
 * Loads of one service over time: a bounded ring of samples, each the sum over its ready instances. The sum comes first and
 * then the mean, so that load which moves between instances counts once.
 */
import type { LoadSummary } from './plan-replicas.ts'

/** One instance's report, as it came. */
export interface LoadReport {
  /** null: it did not report, or its node is silent. */
  readonly loadPercent: number | null
  /** Backlog in instances' worth; null when it does not tell. */
  readonly demand: number | null
}

export interface LoadWindow {
  /** Adds one sample: a report of each ready instance. `atMs` is monotonic and must not decrease. */
  add(atMs: number, reports: readonly LoadReport[]): void
  summary(atMs: number): LoadSummary
  /** Whether a sample is due: windows of hours are sampled more rarely than those of seconds. */
  isDue(atMs: number): boolean
}

interface Sample {
  readonly atMs: number
  readonly sumPercent: number
  readonly reporting: number
  /** No ready instance, or one that did not report. */
  readonly missing: boolean
  readonly backlogKnown: boolean
  /** Mean of the sums over the window that ended here. */
  readonly demandPercent: number | null
}

const SAMPLE_MS = 1_000
const MAX_SAMPLES = 512
/** A backlog above this is a fault of the service, not work. */
const MAX_DEMAND = 10_000

/** A window over `windowMs`, and over `downWindowMs` for the peak. */
export function createLoadWindow(windowMs: number, downWindowMs: number): LoadWindow {
  const spanMs = Math.max(windowMs, downWindowMs)
  const everyMs = Math.max(SAMPLE_MS, Math.ceil(spanMs / (MAX_SAMPLES - 12)))
  /** A longer silence of ours is a gap: what happened in it is not known. */
  const gapMs = 5 * everyMs
  let samples: Sample[] = []
  let completeSinceMs: number | null = null
  /** When the number of reporting instances last rose. */
  let risenAtMs = Number.NEGATIVE_INFINITY

  const recent = (atMs: number) => samples.filter((sample) => sample.atMs > atMs - windowMs)

  return {
    isDue: (atMs) => atMs >= (samples.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY) + everyMs - 50,
    add(atMs, reports) {
      const last = samples.at(-1)
      if (last !== undefined && atMs - last.atMs > gapMs) {
        samples = []
        completeSinceMs = null
      }
      let sumPercent = 0
      let reporting = 0
      let backlogs = 0
      for (const report of reports) {
        if (!isPercent(report.loadPercent)) continue
        reporting += 1
        const hasBacklog = isDemand(report.demand)
        if (hasBacklog) backlogs += 1
        sumPercent += Math.max(report.loadPercent, hasBacklog ? 100 * (report.demand ?? 0) : 0)
      }
      const missing = reporting === 0 || reporting < reports.length
      // One that misses a report and is back within the window is not new.
      if (reporting > Math.max(0, ...recent(atMs).map((each) => each.reporting))) risenAtMs = atMs
      if (missing) completeSinceMs = null
      else completeSinceMs ??= atMs
      const sample = { atMs, sumPercent, reporting, missing, backlogKnown: reporting > 0 && backlogs === reporting }
      const sums = [...recent(atMs), sample].filter((each) => each.reporting > 0)
      const demandPercent = sums.length === 0 ? null : mean(sums.map((each) => each.sumPercent))
      samples.push({ ...sample, demandPercent })
      const keepFromMs = atMs - spanMs - everyMs
      if ((samples[0]?.atMs ?? atMs) < keepFromMs || samples.length > MAX_SAMPLES)
        samples = samples.filter((each) => each.atMs >= keepFromMs).slice(-MAX_SAMPLES)
    },
    summary(atMs) {
      const known = recent(atMs).filter((sample) => sample.reporting > 0)
      const settled = known.filter((sample) => sample.atMs >= risenAtMs)
      let peak: number | null = null
      for (const sample of samples)
        if (sample.demandPercent !== null && sample.atMs > atMs - downWindowMs) peak = Math.max(peak ?? 0, sample.demandPercent)
      return {
        demandPercent: known.length === 0 ? null : mean(known.map((sample) => sample.sumPercent)),
        meanPercent:
          settled.length === 0 ? null : mean(settled.map((sample) => Math.min(100, sample.sumPercent / sample.reporting))),
        settledMs: known.length === 0 ? 0 : atMs - risenAtMs,
        coveredMs: known[0] === undefined ? 0 : Math.min(windowMs, atMs - known[0].atMs + everyMs),
        peakDemandPercent: peak,
        completeMs: completeSinceMs === null ? 0 : atMs - completeSinceMs,
        backlogKnown: known.length > 0 && known.every((sample) => sample.backlogKnown),
      }
    },
  }
}

/** What an agent may report; everything else is dropped as if it had not come (fault row 13). */
function isPercent(value: number | null): value is number {
  return value !== null && Number.isFinite(value) && value >= 0 && value <= 100
}

function isDemand(value: number | null): boolean {
  return value !== null && Number.isFinite(value) && value >= 0 && value <= MAX_DEMAND
}

function mean(values: readonly number[]): number {
  let sum = 0
  for (const value of values) sum += value
  return sum / values.length
}
