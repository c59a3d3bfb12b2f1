/**
 * Exponential smoothing with a season of the day and one of the week, additive, and the newest deviation carried on for a while
 * (double seasonal Holt-Winters with a first-order error term: Taylor 2003, Journal of the Operational Research Society 54).
 * Two changes: rates are given by time and not by step, and an error counts at most so far as the usual error reaches, unless it lasts.
 */
import type { CivilTime } from './civil-time.ts'
import type { Forecaster } from './forecaster.ts'
import { LEAST_SLOT_MS } from './profile.ts'

const DAY_MS = 86_400_000
const LEVEL_TIME_MS = DAY_MS
const DEVIATION_TIME_MS = 600_000
/** Learned shares per visit of a slot. */
const DAY_SHARE = 0.1
const WEEK_SHARE = 0.15
const CUT = 4
/** An error of one sign for so long is no outlier but a new level. */
const LASTING_MS = 1_800_000

export function createHoltWinters(civil: CivilTime, stepMs: number): Forecaster {
  const slotMs = Math.max(LEAST_SLOT_MS, stepMs)
  const visitsPerSlot = slotMs / stepMs
  const day = new Float32Array(Math.ceil(DAY_MS / slotMs))
  const week = new Float32Array(Math.ceil((7 * DAY_MS) / slotMs))
  const samplesPerDay = DAY_MS / stepMs
  const deviationShare = 1 - Math.exp(-stepMs / DEVIATION_TIME_MS)
  const lastingSteps = Math.max(3, LASTING_MS / stepMs)
  const lag = Math.max(1, Math.round(900_000 / stepMs))
  const past = new Float64Array(2 * lag)
  let level = 0
  let deviation = 0
  let samples = 0
  let scatter = 0
  let cutInARow = 0
  let cutSign = 0
  let lagged = 0
  let laggedTwice = 0
  let lastAtMs = Number.NaN

  const seasonAt = (atMs: number) => {
    const ms = civil.msOfWeek(atMs)
    return (day[Math.floor((ms % DAY_MS) / slotMs)] ?? 0) + (week[Math.floor(ms / slotMs)] ?? 0)
  }

  /** How much of a deviation is left after one step: by the ratio of its covariances at one and two lags, which noise doesn't bias. */
  const persistencePerStep = () => {
    const ratio = lagged > 0 ? laggedTwice / lagged : 0
    return Math.max(0.2, Math.min(0.995, ratio)) ** (1 / lag)
  }

  return {
    name: 'holt-winters',
    observe(atMs, value) {
      lastAtMs = atMs
      if (value === null) {
        deviation *= persistencePerStep()
        return
      }
      const ms = civil.msOfWeek(atMs)
      const daySlot = Math.floor((ms % DAY_MS) / slotMs)
      const weekSlot = Math.floor(ms / slotMs)
      const season = (day[daySlot] ?? 0) + (week[weekSlot] ?? 0)
      if (samples === 0) level = value
      const off = value - level - season
      let error = off
      if (samples > samplesPerDay && scatter > 0 && Math.abs(off) > CUT * scatter) {
        cutInARow = Math.sign(off) === cutSign ? cutInARow + 1 : 1
        cutSign = Math.sign(off)
        if (cutInARow < lastingSteps) error = cutSign * CUT * scatter
      } else cutInARow = 0
      samples += 1
      scatter += Math.max(0.2 / samplesPerDay, 1 / samples) * (Math.abs(error) - scatter)
      const at = samples % (2 * lag)
      const forget = 1 - 0.3 / samplesPerDay
      lagged = forget * lagged + error * (past[(at + lag) % (2 * lag)] ?? 0)
      laggedTwice = forget * laggedTwice + error * (past[at] ?? 0)
      past[at] = error
      deviation = deviation * persistencePerStep()
      deviation += deviationShare * (error - deviation)
      level += Math.max(stepMs / LEVEL_TIME_MS / 3, 1 / samples) * error
      // In its first week a slot's error is the day's alone; later the week takes what the days do not share.
      const isFirstDay = samples <= samplesPerDay
      day[daySlot] = (day[daySlot] ?? 0) + ((isFirstDay ? 0.7 : DAY_SHARE) / visitsPerSlot) * error
      if (samples > 7 * samplesPerDay) week[weekSlot] = (week[weekSlot] ?? 0) + (WEEK_SHARE / visitsPerSlot) * error
    },
    at(distance) {
      if (samples < samplesPerDay) return null
      const season = seasonAt(lastAtMs + distance * stepMs)
      return Math.max(0, level + season + deviation * persistencePerStep() ** distance)
    },
  }
}
