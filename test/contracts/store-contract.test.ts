import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe } from 'vitest'
import { openSqliteStore } from '../../coordinator/state/sqlite/sqlite-store.ts'
import { silentLogger } from '../../shared/logger.ts'
import { emptyDisk, memoryStore } from '../fakes/memory-store.ts'
import { virtualClock } from '../fakes/virtual-clock.ts'
import { storeContract } from './store-contract.ts'

describe('store contract: memory', () => {
  storeContract(async () => {
    const disk = emptyDisk()
    return { open: async () => memoryStore(disk), dispose: async () => {} }
  })
})

describe('store contract: sqlite', () => {
  storeContract(async () => {
    const directory = mkdtempSync(join(tmpdir(), 'rubato-store-'))
    return {
      open: () => openSqliteStore({ path: join(directory, 'state.db'), clock: virtualClock(), logger: silentLogger() }),
      dispose: async () => rmSync(directory, { recursive: true }),
    }
  })
})
