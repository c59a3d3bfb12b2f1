/** Finds what is kept of a series by subject and measure, without building a key: two look-ups, no allocation. Bounded. */
import { compare } from '../../shared/compare.ts'
import type { Measure, SeriesId } from './series.ts'

/** More would be a fault, such as a subject that carries an id of each request. */
export const MAX_SERIES = 100_000
/** One app's share: above what 500 services have with every measure, and below what would leave the others none. */
export const MAX_SERIES_PER_APP = 10_000

export class SeriesIndex<T extends { readonly id: SeriesId }> {
  readonly #bySubject = new Map<string, Map<Measure, T>>()
  readonly #byApp = new Map<string, number>()
  readonly #limit: number
  readonly #appLimit: number
  #size = 0

  constructor(limit = MAX_SERIES, appLimit = MAX_SERIES_PER_APP) {
    this.#limit = limit
    this.#appLimit = appLimit
  }

  get size(): number {
    return this.#size
  }

  get isFull(): boolean {
    return this.#size >= this.#limit
  }

  /** Whether another series of that subject may be added: neither all that there may be, nor its app's share, are there. */
  hasRoomFor(id: SeriesId): boolean {
    const app = appOf(id)
    return !this.isFull && (app === null || (this.#byApp.get(app) ?? 0) < this.#appLimit)
  }

  /** Apps whose share is used up. */
  crowdedApps(): ReadonlySet<string> {
    return new Set([...this.#byApp].filter(([, count]) => count >= this.#appLimit).map(([app]) => app))
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
    this.#count(entry.id, 1)
  }

  delete(id: SeriesId): void {
    const measures = this.#bySubject.get(id.subject)
    if (!measures?.delete(id.measure)) return
    this.#count(id, -1)
    if (measures.size === 0) this.#bySubject.delete(id.subject)
  }

  #count(id: SeriesId, change: 1 | -1): void {
    this.#size += change
    const app = appOf(id)
    if (app === null) return
    const count = (this.#byApp.get(app) ?? 0) + change
    if (count === 0) this.#byApp.delete(app)
    else this.#byApp.set(app, count)
  }

  *values(subject?: string): Generator<T> {
    if (subject !== undefined) {
      yield* this.#bySubject.get(subject)?.values() ?? []
      return
    }
    for (const measures of this.#bySubject.values()) yield* measures.values()
  }
}

/** The app of a service's series; null for nodes, pools and the cluster. */
export function appOf({ subject }: SeriesId): string | null {
  if (!subject.startsWith('service ')) return null
  const end = subject.indexOf('/')
  return subject.slice('service '.length, end < 0 ? undefined : end)
}

export function compareSeries(a: SeriesId, b: SeriesId): number {
  return compare(a.subject, b.subject) || compare(a.measure, b.measure)
}
