/**
 * Seasonal profile: the usual value of each slot of the local day or week, as an exponential mean over past days or weeks.
 * Robust: what lies far off the usual counts only as far as the usual scatter reaches.
 */
import type { CivilTime } from './civil-time.ts'

export interface Profile {
  readonly period: 'day' | 'week'
  observe(atMs: number, value: number): void
  /** Usual value at that time; null for a slot never seen. */
  at(atMs: number): number | null
  /** The newest mean of that slot alone: the seasonal naive forecast. */
  newest(atMs: number): number | null
}

const DAY_MS = 86_400_000
/** Finer slots hold more noise than season, and more memory: 2,016 slots a week. */
export const LEAST_SLOT_MS = 300_000
/** Scatters beyond which a value is cut. Three visits must have told what is usual. */
const CUT = 4
const VISITS_BEFORE_CUT = 3

export function createProfile(
  civil: CivilTime,
  options: { readonly period: 'day' | 'week'; readonly stepMs: number; readonly weight: number },
): Profile {
  const slotMs = Math.max(LEAST_SLOT_MS, options.stepMs)
  const periodMs = options.period === 'day' ? DAY_MS : 7 * DAY_MS
  const slots = Math.ceil(periodMs / slotMs)
  const means = new Float32Array(slots)
  const news = new Float32Array(slots)
  const visits = new Uint8Array(slots)
  let open = -1
  let openAtMs = Number.NaN
  let sum = 0
  let count = 0
  let scatter = 0

  const slotOf = (atMs: number) => Math.floor((civil.msOfWeek(atMs) % periodMs) / slotMs)

  const close = () => {
    if (open < 0 || count === 0) return
    const value = sum / count
    const mean = means[open] ?? 0
    const seen = visits[open] ?? 0
    const off = value - mean
    let learned = value
    if (seen >= VISITS_BEFORE_CUT) learned = mean + Math.max(-CUT * scatter, Math.min(CUT * scatter, off))
    if (seen > 0) scatter += 0.005 * (Math.min(Math.abs(off), CUT * scatter || Math.abs(off)) - scatter)
    means[open] = mean + Math.max(options.weight, 1 / (seen + 1)) * (learned - mean)
    news[open] = value
    visits[open] = Math.min(255, seen + 1)
  }

  return {
    period: options.period,
    observe(atMs, value) {
      const slot = slotOf(atMs)
      // The hour that the clock repeats comes twice: a visit of its own.
      if (slot !== open || atMs - openAtMs >= slotMs) {
        close()
        open = slot
        openAtMs = atMs
        sum = 0
        count = 0
      }
      sum += value
      count += 1
      if (slotMs === options.stepMs) {
        close()
        open = -1
      }
    },
    at(atMs) {
      const slot = slotOf(atMs)
      return (visits[slot] ?? 0) === 0 ? null : (means[slot] ?? null)
    },
    newest(atMs) {
      const slot = slotOf(atMs)
      return (visits[slot] ?? 0) === 0 ? null : (news[slot] ?? null)
    },
  }
}
