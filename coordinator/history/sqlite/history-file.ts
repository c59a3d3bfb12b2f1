/**
 * The file of the history: opening it, its tables, its statements. Apart from the state's file, so that no fault of it reaches the
 * state. A file that is damaged, no database, or of a newer version can be set aside, under a name of its own, for a new one to begin.
 *
 * `blocks.id` is level, block number and series in one whole number (2 + 24 + 24 bits). So the blocks that are being written lie
 * side by side (few pages change per flush), what expires is one range, and a query of one series is a few look-ups by key.
 */
import { chmodSync, closeSync, mkdirSync, openSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync, type StatementSync } from 'node:sqlite'

/** Raised with every change of tables or packing. */
const SCHEMA_VERSION = 1
const SERIES_SPAN = 2 ** 24
const LEVEL_SPAN = 2 ** 48
/** Pages are reused below this share of the limit, so that the file itself stays under it. */
const FULL_AT = 0.9
const MIN_BYTES = 1 << 20

export function blockId(level: number, number: number, series: number): number {
  return level * LEVEL_SPAN + number * SERIES_SPAN + series
}

export function numberOfBlock(id: number): number {
  return Math.floor((id % LEVEL_SPAN) / SERIES_SPAN)
}

export function seriesOfBlock(id: number): number {
  return id % SERIES_SPAN
}

export interface StoredSeries {
  readonly number: number
  readonly subject: string
  readonly measure: string
  readonly lastMs: number
}

export interface HistoryFile {
  /** Runs `work` as one transaction: all of it is kept, or nothing and the error is thrown. */
  atomically(work: () => void): void
  block(id: number): Uint8Array | null
  putBlock(id: number, packed: Uint8Array): void
  /** At most `limit` blocks in (`after`, `before`), ascending. */
  blocksBetween(after: number, before: number, limit: number): readonly { readonly id: number; readonly packed: Uint8Array }[]
  /** Deletes at most `limit` blocks in [`from`, `before`), oldest first; returns how many. */
  deleteBlocks(from: number, before: number, limit: number): number
  /** First and last block of a level; null when it has none. */
  span(level: number): { readonly first: number; readonly last: number } | null
  series(): readonly StoredSeries[]
  putSeries(series: StoredSeries): void
  touchSeries(number: number, lastMs: number): void
  deleteSeries(number: number): void
  mark(name: string): number
  setMark(name: string, value: number): void
  /** Bytes in use: without free pages. */
  usedBytes(): number
  isOverFull(): boolean
  close(): void
}

/** `path` may be `:memory:`. Throws what SQLite throws, or NewerFileError; nothing is left open then. */
export function openHistoryFile(path: string, maxBytes: number): HistoryFile {
  return wrap(openDatabase(path, maxBytes), maxBytes)
}

/** Written by a version that packs or lays out differently. */
export class NewerFileError extends Error {}

/** Renames a closed file, in place of an earlier one that was set aside for the same reason. Returns its new path. */
export function setFileAside(path: string, reason: 'damaged' | 'newer'): string {
  const aside = `${path}.${reason}`
  renameSync(path, aside)
  for (const suffix of ['-wal', '-shm']) rmSync(`${path}${suffix}`, { force: true })
  return aside
}

