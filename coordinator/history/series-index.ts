/** Finds what is kept of a series by subject and measure, without building a key: two look-ups, no allocation. Bounded. */
import { compare } from '../../shared/compare.ts'
import type { Measure, SeriesId } from './series.ts'

/** More would be a fault, such as a subject that carries an id of each request. */
export const MAX_SERIES = 100_000

export class SeriesIndex<T extends { readonly id: SeriesId }> {
  readonly #bySubject = new Map<string, Map<Measure, T>>()
  readonly #limit: number
  #size = 0

  constructor(limit = MAX_SERIES) {
    this.#limit = limit
  }

  get size(): number {
    return this.#size
  }

  get isFull(): boolean {
    return this.#size >= this.#limit
  }

  find(id: SeriesId): T | undefined {
    return this.#bySubject.get(id.subject)?.get(id.measure)
  }

  /** `entry` must not be there yet, and there must be room. */
  add(entry: T): void {
    const { subject, measure } = entry.id
    let measures = this.#bySubject.get(subject)
    if (measures === undefined) {
      measures = new Map()
      this.#bySubject.set(subject, measures)
    }
    measures.set(measure, entry)
    this.#size += 1
  }

  delete(id: SeriesId): void {
    const measures = this.#bySubject.get(id.subject)
    if (!measures?.delete(id.measure)) return
    this.#size -= 1
    if (measures.size === 0) this.#bySubject.delete(id.subject)
  }

  *values(subject?: string): Generator<T> {
    if (subject !== undefined) {
      yield* this.#bySubject.get(subject)?.values() ?? []
      return
    }
    for (const measures of this.#bySubject.values()) yield* measures.values()
  }
}

export function compareSeries(a: SeriesId, b: SeriesId): number {
  return compare(a.subject, b.subject) || compare(a.measure, b.measure)
}
