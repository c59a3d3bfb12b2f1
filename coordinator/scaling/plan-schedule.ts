/** The bounds that hold now: those of the app file, or of the schedule that matched last (design §8.1). Pure. */
import { nextMatch, previousMatch } from '../../shared/cron.ts'
import type { ScaleRules, ScaleSchedule } from '../../shared/model/app.ts'

export interface ScaleBounds {
  readonly min: number
  readonly max: number
  /** Where they come from when not from `min` and `max` of the file, for people; else null. */
  readonly note: string | null
  /** Epoch ms from which they may be others; null: never. */
  readonly untilMs: number | null
}

/**
 * A schedule's bounds hold from each of its matches until another schedule matches; before the first match of any, those of the
 * file. A higher minimum goes ahead by `leadMs`, so that its instances are ready at the time. Of two that match at the same time
 * the later in the list counts. Costs a search through the calendar per schedule: to be asked again only after `untilMs`.
 */
export function boundsAt(rules: ScaleRules, nowMs: number, leadMs: number): ScaleBounds {
  const schedules = rules.schedules ?? []
  const present = lastOf(schedules, nowMs)
  let min = present?.min ?? rules.min
  let max = present?.max ?? rules.max
  let note = present === null ? null : `schedule "${present.at}" ${present.timeZone}`
  let untilMs: number | null = null
  for (const schedule of schedules) {
    const nextMs = nextMatch(schedule.at, schedule.timeZone, nowMs)
    if (nextMs === null) continue
    const aheadMs = nextMs - leadMs
    if (schedule.min > min && aheadMs <= nowMs) {
      min = schedule.min
      max = Math.max(max, min)
      note = `schedule "${schedule.at}" ${schedule.timeZone} comes in ${Math.round((nextMs - nowMs) / 1000)} s`
    }
    const changeMs = aheadMs > nowMs ? aheadMs : nextMs
    untilMs = untilMs === null ? changeMs : Math.min(untilMs, changeMs)
  }
  return { min, max: Math.max(min, max), note, untilMs }
}

function lastOf(schedules: readonly ScaleSchedule[], nowMs: number): ScaleSchedule | null {
  let last: ScaleSchedule | null = null
  let lastMs = Number.NEGATIVE_INFINITY
  for (const schedule of schedules) {
    const atMs = previousMatch(schedule.at, schedule.timeZone, nowMs)
    if (atMs === null || atMs < lastMs) continue
    last = schedule
    lastMs = atMs
  }
  return last
}
