/** One call of the engine: with a time limit of its own, and with errors in our words. */
import type { Clock } from '../../../shared/clock.ts'
import {
  ConflictError,
  InputError,
  messageOf,
  NotFoundError,
  RetryableError,
  RubatoError,
  UnavailableError,
} from '../../../shared/errors.ts'

/** A hung engine must not hang the agent: after this a call is given up as "unknown" (row 19). */
const CALL_TIMEOUT_MS = 15_000

/** Runs `call`; rejects with UnavailableError when the engine does not answer in time. */
export async function engineCall<T>(
  clock: Clock,
  call: (signal: AbortSignal) => Promise<T>,
  options: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
): Promise<T> {
  const limit = new AbortController()
  const timeoutMs = options.timeoutMs ?? CALL_TIMEOUT_MS
  const signal = options.signal ? AbortSignal.any([limit.signal, options.signal]) : limit.signal
  const given = Promise.withResolvers<never>()
  // Some calls of the client do not look at the signal: the wait itself ends too.
  const onAbort = () => given.reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  const timer = clock.setTimer(timeoutMs, () =>
    limit.abort(new UnavailableError(`the container engine did not answer within ${timeoutMs} ms`)),
  )
  try {
    signal.throwIfAborted()
    return await Promise.race([call(signal), given.promise])
  } catch (error) {
    if (limit.signal.aborted) throw limit.signal.reason
    throw engineError(error)
  } finally {
    timer.cancel()
    signal.removeEventListener('abort', onAbort)
  }
}

const SILENT = new Set(['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE', 'EACCES', 'ETIMEDOUT', 'ABORT_ERR', 'ECONNABORTED'])

/** The engine's error in our words. */
export function engineError(error: unknown): Error {
  if (error instanceof RubatoError) return error
  const { statusCode, code, json } = error as { statusCode?: number; code?: string; json?: { message?: string } }
  const text = (json?.message ?? messageOf(error)).replace(/^\(HTTP code \d+\) /, '')
  switch (statusCode) {
    case 304:
      return new ConflictError(text, error)
    case 400:
      return new InputError(text)
    case 404:
      return new NotFoundError(text, error)
    case 409:
      return new ConflictError(text, error)
    case undefined:
      break
    default:
      return new RetryableError(text, { cause: error })
  }
  if (code !== undefined && SILENT.has(code)) return new UnavailableError(`the container engine does not answer (${code})`, error)
  return new RetryableError(text, { cause: error })
}

/** Runs `call` and takes the given outcome for done: absent when removing, not running when stopping. */
export async function unless<T>(kinds: readonly RubatoError['code'][], call: Promise<T>): Promise<T | null> {
  try {
    return await call
  } catch (error) {
    if (error instanceof RubatoError && kinds.includes(error.code)) return null
    throw error
  }
}
