/**
 * Reading the past, wherever it is kept: in the history of this coordinator, or in a Prometheus that scrapes it. For those who can wait
 * for an answer: the API, and forecasts that begin to learn. What a control loop needs of the last minutes it reads from the history.
 */
import { LEVELS, levelFor } from './levels.ts'
import { compareSeries } from './series-index.ts'
import type { History, Point, SeriesId, SeriesQuery } from './series.ts'

export interface PastAnswer {
  /** Ascending; steps without samples are absent. */
  readonly points: readonly Point[]
  /** false: somebody who may know more did not answer. */
  readonly isWhole: boolean
}

export interface Past {
  /** Step below which nothing is known: one of those in levels.ts. A query for a finer one is answered in this one. */
  readonly finestStepMs: number
  /** As the history's own `query`. Never rejects. */
  query(query: SeriesQuery): Promise<PastAnswer>
  /** Series that have points; of one subject sorted, of all in no order. Never rejects. */
  series(subject?: string): Promise<Iterable<SeriesId>>
}

export function ownPast(history: Pick<History, 'query' | 'series' | 'eachSeries'>): Past {
  return {
    finestStepMs: LEVELS[0].stepMs,
    query: async (query) => ({ points: history.query(query), isWhole: true }),
    series: async (subject) => (subject === undefined ? history.eachSeries() : history.series(subject)),
  }
}

/**
 * What `first` knows, its holes filled with what `other` does: steps that nobody scraped, the time before there was a Prometheus, and
 * everything while it does not answer.
 */
export function joinedPast(first: Past, other: Past): Past {
  const finestStepMs = Math.max(first.finestStepMs, other.finestStepMs)
  return {
    finestStepMs,
    async query(query) {
      const asked = { ...query, stepMs: LEVELS[levelFor(Math.max(query.stepMs, finestStepMs))].stepMs }
      const [one, two] = await Promise.all([first.query(asked), other.query(asked)])
      return { points: joinPoints(one.points, two.points), isWhole: one.isWhole && two.isWhole }
    },
    async series(subject) {
      const [one, two] = await Promise.all([first.series(subject), other.series(subject)])
      const found = new Map<string, SeriesId>()
      for (const ids of [one, two]) for (const id of ids) found.set(`${id.subject} ${id.measure}`, id)
      if (subject === undefined) return found.values()
      return [...found.values()].sort(compareSeries)
    },
  }
}

/** Both ascend; where both have a step, the one of `first` counts. */
function joinPoints(first: readonly Point[], other: readonly Point[]): readonly Point[] {
  if (first.length === 0) return other
  if (other.length === 0) return first
  const joined: Point[] = []
  let next = 0
  for (const point of first) {
    for (; next < other.length; next += 1) {
      const filler = other[next]
      if (filler === undefined || filler.atMs >= point.atMs) break
      joined.push(filler)
    }
    if (other[next]?.atMs === point.atMs) next += 1
    joined.push(point)
  }
  return [...joined, ...other.slice(next)]
}
