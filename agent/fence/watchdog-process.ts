/**
 * One watchdog per node: a detached process of the agent's own program (`rubato-agent fence`) that outlives the agent. Which one
 * it is stands in a file that the newest writes before it ends the one before; one that the file does not name any more goes.
 */
import { spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { isSea } from 'node:sea'
import { join } from 'node:path'
import { type Clock, sleep } from '../../shared/clock.ts'
import { RetryableError } from '../../shared/errors.ts'
import { readBootId, readProcess } from '../runtime/process/process-table.ts'
import type { Watchdog } from './lease-keeper.ts'

export interface WatchdogOptions {
  readonly stateDir: string
  readonly engine: 'docker' | 'process'
  readonly dockerSocket: string
  readonly clock: Clock
  /** Program and first arguments; this agent's own unless given. */
  readonly command?: readonly string[]
}

/** A process that this file names and that is the very one. */
export interface Claim {
  readonly pid: number
  readonly startTicks: number
  readonly bootId: string
}

const START_MS = 15_000
/** Uptime is told in hundredths of a second: less is no sleep. */
const LEAST_SLEEP_MS = 100
const POLL_MS = 25
const MAX_LOG_BYTES = 262_144

export function fenceDirOf(stateDir: string): string {
  return join(stateDir, 'fence')
}

export function leasePathOf(stateDir: string): string {
  return join(fenceDirOf(stateDir), 'lease')
}

/**
 * The host's steady clock in ms, which all processes of one boot read alike. It counts the time that the host was suspended, as its
 * coordinator does: CLOCK_MONOTONIC, and by how much CLOCK_BOOTTIME is ahead of it. Where that cannot be read the former alone.
 */
export function hostSteadyClock(readUptimeMs: () => number | null = readUptime): () => number {
  let asleepMs = 0
  return () => {
    // Read first: whatever comes in between makes it look less far ahead, and the next look tells.
    const uptimeMs = readUptimeMs()
    const monotonicMs = Number(process.hrtime.bigint() / 1_000n) / 1_000
    if (uptimeMs !== null && uptimeMs - monotonicMs > asleepMs + LEAST_SLEEP_MS) asleepMs = uptimeMs - monotonicMs
    return monotonicMs + asleepMs
  }
}

/** /proc/uptime is CLOCK_BOOTTIME; in some containers it counts from their start, and is behind. */
function readUptime(): number | null {
  try {
    const seconds = Number.parseFloat(readFileSync('/proc/uptime', 'utf8'))
    return Number.isFinite(seconds) ? seconds * 1_000 : null
  } catch {
    return null
  }
}

/** The watchdog of this node as its agent sees it. */
export function watchdogProcess(options: WatchdogOptions): Watchdog {
  const { stateDir, clock } = options
  return {
    isAlive: () => claimant(stateDir) !== null,
    async start() {
      const directory = fenceDirOf(stateDir)
      mkdirSync(directory, { recursive: true, mode: 0o700 })
      const log = openLog(join(directory, 'log'))
      const [file = '', ...args] = options.command ?? ownCommand()
      const verb = ['fence', '--state-dir', stateDir, '--engine', options.engine, '--docker-socket', options.dockerSocket]
      const child = spawn(file, [...args, ...verb], {
        detached: true,
        cwd: '/',
        env: { PATH: process.env.PATH ?? '', NODE_OPTIONS: '--max-old-space-size=48 --max-semi-space-size=1' },
        stdio: ['ignore', log, log],
      })
      closeSync(log)
      let ended: string | null = null
      child.once('error', (error) => {
        ended = error.message
      })
      child.once('exit', (code, signal) => {
        ended = `it ended with ${signal ?? code}`
      })
      child.unref()
      for (let waitedMs = 0; claimant(stateDir)?.pid !== child.pid; waitedMs += POLL_MS) {
        if (ended !== null) throw new RetryableError(`the watchdog does not start: ${ended}`)
        if (waitedMs >= START_MS) throw new RetryableError(`the watchdog does not start within ${START_MS} ms`)
        await sleep(clock, POLL_MS)
      }
    },
  }
}

/** Makes this process the node's watchdog and ends the one before. */
export function claim(stateDir: string): Claim {
  const before = claimant(stateDir)
  const mine = { pid: process.pid, startTicks: readProcess(process.pid)?.startTicks ?? 0, bootId: readBootId() }
  const path = claimPathOf(stateDir)
  const aside = `${path}.${process.pid}`
  writeFileSync(aside, `${mine.pid} ${mine.startTicks} ${mine.bootId}\n`, { mode: 0o600 })
  renameSync(aside, path)
  if (before !== null && before.pid !== mine.pid)
    try {
      process.kill(before.pid, 'SIGKILL')
    } catch {
      // It ended at this moment.
    }
  return mine
}

/** Nobody is the watchdog any more, unless another one has taken over. */
export function disclaim(stateDir: string, mine: Claim): void {
  if (holds(stateDir, mine)) rmSync(claimPathOf(stateDir), { force: true })
}

export function holds(stateDir: string, mine: Claim): boolean {
  const found = readClaim(stateDir)
  return found?.pid === mine.pid && found.startTicks === mine.startTicks && found.bootId === mine.bootId
}

/** The watchdog that the file names, while that very process lives. */
export function claimant(stateDir: string): Claim | null {
  const found = readClaim(stateDir)
  if (found === null || found.bootId !== readBootId()) return null
  const info = readProcess(found.pid)
  return info !== null && info.startTicks === found.startTicks && info.state !== 'Z' && info.state !== 'X' ? found : null
}

function claimPathOf(stateDir: string): string {
  return join(fenceDirOf(stateDir), 'watchdog')
}

function readClaim(stateDir: string): Claim | null {
  try {
    const [pid = '', startTicks = '', bootId = ''] = readFileSync(claimPathOf(stateDir), 'utf8').trim().split(' ')
    return Number(pid) > 1 ? { pid: Number(pid), startTicks: Number(startTicks), bootId } : null
  } catch {
    return null
  }
}

function ownCommand(): readonly string[] {
  return isSea() ? [process.execPath] : [process.execPath, join(import.meta.dirname, '..', 'main.ts')]
}

/** Its output goes to a file of its own: a pipe of the agent's would break with it. */
function openLog(path: string): number {
  let isFull = false
  try {
    isFull = statSync(path).size > MAX_LOG_BYTES
  } catch {
    // There is none yet.
  }
  return openSync(path, isFull ? 'w' : 'a', 0o600)
}
