/**
 * The embedded store: one SQLite file, one process. Commits that arrive within one tick share a transaction and so one fsync;
 * each keeps its own outcome through a savepoint. What is acknowledged has been synced. A failed fsync is never retried: the
 * page cache may have dropped what it could not write, so the store refuses everything after it and tells its owner to exit.
 */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite'
import type { Clock } from '../../../shared/clock.ts'
import { ConfigError, messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/logger.ts'
import type { EventDraft, EventRecord } from '../../../shared/model/event.ts'
import type { Kind } from '../objects.ts'
import type { CommitOutcome, EventQuery, Store, StoreOperation } from '../store.ts'
import { MAX_COMMIT_BYTES, MAX_COMMIT_OPERATIONS } from '../store.ts'
import { openDatabase } from './sqlite-database.ts'
import { sqliteFaultOf } from './sqlite-errors.ts'

export interface SqliteStoreOptions {
  /** File to keep everything in, or `:memory:` for a store that lives as long as its process. */
  readonly path: string
  readonly clock: Clock
  readonly logger: Logger
  /** The disk failed a write or an fsync: the process must exit, nothing it writes any more is safe (fault row 34). */
  onFatal?(error: Error): void
  /** Newest events kept. Default 100,000. */
  readonly maxEvents?: number
  /** Refuses to grow beyond this, as a full disk would. Default null: no bound. */
  readonly maxBytes?: number | null
  /** Runs `flush` once soon: what arrives until then shares an fsync. Default: the next turn of the event loop; microtask in memory. */
  readonly defer?: (flush: () => void) => void
}

/** How many events beyond the bound may gather before the oldest are deleted. */
const EVENT_SLACK = 500

interface PendingCommit {
  readonly operations: readonly StoreOperation[]
  readonly values: readonly string[]
  readonly epoch: number
  readonly events: readonly EventDraft[]
  readonly atMs: number
  resolve(outcome: CommitOutcome): void
}

/** Opens (or makes) the store and raises its epoch. Throws ConfigError when the file is held, damaged or too new. */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<Store> {
  const { path, logger } = options
  const maxEvents = options.maxEvents ?? 100_000
  const defer = options.defer ?? (path === ':memory:' ? queueMicrotask : (flush: () => void) => void setImmediate(flush))
  const startedMs = options.clock.monotonicMs()
  const opened = openDatabase(path, { maxBytes: options.maxBytes ?? null })
  const { database, epoch } = opened
  const statements = prepareStatements(database)
  let nextVersion = Number(statements.readMeta.get('nextVersion')?.value ?? 1)
  let lastSeq = Number(statements.lastSeq.get()?.seq ?? 0)
  let firstSeq = Number(statements.firstSeq.get()?.seq ?? lastSeq + 1)
  let queue: PendingCommit[] = []
  let dead: string | null = null
  logger.info('store opened', { path, epoch, tookMs: Math.round(options.clock.monotonicMs() - startedMs) })

  const flush = () => {
    const batch = queue
    queue = []
    if (batch.length === 0) return
    if (dead !== null) return answerAll(batch, { kind: 'unavailable', detail: dead })
    const seqBefore = lastSeq
    try {
      database.exec('BEGIN IMMEDIATE')
      const outcomes = batch.map((commit) => applyOne(commit))
      statements.writeMeta.run(nextVersion, 'nextVersion')
      trimEvents()
      database.exec('COMMIT')
      batch.forEach((commit, index) => {
        commit.resolve(outcomes[index] ?? { kind: 'unavailable', detail: 'no outcome' })
      })
    } catch (error) {
      lastSeq = seqBefore
      rollBack()
      answerAll(batch, fail(error))
    }
  }

  const applyOne = (commit: PendingCommit): CommitOutcome => {
    if (commit.epoch !== epoch) return { kind: 'notLeader', detail: `epoch ${commit.epoch} is not this opening's ${epoch}` }
    database.exec('SAVEPOINT one')
    const conflict = applyOperations(commit)
    if (typeof conflict === 'string') {
      database.exec('ROLLBACK TO one')
      database.exec('RELEASE one')
      return { kind: 'conflict', detail: conflict }
    }
    const events = commit.events.map((draft): EventRecord => ({ ...draft, seq: ++lastSeq, atMs: commit.atMs }))
    for (const event of events) statements.addEvent.run(event.seq, event.atMs, event.type, event.subject, JSON.stringify(event))
    database.exec('RELEASE one')
    return { kind: 'committed', versions: conflict, events }
  }

  /** The versions written, or why it is a conflict. */
  const applyOperations = (commit: PendingCommit): readonly number[] | string => {
    const versions: number[] = []
    for (const [index, operation] of commit.operations.entries()) {
      const { kind, key, expect } = operation
      const version = Number(statements.readVersion.get(kind, key)?.version ?? 0)
      if (version !== expect) return `${kind}/${key} has version ${version}, expected ${expect}`
      if (operation.op === 'delete') {
        statements.remove.run(kind, key)
        versions.push(0)
      } else {
        statements.write.run(kind, key, nextVersion, commit.values[index] ?? 'null')
        versions.push(nextVersion++)
      }
    }
    return versions
  }

  const trimEvents = () => {
    const oldestKept = lastSeq - maxEvents + 1
    if (oldestKept - firstSeq < EVENT_SLACK) return
    statements.trimEvents.run(oldestKept)
    firstSeq = oldestKept
  }

  const rollBack = () => {
    try {
      if (database.isTransaction) database.exec('ROLLBACK')
    } catch (error) {
      logger.warn('rollback failed', { path, error: messageOf(error) })
    }
  }

  const fail = (error: unknown): CommitOutcome => {
    const fault = sqliteFaultOf(error)
    const detail = `${path}: ${messageOf(error)}`
    if (fault === 'io' || fault === 'damaged') {
      dead = `the disk failed (${detail}); the coordinator must be restarted`
      logger.error('the disk failed a write, the store stops', { path, error: messageOf(error) })
      options.onFatal?.(error instanceof Error ? error : new Error(detail))
    } else logger.error('commit failed, nothing was written', { path, fault, error: messageOf(error) })
    return { kind: 'unavailable', detail, ...(fault === 'full' ? { full: true as const } : {}) }
  }

  return {
    async load() {
      const objects = statements.all.all().map((row) => ({
        kind: String(row.kind) as Kind,
        key: String(row.key),
        version: Number(row.version),
        value: parseStored(row, path),
      }))
      return { epoch, objects, lastEventSeq: lastSeq }
    },
    commit(operations, { epoch: commitEpoch, events, atMs }) {
      if (dead !== null) return Promise.resolve({ kind: 'unavailable', detail: dead })
      if (operations.length > MAX_COMMIT_OPERATIONS)
        return Promise.resolve({ kind: 'tooLarge', detail: `${operations.length} operations, at most ${MAX_COMMIT_OPERATIONS}` })
      return new Promise((resolve) => {
        const values = operations.map((operation) => (operation.op === 'put' ? (JSON.stringify(operation.value) ?? 'null') : ''))
        const bytes = byteSum(values) + byteSum(events.map((event) => JSON.stringify(event)))
        if (bytes > MAX_COMMIT_BYTES) return resolve({ kind: 'tooLarge', detail: `${bytes} bytes, at most ${MAX_COMMIT_BYTES}` })
        if (queue.length === 0) defer(flush)
        queue.push({ operations, values, epoch: commitEpoch, events, atMs, resolve })
      })
    },
    async events(query) {
      return queryEvents(database, query)
    },
    async close() {
      if (!database.isOpen) return
      flush()
      dead = 'the store is closed'
      opened.close()
    },
  }
}

function prepareStatements(database: DatabaseSync) {
  return {
    readMeta: database.prepare('SELECT value FROM meta WHERE name = ?'),
    writeMeta: database.prepare('UPDATE meta SET value = ? WHERE name = ?'),
    lastSeq: database.prepare('SELECT max(seq) AS seq FROM events'),
    firstSeq: database.prepare('SELECT min(seq) AS seq FROM events'),
    readVersion: database.prepare('SELECT version FROM objects WHERE kind = ? AND key = ?'),
    write: database.prepare(
      `INSERT INTO objects (kind, key, version, value) VALUES (?, ?, ?, ?)
       ON CONFLICT (kind, key) DO UPDATE SET version = excluded.version, value = excluded.value`,
    ),
    remove: database.prepare('DELETE FROM objects WHERE kind = ? AND key = ?'),
    addEvent: database.prepare('INSERT INTO events (seq, at_ms, type, subject, record) VALUES (?, ?, ?, ?, ?)'),
    trimEvents: database.prepare('DELETE FROM events WHERE seq < ?'),
    all: database.prepare('SELECT kind, key, version, value FROM objects'),
  }
}

function queryEvents(database: DatabaseSync, query: EventQuery): readonly EventRecord[] {
  const limit = Math.max(0, Math.min(query.limit ?? 100, 1000))
  const newestFirst = query.afterSeq === undefined
  const rows = database
    .prepare(
      `SELECT record FROM events
       WHERE seq > ?1 AND (?2 IS NULL OR substr(subject, 1, length(?2)) = ?2) AND (?3 IS NULL OR type = ?3)
       ORDER BY seq ${newestFirst ? 'DESC' : 'ASC'} LIMIT ?4`,
    )
    .all(query.afterSeq ?? 0, query.subjectPrefix ?? null, query.type ?? null, limit)
  const found = rows.map((row) => JSON.parse(String(row.record)) as EventRecord)
  return newestFirst ? found.reverse() : found
}

function parseStored(row: Record<string, SQLOutputValue>, path: string): unknown {
  try {
    return JSON.parse(String(row.value))
  } catch (error) {
    throw new ConfigError(`${path} holds an unreadable object ${String(row.kind)}/${String(row.key)}: ${messageOf(error)}`)
  }
}

function byteSum(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0)
}

function answerAll(batch: readonly PendingCommit[], outcome: CommitOutcome): void {
  for (const commit of batch) commit.resolve(outcome)
}
