import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createMemoryHistory } from '../../coordinator/history/memory-history.ts'
import type { HistoryBackend, SeriesLimits } from '../../coordinator/history/series.ts'
import { openSqliteHistory } from '../../coordinator/history/sqlite/sqlite-history.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { VirtualClock } from '../fakes/virtual-clock.ts'
import { historyContract } from './history-contract.ts'

historyContract('in memory', () => ({
  open: (clock, options) => createMemoryHistory(clock, options),
  reopen: null,
  tolerance: 1e-12,
  cleanUp() {},
}))

historyContract('sqlite', () => {
  const directory = mkdtempSync(join(tmpdir(), 'rubato-history-'))
  let lives = 0
  let last: HistoryBackend | null = null
  const file = () => join(directory, `history-${lives}.db`)
  const open = (clock: VirtualClock, options: SeriesLimits = {}) => {
    last = openSqliteHistory({
      path: file(),
      clock,
      logger: silentLogger(),
      maxBytes: 64 << 20,
      pause: () => Promise.resolve(),
      ...options,
    })
    return last
  }
  return {
    open,
    /** Copies the files as they lie there, before the first life closes them: what a crash leaves. */
    async reopen(clock) {
      const before = file()
      lives += 1
      for (const suffix of ['', '-wal']) if (existsSync(before + suffix)) copyFileSync(before + suffix, file() + suffix)
      await last?.close()
      return open(clock)
    },
    tolerance: 2 ** -13,
    cleanUp: () => rmSync(directory, { recursive: true, force: true }),
  }
})
