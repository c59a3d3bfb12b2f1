/** Collects everything that is wrong with an app file or worth telling about it, so that all of it is told at once. */
import type { Fault } from '../../shared/errors.ts'
import type { AppWarning } from '../../shared/model/app.ts'
import type { Cursor, Place } from './located.ts'
import { nearest } from '../../shared/nearest.ts'

/** More faults than this help nobody and cost memory; the rest is counted. */
const MAX_FAULTS = 100
const MAX_WARNINGS = 500

/** What a fault or warning is about: a cursor, or a bare path and place. */
export type Spot = Cursor | { readonly path: string; readonly at: Place }

export interface Report {
  /** Adds a fault at the place; the file cannot be deployed then. `hint` is the next step for the reader. */
  fault(spot: Spot, message: string, hint?: string): void
  /** Adds a warning at the place; equal ones are told once. */
  warn(spot: Spot, message: string): void
  readonly faults: () => readonly Fault[]
  readonly warnings: () => readonly AppWarning[]
}

/** An empty report. Faults come out in the order of files and lines. */
export function createReport(): Report {
  const faults: Fault[] = []
  const warnings: AppWarning[] = []
  const seen = new Set<string>()
  let omitted = 0

  const isNew = (kind: string, spot: Spot, message: string): boolean => {
    const key = `${kind}\n${spot.path}\n${message}`
    if (seen.has(key)) return false
    seen.add(key)
    return true
  }

  return {
    fault(spot, message, hint) {
      if (!isNew('fault', spot, message)) return
      if (faults.length >= MAX_FAULTS) {
        omitted += 1
        return
      }
      const { file, line, column } = spot.at
      faults.push({ path: spot.path, message, file, line, column, ...(hint === undefined ? {} : { hint }) })
    },
    warn(spot, message) {
      if (warnings.length >= MAX_WARNINGS || !isNew('warn', spot, message)) return
      warnings.push({ path: spot.path, message, line: spot.at.line, column: spot.at.column })
    },
    faults: () => {
      const sorted = faults.toSorted(byPlace)
      return omitted === 0 ? sorted : [...sorted, { path: '', message: `and ${omitted} more faults of this file are not shown` }]
    },
    warnings: () => warnings.toSorted(byPlace),
  }
}

/** The fault of a key that does not exist, with a suggestion when a known one is near. */
export function unknownKey(report: Report, spot: Spot, key: string, known: Iterable<string>, what: string): void {
  const near = nearest(key, known)
  report.fault(
    spot,
    `unknown key "${shorten(key)}" in ${what}`,
    near === null ? 'remove it, or prefix it with "x-" when it is for another tool' : `did you mean "${near}"?`,
  )
}

/** Text of a user for a message: one line, bounded. */
export function shorten(text: string, length = 80): string {
  const line = text.replaceAll(/\p{Cc}+/gu, ' ')
  return line.length <= length ? line : `${line.slice(0, length - 1)}…`
}

function byPlace(a: { line?: number; column?: number }, b: { line?: number; column?: number }): number {
  return (a.line ?? 0) - (b.line ?? 0) || (a.column ?? 0) - (b.column ?? 0)
}
