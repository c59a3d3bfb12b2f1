/**
 * Output of processes in files: they write there themselves, so nothing is lost while no agent runs. Two files each (`.out`,
 * `.err`), bounded: a full one is copied aside (`.1`) and emptied in place, which appending writers do not notice.
 */
import { closeSync, copyFileSync, fstatSync, mkdirSync, openSync, readSync, rmSync, statSync, truncateSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Clock, sleep } from '../../../shared/clock.ts'
import type { LogLine, LogOptions } from '../runtime.ts'

const MAX_FILE_BYTES = 10 * 1024 * 1024
/** What a look at the newest lines reads at most. */
const MAX_TAIL_BYTES = 1024 * 1024
const MAX_LINE = 64 * 1024
const FOLLOW_MS = 200

const STREAMS = [
  ['stdout', 'out'],
  ['stderr', 'err'],
] as const

/** File descriptors for a new run; close them once the process has them. */
export function openLogs(path: string): { readonly stdout: number; readonly stderr: number; close(): void } {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  const stdout = openSync(`${path}.out`, 'a', 0o600)
  const stderr = openSync(`${path}.err`, 'a', 0o600)
  return {
    stdout,
    stderr,
    close() {
      closeSync(stdout)
      closeSync(stderr)
    },
  }
}

/** Empties files that are full; the last full one stays beside. */
export function rotateLogs(path: string): void {
  for (const [, ending] of STREAMS) {
    const file = `${path}.${ending}`
    if (sizeOf(file) <= MAX_FILE_BYTES) continue
    copyFileSync(file, `${file}.1`)
    truncateSync(file, 0)
  }
}

export function removeLogs(path: string): void {
  for (const [, ending] of STREAMS) for (const file of [`${path}.${ending}`, `${path}.${ending}.1`]) rmSync(file, { force: true })
}

/** The newest lines of both streams, then what comes while it runs. Lines carry the time at which they were read. */
export async function* followLogs(
  path: string,
  { follow, tail }: LogOptions,
  clock: Clock,
  signal: AbortSignal,
  runs: () => boolean,
): AsyncIterable<LogLine> {
  const readers = STREAMS.map(([stream, ending]) => ({ stream, file: `${path}.${ending}`, offset: 0, rest: '' }))
  for (const reader of readers) {
    const size = sizeOf(reader.file)
    const from = Math.max(0, size - MAX_TAIL_BYTES)
    const text = readFrom(reader.file, from, size - from)
    reader.offset = size
    const lines = text.split('\n')
    reader.rest = lines.pop() ?? ''
    const atMs = modifiedMs(reader.file) ?? clock.now()
    for (const line of tail > 0 ? lines.slice(-tail) : []) yield { atMs, stream: reader.stream, text: line.slice(0, MAX_LINE) }
  }
  let last = !follow
  while (!signal.aborted) {
    for (const reader of readers) {
      const size = sizeOf(reader.file)
      // It was emptied: what was added since begins at its start.
      if (size < reader.offset) reader.offset = 0
      while (reader.offset < size) {
        const text = readFrom(reader.file, reader.offset, Math.min(size - reader.offset, MAX_LINE))
        if (text === '') break
        reader.offset += Buffer.byteLength(text)
        const lines = (reader.rest + text).split('\n')
        reader.rest = (lines.pop() ?? '').slice(0, MAX_LINE)
        for (const line of lines) yield { atMs: clock.now(), stream: reader.stream, text: line.slice(0, MAX_LINE) }
      }
      if (last && reader.rest !== '') yield { atMs: clock.now(), stream: reader.stream, text: reader.rest }
    }
    if (last) return
    // One more look after its end.
    last = !runs()
    if (!last) await sleep(clock, FOLLOW_MS, signal).catch(() => {})
  }
}

function readFrom(file: string, offset: number, length: number): string {
  let fd: number
  try {
    fd = openSync(file, 'r')
  } catch {
    return ''
  }
  try {
    const buffer = Buffer.alloc(Math.min(length, Math.max(0, fstatSync(fd).size - offset)))
    const count = readSync(fd, buffer, 0, buffer.length, offset)
    // latin1 keeps one character per byte while we count; the text itself is UTF-8.
    return buffer.toString('utf8', 0, count)
  } finally {
    closeSync(fd)
  }
}

function sizeOf(file: string): number {
  try {
    return statSync(file).size
  } catch {
    return 0
  }
}

function modifiedMs(file: string): number | null {
  try {
    return Math.floor(statSync(file).mtimeMs)
  } catch {
    return null
  }
}
