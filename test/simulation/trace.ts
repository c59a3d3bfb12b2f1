/** What happened, in order. The hash covers everything; of the lines only the newest are kept, for people. */
import { createHash } from 'node:crypto'
import type { Logger, LogFields } from '../../shared/logger.ts'

export interface Trace {
  /** Hashed and kept for people. */
  line(text: string): void
  /** Hashed only: frames, which are many. */
  silent(text: string): void
  readonly count: number
  hash(): string
  tail(lines: number): string
  /** Lines of `error` logs: in a model world none of them is expected unless a fault explains it. */
  readonly errors: readonly string[]
  /** Lines that hold a credential (I12). */
  readonly leaks: readonly string[]
  /** A logger whose lines go here. */
  logger(who: string): Logger
}

const KEPT = 5_000
/** What shared/credentials.ts makes, with its secret. */
const CREDENTIAL = /\brbt[onj]?_[^_\s]+_[A-Za-z0-9]{20,}_/

export function createTrace(nowMs: () => number): Trace {
  const hash = createHash('sha256')
  const errors: string[] = []
  const leaks: string[] = []
  let kept: string[] = []
  let count = 0
  const silent = (text: string) => {
    count += 1
    hash.update(`${nowMs()} ${text}\n`)
  }
  const line = (text: string) => {
    silent(text)
    if (CREDENTIAL.test(text)) leaks.push(text)
    kept.push(`${(nowMs() / 1000).toFixed(3).padStart(9)} ${text}`)
    if (kept.length > 2 * KEPT) kept = kept.slice(-KEPT)
  }
  const logger = (who: string, bound: LogFields = {}): Logger => {
    const log =
      (level: string) =>
      (message: string, fields: LogFields = {}) => {
        const { stack, ...all } = { ...bound, ...fields }
        const text = `${who} ${level}: ${message} ${JSON.stringify(all)}`
        line(text)
        if (level === 'error') errors.push(`${text}${typeof stack === 'string' ? `\n${stack}` : ''}`)
      }
    return {
      debug() {},
      info: log('info'),
      warn: log('warn'),
      error: log('error'),
      with: (fields) => logger(who, { ...bound, ...fields }),
    }
  }
  return {
    line,
    silent,
    get count() {
      return count
    },
    hash: () => hash.copy().digest('hex'),
    tail: (lines) => kept.slice(-lines).join('\n'),
    errors,
    leaks,
    logger: (who) => logger(who),
  }
}
