/**
 * Opens the database file so that its promises hold: one process only, every commit on disk before it is acknowledged, checked
 * before use, never a file that a newer version wrote.
 */
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { ConfigError, messageOf } from '../../../shared/errors.ts'
import { sqliteFaultOf } from './sqlite-errors.ts'

/** Raised with every change of the tables below; a file with a larger number is refused. */
const SCHEMA_VERSION = 1
/** How long a second opener waits for the first to let go (a restart of the service), before it refuses to start. */
const LOCK_WAIT_MS = 1000

export interface OpenedDatabase {
  readonly database: DatabaseSync
  /** Epoch that this opening raised, already durable. */
  readonly epoch: number
  /** Closes the file and gives up the lock. */
  close(): void
}

/** Opens `path` (`:memory:` for none). Throws ConfigError when the file is locked, damaged, unreadable or too new. */
export function openDatabase(path: string, options: { readonly maxBytes: number | null }): OpenedDatabase {
  const inMemory = path === ':memory:'
  if (!inMemory) preparePrivateFile(path)
  const holderPath = `${path}.pid`
  let database: DatabaseSync | null = null
  try {
    database = new DatabaseSync(path)
    database.exec(`PRAGMA busy_timeout=${LOCK_WAIT_MS}`)
    database.exec('PRAGMA locking_mode=EXCLUSIVE')
    // Entering WAL in exclusive mode takes the lock for the life of this process (fault row 35).
    database.exec('PRAGMA journal_mode=WAL')
    database.exec('PRAGMA synchronous=FULL')
    refuseNewer(database, path)
    const check = database.prepare('PRAGMA quick_check(1)').get()
    if (Object.values(check ?? {})[0] !== 'ok') throw damaged(path, String(Object.values(check ?? {})[0]))
    const epoch = raiseEpoch(database)
    if (options.maxBytes !== null) limitSize(database, options.maxBytes)
    if (!inMemory) writeFileSync(holderPath, String(process.pid), { mode: 0o600 })
    const opened = database
    return {
      database: opened,
      epoch,
      close() {
        opened.close()
        if (!inMemory) rmSync(holderPath, { force: true })
      },
    }
  } catch (error) {
    database?.close()
    throw translate(error, path, inMemory ? null : holderOf(holderPath))
  }
}

function preparePrivateFile(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    closeSync(openSync(path, 'a', 0o600))
    chmodSync(path, 0o600)
  } catch (error) {
    throw new ConfigError(`cannot use ${path} as the state file: ${messageOf(error)}`, [
      { path: 'dataDir', message: messageOf(error), file: path, hint: 'give a directory that this user may write to' },
    ])
  }
}

function refuseNewer(database: DatabaseSync, path: string): void {
  const version = Number(database.prepare('PRAGMA user_version').get()?.user_version ?? 0)
  if (version > SCHEMA_VERSION)
    throw new ConfigError(`${path} was written by a newer version (schema ${version}, this one knows ${SCHEMA_VERSION})`, [
      { path: 'dataDir', message: 'schema is newer', file: path, hint: 'start the newer version, or restore an older backup' },
    ])
}

function raiseEpoch(database: DatabaseSync): number {
  database.exec('BEGIN IMMEDIATE')
  database.exec(`
    CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS objects (kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, value TEXT NOT NULL,
      PRIMARY KEY (kind, key));
    CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, type TEXT NOT NULL,
      subject TEXT NOT NULL, record TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS events_by_subject ON events (subject, seq);
    INSERT INTO meta (name, value) VALUES ('epoch', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1;
    INSERT INTO meta (name, value) VALUES ('nextVersion', 1) ON CONFLICT (name) DO NOTHING;
    PRAGMA user_version = ${SCHEMA_VERSION};
  `)
  database.exec('COMMIT')
  return Number(database.prepare(`SELECT value FROM meta WHERE name = 'epoch'`).get()?.value)
}

function limitSize(database: DatabaseSync, maxBytes: number): void {
  const pageBytes = Number(database.prepare('PRAGMA page_size').get()?.page_size ?? 4096)
  database.exec(`PRAGMA max_page_count=${Math.max(1, Math.floor(maxBytes / pageBytes))}`)
}

function translate(error: unknown, path: string, holder: string | null): unknown {
  switch (sqliteFaultOf(error)) {
    case 'locked':
      return new ConfigError(`${path} is in use by another coordinator${holder === null ? '' : ` (process ${holder})`}`, [
        {
          path: 'dataDir',
          message: 'locked',
          file: path,
          hint: 'stop the other coordinator, or give this one its own data directory',
        },
      ])
    case 'damaged':
      return damaged(path, messageOf(error))
    case 'full':
    case 'io':
    case 'readonly':
      return new ConfigError(`cannot open ${path}: ${messageOf(error)}`, [
        { path: 'dataDir', message: messageOf(error), file: path },
      ])
    default:
      return error
  }
}

function damaged(path: string, detail: string): ConfigError {
  return new ConfigError(`${path} is damaged: ${detail}`, [
    { path: 'dataDir', message: detail, file: path, hint: 'restore the newest backup' },
  ])
}

/** The process that wrote the lock note, for people; the lock itself is SQLite's. */
function holderOf(path: string): string | null {
  try {
    const text = readFileSync(path, 'utf8').trim()
    return /^\d{1,10}$/.test(text) ? text : null
  } catch {
    return null // No note: an older holder, or none was written yet. The lock does not depend on it.
  }
}
