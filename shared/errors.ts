/**
 * The only errors that are thrown on purpose. Each has a stable `code`; adapters translate vendors' errors into these at the
 * edge and one file (coordinator/api/problem.ts) maps codes to HTTP. Expected results are unions, not exceptions.
 */
export type ErrorCode =
  | 'config-invalid'
  | 'input-invalid'
  | 'retryable'
  | 'not-found'
  | 'conflict'
  | 'no-capacity'
  | 'quota-exceeded'
  | 'unauthorized'
  | 'forbidden'
  | 'unavailable'
  | 'too-large'
  | 'storage-full'
  | 'invariant'

/** One fault found in input: what, where, and how to mend it. */
export interface Fault {
  /** JSON Pointer (RFC 6901) or field name; '' for the whole document. */
  readonly path: string
  readonly message: string
  /** The next step for the person who reads it. */
  readonly hint?: string
  readonly file?: string
  /** 1-based. */
  readonly line?: number
  /** 1-based. */
  readonly column?: number
}

export class RubatoError extends Error {
  readonly code: ErrorCode
  readonly faults: readonly Fault[]
  constructor(code: ErrorCode, message: string, options: { cause?: unknown; faults?: readonly Fault[] } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = new.target.name
    this.code = code
    this.faults = options.faults ?? []
  }
}

/** Start-up configuration that cannot be used; lists every fault at once. The process exits 78. */
export class ConfigError extends RubatoError {
  constructor(message: string, faults: readonly Fault[] = []) {
    super('config-invalid', message, { faults })
  }
}

/** Input of a user that cannot be used; lists every fault at once (HTTP 422, CLI exit 2). */
export class InputError extends RubatoError {
  constructor(message: string, faults: readonly Fault[] = []) {
    super('input-invalid', message, { faults })
  }
}

/** May succeed when repeated, not before `retryAfterMs` where given. */
export class RetryableError extends RubatoError {
  readonly retryAfterMs: number | null
  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number } = {}) {
    super('retryable', message, options)
    this.retryAfterMs = options.retryAfterMs ?? null
  }
}

export class NotFoundError extends RubatoError {
  constructor(message: string, cause?: unknown) {
    super('not-found', message, { cause })
  }
}

export class ConflictError extends RubatoError {
  constructor(message: string, cause?: unknown) {
    super('conflict', message, { cause })
  }
}

/** The cloud has no machine of that kind now; another pool may. */
export class CapacityError extends RubatoError {
  constructor(message: string, cause?: unknown) {
    super('no-capacity', message, { cause })
  }
}

/** The account may not have more; waiting does not help, a person must raise the quota. */
export class QuotaError extends RubatoError {
  constructor(message: string, cause?: unknown) {
    super('quota-exceeded', message, { cause })
  }
}

/** No credential, or a bad one (HTTP 401). */
export class UnauthorizedError extends RubatoError {
  constructor(message: string) {
    super('unauthorized', message)
  }
}

/** A good credential without the right (HTTP 403). */
export class ForbiddenError extends RubatoError {
  constructor(message: string) {
    super('forbidden', message)
  }
}

/** A part that is needed does not answer (HTTP 503). */
export class UnavailableError extends RubatoError {
  constructor(message: string, cause?: unknown) {
    super('unavailable', message, { cause })
  }
}

/** Our own bug. */
export class InvariantError extends RubatoError {
  constructor(message: string) {
    super('invariant', message)
  }
}

/** The message of anything thrown, for logs and events. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
