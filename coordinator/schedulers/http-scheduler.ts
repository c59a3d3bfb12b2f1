/**
 * A custom scheduler behind an HTTP endpoint: one POST per question, JSON both ways. The other side is trusted with nothing: its answer
 * must be a plain 200 of bounded size and of the right type, nothing is followed or unpacked, and whatever the connection does,
 * the aborted signal ends it.
 */
import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { MAX_ANSWER_BYTES } from './protocol.ts'
import type { FailureCode, Reply, Scheduler } from './scheduler.ts'

export interface HttpSchedulerOptions {
  readonly name: string
  readonly url: string
  readonly deadlineMs: number
  readonly maxCandidates: number
  /** Sent as a bearer token; in no log, error or event. */
  readonly token: string | null
  /** The only authority trusted for it; null: those that the system trusts. */
  readonly caPem: string | null
}

export function createHttpScheduler(options: HttpSchedulerOptions): Scheduler {
  const { name, deadlineMs, maxCandidates } = options
  const url = new URL(options.url)
  const isTls = url.protocol === 'https:'
  const keep = { keepAlive: true, maxSockets: 8, maxFreeSockets: 2 }
  const agent = isTls
    ? new HttpsAgent({ ...keep, ...(options.caPem === null ? {} : { ca: options.caPem }) })
    : new HttpAgent(keep)
  const send = isTls ? httpsRequest : httpRequest

  const post = (body: Buffer, signal: AbortSignal, isRepeated: boolean): Promise<Reply> =>
    new Promise((resolve) => {
      const outgoing = send(url, {
        method: 'POST',
        agent,
        signal,
        headers: {
          'content-type': 'application/json',
          'content-length': body.length,
          accept: 'application/json',
          'accept-encoding': 'identity',
          'user-agent': 'rubato',
          ...(options.token === null ? {} : { authorization: `Bearer ${options.token}` }),
        },
      })
      outgoing.on('response', (incoming) => {
        void read(incoming).then((reply) => {
          resolve(reply)
          // What failed half-way must not go back into the pool of connections.
          if (reply.kind === 'failed') outgoing.destroy()
        })
      })
      outgoing.on('error', (error: NodeJS.ErrnoException) => {
        // A kept connection may end just as it is used again; that says nothing about the scheduler.
        const isStale = outgoing.reusedSocket && error.code === 'ECONNRESET' && !isRepeated && !signal.aborted
        resolve(
          isStale ? post(body, signal, true) : failure('unreachable', `it cannot be reached: ${error.code ?? error.message}`),
        )
      })
      outgoing.end(body)
    })

  return {
    name,
    deadlineMs,
    maxCandidates,
    ask: (question, signal) => post(Buffer.from(question), signal, false),
    async close() {
      agent.destroy()
    },
  }
}

async function read(incoming: IncomingMessage): Promise<Reply> {
  const { statusCode = 0, headers } = incoming
  if (statusCode >= 300 && statusCode < 400)
    return failure('bad-answer', `it redirects (status ${statusCode}), which is not followed`)
  if (statusCode !== 200) return failure('bad-answer', `it answered with status ${statusCode}`)
  if (!/^application\/json\s*(;|$)/i.test(headers['content-type'] ?? ''))
    return failure('bad-answer', 'its answer is not of type application/json')
  if ((headers['content-encoding'] ?? 'identity').toLowerCase() !== 'identity')
    return failure('bad-answer', 'its answer is compressed')
  const tooLarge = `its answer is larger than ${MAX_ANSWER_BYTES / 1024} KiB`
  if (Number(headers['content-length'] ?? 0) > MAX_ANSWER_BYTES) return failure('bad-answer', tooLarge)
  const parts: Buffer[] = []
  let size = 0
  try {
    for await (const part of incoming as AsyncIterable<Buffer>) {
      size += part.length
      if (size > MAX_ANSWER_BYTES) return failure('bad-answer', tooLarge)
      parts.push(part)
    }
  } catch {
    return failure('unreachable', 'the connection ended within its answer')
  }
  try {
    return { kind: 'text', text: new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(parts)) }
  } catch {
    return failure('bad-answer', 'its answer is no UTF-8')
  }
}

function failure(code: FailureCode, detail: string): Reply {
  return { kind: 'failed', code, detail }
}
