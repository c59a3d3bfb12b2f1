import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { silentLogger } from '../../../shared/logger.ts'
import { type VirtualClock, virtualClock } from '../../../test/fakes/virtual-clock.ts'
import type { HistoryBackend, Measure } from '../series.ts'
import { openSqliteHistory, type SqliteHistoryOptions } from './sqlite-history.ts'

let directory = ''
let clock: VirtualClock
let opened: HistoryBackend[] = []
const path = () => join(directory, 'history.db')

function open(more: Partial<SqliteHistoryOptions> = {}): HistoryBackend {
  const history = openSqliteHistory({
    path: path(),
    clock,
    logger: silentLogger(),
    maxBytes: 64 << 20,
    pause: () => Promise.resolve(),
    ...more,
  })
  opened.push(history)
  return history
}

const id = (service: number, measure: Measure = 'demand') => ({ subject: `service shop/s${service}`, measure })
const count = (history: HistoryBackend, stepMs: number, service = 1) =>
  history.query({ ...id(service), fromMs: 0, toMs: Number.POSITIVE_INFINITY, stepMs }).length

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'rubato-history-'))
  clock = virtualClock()
  opened = []
})
afterEach(async () => {
  for (const history of opened) await history.close()
  rmSync(directory, { recursive: true, force: true })
})

/** Something that does not pack well, for `services` series. */
async function fill(history: HistoryBackend, services: number, minutes: number): Promise<void> {
  for (let i = 0; i < minutes * 6; i += 1) {
    for (let service = 1; service <= services; service += 1)
      history.record(id(service), clock.now(), ((i + service) * 7919 * (1 + (i % 13))) % 1_000_003)
    await clock.advance(10_000)
    if (i % 30 === 29) await history.flush()
  }
  await history.flush()
}

describe('sqlite history', () => {
  it('goes on after a restart with the step that was being gathered, nothing doubled', async () => {
    const first = open()
    first.record(id(1), clock.now(), 10)
    await first.close()
    const second = open()
    second.record(id(1), clock.now() + 1, 40)
    await second.flush()
    second.record(id(1), clock.now() + 2, 100)
    for (const stepMs of [10_000, 60_000, 900_000])
      expect(second.query({ ...id(1), fromMs: 0, toMs: clock.now() + 1, stepMs })).toEqual([
        { atMs: clock.now(), value: 50, max: 100 },
      ])
    expect(second.series()).toEqual([id(1)])
  })

  it('keeps its file to itself (0600)', async () => {
    await fill(open(), 1, 1)
    for (const name of ['history.db', 'history.db-wal'])
      if (existsSync(join(directory, name))) expect([name, statSync(join(directory, name)).mode & 0o777]).toEqual([name, 0o600])
  })

  it('row 34: a file that is no database is set aside and a new one begun; says so until it keeps again', async () => {
    writeFileSync(path(), 'this is not a database, it is a love letter '.repeat(100))
    const history = open()
    expect(history.status().fault).toMatch(/begins anew.*history\.db\.damaged/)
    expect(readFileSync(`${path()}.damaged`, 'utf8')).toMatch(/^this is not/)
    await fill(history, 1, 1)
    expect(history.status().fault).toBeNull()
    expect(count(history, 10_000)).toBe(6)
  })

  it('sets aside, and does not touch, what a newer version wrote', async () => {
    const newer = new DatabaseSync(path())
    newer.exec('PRAGMA user_version = 99')
    newer.close()
    const history = open()
    expect(history.status().fault).toMatch(/history\.db\.newer/)
    await fill(history, 1, 1)
    expect(count(history, 10_000)).toBe(6)
  })

  it('row 34: a file that is damaged while it runs costs the history, not the coordinator', async () => {
    const first = open()
    await fill(first, 40, 60)
    await first.close()
    // Every page but the first: the header still reads well.
    const bytes = readFileSync(path())
    bytes.fill(0xa5, 4096)
    writeFileSync(path(), bytes)
    const history = open()
    for (let i = 0; i < 3; i += 1) {
      for (let service = 1; service <= 40; service += 1) history.record(id(service), clock.now(), i)
      expect(() => count(history, 60_000)).not.toThrow()
      await history.flush()
      await clock.advance(60_000)
    }
    expect(history.status().fault).toBeNull()
    expect(existsSync(`${path()}.damaged`)).toBe(true)
    expect(count(history, 10_000)).toBeGreaterThanOrEqual(2)
    expect(history.series()).toHaveLength(40)
  })

  it('a directory that cannot be written is a fault; samples wait, and are written once it can', async () => {
    const blocked = join(directory, 'file-not-directory')
    writeFileSync(blocked, '')
    const history = open({ path: join(blocked, 'history.db') })
    history.record(id(1), clock.now(), 5)
    await history.flush()
    expect(history.status().fault).toMatch(/cannot be opened/)
    expect(count(history, 10_000)).toBe(1)
    rmSync(blocked)
    await history.flush()
    expect(history.status().fault).toBeNull()
    expect(history.status().bytes).toBeGreaterThan(0)
    expect(count(history, 10_000)).toBe(1)
  })

  it('row 33: while nothing can be written it holds a bounded number of steps, and counts what it drops', async () => {
    const blocked = join(directory, 'file-not-directory')
    writeFileSync(blocked, '')
    const history = open({ path: join(blocked, 'history.db'), maxHeld: 100 })
    await fill(history, 1, 60)
    expect(history.status().dropped).toBe(360 - 101)
    expect(count(history, 10_000)).toBe(101)
  })

  it('row 33: stays within its size: the oldest of the finest goes first, coarser steps stay', async () => {
    const maxBytes = 1 << 20
    const history = open({ maxBytes })
    await fill(history, 150, 330)
    expect(history.status().fault).toBeNull()
    expect(statSync(path()).size).toBeLessThanOrEqual(maxBytes)
    const [raw, minutes, quarters] = [10_000, 60_000, 900_000].map((stepMs) => count(history, stepMs))
    expect(raw).toBeLessThan(330 * 6)
    expect(raw).toBeGreaterThan(0)
    expect(minutes).toBe(330)
    expect(quarters).toBe(22)
    const [oldest] = history.query({ ...id(1), fromMs: 0, toMs: Number.POSITIVE_INFINITY, stepMs: 10_000 })
    // What is left is the newest.
    expect(clock.now() - (oldest?.atMs ?? 0)).toBeLessThanOrEqual(((raw ?? 0) + 1) * 10_000)
  })

  it('row 37: a wall clock that leaps a year ahead and comes back deletes nothing', async () => {
    const history = open()
    await fill(history, 2, 30)
    clock.jumpWall(365 * 86_400_000)
    await history.flush()
    clock.jumpWall(-365 * 86_400_000)
    await fill(history, 2, 30)
    expect(count(history, 10_000)).toBe(360)
    expect(count(history, 60_000)).toBe(60)
    expect(count(history, 900_000)).toBe(4)
  })

  it('a flush that is asked for while one runs comes after it, and closing waits for both', async () => {
    const history = open()
    history.record(id(1), clock.now(), 1)
    const both = [history.flush(), history.flush()]
    history.record(id(2), clock.now(), 1)
    await history.close()
    await Promise.all(both)
    expect(open().series()).toEqual([id(1), id(2)])
  })
})
