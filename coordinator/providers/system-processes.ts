/** The operating system's processes (Linux: /proc). Only main.ts and adapter tests construct it. */
import { spawn } from 'node:child_process'
import { open, readdir, readFile } from 'node:fs/promises'
import type { Clock } from '../../shared/clock.ts'
import { messageOf, RetryableError } from '../../shared/errors.ts'
import type { CommandResult, Processes, RunCommand } from './processes.ts'

/** After SIGTERM, how long a command may take to end before its group is killed. */
const KILL_AFTER_MS = 2000

/** `env` is what commands and agents inherit. */
export function systemProcesses(clock: Clock, env: Readonly<Record<string, string | undefined>>): Processes {
  return {
    run: (command) => runCommand(clock, env, command),
    async startDetached(argv, logPath) {
      const [file = '', ...rest] = argv
      const log = await open(logPath, 'a', 0o600)
      try {
        const child = spawn(file, rest, { detached: true, stdio: ['ignore', log.fd, log.fd], env: { ...env } })
        await new Promise<void>((resolve, reject) => {
          child.once('spawn', resolve)
          child.once('error', (error) =>
            reject(new RetryableError(`${file} cannot be started: ${messageOf(error)}`, { cause: error })),
          )
        })
        child.unref()
        if (child.pid === undefined) throw new RetryableError(`${file} was started without a process id`)
        return child.pid
      } finally {
        await log.close()
      }
    },
    async running() {
      const found: { pid: number; argv: readonly string[] }[] = []
      for (const name of await readdir('/proc').catch(() => [])) {
        if (!/^\d+$/.test(name) || Number(name) === process.pid) continue
        const command = await readProc(`/proc/${name}/cmdline`)
        // Zombies and kernel threads have no command line.
        if (command) found.push({ pid: Number(name), argv: command.replace(/\0$/, '').split('\0') })
      }
      return found
    },
    signal(pid, signal) {
      try {
        return process.kill(pid, signal)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false
        throw error
      }
    },
  }
}

async function readProc(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch {
    return null // It ended meanwhile, or is not ours to see.
  }
}

function runCommand(
  clock: Clock,
  env: Readonly<Record<string, string | undefined>>,
  command: RunCommand,
): Promise<CommandResult> {
  return new Promise((resolve) => {
    const [file = '', ...rest] = command.argv
    const child = spawn(file, rest, { detached: true, stdio: ['pipe', 'pipe', 'pipe'], env: { ...env } })
    const stdout = boundedText(command.maxOutputBytes)
    const stderr = boundedText(command.maxOutputBytes)
    let timedOut = false
    let startError: string | null = null
    let killTimer: { cancel(): void } | null = null
    const kill = (signal: 'SIGTERM' | 'SIGKILL') => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, signal)
      } catch {
        // The group has ended already.
      }
    }
    const end = () => {
      kill('SIGTERM')
      killTimer ??= clock.setTimer(KILL_AFTER_MS, () => {
        kill('SIGKILL')
        child.stdout.destroy()
        child.stderr.destroy()
      })
    }
    const timer = clock.setTimer(command.timeoutMs, () => {
      timedOut = true
      end()
    })
    command.signal?.addEventListener('abort', end, { once: true })
    child.stdout.on('data', stdout.add)
    child.stderr.on('data', stderr.add)
    child.stdin.on('error', () => undefined) // A command that does not read its input is not wrong for that.
    child.stdin.end(command.stdin)
    const finish = (exitCode: number | null) => {
      timer.cancel()
      killTimer?.cancel()
      command.signal?.removeEventListener('abort', end)
      resolve({
        exitCode,
        stdout: stdout.text(),
        stderr: stderr.text(),
        timedOut,
        truncated: stdout.truncated() || stderr.truncated(),
        startError,
      })
    }
    child.once('error', (error) => {
      startError = messageOf(error)
      finish(null)
    })
    child.once('close', finish)
    if (command.signal?.aborted) end()
  })
}

function boundedText(maxBytes: number): { add(chunk: Buffer): void; text(): string; truncated(): boolean } {
  const chunks: Buffer[] = []
  let size = 0
  let cut = false
  return {
    add(chunk) {
      const room = maxBytes - size
      if (chunk.length > room) cut = true
      if (room > 0) chunks.push(chunk.subarray(0, room))
      size += Math.min(chunk.length, Math.max(0, room))
    },
    text: () => Buffer.concat(chunks).toString('utf8'),
    truncated: () => cut,
  }
}
