/**
 * Recorded demand from CSV files: header `timestamp,value`, ISO-8601, steps equal. Times without a zone are taken as the local clock of
 * what was recorded, so the series is given as UTC and its days are the local ones. An empty value is missing; rows that lack for less than
 * two hours are missing too, for longer they are 0 (closed).
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { DemandSeries } from '../builders/demand-series.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const CLOSED_MS = 7_200_000
const MINUTE_MS = 60_000

/** `TRACES`, else `../shared/data/traces` beside the repository; null where neither is. */
export function tracesFolder(): string | null {
  const folder = process.env.TRACES ?? join(ROOT, '..', 'shared', 'data', 'traces')
  return existsSync(folder) ? folder : null
}

export function readTraces(folder: string): readonly DemandSeries[] {
  return readdirSync(folder)
    .filter((file) => file.endsWith('.csv'))
    .sort()
    .map((file) => readTrace(join(folder, file)))
}

/** Throws with file and line for what is no trace. Steps below a minute are gathered into minutes (their mean). */
export function readTrace(path: string): DemandSeries {
  const rows: { atMs: number; value: number | null }[] = []
  readFileSync(path, 'utf8')
    .split(/\r?\n/)
    .forEach((line, i) => {
      if (line === '' || i === 0) return
      const [time = '', text = ''] = line.split(',')
      const atMs = Date.parse(/(Z|[+-]\d\d:?\d\d)$/.test(time) ? time : `${time.replace(' ', 'T')}Z`)
      const value = text.trim() === '' ? null : Number(text)
      if (Number.isNaN(atMs) || Number.isNaN(value))
        throw new Error(`${path}:${i + 1}: "${line}" is no timestamp (ISO-8601) and value`)
      rows.push({ atMs, value })
    })
  rows.sort((a, b) => a.atMs - b.atMs)
  if (rows.length < 3) throw new Error(`${path}: fewer than three rows`)
  const steps = rows.slice(1).map(({ atMs }, i) => atMs - (rows[i]?.atMs ?? 0))
  steps.sort((a, b) => a - b)
  const stepMs = Math.max(MINUTE_MS, steps[steps.length >> 1] ?? MINUTE_MS)
  const sums = new Map<number, { sum: number; count: number }>()
  for (const { atMs, value } of rows) {
    const step = Math.floor(atMs / stepMs)
    const cell = sums.get(step) ?? { sum: 0, count: 0 }
    sums.set(step, value === null ? cell : { sum: cell.sum + value, count: cell.count + 1 })
  }
  const points: { atMs: number; value: number | null }[] = []
  let last: number | null = null
  for (const [step, { sum, count }] of sums) {
    if (last !== null) {
      const absent = (step - last - 1) * stepMs >= CLOSED_MS ? 0 : null
      for (let missing = last + 1; missing < step; missing++) points.push({ atMs: missing * stepMs, value: absent })
    }
    points.push({ atMs: step * stepMs, value: count === 0 ? null : sum / count })
    last = step
  }
  return { name: basename(path, '.csv'), stepMs, timeZone: 'UTC', points }
}
