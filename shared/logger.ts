/**
 * Structured logs. Messages are constant sentences, what varies stands in fields. Secrets never enter a field: pass ids.
 * Only shells log; plans return reasons instead.
 */
export type LogFields = Readonly<Record<string, unknown>>

export interface Logger {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  /** A person may have to act. */
  warn(message: string, fields?: LogFields): void
  error(message: string, fields?: LogFields): void
  /** A logger whose every line carries `fields` too. */
  with(fields: LogFields): Logger
}

/** Swallows everything: for tests and for one-shot commands. */
export function silentLogger(): Logger {
  const logger: Logger = { debug() {}, info() {}, warn() {}, error() {}, with: () => logger }
  return logger
}
