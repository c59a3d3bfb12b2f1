/** The history on a file system that really is full: a small tmpfs of its own. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openSqliteHistory } from '../../coordinator/history/sqlite/sqlite-history.ts'
import { silentLogger } from '../../shared/logger.ts'
import { virtualClock } from '../fakes/virtual-clock.ts'

const isRoot = process.getuid?.() === 0
const SERIES = 100
const id = (i: number) => ({ subject: `service shop/s${i}`, measure: 'demand' as const })

describe.skipIf(!isRoot)('history on a full disk (needs root to mount a tmpfs)', () => {
  let directory = ''
  const disk = () => join(directory, 'disk')

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'rubato-full-'))
    mkdirSync(disk())
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk()])
  })
  afterAll(() => {
    execFileSync('umount', [disk()])
    rmSync(directory, { recursive: true, force: true })
  })

  it('row 33: holds what cannot be written, says so, and loses nothing once there is room', async () => {
    const clock = virtualClock()
    const options = { path: join(disk(), 'history.db'), clock, logger: silentLogger(), maxBytes: 2 ** 30 }
    const history = openSqliteHistory(options)
    const faults: (string | null)[] = []
    for (let minute = 0; minute < 180; minute += 1) {
      for (let step = 0; step < 6; step += 1) {
        for (let i = 0; i < SERIES; i += 1) history.record(id(i), clock.now(), (i * 7919 * minute + step * 104_729) % 1_000_003)
        await clock.advance(10_000)
      }
      if (minute === 120) execFileSync('mount', ['-o', 'remount,size=64m', disk()])
      await history.flush()
      faults.push(history.status().fault)
    }
    expect(faults[0]).toBeNull()
    expect(faults[119]).toMatch(/no room/)
    expect(faults.at(-1)).toBeNull()
    expect(history.status().dropped).toBe(0)
    await history.close()
    const again = openSqliteHistory(options)
    const count = (i: number, stepMs: number) =>
      again.query({ ...id(i), fromMs: 0, toMs: Number.POSITIVE_INFINITY, stepMs }).length
    for (let i = 0; i < SERIES; i += 1) expect([count(i, 10_000), count(i, 60_000), count(i, 900_000)]).toEqual([1080, 180, 12])
    await again.close()
  })
})
