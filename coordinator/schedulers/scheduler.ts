/** A custom scheduler as the coordinator sees it, whatever it is made of, and one question to it under a deadline. */
import type { Clock } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { Verdict } from '../placement/answers.ts'
import { idsOf } from './plan-questions.ts'
import type { Question } from './protocol.ts'
import { oneLine, readAnswer } from './read-answer.ts'

/** `interrupted`: it was ended because of another question, and may be asked again. */
export type FailureCode = 'timeout' | 'unreachable' | 'bad-answer' | 'crashed' | 'interrupted'

export type Reply =
  /** What it sent, unread. */
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'failed'; readonly code: FailureCode; readonly detail: string }

export interface Scheduler {
  readonly name: string
  readonly deadlineMs: number
  /** Nodes in one question at most. */
  readonly maxCandidates: number
  /** Sends a question (JSON). When the signal aborts it lets go of everything that the question holds. */
  ask(question: string, signal: AbortSignal): Promise<Reply>
  /** Settles when it takes questions again after one that was interrupted; rejects when it does not. Absent: at once. */
  recovered?(): Promise<void>
  close(): Promise<void>
}

export type Outcome =
  | { readonly kind: 'answered'; readonly verdicts: ReadonlyMap<NodeId, Verdict>; readonly tookMs: number }
  | { readonly kind: 'failed'; readonly code: FailureCode; readonly detail: string; readonly tookMs: number }

/** Resolves by the deadline whatever the scheduler does; rejects only when `signal` aborts. */
export async function askOnce(scheduler: Scheduler, question: Question, clock: Clock, signal: AbortSignal): Promise<Outcome> {
  signal.throwIfAborted()
  const startedMs = clock.monotonicMs()
  const overdue = new AbortController()
  const either = AbortSignal.any([signal, overdue.signal])
  const expired = Promise.withResolvers<Reply>()
  const detail = `no answer within ${scheduler.deadlineMs} ms`
  const timer = clock.setTimer(scheduler.deadlineMs, () => {
    overdue.abort(new Error(detail))
    expired.resolve({ kind: 'failed', code: 'timeout', detail })
  })
  const onAbort = () => expired.reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    const asking = scheduler
      .ask(JSON.stringify(question), either)
      .catch((error): Reply => ({ kind: 'failed', code: 'crashed', detail: oneLine(messageOf(error)) }))
    const reply = await Promise.race([asking, expired.promise])
    const tookMs = clock.monotonicMs() - startedMs
    if (reply.kind === 'failed') return { ...reply, detail: oneLine(reply.detail), tookMs }
    const read = readAnswer(reply.text, idsOf(question))
    return read.kind === 'ok'
      ? { kind: 'answered', verdicts: read.verdicts, tookMs }
      : { kind: 'failed', code: 'bad-answer', detail: read.fault, tookMs }
  } finally {
    timer.cancel()
    signal.removeEventListener('abort', onAbort)
  }
}
