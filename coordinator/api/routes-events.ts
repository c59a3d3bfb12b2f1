/** The audit trail: pages of JSON, or a stream of server-sent events that resumes where it broke off. */
import { z } from '@hono/zod-openapi'
import type { Clock, Timer } from '../../shared/clock.ts'
import type { EventRecord } from '../../shared/model/event.ts'
import type { State } from '../state/state.ts'
import type { ApiDeps } from './deps.ts'
import type { Endpoints } from './endpoint.ts'
import { pageQuery, queryFlag, queryInt } from './inputs.ts'
import { eventView, operationView, pageOf } from './schemas.ts'
import { page } from './views.ts'

/** Shorter than the idle timeout of common proxies (30 s and up). */
const HEARTBEAT_MS = 15_000
const BATCH = 200

const eventQuery = z.strictObject({
  after: queryInt(0, 999_999_999_999).optional(),
  limit: queryInt(1, 1000).optional(),
  subject: z.string().max(200).optional(),
  type: z.string().max(100).optional(),
  follow: queryFlag.optional(),
  tail: queryInt(0, 1000).optional(),
})

export function addEventRoutes({ add }: Endpoints, deps: ApiDeps): void {
  const { state, clock } = deps
  add(
    {
      route: 'GET /v1/events',
      tag: 'events',
      summary: 'Events, oldest first; with Accept: text/event-stream or follow a stream that heeds Last-Event-ID',
      query: eventQuery,
      returns: z.object({ items: z.array(eventView), next: z.string().nullable() }),
    },
    async ({ query, request, isStillAllowed }) => {
      const filter = {
        ...(query.subject === undefined ? {} : { subjectPrefix: query.subject }),
        ...(query.type === undefined ? {} : { type: query.type }),
      }
      const streaming = query.follow || (request.headers.get('accept') ?? '').includes('text/event-stream')
      if (!streaming) {
        const limit = query.limit ?? 100
        const found = await state.events({ ...filter, limit, ...(query.after === undefined ? {} : { afterSeq: query.after }) })
        const last = found.at(-1)
        return { items: found, next: query.after !== undefined && found.length === limit && last ? String(last.seq) : null }
      }
      const resumed = /^\d{1,12}$/.exec(request.headers.get('last-event-id') ?? '')?.[0]
      const after = resumed === undefined ? query.after : Number(resumed)
      const stream = await openStream({
        state,
        clock,
        filter,
        after: after ?? null,
        tail: query.tail ?? 0,
        signal: request.signal,
        isStillAllowed,
      })
      return new Response(stream, {
        headers: { 'content-type': 'text/event-stream', 'cache-control': 'no-store', 'x-accel-buffering': 'no' },
      })
    },
  )

  add(
    {
      route: 'GET /v1/operations',
      tag: 'events',
      summary: 'Changes in progress and done',
      query: z.strictObject(pageQuery),
      returns: pageOf(operationView),
    },
    ({ query }) => page(state.snapshot.all('operation').values(), ({ id }) => id, query),
  )
}

interface StreamOptions {
  readonly state: State
  readonly clock: Clock
  readonly filter: { readonly subjectPrefix?: string; readonly type?: string }
  readonly after: number | null
  /** Without `after`: begin with this many of the newest. */
  readonly tail: number
  readonly signal: AbortSignal
  /** Asked before anything is told; the stream ends when it says no. */
  readonly isStillAllowed: () => boolean
}

/**
 * A reader holds a position, not a queue: what it has not read stays in the store, so that a slow reader costs nothing. It is
 * woken by commits, and by the heartbeat.
 */
async function openStream(options: StreamOptions): Promise<ReadableStream<Uint8Array>> {
  const { state, clock, filter, after, tail, signal, isStillAllowed } = options
  const encoder = new TextEncoder()
  let newest = (await state.events({ limit: 1 })).at(-1)?.seq ?? 0
  let position = after ?? newest
  let backlog: readonly EventRecord[] = after === null && tail > 0 ? await state.events({ ...filter, limit: tail }) : []
  let closed = false
  let timer: Timer | null = null
  let wake: (() => void) | null = null
  const unsubscribe = state.onChange(({ events }) => {
    newest = Math.max(newest, events.at(-1)?.seq ?? 0)
    if (events.length > 0) wake?.()
  })
  const end = () => {
    closed = true
    unsubscribe()
    timer?.cancel()
    wake?.()
  }
  if (signal.aborted) end()
  else signal.addEventListener('abort', end, { once: true })
  const untilWoken = () =>
    new Promise<'event' | 'heartbeat'>((resolve) => {
      timer = clock.setTimer(HEARTBEAT_MS, () => resolve('heartbeat'))
      wake = () => {
        timer?.cancel()
        wake = null
        resolve('event')
      }
    })

  const read = async () => {
    const upTo = newest
    const found = backlog.length > 0 ? backlog : await state.events({ ...filter, afterSeq: position, limit: BATCH })
    backlog = []
    // Skips what the filter hid, so that it is not searched again.
    position = Math.max(position, found.at(-1)?.seq ?? 0, found.length < BATCH ? upTo : 0)
    return found
  }

  return new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(encoder.encode('retry: 2000\n: connected\n\n'))
    },
    async pull(controller) {
      while (!closed) {
        if (!isStillAllowed()) {
          end()
          break
        }
        const found = backlog.length > 0 || newest > position ? await read() : []
        if (found.length > 0 && isStillAllowed()) {
          controller.enqueue(encoder.encode(found.map(sse).join('')))
          return
        }
        if (newest > position) continue
        if ((await untilWoken()) === 'heartbeat' && !closed) {
          controller.enqueue(encoder.encode(': heartbeat\n\n'))
          return
        }
      }
      controller.close()
    },
    cancel: end,
  })
}

function sse(event: EventRecord): string {
  return `id: ${event.seq}\ndata: ${JSON.stringify(event)}\n\n`
}
