/** One run of the command line: where output goes and in which form, the client, and progress on stderr. */
import { formatBytes, formatDuration, parseDurationMs } from '../../shared/units.ts'
import type { ApiClient } from './client.ts'
import { type ConnectionFlags, connect } from './connection.ts'
import { CliError, type CliIo, EXIT } from './io.ts'
import { type Column, type Paint, paintWith, printable, renderTable } from './table.ts'

export interface GlobalFlags extends ConnectionFlags {
  readonly output?: string | undefined
}

export interface Session {
  readonly io: CliIo
  readonly json: boolean
  readonly csv: boolean
  readonly paint: Paint
  /** Of tables; null: as wide as they are. */
  readonly width: number | null
  client(): Promise<ApiClient>
  /** The value as JSON, or the lines for people. */
  print(value: unknown, lines: () => readonly string[]): void
  /** The lines of a table as wide as the terminal. */
  lines<T>(rows: readonly T[], columns: readonly Column<T>[]): readonly string[]
  table<T>(rows: readonly T[], columns: readonly Column<T>[], empty: string): void
  /** A line for people on stderr, also with `-o json`. */
  note(text: string): void
  /** Replaces the progress line on a terminal; elsewhere prints each new text once. */
  progress(text: string): void
  endProgress(): void
}

/** `offers.csv`: the verb prints CSV itself when it is asked for. */
export function openSession(io: CliIo, flags: GlobalFlags, offers: { readonly csv: boolean } = { csv: false }): Session {
  const output = flags.output ?? 'table'
  if (output === 'csv' && !offers.csv)
    throw new CliError(EXIT.refused, 'This verb does not print CSV.', 'Use -o json or -o table; "rubato history" prints CSV.')
  if (output !== 'json' && output !== 'table' && output !== 'csv')
    throw new CliError(EXIT.refused, `There is no output "${output}".`, 'Use -o json or -o table.')
  const coloured = io.stdoutIsTty && !io.env.NO_COLOR && io.env.TERM !== 'dumb'
  const paint = paintWith(coloured)
  const json = output === 'json'
  let client: Promise<ApiClient> | null = null
  let shown = ''
  const width = io.columns ?? (Number(io.env.COLUMNS) > 0 ? Number(io.env.COLUMNS) : null)
  const endProgress = () => {
    if (io.stderrIsTty && shown !== '') io.err('\r\u001b[K')
    shown = ''
  }
  const print = (value: unknown, lines: () => readonly string[]) => {
    endProgress()
    if (json) io.out(`${JSON.stringify(value, null, 2)}\n`)
    else for (const line of lines()) io.out(`${line}\n`)
  }
  return {
    io,
    json,
    csv: output === 'csv',
    paint,
    width,
    client: () => {
      client ??= connect(io, flags)
      return client
    },
    print,
    lines: (rows, columns) => renderTable(rows, columns, { width, paint }),
    table: (rows, columns, empty) => {
      if (!json && rows.length === 0) return io.err(`${empty}\n`)
      print(rows, () => renderTable(rows, columns, { width, paint }))
    },
    note(text) {
      endProgress()
      io.err(`${text.split('\n').map(printable).join('\n')}\n`)
    },
    progress(text) {
      if (text === shown) return
      shown = text
      const line = printable(text)
      io.err(io.stderrIsTty ? `\r\u001b[K${line.slice(0, Math.max(20, (width ?? 80) - 1))}` : `${line}\n`)
    },
    endProgress,
  }
}

/** "3m10s" since `atMs`; "-" for never. A clock that is ahead of ours gives "0s". */
export function ago(atMs: number | null, nowMs: number): string {
  if (atMs === null) return '-'
  const ms = Math.max(0, nowMs - atMs)
  return ms < 1000 ? '0s' : formatDuration(ms)
}

export function percent(value: number | null): string {
  return value === null ? '-' : `${Math.round(value)}%`
}

export function cores(cpuMillis: number | null): string {
  return cpuMillis === null ? '-' : (cpuMillis / 1000).toFixed(2)
}

export function bytes(value: number | null): string {
  return value === null ? '-' : formatBytes(value).replace(' ', '').replace('iB', '')
}

/** "1 instance", "2 instances". */
export function counted(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`
}

/** A duration from a flag. Anything else, and none at all (0), is refused: `shownAs` is no duration, and a hint. */
export function durationMs(text: string, hint: string, shownAs = `"${text}"`): number {
  const ms = parseDurationMs(text)
  if (ms === null || ms <= 0) throw new CliError(EXIT.refused, `${shownAs} is no duration.`, hint)
  return ms
}

/** "app/service" in two parts. */
export function serviceParts(text: string): { readonly app: string; readonly service: string } {
  const [app, service, ...rest] = text.split('/')
  if (!app || !service || rest.length > 0)
    throw new CliError(EXIT.refused, `"${text}" is no service.`, 'A service is named app/service.')
  return { app, service }
}

export function path(...parts: readonly string[]): string {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join('')
}
