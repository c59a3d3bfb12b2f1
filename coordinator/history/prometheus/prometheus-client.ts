/**
 * Prometheus' HTTP API: one GET per question. Its answer is trusted with nothing: it must be JSON of bounded size that comes within
 * the time allowed; nothing is followed or unpacked, and what it says of itself is shortened before it reaches a log.
 */
import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { z } from 'zod'
import type { Clock } from '../../../shared/clock.ts'

export type PrometheusReply =
  | { readonly kind: 'data'; readonly data: unknown }
  /** It is there and well, and will not answer this question. */
  | { readonly kind: 'refused'; readonly detail: string }
  /** It cannot be reached, or what answers is no Prometheus. */
  | { readonly kind: 'away'; readonly detail: string }

export interface PrometheusClient {
  /** `path` below `/api/v1`. Never rejects; a signal that aborts ends it at once. */
  ask(
    path: string,
    parameters: Readonly<Record<string, string>>,
    options: { readonly maxBytes: number; readonly signal?: AbortSignal },
  ): Promise<PrometheusReply>
  close(): void
}

export interface PrometheusClientOptions {
  /** Base of its API, with a path where a proxy wants one. */
  readonly url: string
  /** Sent as a bearer token; in no log, error or event. */
  readonly token: string | null
  /** The only authority trusted for it; null: those that the system trusts. */
  readonly caPem: string | null
  /** Default 10 s. */
  readonly timeoutMs?: number
  readonly clock: Clock
}

/** Somebody waits at the command line. */
const TIMEOUT_MS = 10_000
/** One more than is asked for the past at once (prometheus-past.ts), so that a sign of life need not wait. */
const MAX_CONNECTIONS = 5
const MAX_DETAIL = 200

const answerSchema = z.union([
  z.object({ status: z.literal('success'), data: z.unknown() }),
  z.object({ status: z.literal('error'), errorType: z.string(), error: z.string() }),
])

export function createPrometheusClient(options: PrometheusClientOptions): PrometheusClient {
  const { clock, timeoutMs = TIMEOUT_MS } = options
  const isTls = new URL(options.url).protocol === 'https:'
  const keep = { keepAlive: true, maxSockets: MAX_CONNECTIONS, maxFreeSockets: 2 }
  const agent = isTls
    ? new HttpsAgent({ ...keep, ...(options.caPem === null ? {} : { ca: options.caPem }) })
    : new HttpAgent(keep)
  const send = isTls ? httpsRequest : httpRequest

  const get = (
    url: URL,
    asked: { readonly maxBytes: number; readonly signal?: AbortSignal },
    isRepeated: boolean,
  ): Promise<PrometheusReply> =>
    new Promise((resolve) => {
      const outgoing = send(url, {
        agent,
        ...(asked.signal === undefined ? {} : { signal: asked.signal }),
        headers: {
          accept: 'application/json',
          'accept-encoding': 'identity',
          'user-agent': 'rubato',
          ...(options.token === null ? {} : { authorization: `Bearer ${options.token}` }),
        },
      })
      const timer = clock.setTimer(timeoutMs, () => {
        settle({ kind: 'away', detail: `it did not answer within ${timeoutMs / 1000} s` })
        outgoing.destroy()
      })
      const settle = (reply: PrometheusReply | Promise<PrometheusReply>) => {
        timer.cancel()
        resolve(reply)
      }
      outgoing.on('response', (incoming) => {
        void read(incoming, asked.maxBytes).then((body) => {
          settle(understand(incoming.statusCode ?? 0, body))
          // What failed half-way must not go back into the pool of connections.
          if (body.kind === 'broken') outgoing.destroy()
        })
      })
      outgoing.on('error', (error: NodeJS.ErrnoException) => {
        // A kept connection may end just as it is used again; that says nothing about the server.
        const isStale = outgoing.reusedSocket && error.code === 'ECONNRESET' && !isRepeated && asked.signal?.aborted !== true
        settle(isStale ? get(url, asked, true) : { kind: 'away', detail: `it cannot be reached: ${error.code ?? error.message}` })
      })
      outgoing.end()
    })

  return {
    ask(path, parameters, asked) {
      const url = new URL(`${options.url.replace(/\/+$/, '')}/api/v1/${path}`)
      url.search = new URLSearchParams({ ...parameters }).toString()
      return get(url, asked, false)
    },
    close: () => agent.destroy(),
  }
}

type Body =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'broken'; readonly detail: string }
  | { readonly kind: 'tooLarge'; readonly detail: string }

async function read(incoming: IncomingMessage, maxBytes: number): Promise<Body> {
  const tooLarge = { kind: 'tooLarge', detail: `its answer is larger than ${Math.round(maxBytes / 1024)} KiB` } as const
  const parts: Buffer[] = []
  let size = 0
  try {
    for await (const part of incoming as AsyncIterable<Buffer>) {
      size += part.length
      if (size > maxBytes) return tooLarge
      parts.push(part)
    }
  } catch {
    return { kind: 'broken', detail: 'the connection ended within its answer' }
  }
  return { kind: 'text', text: Buffer.concat(parts).toString('utf8') }
}

/** Errors of a question (400, 422, 503 in Prometheus' own words) are told from those of the way to it. */
function understand(status: number, body: Body): PrometheusReply {
  if (body.kind === 'tooLarge') return { kind: 'refused', detail: body.detail }
  if (body.kind === 'broken') return { kind: 'away', detail: body.detail }
  if (status >= 300 && status < 400) return { kind: 'away', detail: `it redirects (status ${status}), which is not followed` }
  if (status === 401 || status === 403) return { kind: 'away', detail: `it refuses the token (status ${status})` }
  const parsed = answerSchema.safeParse(jsonOf(body.text))
  if (!parsed.success) {
    const what = status === 200 ? 'what it answered is not of Prometheus' : `it answered with status ${status}`
    return { kind: 'away', detail: what }
  }
  const answer = parsed.data
  if (answer.status === 'success')
    return status === 200 ? { kind: 'data', data: answer.data } : { kind: 'away', detail: `it answered with status ${status}` }
  const detail = `it refuses the query (${plain(answer.errorType)}): ${plain(answer.error)}`
  return { kind: answer.errorType === 'unavailable' ? 'away' : 'refused', detail }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Words of another program, fit for a line of a log. */
function plain(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}]+/gu, ' ').slice(0, MAX_DETAIL)
}
