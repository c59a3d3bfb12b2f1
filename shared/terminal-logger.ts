/** The log for a person who looks at it: a line of words per event. Where nobody looks, pino-logger.ts writes JSON. */
import type { Clock } from './clock.ts'
import type { LogFields, Logger } from './logger.ts'
import type { LogLevel } from './pino-logger.ts'

const LEVELS = ['debug', 'info', 'warn', 'error'] as const
type Level = (typeof LEVELS)[number]

/** Yellow and red, as in tables of the command line. */
const COLOURS: Readonly<Partial<Record<Level, string>>> = { warn: '33', error: '31' }

export interface TerminalLoggerOptions {
  readonly level: LogLevel
  readonly clock: Pick<Clock, 'now'>
  /** Gets whole lines. */
  write(text: string): void
}

/** `20:15:03 warn  the gateway cannot offer everything  problem="port 80 is taken" node=n-1`, time in UTC. */
export function terminalLogger(options: TerminalLoggerOptions, bound: LogFields = {}): Logger {
  const least = options.level === 'silent' ? LEVELS.length : LEVELS.indexOf(options.level)
  const log = (level: Level) => (message: string, fields?: LogFields) => {
    if (LEVELS.indexOf(level) < least) return
    const time = new Date(options.clock.now()).toISOString().slice(11, 19)
    const colour = COLOURS[level]
    const shown = colour === undefined ? level.padEnd(5) : `\u001b[${colour}m${level.padEnd(5)}\u001b[0m`
    options.write(`${time} ${shown} ${message}${fieldsText({ ...bound, ...fields })}\n`)
  }
  return {
    debug: log('debug'),
    info: log('info'),
    warn: log('warn'),
    error: log('error'),
    with: (fields) => terminalLogger(options, { ...bound, ...fields }),
  }
}

function fieldsText(fields: LogFields): string {
  const parts = Object.entries(fields).flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${valueText(value)}`]))
  return parts.length === 0 ? '' : `  ${parts.join(' ')}`
}

/** What came from elsewhere moves no cursor: whatever is not plain is quoted and escaped. */
function valueText(value: unknown): string {
  if (typeof value === 'string' && /^[\w./:@+-]+$/.test(value)) return value
  return (JSON.stringify(value) ?? String(value)).replaceAll(
    /[\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}
