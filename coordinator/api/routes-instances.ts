/** Instances: list, look, explain, logs. */
import { z } from '@hono/zod-openapi'
import { NotFoundError, UnavailableError, messageOf } from '../../shared/errors.ts'
import type { Reason } from '../../shared/plan.ts'
import type { InstanceRecord } from '../state/objects.ts'
import type { State } from '../state/state.ts'
import type { ApiDeps, LogLine } from './deps.ts'
import type { Endpoints } from './endpoint.ts'
import { explainInstance } from './explain.ts'
import { idSchema, nameSchema, pageQuery, queryFlag, queryInt, serviceNameSchema } from './inputs.ts'
import { explanationView, instanceView, pageOf } from './schemas.ts'
import { instanceIdOfPath, page, viewInstance } from './views.ts'
import { worldOf } from './world.ts'

const instancePath = z.strictObject({ instance: z.string().max(200) })
const PHASE = z.enum(['pending', 'placed', 'pulling', 'starting', 'warming', 'ready', 'draining', 'stopped', 'failed', 'lost'])

/** So many events are looked through for the placement of one instance; ids that begin alike come among them. */
const LOOKED_THROUGH = 50

/** Why it was placed where it is, as it was told then; null while it waits, or when that event is kept no more. */
async function whyHere(state: State, { id, nodeId }: InstanceRecord): Promise<Reason | null> {
  if (nodeId === null) return null
  const events = await state.events({ type: 'instance.placed', subjectPrefix: id, limit: LOOKED_THROUGH })
  const placed = events.findLast(({ subject }) => subject === id)
  return placed === undefined ? null : { subject: id, code: 'placed', text: `${placed.message}.` }
}

export function addInstanceRoutes({ add }: Endpoints, deps: ApiDeps): void {
  const { state, observed, hub } = deps
  const world = worldOf(deps)
  const instanceOf = (segment: string): InstanceRecord => {
    const id = instanceIdOfPath(segment)
    const record = id === null ? undefined : state.snapshot.instances().get(id)
    if (!record) {
      throw new NotFoundError(
        `There is no instance ${segment}. Its id is app/service/slot/generation, in a path app.service.slot.generation.`,
      )
    }
    return record
  }

  add(
    {
      route: 'GET /v1/instances',
      tag: 'instances',
      summary: 'List instances',
      query: z.strictObject({
        ...pageQuery,
        app: nameSchema.optional(),
        service: serviceNameSchema.optional(),
        node: idSchema.optional(),
        phase: PHASE.optional(),
      }),
      returns: pageOf(instanceView),
    },
    ({ query }) => {
      const wanted = [...state.snapshot.instances().values()].filter((record) => {
        const [app, service] = record.id.split('/')
        return (
          (query.app === undefined || query.app === app) &&
          (query.service === undefined || query.service === service) &&
          (query.node === undefined || query.node === record.nodeId)
        )
      })
      const { phase } = query
      if (phase === undefined) {
        const found = page(wanted, ({ id }) => id, query)
        return { items: found.items.map((record) => viewInstance(world, record)), next: found.next }
      }
      const views = wanted.map((record) => viewInstance(world, record)).filter((view) => view.phase === phase)
      return page(views, ({ id }) => id, query)
    },
  )

  add(
    {
      route: 'GET /v1/instances/{instance}',
      tag: 'instances',
      summary: 'One instance',
      params: instancePath,
      returns: instanceView,
    },
    ({ params }) => viewInstance(world, instanceOf(params.instance)),
  )

  add(
    {
      route: 'GET /v1/instances/{instance}/explain',
      tag: 'instances',
      summary: 'Why this instance is where it is, or why it waits',
      params: instancePath,
      returns: explanationView,
    },
    async ({ params }) => {
      const record = instanceOf(params.instance)
      const explained = explainInstance(deps, record)
      const why = await whyHere(state, record)
      return why === null ? explained : { ...explained, reasons: [why, ...explained.reasons] }
    },
  )

  add(
    {
      route: 'GET /v1/instances/{instance}/logs',
      tag: 'instances',
      summary: 'Log lines, one JSON object per line; a failure on the way is a last line {"error": …}',
      params: instancePath,
      query: z.strictObject({ follow: queryFlag.optional(), tail: queryInt(0, 10_000).optional() }),
      mediaType: 'application/x-ndjson',
    },
    ({ params, query, request, isStillAllowed }) => {
      const record = instanceOf(params.instance)
      if (record.nodeId === null) throw new UnavailableError(`${record.id} has not been placed, so there is no log yet.`)
      if (observed.node(record.nodeId)?.connected !== true) {
        throw new UnavailableError(`Node ${record.nodeId} is not connected; its logs can be read when it is back.`)
      }
      const abort = new AbortController()
      const onGone = () => abort.abort(new Error('the reader left'))
      if (request.signal.aborted) onGone()
      else request.signal.addEventListener('abort', onGone, { once: true })
      const lines = hub.logs(record.id, { follow: query.follow ?? false, tail: query.tail ?? 200 }, abort.signal)
      return new Response(ndjson(lines, abort, isStillAllowed), {
        headers: { 'content-type': 'application/x-ndjson', 'cache-control': 'no-store' },
      })
    },
  )
}

/** Pulls one line at a time, so that a slow reader slows the source instead of filling memory. */
function ndjson(
  lines: AsyncIterable<LogLine>,
  abort: AbortController,
  isStillAllowed: () => boolean,
): ReadableStream<Uint8Array> {
  const iterator = lines[Symbol.asyncIterator]()
  const encoder = new TextEncoder()
  const encode = (value: unknown) => encoder.encode(`${JSON.stringify(value)}\n`)
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const next = await iterator.next()
        if (!next.done && !isStillAllowed()) {
          controller.close()
          abort.abort(new Error('the credential of the reader is no longer good'))
          await iterator.return?.()
        } else if (next.done) controller.close()
        else controller.enqueue(encode(next.value))
      } catch (error) {
        if (!abort.signal.aborted) controller.enqueue(encode({ error: messageOf(error) }))
        controller.close()
      }
    },
    async cancel() {
      abort.abort(new Error('the reader left'))
      await iterator.return?.()
    },
  })
}
