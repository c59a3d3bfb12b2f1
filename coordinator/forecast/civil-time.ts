/** Local civil time of a zone, so that a profile of the week keeps its hours when the clocks change. */

export interface CivilTime {
  readonly timeZone: string
  /** Milliseconds since Monday 00:00 by the local clock, 0 ≤ result < 7 days. */
  msOfWeek(atMs: number): number
}

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const WEEK_MS = 7 * DAY_MS
/** 1970-01-01 was a Thursday: the week that holds the epoch began three days before it. */
const EPOCH_IN_WEEK_MS = 3 * DAY_MS
const REMEMBERED_DAYS = 16

/**
 * Amortised O(1): the zone's rules are asked twice for each UTC day, and again only within the days on which the clock changes.
 * Throws RangeError for a zone that does not exist.
 */
export function createCivilTime(timeZone: string): CivilTime {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone,
    hourCycle: 'h23',
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
  })
  const days = new Map<number, { readonly first: number; readonly last: number }>()
  let lastDay = Number.NaN
  let lastOffset: number | null = null

  const zoneOffset = (atMs: number): number => {
    const part: Record<string, number> = {}
    for (const { type, value } of format.formatToParts(atMs)) part[type] = Number(value)
    const local = Date.UTC(
      part.year ?? 0,
      (part.month ?? 1) - 1,
      part.day ?? 1,
      part.hour ?? 0,
      part.minute ?? 0,
      part.second ?? 0,
    )
    return local - Math.floor(atMs / 1000) * 1000
  }

  const offset = (atMs: number): number => {
    const day = Math.floor(atMs / DAY_MS)
    if (day === lastDay && lastOffset !== null) return lastOffset
    let known = days.get(day)
    if (known === undefined) {
      known = { first: zoneOffset(day * DAY_MS), last: zoneOffset((day + 1) * DAY_MS - 1) }
      days.set(day, known)
      if (days.size > REMEMBERED_DAYS) days.delete(days.keys().next().value ?? day)
    }
    lastDay = day
    lastOffset = known.first === known.last ? known.first : null
    return lastOffset ?? zoneOffset(atMs)
  }

  return {
    timeZone,
    msOfWeek(atMs) {
      const ms = (atMs + offset(atMs) + EPOCH_IN_WEEK_MS) % WEEK_MS
      return ms < 0 ? ms + WEEK_MS : ms
    },
  }
}
