/** Reads a demand series: CSV with the columns `timestamp,value`, any unit that is not negative, equal steps. Pure. */
import { type Fault, InputError } from '../../shared/errors.ts'

/** A demand series of equal steps; NaN where a value is missing. */
export interface Trace {
  readonly name: string
  /** Epoch ms of the first step; times without a zone are read as UTC. */
  readonly startMs: number
  readonly stepMs: number
  readonly values: Float64Array
}

/** What a gap in the series means: nothing was asked for, or nobody measured. */
export type GapRule = 'refuse' | 'zero' | 'interpolate'

export interface TraceOptions {
  readonly name: string
  /** For gaps longer than three steps; shorter ones are always interpolated. Default: refuse. */
  readonly gaps?: GapRule
}

/** Ten years of five-minute steps; what is finer than needed should be summed up first. */
export const MAX_ROWS = 1_100_000
const MAX_FAULTS = 10
const SHORT_GAP_STEPS = 3
/** A step may be off by this share: clocks of exporters jitter. */
const STEP_TOLERANCE = 0.1
/** How exporters write that there is no value. */
const MISSING: ReadonlySet<string> = new Set(['', 'nan', 'na', 'n/a', 'null', 'none'])
const ZONED = /(?:Z|[+-]\d\d:?\d\d)$/i

