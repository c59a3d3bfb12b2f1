/**
 * The one place that maps errors to HTTP: RFC 9457 `application/problem+json` with `code`, `requestId` and, for input, `errors`
 * (JSON Pointers). Never a stack trace, never a secret: a fault of ours says only which request to look up in the log.
 */
import { type ErrorCode, type Fault, RetryableError, RubatoError } from '../../shared/errors.ts'
import { JoinRefusedError } from '../access/join.ts'

export type ProblemCode =
  | ErrorCode
  | 'gone'
  | 'json-invalid'
  | 'media-type-unsupported'
  | 'method-not-allowed'
  | 'precondition-failed'
  | 'precondition-required'
  | 'rate-limited'
  | 'idempotency-mismatch'

/** Status and title of each code; the title never varies (RFC 9457 §3.1.3). */
export const PROBLEMS = {
  'config-invalid': { status: 500, title: 'The configuration cannot be used' },
  'input-invalid': { status: 422, title: 'The input cannot be used' },
  retryable: { status: 503, title: 'Try again' },
  'not-found': { status: 404, title: 'Not found' },
  conflict: { status: 409, title: 'Conflict' },
  'no-capacity': { status: 503, title: 'No capacity' },
  'quota-exceeded': { status: 503, title: 'Quota exceeded' },
  unauthorized: { status: 401, title: 'A valid operator token is needed' },
  forbidden: { status: 403, title: 'Not allowed' },
  unavailable: { status: 503, title: 'A part that is needed does not answer' },
  'too-large': { status: 413, title: 'Too large' },
  'storage-full': { status: 507, title: 'The disk is full' },
  invariant: { status: 500, title: 'A fault of the coordinator' },
  gone: { status: 410, title: 'Gone' },
  'json-invalid': { status: 400, title: 'The body is no valid JSON' },
  'media-type-unsupported': { status: 415, title: 'The media type is not supported' },
  'method-not-allowed': { status: 405, title: 'The method is not allowed here' },
  'precondition-failed': { status: 412, title: 'It changed meanwhile' },
  'precondition-required': { status: 428, title: 'If-Match is required' },
  'rate-limited': { status: 429, title: 'Too many requests' },
  'idempotency-mismatch': { status: 422, title: 'The idempotency key was used for another request' },
} as const satisfies Record<ProblemCode, { status: number; title: string }>

export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail: string
  readonly instance: string
  readonly code: ProblemCode
  readonly requestId: string
  readonly errors?: readonly { readonly pointer: string; readonly detail: string; readonly hint?: string }[]
}

/** A refusal that only HTTP knows; others throw the errors of shared/errors.ts. */
export class HttpProblem extends Error {
  readonly code: ProblemCode
  readonly faults: readonly Fault[]
  readonly headers: Readonly<Record<string, string>>
  constructor(code: ProblemCode, detail: string, options: { faults?: readonly Fault[]; headers?: Record<string, string> } = {}) {
    super(detail)
    this.name = 'HttpProblem'
    this.code = code
    this.faults = options.faults ?? []
    this.headers = options.headers ?? {}
  }
}

/** The response for anything thrown. `path` is the request's path without its query. */
export function problemResponse(error: unknown, request: { readonly path: string; readonly requestId: string }): Response {
  const known = error instanceof HttpProblem || error instanceof RubatoError ? error : null
  const code = codeOf(error)
  const { status, title } = PROBLEMS[code]
  const problem: Problem = {
    type: `urn:rubato:problem:${code}`,
    title,
    status,
    detail: status === 500 ? `Look for request ${request.requestId} in the coordinator's log.` : (known?.message ?? title),
    instance: request.path,
    code,
    requestId: request.requestId,
    ...(known && known.faults.length > 0 && status !== 500
      ? {
          errors: known.faults.slice(0, 100).map((fault) => ({
            pointer: fault.path,
            detail: fault.message,
            ...(fault.hint === undefined ? {} : { hint: fault.hint }),
          })),
        }
      : {}),
  }
  const headers = new Headers({ 'content-type': 'application/problem+json', 'x-request-id': request.requestId })
  if (status === 401) headers.set('www-authenticate', 'Bearer realm="rubato"')
  if (status === 503) headers.set('retry-after', String(retryAfterS(error)))
  if (known instanceof HttpProblem) for (const [name, value] of Object.entries(known.headers)) headers.set(name, value)
  return new Response(`${JSON.stringify(problem)}\n`, { status, headers })
}

/** The code under which an error is answered. */
export function codeOf(error: unknown): ProblemCode {
  if (error instanceof JoinRefusedError && error.status === 410) return 'gone'
  return error instanceof HttpProblem || error instanceof RubatoError ? error.code : 'invariant'
}

function retryAfterS(error: unknown): number {
  return error instanceof RetryableError && error.retryAfterMs !== null ? Math.max(1, Math.ceil(error.retryAfterMs / 1000)) : 2
}
