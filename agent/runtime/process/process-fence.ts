/** Ends plain processes by their records, as another process than the agent: it reads records and writes none. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FenceHands } from '../fence-hands.ts'
import { ID_VARIABLE } from './process-mapping.ts'
import { parseRecord } from './process-record.ts'
import { findByEnvironment, readBootId, readGroups, readProcess } from './process-table.ts'

export function processFenceHands(stateDir: string): FenceHands {
  const bootId = readBootId()
  /** The run's group and its stop signal while any of it lives; a number that belongs to a stranger by now is none. */
  const groupOf = (id: string): { readonly group: number; readonly signal: string } | null => {
    const record = parseRecord(textOf(join(stateDir, 'processes', `${id}.json`)))
    const run = record?.run
    if (!record || !run || run.bootId !== bootId) return null
    // Begun and not written down yet: it is found by what it carries.
    const { pid, startTicks } = run.pid === 0 ? (findByEnvironment(`${ID_VARIABLE}=${id}`) ?? { pid: 0, startTicks: 0 }) : run
    if (pid <= 1) return null
    const leader = readProcess(pid)
    if (leader !== null && leader.startTicks !== startTicks) return null
    const lives = (readGroups().get(pid) ?? []).some(({ state }) => state !== 'Z' && state !== 'X')
    return lives ? { group: pid, signal: record.stopSignal } : null
  }
  const signal = (id: string, name: string | null) => {
    const found = groupOf(id)
    if (found === null) return
    try {
      process.kill(-found.group, (name ?? found.signal) as NodeJS.Signals)
    } catch {
      // It ended at this moment.
    }
  }
  return {
    runs: async (id) => groupOf(id) !== null,
    stop: async (id) => signal(id, null),
    kill: (id) => signal(id, 'SIGKILL'),
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
