/** The process's log: one JSON line per event on standard error, so that standard output stays for results. */
import { pino } from 'pino'
import type { Logger } from './logger.ts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent'

/** Only main.ts files construct it. Writes synchronously: the last line before an exit is the one that matters. */
export function pinoLogger(level: LogLevel, fields: Readonly<Record<string, unknown>> = {}): Logger {
  return wrap(
    pino({ level, base: { ...fields }, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination({ fd: 2, sync: true })),
  )
}

function wrap(log: pino.Logger): Logger {
  return {
    debug: (message, fields) => log.debug(fields ?? {}, message),
    info: (message, fields) => log.info(fields ?? {}, message),
    warn: (message, fields) => log.warn(fields ?? {}, message),
    error: (message, fields) => log.error(fields ?? {}, message),
    with: (fields) => wrap(log.child(fields)),
  }
}
