/**
 * Keeps what is wrong with one app (or node, or machine) from all others: a loop over apps or services does the work of each alone, and goes on with the
 * next when one throws. That is said, since a loop that goes on hides its fault: once an hour in the log and in the audit trail
 * for as long as it lasts. Never throws.
 */
import type { Clock } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { State } from './state.ts'

export interface Isolation {
  /** Does the work for one subject (`app/service`, or an app); null when it threw. */
  attempt<T>(subject: string, work: () => T): T | null
  /** What was caught elsewhere, or is told without having been thrown. */
  failed(subject: string, error: unknown): void
}

export interface IsolationDeps {
  readonly state: State
  readonly clock: Clock
  readonly logger: Logger
  /** The loop or part that works, for people. */
  readonly part: string
  /** The type of the event for a subject; default by whether it is a service or an app. */
  typeOf?(subject: string): string
}

const typeOfService = (subject: string) => (subject.includes('/') ? 'service.isolated' : 'app.isolated')

const REPEAT_MS = 3_600_000
/** In one commit; the others follow with the next failure. */
const MAX_TOLD = 50

export function createIsolation({ state, clock, logger, part, typeOf = typeOfService }: IsolationDeps): Isolation {
  /** By subject: monotonic ms of when it was said last. */
  const said = new Map<string, number>()
  const untold = new Map<string, string>()
  let isTelling = false

  const failed = (subject: string, error: unknown) => {
    const nowMs = clock.monotonicMs()
    for (const [known, saidMs] of said) {
      // Oldest first.
      if (nowMs - saidMs < REPEAT_MS) break
      said.delete(known)
    }
    if (!said.has(subject)) {
      said.set(subject, nowMs)
      untold.set(subject, messageOf(error))
      const stack = error instanceof Error ? error.stack : undefined
      logger.error('the work for one subject failed, the others go on', { subject, error: messageOf(error), stack })
    }
    if (untold.size > 0 && !isTelling) void tell()
  }

  const tell = async (): Promise<void> => {
    isTelling = true
    try {
      const told = [...untold].slice(0, MAX_TOLD)
      const change = state.change()
      for (const [subject, message] of told)
        change.event({
          actor: part,
          type: typeOf(subject),
          subject,
          message: `${part} cannot work for it, and goes on with the others: ${message}`,
          severity: 'error',
        })
      const outcome = await state.commit(change)
      if (outcome.kind === 'committed') for (const [subject] of told) untold.delete(subject)
      else logger.debug('a fault could not be told yet', { outcome: outcome.kind })
    } catch (error) {
      logger.debug('a fault could not be told yet', { error: messageOf(error) })
    } finally {
      isTelling = false
    }
  }

  return {
    attempt(subject, work) {
      try {
        return work()
      } catch (error) {
        failed(subject, error)
        return null
      }
    },
    failed,
  }
}
