/**
 * `Idempotency-Key`: a repeated request gets the first one's answer, a different request under the same key is refused. Kept in
 * memory, bounded in number and time, per credential; after a restart of the coordinator a repetition runs again (and meets
 * the compare-and-set of what the first one wrote).
 */
import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Clock } from '../../shared/clock.ts'
import { HttpProblem } from './problem.ts'

export interface IdempotentRequest {
  readonly owner: string
  readonly key: string
  readonly method: string
  /** With its query. */
  readonly url: string
  readonly body: string
}

export interface Idempotency {
  /** Runs `perform` once per key. 5xx and 429 are not kept: repeating them must try again. */
  once(request: IdempotentRequest, perform: () => Promise<Response>): Promise<Response>
}

const KEPT_MS = 24 * 3_600_000
const MAX_KEPT = 1000
const MAX_BODY_CHARS = 64 * 1024

interface Kept {
  readonly fingerprint: string
  readonly startedAtMs: number
  readonly answer: Promise<Answer>
}

interface Answer {
  readonly status: number
  readonly headers: readonly (readonly [string, string])[]
  readonly body: string
}

export function idempotency(clock: Clock): Idempotency {
  const kept = new LRUCache<string, Kept>({ max: MAX_KEPT })
  return {
    async once(request, perform) {
      const id = `${request.owner}\n${request.key}`
      const fingerprint = createHash('sha256').update(`${request.method}\n${request.url}\n${request.body}`).digest('hex')
      const earlier = kept.get(id)
      if (earlier && clock.monotonicMs() - earlier.startedAtMs < KEPT_MS) {
        if (earlier.fingerprint !== fingerprint) {
          throw new HttpProblem('idempotency-mismatch', 'Use a fresh Idempotency-Key for a different request.')
        }
        const answer = await earlier.answer
        return toResponse(answer, true)
      }
      const answer = perform().then(toAnswer)
      const entry: Kept = { fingerprint, startedAtMs: clock.monotonicMs(), answer }
      kept.set(id, entry)
      const forget = () => {
        if (kept.get(id) === entry) kept.delete(id)
      }
      try {
        const result = await answer
        if (result.status >= 500 || result.status === 429 || result.body.length > MAX_BODY_CHARS) forget()
        return toResponse(result, false)
      } catch (error) {
        forget()
        throw error
      }
    },
  }
}

async function toAnswer(response: Response): Promise<Answer> {
  return { status: response.status, headers: [...response.headers], body: await response.text() }
}

function toResponse(answer: Answer, replayed: boolean): Response {
  const headers = new Headers(answer.headers.map(([name, value]): [string, string] => [name, value]))
  if (replayed) headers.set('idempotency-replayed', 'true')
  return new Response(answer.status === 204 ? null : answer.body, { status: answer.status, headers })
}