/** Throws InputError with every fault (line, what, how to mend it), at most ten of them. */
export function parseTrace(text: string, options: TraceOptions): Trace {
  const { name } = options
  const faults: Fault[] = []
  const fault = (line: number, message: string, hint: string) => {
    if (faults.length < MAX_FAULTS) faults.push({ path: `${name}:${line}`, file: name, line, message, hint })
  }
  const times: number[] = []
  const values: number[] = []
  const lines: number[] = []
  let line = 0
  for (let at = text.startsWith('\uFEFF') ? 1 : 0; at < text.length && faults.length < MAX_FAULTS; ) {
    const end = text.indexOf('\n', at)
    const row = text.slice(at, end < 0 ? text.length : end).trim()
    at = end < 0 ? text.length : end + 1
    line += 1
    if (row === '' || row.startsWith('#')) continue
    if (times.length >= MAX_ROWS)
      throw new InputError(`${name} has more than ${MAX_ROWS} rows`, [
        { path: `${name}:${line}`, message: 'is too much for one run', hint: 'sum it up into steps of 1 to 5 minutes first' },
      ])
    const cells = row.split(/[,;\t]/)
    const atMs = timeOf(cells[0] ?? '')
    if (atMs === null && times.length === 0 && faults.length === 0 && !/^["\d-]/.test(row.replace('"', ''))) continue
    if (cells.length !== 2) {
      fault(line, `has ${cells.length} column${cells.length === 1 ? '' : 's'}, not 2`, 'each line is "timestamp,value"')
      continue
    }
    if (atMs === null) {
      fault(line, `"${clip(cells[0] ?? '')}" is no time`, 'write ISO 8601 like 2026-03-01T12:05:00, or seconds since 1970')
      continue
    }
    const cell = (cells[1] ?? '').trim().replace(/^"|"$/g, '')
    const isMissing = MISSING.has(cell.toLowerCase())
    const value = isMissing ? Number.NaN : Number(cell)
    if (!isMissing && !Number.isFinite(value)) {
      fault(line, `"${clip(cell)}" is no number`, 'write a decimal number with a point; leave a missing value empty')
      continue
    }
    if (value < 0) {
      fault(line, `${cell} is negative`, 'demand is zero or more; leave a missing value empty')
      continue
    }
    const before = times.at(-1)
    if (before !== undefined && atMs <= before) {
      fault(line, 'is not later than the line before', 'sort the file by time and keep one line per time')
      continue
    }
    times.push(atMs)
    values.push(value)
    lines.push(line)
  }
  if (faults.length === 0 && times.length < 3)
    fault(Math.max(1, line), `holds ${times.length} values`, 'at least 3 lines "timestamp,value" are needed')
  if (faults.length > 0) throw new InputError(`${name} cannot be read as a demand series`, faults)
  return withGaps(times, values, lines, options, fault, faults)
}

function withGaps(
  times: readonly number[],
  values: readonly number[],
  lines: readonly number[],
  options: TraceOptions,
  fault: (line: number, message: string, hint: string) => void,
  faults: readonly Fault[],
): Trace {
  const stepMs = mostCommonStep(times)
  const startMs = times[0] ?? 0
  const length = Math.round(((times.at(-1) ?? startMs) - startMs) / stepMs) + 1
  if (length > 4 * MAX_ROWS) {
    fault(lines.at(-1) ?? 1, 'lies too far from the first line for this step', 'cut the file to one stretch of time')
    throw new InputError(`${options.name} cannot be read as a demand series`, faults)
  }
  const series = new Float64Array(length).fill(Number.NaN)
  times.forEach((atMs, index) => {
    const position = (atMs - startMs) / stepMs
    if (Math.abs(position - Math.round(position)) > STEP_TOLERANCE)
      fault(
        lines[index] ?? 0,
        `lies between the steps of ${Math.round(stepMs / 1000)} s that most lines keep`,
        'resample the series to equal steps',
      )
    series[Math.round(position)] = values[index] ?? Number.NaN
  })
  fillGaps(series, options.gaps ?? 'refuse', (from, count) => {
    // A file of nothing but gaps would be searched for each of them.
    if (faults.length >= MAX_FAULTS) return
    const iso = new Date(startMs + from * stepMs).toISOString().slice(0, 19)
    const after = lines[times.findLastIndex((atMs) => atMs < startMs + (from - 0.5) * stepMs)] ?? 1
    fault(
      after,
      `is followed by a gap of ${count} steps from ${iso} on`,
      'say what it means: --gaps zero (nothing was asked for) or --gaps interpolate (nobody measured)',
    )
  })
  if (faults.length > 0) throw new InputError(`${options.name} cannot be read as a demand series`, faults)
  return { name: options.name, startMs, stepMs, values: series }
}

/** Fills missing values in place; a long gap is reported when the rule is to refuse it. */
function fillGaps(series: Float64Array, rule: GapRule, refuse: (from: number, count: number) => void): void {
  for (let index = 0; index < series.length; index += 1) {
    if (!Number.isNaN(series[index])) continue
    let end = index
    while (end < series.length && Number.isNaN(series[end])) end += 1
    const count = end - index
    const left = series[index - 1] ?? series[end] ?? 0
    const right = series[end] ?? left
    if (count > SHORT_GAP_STEPS && rule === 'refuse') refuse(index, count)
    for (let k = 0; k < count; k += 1)
      series[index + k] = count > SHORT_GAP_STEPS && rule === 'zero' ? 0 : left + ((right - left) * (k + 1)) / (count + 1)
    index = end - 1
  }
}

function mostCommonStep(times: readonly number[]): number {
  const counts = new Map<number, number>()
  let best = (times[1] ?? 1) - (times[0] ?? 0)
  for (let index = 1; index < times.length; index += 1) {
    const step = (times[index] ?? 0) - (times[index - 1] ?? 0)
    const count = (counts.get(step) ?? 0) + 1
    counts.set(step, count)
    if (count > (counts.get(best) ?? 0)) best = step
  }
  return best
}

/** Epoch ms; null when it is no time. Bare numbers are seconds since 1970, or milliseconds where they are too large for that. */
function timeOf(cell: string): number | null {
  const text = cell.trim().replace(/^"|"$/g, '')
  if (/^\d{9,13}(\.\d+)?$/.test(text)) return Number(text) * (Number(text) > 1e11 ? 1 : 1000)
  if (!/^\d{4}-\d\d-\d\d/.test(text)) return null
  const iso = text.replace(' ', 'T')
  const atMs = Date.parse(ZONED.test(iso.slice(10)) || iso.length <= 10 ? iso : `${iso}Z`)
  return Number.isNaN(atMs) ? null : atMs
}

function clip(text: string): string {
  return text.length > 40 ? `${text.slice(0, 39)}…` : text
}
