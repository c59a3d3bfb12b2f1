/** The bounds that hold now: those of the app file, or of the schedule that matched last (design §8.1). Pure. */
import type { Calendar, Matches } from '../../shared/calendar.ts'
import { InputError } from '../../shared/errors.ts'
import type { ScaleRules, ScaleSchedule } from '../../shared/model/app.ts'

export interface ScaleBounds {
  readonly min: number
  readonly max: number
  /** Where they come from when not from `min` and `max` of the file, for people; else null. */
  readonly note: string | null
  /** Epoch ms from which they may be others; null: never. */
  readonly untilMs: number | null
  /** Why a schedule has no effect: this host does not know its time zone, say; null: all have. */
  readonly fault: string | null
}

/**
 * A schedule's bounds hold from each of its matches until another schedule matches; before the first match of any, those of the
 * file. A higher minimum goes ahead by `leadMs`, so that its instances are ready at the time. Of two that match at the same time
 * the later in the list counts. One that cannot be read never matches. To be asked again only after `untilMs`.
 */
export function boundsAt(rules: ScaleRules, nowMs: number, leadMs: number, calendar: Calendar): ScaleBounds {
  let fault: string | null = null
  const schedules: Dated[] = []
  for (const schedule of rules.schedules ?? []) {
    const matches = readable(() => calendar.around(schedule.at, schedule.timeZone, nowMs))
    if ('fault' in matches) fault ??= `schedule "${schedule.at}" ${schedule.timeZone}: ${matches.fault}`
    else schedules.push({ ...matches, schedule })
  }
  const present = lastOf(schedules)
  let min = present?.min ?? rules.min
  let max = present?.max ?? rules.max
  let note = present === null ? null : `schedule "${present.at}" ${present.timeZone}`
  let untilMs: number | null = null
  for (const { schedule, nextMs } of schedules) {
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
  return { min, max: Math.max(min, max), note, untilMs, fault }
}

interface Dated extends Matches {
  readonly schedule: ScaleSchedule
}

function lastOf(schedules: readonly Dated[]): ScaleSchedule | null {
  let last: ScaleSchedule | null = null
  let lastMs = Number.NEGATIVE_INFINITY
  for (const { schedule, previousMs } of schedules) {
    if (previousMs === null || previousMs < lastMs) continue
    last = schedule
    lastMs = previousMs
  }
  return last
}

function readable(ask: () => Matches): Matches | { readonly fault: string } {
  try {
    return ask()
  } catch (error) {
    // A stored app may name a zone that this host does not know.
    if (error instanceof InputError) return { fault: error.message }
    throw error
  }
}
