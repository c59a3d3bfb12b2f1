/**
 * Keeps what cannot be done for one node or machine from all others, as state/isolation.ts does for apps: a pass of the fleet goes on with
 * the next, and buys and calls its clouds whatever else fails. What failed is tried again after a while, longer each time, and not before.
 * A conflict with somebody faster is nothing to tell; a fault of ours, and what fails for minutes, is told in the audit trail. Never throws.
 */
import { backoffCeilingMs } from '../../shared/backoff.ts'
import type { Clock } from '../../shared/clock.ts'
import { ConflictError, messageOf, NotFoundError, RetryableError, UnavailableError } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { earliest } from '../../shared/plan.ts'
import { createIsolation } from '../state/isolation.ts'
import type { State } from '../state/state.ts'

export interface Apart {
  /** Does the work for one subject: id of a node or machine, or a part of the pass. null when it threw, or is not due again. */
  attempt<T>(subject: string, work: () => Promise<T>): Promise<T | null>
  /** Whether the work for it fails again and again. */
  isFailing(subject: string): boolean
  /** In how many ms the next thing that failed is due again, or null. */
  nextInMs(): number | null
}

const RETRY = { baseMs: 250, capMs: 30_000 }
/** In a row. Others may be faster once or twice. */
const FAILING = 3
/** A store that is busy or away is mended by itself, as a rule, and not for one subject only. */
const TOLD_AFTER_MS = 300_000
/** A subject that was not attempted for so long is forgotten: there may be nothing left to do for it. */
const FORGOTTEN_MS = 3_600_000

export function createApart(deps: { readonly state: State; readonly clock: Clock; readonly logger: Logger }): Apart {
  const { state, clock, logger } = deps
  const typeOf = (subject: string) => {
    if (state.snapshot.get('node', subject)) return 'node.isolated'
    return state.snapshot.get('machine', subject) ? 'machine.isolated' : 'fleet.isolated'
  }
  const isolation = createIsolation({ state, clock, logger, part: 'fleet', typeOf })
  /** Monotonic. */
  const failures = new Map<string, { readonly inRow: number; readonly sinceMs: number; readonly dueAtMs: number }>()

  return {
    async attempt(subject, work) {
      const before = failures.get(subject)
      if (before && clock.monotonicMs() < before.dueAtMs) return null
      try {
        const result = await work()
        failures.delete(subject)
        return result
      } catch (error) {
        const inRow = (before?.inRow ?? 0) + 1
        const nowMs = clock.monotonicMs()
        const sinceMs = before?.sinceMs ?? nowMs
        failures.set(subject, { inRow, sinceMs, dueAtMs: nowMs + backoffCeilingMs(inRow - 1, RETRY) })
        if (!isExpected(error) || nowMs - sinceMs >= TOLD_AFTER_MS) isolation.failed(subject, error)
        else logger.warn('the fleet could not work for one subject, will repeat', { subject, error: messageOf(error) })
        return null
      }
    },
    isFailing: (subject) => (failures.get(subject)?.inRow ?? 0) >= FAILING,
    nextInMs() {
      const nowMs = clock.monotonicMs()
      let dueAtMs: number | null = null
      for (const [subject, failure] of failures)
        if (nowMs - failure.dueAtMs > FORGOTTEN_MS) failures.delete(subject)
        // What is due and was not attempted is not wanted at present.
        else if (failure.dueAtMs > nowMs) dueAtMs = earliest(dueAtMs, failure.dueAtMs)
      return dueAtMs === null ? null : Math.ceil(dueAtMs - nowMs)
    },
  }
}

/** May be mended by the next attempt. */
function isExpected(error: unknown): boolean {
  return [RetryableError, ConflictError, NotFoundError, UnavailableError].some((kind) => error instanceof kind)
}
