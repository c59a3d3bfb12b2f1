/**
 * One set that the coordinator keeps for this node (desired, keys or routes): applies full sets and deltas in order, notices
 * gaps, and saves what it holds. Invariants: (epoch, revision) never goes back (I6, I13); a set in parts is applied whole or not
 * at all; `saved` is called only when what is acknowledged is on disk.
 */
import type { Clock, Timer } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { SavedSets } from './saved-sets.ts'

export interface RevisionedFrame {
  readonly epoch: number
  readonly revision: number
  readonly baseRevision: number | null
  readonly more?: boolean
}

export interface HeldSet<F extends RevisionedFrame> {
  readonly epoch: number
  readonly revision: number
  /** Reads what was saved and hands it over; false when there was nothing usable. */
  load(): Promise<boolean>
  /** `gap`: ask for the full set. `ignored`: already known, or older than what is held. */
  take(frame: F): 'applied' | 'partial' | 'ignored' | 'gap'
  /** A new connection: parts of the old one are worthless, and the full set is on its way. */
  reconnect(): void
  /** Whether this connection has brought the full set. */
  readonly inSync: boolean
  /** Cancels retries and waits for a write under way. */
  stop(): Promise<void>
}

export interface HeldSetDeps<T, F extends RevisionedFrame> {
  readonly name: string
  readonly store: SavedSets
  readonly clock: Clock
  readonly logger: Logger
  readonly empty: T
  /** The value with a frame's changes; parts come in order. Pure. */
  change(value: T, parts: readonly F[], full: boolean): T
  /** What of it may be written to disk. */
  toDisk(value: T): unknown
  /** Checks what came from disk; null when it is not of this shape. */
  fromDisk(value: unknown): T | null
  apply(value: T, revision: number): void
  saved(revision: number): void
}

const MAX_PARTS = 256
const SAVE_RETRY_MS = 5000
/** A full set that was asked for and did not come by then is asked for again. */
const ASK_AGAIN_MS = 5000

export function createHeldSet<T, F extends RevisionedFrame>(deps: HeldSetDeps<T, F>): HeldSet<F> {
  const { name, store, clock, logger } = deps
  let value = deps.empty
  let epoch = 0
  let revision = 0
  let inSync = false
  let parts: F[] = []
  let saving: Promise<void> | null = null
  let unsaved = false
  let retry: Timer | null = null
  let stopped = false
  let askedMs = Number.NEGATIVE_INFINITY

  const gap = () => {
    inSync = false
    parts = []
    if (clock.monotonicMs() - askedMs < ASK_AGAIN_MS) return 'ignored'
    askedMs = clock.monotonicMs()
    return 'gap'
  }

  /** Writes the newest value; changes that come meanwhile make one more write, not a queue of them. */
  const save = () => {
    unsaved = true
    if (stopped || retry || saving) return
    saving = (async () => {
      while (unsaved && !stopped) {
        unsaved = false
        const written = { epoch, revision, value: deps.toDisk(value) }
        try {
          await store.save(name, written)
          if (written.epoch === epoch) deps.saved(written.revision)
        } catch (error) {
          // In memory it holds already; it is acknowledged only when the disk has it (fault row 36).
          logger.error('a set could not be saved, it is kept in memory and tried again', { set: name, error: messageOf(error) })
          unsaved = true
          if (!stopped)
            retry = clock.setTimer(SAVE_RETRY_MS, () => {
              retry = null
              save()
            })
          return
        }
      }
    })().finally(() => {
      saving = null
    })
  }

  return {
    get epoch() {
      return epoch
    },
    get revision() {
      return revision
    },
    get inSync() {
      return inSync
    },
    async load() {
      const found = await store.load(name)
      const usable = found === null ? null : deps.fromDisk(found.value)
      if (!found || usable === null || !Number.isInteger(found.epoch) || !Number.isInteger(found.revision)) return false
      value = usable
      epoch = found.epoch
      revision = found.revision
      deps.apply(value, revision)
      return true
    },
    take(frame) {
      const full = frame.baseRevision === null
      const older = frame.epoch < epoch || (frame.epoch === epoch && frame.revision < revision)
      if (older) return 'ignored'
      if (!full && frame.epoch === epoch && frame.revision === revision) return 'ignored'
      if (!full && (!inSync || frame.epoch !== epoch || frame.baseRevision !== revision)) return gap()
      const [first] = parts
      if (
        first &&
        (first.revision !== frame.revision || first.baseRevision !== frame.baseRevision || first.epoch !== frame.epoch)
      )
        parts = []
      parts.push(frame)
      if (parts.length > MAX_PARTS) return gap()
      if (frame.more === true) return 'partial'
      value = deps.change(full ? deps.empty : value, parts, full)
      parts = []
      epoch = frame.epoch
      revision = frame.revision
      inSync = true
      askedMs = Number.NEGATIVE_INFINITY
      deps.apply(value, revision)
      save()
      return 'applied'
    },
    reconnect() {
      inSync = false
      askedMs = Number.NEGATIVE_INFINITY
      parts = []
    },
    async stop() {
      stopped = true
      retry?.cancel()
      await saving
    },
  }
}
