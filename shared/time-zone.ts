/**
 * Time zones of the IANA database as this host knows them, and their clocks. A zone is asked for by the very thing that is used
 * (Temporal): other parts of the platform take names that it refuses, such as `PST`.
 */
import { InputError } from './errors.ts'

/** A stretch of time [fromMs, untilMs) in which the local clock is `offsetMs` ahead of UTC. */
export interface Stretch {
  readonly fromMs: number
  readonly untilMs: number
  readonly offsetMs: number
}

/** The clock of one zone. Remembers what it read, within bounds: the platform takes a tenth of a millisecond per answer. */
export interface ZoneClock {
  /** The local date at that moment, in days since 1970-01-01. */
  dayOf(atMs: number): number
  /** What the clock shows from `fromMs` to `untilMs`, at most a week apart; the first reaches back, the last on, without end. */
  stretches(fromMs: number, untilMs: number): readonly Stretch[]
}

export const DAY_MS = 86_400_000
/** Read at once. */
const BLOCK_MS = 512 * DAY_MS
const MARGIN_MS = 8 * DAY_MS
/** Blocks remembered per zone: now, what comes, and some far away. */
const MAX_BLOCKS = 16

/** What people write for a zone; an abbreviation names an offset, in summer another, and some name several places. */
const ABBREVIATIONS: Readonly<Record<string, string>> = {
  acst: 'Australia/Adelaide',
  aedt: 'Australia/Sydney',
  aest: 'Australia/Sydney',
  akdt: 'America/Anchorage',
  akst: 'America/Anchorage',
  ast: 'America/Halifax',
  awst: 'Australia/Perth',
  brt: 'America/Sao_Paulo',
  bst: 'Europe/London',
  cat: 'Africa/Maputo',
  cdt: 'America/Chicago',
  cest: 'Europe/Berlin',
  cst: 'America/Chicago',
  eat: 'Africa/Nairobi',
  edt: 'America/New_York',
  eest: 'Europe/Helsinki',
  hkt: 'Asia/Hong_Kong',
  ist: 'Asia/Kolkata',
  jst: 'Asia/Tokyo',
  kst: 'Asia/Seoul',
  mdt: 'America/Denver',
  msk: 'Europe/Moscow',
  nst: 'America/St_Johns',
  nzdt: 'Pacific/Auckland',
  nzst: 'Pacific/Auckland',
  pdt: 'America/Los_Angeles',
  pst: 'America/Los_Angeles',
  sast: 'Africa/Johannesburg',
  sgt: 'Asia/Singapore',
  sst: 'Pacific/Pago_Pago',
  vst: 'Asia/Ho_Chi_Minh',
  west: 'Europe/Lisbon',
}

/** Whether it names a time zone that this host can reckon with; offsets such as `+02:00` are none. */
export function isTimeZone(name: string): boolean {
  return zonedEpoch(name) !== null
}

/** The zone that a common abbreviation most likely means; null for anything else. */
export function zoneOfAbbreviation(name: string): string | null {
  const key = name.trim().toLowerCase()
  return Object.hasOwn(ABBREVIATIONS, key) ? (ABBREVIATIONS[key] ?? null) : null
}

/** Throws InputError for what `isTimeZone` refuses. */
export function createZoneClock(name: string): ZoneClock {
  const epoch = zonedEpoch(name)
  if (epoch === null) {
    const meant = zoneOfAbbreviation(name)
    throw new InputError(`there is no time zone "${name.length > 40 ? `${name.slice(0, 40)}…` : name}"`, [
      { path: '', message: 'is not in the IANA database', hint: meant ?? 'for example "Europe/Berlin" or "UTC"' },
    ])
  }
  const blocks = new Map<number, readonly Stretch[]>()
  const blockAt = (atMs: number): readonly Stretch[] => {
    const number = Math.floor(atMs / BLOCK_MS)
    let block = blocks.get(number)
    if (block === undefined) {
      block = readStretches(name, number * BLOCK_MS - MARGIN_MS, (number + 1) * BLOCK_MS + MARGIN_MS)
      if (blocks.size >= MAX_BLOCKS) blocks.clear()
      blocks.set(number, block)
    }
    return block
  }
  return {
    dayOf(atMs) {
      const here = blockAt(atMs).find(({ untilMs }) => atMs < untilMs)
      return Math.floor((atMs + (here?.offsetMs ?? 0)) / DAY_MS)
    },
    stretches(fromMs, untilMs) {
      const block = blockAt((fromMs + untilMs) / 2)
      const within = block.filter((stretch) => stretch.fromMs < untilMs && stretch.untilMs > fromMs)
      return within.map((stretch, index) => ({
        fromMs: index === 0 ? Number.NEGATIVE_INFINITY : stretch.fromMs,
        untilMs: index === within.length - 1 ? Number.POSITIVE_INFINITY : stretch.untilMs,
        offsetMs: stretch.offsetMs,
      }))
    },
  }
}

function zonedEpoch(name: string): Temporal.ZonedDateTime | null {
  if (!/^[A-Za-z]/.test(name)) return null
  try {
    return Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(name)
  } catch {
    // The only way the platform tells that it does not know one.
    return null
  }
}

function readStretches(name: string, startMs: number, endMs: number): readonly Stretch[] {
  const stretches: Stretch[] = []
  let at = Temporal.Instant.fromEpochMilliseconds(startMs).toZonedDateTimeISO(name)
  let fromMs = Number.NEGATIVE_INFINITY
  for (;;) {
    const offsetMs = at.offsetNanoseconds / 1_000_000
    const next = at.getTimeZoneTransition('next')
    if (next === null || next.epochMilliseconds >= endMs) {
      stretches.push({ fromMs, untilMs: Number.POSITIVE_INFINITY, offsetMs })
      return stretches
    }
    stretches.push({ fromMs, untilMs: next.epochMilliseconds, offsetMs })
    fromMs = next.epochMilliseconds
    at = next
  }
}