function openDatabase(path: string, maxBytes: number): DatabaseSync {
  if (path !== ':memory:') {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    closeSync(openSync(path, 'a', 0o600))
    chmodSync(path, 0o600)
  }
  const database = new DatabaseSync(path)
  try {
    database.exec('PRAGMA busy_timeout=0; PRAGMA locking_mode=EXCLUSIVE; PRAGMA auto_vacuum=INCREMENTAL')
    database.exec(
      'PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA journal_size_limit=4194304; PRAGMA cache_size=-8192',
    )
    const version = Number(database.prepare('PRAGMA user_version').get()?.user_version ?? 0)
    if (version > SCHEMA_VERSION) throw new NewerFileError(`${path} was written by a newer version`)
    database.exec(`
      BEGIN IMMEDIATE;
      CREATE TABLE IF NOT EXISTS blocks (id INTEGER PRIMARY KEY, packed BLOB NOT NULL);
      CREATE TABLE IF NOT EXISTS series (number INTEGER PRIMARY KEY, subject TEXT NOT NULL, measure TEXT NOT NULL,
        last_ms INTEGER NOT NULL, UNIQUE (subject, measure));
      CREATE TABLE IF NOT EXISTS marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
      PRAGMA user_version = ${SCHEMA_VERSION};
      COMMIT;`)
    const pageBytes = pragma(database, 'page_size')
    database.exec(`PRAGMA max_page_count=${Math.floor(Math.max(MIN_BYTES, maxBytes) / pageBytes)}`)
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

function pragma(database: DatabaseSync, name: string): number {
  return Number(Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0] ?? 0)
}

function wrap(database: DatabaseSync, maxBytes: number): HistoryFile {
  const limitBytes = Math.max(MIN_BYTES, maxBytes)
  const pageBytes = pragma(database, 'page_size')
  const sql = (text: string): StatementSync => database.prepare(text)
  const begin = sql('BEGIN IMMEDIATE')
  const commit = sql('COMMIT')
  const get = sql('SELECT packed FROM blocks WHERE id = ?')
  const put = sql('INSERT INTO blocks (id, packed) VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET packed = excluded.packed')
  const between = sql('SELECT id, packed FROM blocks WHERE id > ? AND id < ? ORDER BY id LIMIT ?')
  const cut = sql('SELECT id FROM blocks WHERE id >= ? AND id < ? ORDER BY id LIMIT 1 OFFSET ?')
  const remove = sql('DELETE FROM blocks WHERE id >= ? AND id < ?')
  const first = sql('SELECT min(id) AS id FROM blocks WHERE id >= ? AND id < ?')
  const last = sql('SELECT max(id) AS id FROM blocks WHERE id >= ? AND id < ?')
  const allSeries = sql('SELECT number, subject, measure, last_ms FROM series ORDER BY number')
  const insertSeries = sql('INSERT INTO series (number, subject, measure, last_ms) VALUES (?, ?, ?, ?)')
  const updateSeries = sql('UPDATE series SET last_ms = max(last_ms, ?) WHERE number = ?')
  const removeSeries = sql('DELETE FROM series WHERE number = ?')
  const getMark = sql('SELECT value FROM marks WHERE name = ?')
  const putMark = sql('INSERT INTO marks (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value')
  const pages = sql('PRAGMA page_count')
  const freePages = sql('PRAGMA freelist_count')
  const shrink = sql('PRAGMA incremental_vacuum(200)')
  const number = (statement: StatementSync) => Number(Object.values(statement.get() ?? {})[0] ?? 0)
  const usedBytes = () => (number(pages) - number(freePages)) * pageBytes

  return {
    atomically(work) {
      begin.run()
      try {
        work()
        commit.run()
      } catch (error) {
        // SQLite has rolled back by itself after some faults (a full disk, an I/O error).
        if (database.isTransaction) database.exec('ROLLBACK')
        throw error
      }
    },
    block: (id) => (get.get(id)?.packed as Uint8Array | undefined) ?? null,
    putBlock: (id, packed) => void put.run(id, packed),
    blocksBetween: (after, before, limit) =>
      between.all(after, before, limit).map((row) => ({ id: Number(row.id), packed: row.packed as Uint8Array })),
    deleteBlocks(from, before, limit) {
      const end = Number(cut.get(from, before, limit)?.id ?? before)
      const { changes } = remove.run(from, end)
      if (number(pages) * pageBytes > limitBytes) shrink.all()
      return Number(changes)
    },
    span(level) {
      const range = [blockId(level, 0, 0), blockId(level + 1, 0, 0)] as const
      const lowest = first.get(...range)?.id
      const highest = last.get(...range)?.id
      return lowest === null || lowest === undefined ? null : { first: Number(lowest), last: Number(highest) }
    },
    series: () =>
      allSeries.all().map((row) => ({
        number: Number(row.number),
        subject: String(row.subject),
        measure: String(row.measure),
        lastMs: Number(row.last_ms),
      })),
    putSeries: (series) => void insertSeries.run(series.number, series.subject, series.measure, series.lastMs),
    touchSeries: (series, lastMs) => void updateSeries.run(lastMs, series),
    deleteSeries: (series) => void removeSeries.run(series),
    mark: (name) => Number(getMark.get(name)?.value ?? -1),
    setMark: (name, value) => void putMark.run(name, value),
    usedBytes,
    isOverFull: () => usedBytes() > FULL_AT * limitBytes,
    close: () => database.close(),
  }
}
