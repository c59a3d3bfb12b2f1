/**
 * A history that is kept in memory only: for the simulator, for tests, and where no file is wanted. The same resolutions and rules as
 * the one in SQLite, and exact: nothing is rounded. Costs about 20 bytes a step and series.
 */
import type { Clock } from '../../shared/clock.ts'
import { Block } from './block.ts'
import { FUTURE_MS, isRecordable, LAST_MS, LEVELS, levelFor, oldestKeptMs } from './levels.ts'
import { compareSeries, MAX_SERIES, MAX_SERIES_PER_APP, SeriesIndex } from './series-index.ts'
import type { HistoryBackend, Point, SeriesId, SeriesLimits } from './series.ts'

interface Kept {
  readonly id: SeriesId
  /** Blocks by number, one map per level. */
  readonly levels: readonly Map<number, Block>[]
}

export function createMemoryHistory(clock: Clock, options: SeriesLimits = {}): HistoryBackend {
  const index = new SeriesIndex<Kept>(options.maxSeries ?? MAX_SERIES, options.maxSeriesPerApp ?? MAX_SERIES_PER_APP)
  let dropped = 0

  const keptOf = (id: SeriesId): Kept | null => {
    const known = index.find(id)
    if (known !== undefined) return known
    if (!index.hasRoomFor(id)) return null
    const fresh = { id: { subject: id.subject, measure: id.measure }, levels: LEVELS.map(() => new Map<number, Block>()) }
    index.add(fresh)
    return fresh
  }

  const hasPoints = (kept: Kept) => kept.levels.some((blocks) => blocks.size > 0)

  return {
    record(id, atMs, value) {
      if (!isRecordable(value)) return
      const nowMs = clock.now()
      const kept = atMs >= 0 && atMs < LAST_MS && atMs <= nowMs + FUTURE_MS ? keptOf(id) : null
      if (kept === null) {
        dropped += 1
        return
      }
      for (let i = 0; i < LEVELS.length; i += 1) {
        const level = LEVELS[i]
        const blocks = kept.levels[i]
        if (level === undefined || blocks === undefined || atMs < oldestKeptMs(level, nowMs)) continue
        const number = Math.floor(atMs / level.blockMs)
        let block = blocks.get(number)
        if (block === undefined) {
          block = new Block(level.stepsPerBlock)
          blocks.set(number, block)
        }
        block.add(Math.floor(atMs / level.stepMs) - number * level.stepsPerBlock, value, 1, value)
      }
    },

    query(query) {
      const blocks = index.find(query)?.levels[levelFor(query.stepMs)]
      const level = LEVELS[levelFor(query.stepMs)]
      if (blocks === undefined) return []
      const fromMs = Math.max(query.fromMs, oldestKeptMs(level, clock.now()))
      const points: Point[] = []
      const numbers = [...blocks.keys()].filter(
        (each) => (each + 1) * level.blockMs > fromMs && each * level.blockMs < query.toMs,
      )
      for (const number of numbers.sort((a, b) => a - b)) {
        const block = blocks.get(number)
        for (let step = 0; block !== undefined && step < level.stepsPerBlock; step += 1) {
          const count = block.count[step] ?? 0
          const atMs = number * level.blockMs + step * level.stepMs
          if (count > 0 && atMs >= fromMs && atMs < query.toMs)
            points.push({ atMs, value: (block.sum[step] ?? 0) / count, max: block.max[step] ?? 0 })
        }
      }
      return points
    },

    series(subject) {
      return [...index.values(subject)]
        .filter(hasPoints)
        .map(({ id }) => id)
        .sort(compareSeries)
    },

    *eachSeries() {
      for (const kept of index.values()) if (hasPoints(kept)) yield kept.id
    },

    async flush() {
      const nowMs = clock.now()
      for (const kept of [...index.values()]) {
        kept.levels.forEach((blocks, i) => {
          const level = LEVELS[i]
          for (const number of level === undefined ? [] : [...blocks.keys()])
            if (level !== undefined && number * level.blockMs < oldestKeptMs(level, nowMs)) blocks.delete(number)
        })
        if (!hasPoints(kept)) index.delete(kept.id)
      }
    },

    status: () => ({ fault: null, series: index.size, dropped, bytes: 0 }),
    async close() {},
  }
}
