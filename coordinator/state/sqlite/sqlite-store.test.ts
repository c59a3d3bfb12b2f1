import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { virtualClock } from '../../../test/fakes/virtual-clock.ts'
import { silentLogger } from '../../../shared/logger.ts'
import type { StoreOperation } from '../store.ts'
import { sqliteFaultOf } from './sqlite-errors.ts'
import { openSqliteStore, type SqliteStoreOptions } from './sqlite-store.ts'

let directory = ''
const file = () => join(directory, 'state.db')
const open = (more: Partial<SqliteStoreOptions> = {}) =>
  openSqliteStore({ path: file(), clock: virtualClock(), logger: silentLogger(), ...more })
const put = (key: string, value: unknown, expected = 0): StoreOperation => ({
  op: 'put',
  kind: 'pool',
  key,
  value,
  expect: expected,
})

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'rubato-sqlite-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

describe('sqlite store', () => {
  it('row 35: a second coordinator on the same file refuses to start and names the holder', async () => {
    const script = `
      const { openSqliteStore } = await import(${JSON.stringify(new URL('./sqlite-store.ts', import.meta.url).href)})
      const { systemClock } = await import(${JSON.stringify(new URL('../../../shared/clock.ts', import.meta.url).href)})
      const { silentLogger } = await import(${JSON.stringify(new URL('../../../shared/logger.ts', import.meta.url).href)})
      await openSqliteStore({ path: ${JSON.stringify(file())}, clock: systemClock(), logger: silentLogger() })
      process.stdout.write('held')
      process.stdin.resume()
      process.stdin.on('end', () => process.exit(0))`
    const holder = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['pipe', 'pipe', 'inherit'] })
    try {
      await new Promise((resolve) => holder.stdout.once('data', resolve))
      await expect(open()).rejects.toMatchObject({ code: 'config-invalid', message: expect.stringContaining(String(holder.pid)) })
    } finally {
      const ended = new Promise((resolve) => holder.once('exit', resolve))
      holder.kill('SIGKILL')
      await ended
    }
    // The holder was killed without closing: its lock is gone with it.
    const store = await open()
    expect((await store.load()).epoch).toBe(2)
    await store.close()
  })

  it('row 1: what was acknowledged before a SIGKILL is there afterwards', async () => {
    const script = `
      const { openSqliteStore } = await import(${JSON.stringify(new URL('./sqlite-store.ts', import.meta.url).href)})
      const { systemClock } = await import(${JSON.stringify(new URL('../../../shared/clock.ts', import.meta.url).href)})
      const { silentLogger } = await import(${JSON.stringify(new URL('../../../shared/logger.ts', import.meta.url).href)})
      const store = await openSqliteStore({ path: ${JSON.stringify(file())}, clock: systemClock(), logger: silentLogger() })
      const { epoch } = await store.load()
      for (let i = 0; ; i += 1) {
        const outcome = await store.commit([{ op: 'put', kind: 'pool', key: 'k' + i, value: i, expect: 0 }], { epoch, events: [], atMs: i })
        if (outcome.kind === 'committed') process.stdout.write(i + '\\n')
      }`
    const writer = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    let text = ''
    await new Promise<void>((resolve) => {
      writer.stdout.on('data', (chunk: Buffer) => {
        text += chunk.toString()
        if (text.split('\n').length > 30) writer.kill('SIGKILL')
      })
      writer.once('close', () => resolve())
    })
    const acknowledged = text.split('\n').filter((line) => line !== '')
    const store = await open()
    const keys = new Set((await store.load()).objects.map((object) => object.key))
    expect(acknowledged.length).toBeGreaterThan(20)
    expect(acknowledged.slice(0, -1).filter((line) => !keys.has(`k${line}`))).toEqual([])
    await store.close()
  })

  it('row 33: when the disk is full writes are refused whole, reads work, deletes make room again', async () => {
    const store = await open({ maxBytes: 400_000 })
    const { epoch } = await store.load()
    const options = { epoch, events: [], atMs: 1 }
    const kept: { key: string; version: number }[] = []
    let refused = null
    for (let index = 0; index < 40 && refused === null; index += 1) {
      const outcome = await store.commit([put(`k${index}`, 'x'.repeat(20_000)), put(`m${index}`, index)], options)
      if (outcome.kind === 'committed') kept.push({ key: `k${index}`, version: outcome.versions[0] ?? 0 })
      else refused = outcome
    }
    expect(refused).toMatchObject({ kind: 'unavailable', full: true })
    const loaded = (await store.load()).objects
    expect(loaded).toHaveLength(kept.length * 2)
    const [first] = kept
    expect(
      await store.commit([{ op: 'delete', kind: 'pool', key: first?.key ?? '', expect: first?.version ?? 0 }], options),
    ).toMatchObject({ kind: 'committed' })
    expect(await store.commit([put('again', 'y'.repeat(10_000))], options)).toMatchObject({ kind: 'committed' })
    await store.close()
  })

  it('row 34: a failed write or fsync counts as the end of the disk, a full one does not', () => {
    expect(sqliteFaultOf(Object.assign(new Error('disk I/O error'), { errcode: 1034 }))).toBe('io')
    expect(sqliteFaultOf(Object.assign(new Error('full'), { errcode: 13 }))).toBe('full')
    expect(sqliteFaultOf(new Error('no code'))).toBe('other')
  })

  it('keeps its file to itself (0600)', async () => {
    const store = await open()
    const { epoch } = await store.load()
    await store.commit([put('a', 1)], { epoch, events: [], atMs: 1 })
    for (const name of ['state.db', 'state.db-wal', 'state.db.pid'])
      if (existsSync(join(directory, name))) expect([name, statSync(join(directory, name)).mode & 0o777]).toEqual([name, 0o600])
    await store.close()
    expect(existsSync(join(directory, 'state.db.pid'))).toBe(false)
  })

  it('refuses a file that a newer version wrote, and one that is no database', async () => {
    const newer = new DatabaseSync(file())
    newer.exec('PRAGMA user_version = 99')
    newer.close()
    await expect(open()).rejects.toMatchObject({ code: 'config-invalid', message: expect.stringContaining('newer version') })
    writeFileSync(file(), 'this is not a database, it is a love letter '.repeat(100))
    await expect(open()).rejects.toMatchObject({ code: 'config-invalid', message: expect.stringContaining('damaged') })
  })

  it('keeps only the newest events, and their numbers go on after the oldest are gone', async () => {
    const store = await open({ maxEvents: 100 })
    const { epoch } = await store.load()
    const draft = { actor: 'a', type: 't.t', subject: 's', message: 'm', severity: 'info' } as const
    for (let index = 0; index < 40; index += 1)
      await store.commit([], { epoch, events: Array.from({ length: 50 }, () => draft), atMs: index })
    const kept = await store.events({ limit: 1000 })
    expect(kept.at(-1)?.seq).toBe(2000)
    expect(kept.length).toBeGreaterThanOrEqual(100)
    expect(kept.length).toBeLessThan(700)
    await store.close()
  })

  it('runs in memory for the simulator, and answers unavailable once closed', async () => {
    const store = await open({ path: ':memory:' })
    const { epoch } = await store.load()
    expect(await store.commit([put('a', 1)], { epoch, events: [], atMs: 1 })).toMatchObject({ kind: 'committed' })
    await store.close()
    expect(await store.commit([put('b', 1)], { epoch, events: [], atMs: 1 })).toMatchObject({ kind: 'unavailable' })
  })
})
