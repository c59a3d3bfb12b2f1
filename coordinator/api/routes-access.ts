/** Keys, operator tokens, join tokens, and joining itself. */
import { z } from '@hono/zod-openapi'
import { sleep } from '../../shared/clock.ts'
import { NotFoundError } from '../../shared/errors.ts'
import type { KeyRecord, OperatorTokenRecord } from '../../shared/model/access.ts'
import { joinRequestSchema, joinResponseSchema } from '../../shared/protocol/join.ts'
import type { ApiDeps } from './deps.ts'
import type { Endpoints } from './endpoint.ts'
import { idSchema, pageQuery, queryFlag, queryInt } from './inputs.ts'
import { keyView, operatorTokenView, pageOf, type KeyView } from './schemas.ts'
import { page } from './views.ts'

/** How long `?wait` waits unless told: twice the promise for connected agents, with room for a slow one. */
const DEFAULT_WAIT_MS = 10_000
const POLL_MS = 50
const MAX_JOIN_TTL_MS = 24 * 3_600_000
const DEFAULT_JOIN_TTL_MS = 15 * 60_000

const ttlSchema = z
  .number()
  .int()
  .positive()
  .max(10 * 365 * 86_400_000)
const applied = z.object({ revision: z.number(), everywhere: z.boolean(), waitingFor: z.array(z.string()) })

export function addAccessRoutes({ add }: Endpoints, deps: ApiDeps): void {
  const { clock, keys, operatorTokens, joining, hub } = deps

  add(
    {
      route: 'GET /v1/keys',
      tag: 'access',
      summary: 'List keys, revoked ones too',
      query: z.strictObject(pageQuery),
      returns: pageOf(keyView),
    },
    ({ query }) => {
      const found = page(keys.list(), ({ name, id }) => `${name}\n${id}`, query)
      return { items: found.items.map(viewKey), next: found.next }
    },
  )
  add(
    {
      route: 'POST /v1/keys',
      tag: 'access',
      summary: 'Make a key; its text is shown only here',
      body: z.strictObject({
        name: z.string().max(63),
        roles: z.array(z.string().max(63)).max(32).default([]),
        /** How long it is valid, ms; absent: for ever. */
        ttlMs: ttlSchema.optional(),
      }),
      returns: z.object({ key: keyView, text: z.string() }),
      status: 201,
    },
    async ({ body, actor }) => {
      const expiresAtMs = body.ttlMs === undefined ? null : clock.now() + body.ttlMs
      const made = await keys.create({ name: body.name, roles: body.roles, expiresAtMs, actor })
      return { key: viewKey(made.record), text: made.text }
    },
  )
  add(
    {
      route: 'DELETE /v1/keys/{key}',
      tag: 'access',
      summary: 'Revoke a key by id or name; with wait, answer when every live agent has applied it',
      params: z.strictObject({ key: z.string().min(1).max(63) }),
      query: z.strictObject({ wait: queryFlag.optional(), timeoutMs: queryInt(0, 120_000).optional() }),
      returns: z.object({ key: keyView, applied: applied.nullable() }),
    },
    async ({ params, query, request, actor }) => {
      const record = await keys.revoke(params.key, actor)
      if (!query.wait) return { key: viewKey(record), applied: null }
      const untilMs = clock.monotonicMs() + (query.timeoutMs ?? DEFAULT_WAIT_MS)
      let progress = hub.keysProgress()
      while (progress.waitingFor.length > 0 && clock.monotonicMs() < untilMs && !request.signal.aborted) {
        await sleep(clock, POLL_MS)
        progress = hub.keysProgress()
      }
      const { revision, waitingFor } = progress
      return { key: viewKey(record), applied: { revision, everywhere: waitingFor.length === 0, waitingFor } }
    },
  )

  add(
    {
      route: 'GET /v1/tokens/operator',
      tag: 'access',
      summary: 'List operator tokens',
      query: z.strictObject(pageQuery),
      returns: pageOf(operatorTokenView),
    },
    ({ query }) => {
      const found = page(operatorTokens.list(), ({ name, id }) => `${name}\n${id}`, query)
      return { items: found.items.map(viewToken), next: found.next }
    },
  )
  add(
    {
      route: 'POST /v1/tokens/operator',
      tag: 'access',
      summary: 'Make an operator token; its text is shown only here',
      body: z.strictObject({
        name: z.string().max(63),
        role: z.enum(['viewer', 'operator', 'admin']),
        ttlMs: ttlSchema.optional(),
      }),
      returns: z.object({ token: operatorTokenView, text: z.string() }),
      status: 201,
    },
    async ({ body, actor }) => {
      const expiresAtMs = body.ttlMs === undefined ? null : clock.now() + body.ttlMs
      const made = await operatorTokens.create({ name: body.name, role: body.role, expiresAtMs, actor })
      return { token: viewToken(made.record), text: made.text }
    },
  )
  add(
    {
      route: 'DELETE /v1/tokens/operator/{token}',
      tag: 'access',
      summary: 'End an operator token by id or name',
      params: z.strictObject({ token: z.string().min(1).max(63) }),
    },
    async ({ params, actor }) => {
      await operatorTokens.revoke(params.token, actor)
    },
  )
  add(
    {
      route: 'POST /v1/tokens/join',
      tag: 'access',
      summary: 'Make a join token for one node: single use, 15 min unless told',
      body: z.strictObject({
        labels: z.record(z.string().max(200), z.string().max(1000)).default({}),
        ttlMs: z.number().int().positive().max(MAX_JOIN_TTL_MS).default(DEFAULT_JOIN_TTL_MS),
      }),
      returns: z.object({ id: idSchema, text: z.string(), expiresAtMs: z.number() }),
      status: 201,
    },
    async ({ body, actor }) => {
      const made = await joining.createToken({ labels: body.labels, ttlMs: body.ttlMs, actor })
      return { id: made.record.id, text: made.text, expiresAtMs: made.record.expiresAtMs }
    },
  )
  add(
    {
      route: 'POST /v1/join',
      tag: 'joining',
      summary: 'Become a node, with a join token in the body',
      body: joinRequestSchema,
      returns: joinResponseSchema,
    },
    ({ body, remoteAddress }) => joining.join(body, remoteAddress),
  )
  add(
    {
      route: 'GET /v1/ca',
      tag: 'joining',
      summary: 'The certificate authority of this cluster (PEM)',
      mediaType: 'application/x-pem-file',
    },
    () => {
      if (deps.caPem === null) throw new NotFoundError('This coordinator serves without TLS (loopback only).')
      return new Response(deps.caPem, { headers: { 'content-type': 'application/x-pem-file' } })
    },
  )
}

function viewKey({ id, name, roles, createdAtMs, expiresAtMs, revokedAtMs }: KeyRecord): KeyView {
  return { id, name, roles: [...roles], createdAtMs, expiresAtMs, revokedAtMs }
}

function viewToken({ id, name, role, createdAtMs, expiresAtMs }: OperatorTokenRecord) {
  return { id, name, role, createdAtMs, expiresAtMs }
}
