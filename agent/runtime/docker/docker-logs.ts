/** The engine's log stream as lines: takes the two streams apart, reads the time before each line. */
import type { LogLine } from '../runtime.ts'

/** A longer line is cut: one program must not fill the agent's memory. */
const MAX_LINE_BYTES = 64 * 1024

export interface LogSplitter {
  /** Lines that are complete now. */
  push(chunk: Buffer): LogLine[]
  /** The unfinished rest. */
  end(): LogLine[]
}

/** `raw`: the container has a terminal, its stream is not framed. `nowMs` stands in where a line has no time. */
export function createLogSplitter(raw: boolean, nowMs: () => number): LogSplitter {
  let pending: Buffer = Buffer.alloc(0)
  const partial: Record<'stdout' | 'stderr', string> = { stdout: '', stderr: '' }

  const take = (stream: 'stdout' | 'stderr', text: string, lines: LogLine[]) => {
    const parts = (partial[stream] + text).split('\n')
    const rest = parts.pop() ?? ''
    for (const part of parts) lines.push(lineOf(stream, part.slice(0, MAX_LINE_BYTES), nowMs))
    partial[stream] = rest.slice(0, MAX_LINE_BYTES)
  }

  return {
    push(chunk) {
      const lines: LogLine[] = []
      if (raw) {
        take('stdout', chunk.toString('utf8').replaceAll('\r\n', '\n'), lines)
        return lines
      }
      pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
      let offset = 0
      while (pending.length - offset >= 8) {
        const size = pending.readUInt32BE(offset + 4)
        if (pending.length - offset - 8 < size) break
        take(pending[offset] === 2 ? 'stderr' : 'stdout', pending.toString('utf8', offset + 8, offset + 8 + size), lines)
        offset += 8 + size
      }
      pending = pending.subarray(offset)
      return lines
    },
    end() {
      const lines: LogLine[] = []
      for (const stream of ['stdout', 'stderr'] as const)
        if (partial[stream] !== '') lines.push(lineOf(stream, partial[stream], nowMs))
      return lines
    },
  }
}

function lineOf(stream: 'stdout' | 'stderr', text: string, nowMs: () => number): LogLine {
  const space = text.indexOf(' ')
  const atMs = space > 0 && space < 40 ? Date.parse(text.slice(0, space)) : Number.NaN
  return Number.isFinite(atMs) ? { atMs, stream, text: text.slice(space + 1) } : { atMs: nowMs(), stream, text }
}
