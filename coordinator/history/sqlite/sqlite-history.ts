/**
 * The history in a SQLite file of its own. A sample is added to its step in memory; finished steps are held until a flush merges them
 * into packed blocks (block.ts, block-keeper.ts) in short transactions. Nothing here is in the way of the state: a full disk or a
 * damaged file is told by `status`, samples are held as long as there is room, and the coordinator goes on.
 *
 * Lost in a crash: what came since the last flush. `synchronous=NORMAL`: a power cut may take the last seconds before it too, never
 * the file.
 */
import type { Clock } from '../../../shared/clock.ts'
import { messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/logger.ts'
import { sqliteFaultOf } from '../../state/sqlite/sqlite-errors.ts'
import { Block } from '../block.ts'
import { FUTURE_MS, isRecordable, LAST_MS, LEVELS, levelFor, oldestKeptMs } from '../levels.ts'
import { appOf, compareSeries, MAX_SERIES, MAX_SERIES_PER_APP, SeriesIndex } from '../series-index.ts'
import type { HistoryBackend, Measure, Point, SeriesId, SeriesLimits } from '../series.ts'
import { type BlockKeeper, createBlockKeeper, type Part } from './block-keeper.ts'
import { HeldPoints, MAX_HELD } from './held-points.ts'
import { type HistoryFile, NewerFileError, openHistoryFile, setFileAside } from './history-file.ts'

export interface SqliteHistoryOptions extends SeriesLimits {
  /** The file, or `:memory:`. */
  readonly path: string
  readonly clock: Clock
  readonly logger: Logger
  /** Bound of the file; the oldest of the finest resolution goes first. At least 1 MiB. */
  readonly maxBytes: number
  /** Steps held while the disk refuses. */
  readonly maxHeld?: number
  /** Lets other work run between two transactions. Default: the next turn of the event loop. */
  pause?(): Promise<void>
}

/** What is known of a series; its open step is gathered right here. */
interface Live {
  readonly id: SeriesId
  number: number
  isStored: boolean
  /** Step of the finest level that is being gathered; meaningless while `count` is 0. */
  step: number
  sum: number
  count: number
  max: number
  /** Chain in the held points; −1: none. */
  held: number
  isWaiting: boolean
  /** When it was last written, epoch ms. */
  lastMs: number
}

const SERIES_AT_ONCE = 150
const STEP_MS = LEVELS[0].stepMs
/** When there is no room for new series, those that were silent for this long make it, the longest first. */
const SILENT_MS = 3_600_000
const EVICT_AT_ONCE = 20
/** A wall clock that moved further than this since the start is not believed when it says what is too old. */
const BELIEVED_JUMP_MS = 86_400_000

/** Never throws: a file that cannot be opened is a fault in `status`, and tried again with every flush. */
export function openSqliteHistory(options: SqliteHistoryOptions): HistoryBackend {
  const { path, clock, logger, maxBytes } = options
  const pause = options.pause ?? (() => new Promise<void>((resolve) => setImmediate(resolve)))
  const index = new SeriesIndex<Live>(options.maxSeries ?? MAX_SERIES, options.maxSeriesPerApp ?? MAX_SERIES_PER_APP)
  const held = new HeldPoints(options.maxHeld ?? MAX_HELD)
  const openedAt = { wallMs: clock.now(), monotonicMs: clock.monotonicMs() }
  let waiting: Live[] = []
  let dropped = 0
  let nextNumber = 1
  let bytes = 0
  let fault: string | null = null
  let saidCrowded = ''
  let file: HistoryFile | null = null
  let keeper: BlockKeeper | null = null
  let running: Promise<void> | null = null

  const fail = (text: string | null) => {
    if (text === fault) return
    if (text === null) logger.info('the history is kept again')
    else logger.warn('the history is not kept', { path, reason: text })
    fault = text
  }

  const open = () => {
    try {
      load()
      fail(null)
    } catch (error) {
      const aside = closeFor(error)
      fail(`${path} cannot be opened: ${messageOf(error)}`)
      if (aside === null) return
      try {
        load()
        // Stands until the first flush: what was kept before is gone, and somebody should hear of it.
        fail(`${path} could not be read and begins anew; what it was is in ${aside}`)
      } catch (again) {
        close()
        fail(`${path} cannot be opened: ${messageOf(again)}`)
      }
    }
  }

  const load = () => {
    file = openHistoryFile(path, maxBytes)
    keeper = createBlockKeeper(file)
    bytes = file.usedBytes()
    for (const live of index.values()) live.isStored = false
    for (const { number, subject, measure, lastMs } of file.series()) {
      nextNumber = Math.max(nextNumber, number + 1)
      const id: SeriesId = { subject, measure: measure as Measure }
      const known = index.find(id)
      if (known === undefined) index.add(liveOf(id, number, lastMs, true))
      else Object.assign(known, { number, isStored: true })
    }
    // What was recorded while there was no file may have a number that the file gave to another series.
    for (const live of index.values()) if (!live.isStored) live.number = nextNumber++
  }

  const close = () => {
    try {
      file?.close()
    } catch (error) {
      logger.warn('the history did not close cleanly', { path, error: messageOf(error) })
    }
    file = null
    keeper = null
  }

  /** Closes the file after an error; one that is damaged, or not for us, is set aside. Returns where it went; null: nowhere. */
  const closeFor = (error: unknown): string | null => {
    close()
    const reason = error instanceof NewerFileError ? 'newer' : sqliteFaultOf(error) === 'damaged' ? 'damaged' : null
    if (reason === null || path === ':memory:') return null
    try {
      return setFileAside(path, reason)
    } catch (renameError) {
      logger.warn('a history that cannot be read cannot be set aside', { path, error: messageOf(renameError) })
      return null
    }
  }

  /** Says what went wrong. The next flush opens the file again, or begins a new one. */
  const suffer = (error: unknown) => {
    const kind = sqliteFaultOf(error)
    fail(`${kind === 'full' ? 'there is no room for the history' : 'the history’s file failed'}: ${messageOf(error)}`)
    // After a full disk the file is as good as before. What is no fault of the disk would come again with every opening.
    if (kind !== 'full' && kind !== 'other' && path !== ':memory:') closeFor(error)
  }

  const liveFor = (id: SeriesId): Live | null => {
    const known = index.find(id)
    if (known !== undefined) return known
    if (!index.hasRoomFor(id)) return null
    const fresh = liveOf({ subject: id.subject, measure: id.measure }, nextNumber, 0, false)
    nextNumber += 1
    index.add(fresh)
    return fresh
  }

  /** Puts the gathered part of a step with those that wait. */
  const hold = (live: Live) => {
    if (live.count === 0) return
    const head = held.push(live.held, live.step, live.sum, live.count, live.max)
    if (head === null) dropped += live.count
    else live.held = head
    live.count = 0
  }

  const writeSome = (some: readonly Live[], to: HistoryFile, by: BlockKeeper, nowMs: number) => {
    let refused = 0
    to.atomically(() => {
      for (const live of some) {
        hold(live)
        if (!live.isStored)
          to.putSeries({ number: live.number, subject: live.id.subject, measure: live.id.measure, lastMs: nowMs })
        const parts: Part[] = []
        held.each(live.held, (step, sum, count, max) => parts.push({ step, sum, count, max }))
        refused += by.merge(live.number, parts, nowMs)
      }
    })
    dropped += refused
    for (const live of some) {
      held.release(live.held)
      live.held = -1
      live.isStored = true
      live.isWaiting = false
      live.lastMs = Math.max(live.lastMs, nowMs)
    }
  }

  const writeWaiting = async (nowMs: number) => {
    const batch = waiting
    waiting = []
    let done = 0
    try {
      while (done < batch.length) {
        if (file === null || keeper === null) return
        const some = batch.slice(done, done + SERIES_AT_ONCE)
        writeSome(some, file, keeper, nowMs)
        done += some.length
        await pause()
      }
    } finally {
      // Those that were not written wait on; new ones may have joined meanwhile.
      if (done < batch.length) waiting = [...batch.slice(done), ...waiting]
    }
  }

  const tidy = async (nowMs: number) => {
    const repeat = async (work: (keeper: BlockKeeper) => boolean) => {
      while (keeper !== null && work(keeper)) await pause()
    }
    await repeat((some) => some.fold(nowMs))
    const expectedMs = openedAt.wallMs + clock.monotonicMs() - openedAt.monotonicMs
    if (Math.abs(nowMs - expectedMs) < BELIEVED_JUMP_MS) {
      await repeat((some) => some.expire(nowMs))
      await evict((live) => live.lastMs < oldestKeptMs(LEVELS[2], nowMs), Number.POSITIVE_INFINITY)
    }
    await repeat((some) => file?.isOverFull() === true && some.relieve(nowMs))
    const isSilent = (live: Live) => live.lastMs < nowMs - SILENT_MS
    if (index.isFull) await evict(isSilent, Math.ceil(index.size / 20))
    const crowded = index.crowdedApps()
    const apps = [...crowded].sort().slice(0, 10).join(' ')
    if (apps !== '' && apps !== saidCrowded) logger.warn('new series of apps that have very many are not kept', { apps })
    saidCrowded = apps
    if (crowded.size === 0) return
    await evict((live) => isSilent(live) && crowded.has(appOf(live.id) ?? ''), Math.ceil(index.size / 20))
  }

  /** Forgets series that are stored and do not wait, the longest silent first. */
  const evict = async (isGone: (live: Live) => boolean, most: number) => {
    const gone: Live[] = []
    for (const live of index.values()) if (live.isStored && !live.isWaiting && live.count === 0 && isGone(live)) gone.push(live)
    gone.sort((a, b) => a.lastMs - b.lastMs || a.number - b.number)
    const chosen = gone.slice(0, most)
    for (let at = 0; at < chosen.length; at += EVICT_AT_ONCE) {
      const some = chosen.slice(at, at + EVICT_AT_ONCE).filter((live) => !live.isWaiting && live.count === 0)
      file?.atomically(() => {
        for (const live of some) {
          keeper?.forget(live.number)
          file?.deleteSeries(live.number)
        }
      })
      for (const live of some) index.delete(live.id)
      await pause()
    }
  }

  const flushOnce = async () => {
    if (file === null) open()
    if (file === null) return
    const nowMs = clock.now()
    try {
      await writeWaiting(nowMs)
      await tidy(nowMs)
      if (file !== null) {
        bytes = file.usedBytes()
        fail(null)
      }
    } catch (error) {
      suffer(error)
      // A full file makes room for the next flush; a full disk may refuse even that.
      if (sqliteFaultOf(error) === 'full')
        try {
          keeper?.relieve(nowMs)
        } catch (again) {
          logger.debug('no room could be made in the history', { error: messageOf(again) })
        }
    }
  }

  const readFile = (number: number, level: 0 | 1 | 2, firstStep: number, into: Block) => {
    try {
      keeper?.collect(number, level, firstStep, into)
    } catch (error) {
      into.clear()
      suffer(error)
    }
  }

  open()

  return {
    record(id, atMs, value) {
      if (!isRecordable(value)) return
      const live = liveFor(id)
      if (live === null || !(atMs >= 0 && atMs < LAST_MS)) {
        dropped += 1
        return
      }
      const step = Math.floor(atMs / STEP_MS)
      if (live.step !== step || live.count === 0) {
        hold(live)
        live.step = step
        live.sum = value
        live.count = 1
        live.max = value
        if (!live.isWaiting) {
          live.isWaiting = true
          waiting.push(live)
        }
        return
      }
      live.sum += value
      live.count += 1
      if (value > live.max) live.max = value
    },

    query(query) {
      const live = index.find(query)
      if (live === undefined) return []
      const nowMs = clock.now()
      const level = levelFor(query.stepMs)
      const { stepMs } = LEVELS[level]
      const firstStep = Math.ceil(Math.max(query.fromMs, oldestKeptMs(LEVELS[level], nowMs)) / stepMs)
      const endStep = Math.ceil(Math.min(query.toMs, nowMs + FUTURE_MS + stepMs) / stepMs)
      if (!(endStep > firstStep)) return []
      const found = new Block(endStep - firstStep)
      if (live.isStored) readFile(live.number, level, firstStep, found)
      const add = (step: number, sum: number, count: number, max: number) => {
        const at = Math.floor((step * STEP_MS) / stepMs) - firstStep
        if (count > 0 && at >= 0 && at < found.size) found.add(at, sum, count, max)
      }
      held.each(live.held, add)
      add(live.step, live.sum, live.count, live.max)
      return pointsOf(found, firstStep, stepMs)
    },

    series: (subject) => [...index.values(subject)].map(({ id }) => id).sort(compareSeries),

    *eachSeries() {
      for (const { id } of index.values()) yield id
    },

    flush() {
      const next = (running ?? Promise.resolve()).then(flushOnce)
      running = next
      return next
    },

    status() {
      const isFull = index.isFull ? `there are ${index.size} series; new ones are not kept` : null
      return { fault: fault ?? isFull, series: index.size, dropped, bytes }
    },

    async close() {
      await this.flush()
      close()
    },
  }
}

function liveOf(id: SeriesId, number: number, lastMs: number, isStored: boolean): Live {
  return { id, number, isStored, step: 0, sum: 0, count: 0, max: 0, held: -1, isWaiting: false, lastMs }
}

function pointsOf(block: Block, firstStep: number, stepMs: number): readonly Point[] {
  const points: Point[] = []
  for (let step = 0; step < block.size; step += 1) {
    const count = block.count[step] ?? 0
    if (count > 0)
      points.push({ atMs: (firstStep + step) * stepMs, value: (block.sum[step] ?? 0) / count, max: block.max[step] ?? 0 })
  }
  return points
}
