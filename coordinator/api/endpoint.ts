/**
 * One way to build a route: its role comes from the role table, its description and its validation from the same zod schemas, and
 * every request passes the same gates in the same order: credential → rate → role → body → idempotency → schema → handler.
 */
import { OpenAPIHono, z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { ForbiddenError, InputError, UnauthorizedError, type Fault } from '../../shared/errors.ts'
import type { ApiDeps, Operator } from './deps.ts'
import { type Idempotency, idempotency } from './idempotency.ts'
import { HttpProblem } from './problem.ts'
import { type RateLimiter, rateLimiter } from './rate-limit.ts'
import { mayAct, type RequiredRole, ROUTE_ROLES, type RouteKey } from './roles.ts'
import { type ReadBody, readStrictBody } from './strict-body.ts'
import { jsonPointer } from './strict-json.ts'

export interface ApiEnv {
  Variables: { requestId: string }
}

export type Api = OpenAPIHono<ApiEnv>

type Shape = z.ZodType
type OutputOf<S> = S extends z.ZodType ? z.output<S> : undefined

export interface EndpointSpec<P, Q, B> {
  readonly route: RouteKey
  readonly tag: string
  readonly summary: string
  readonly params?: P
  readonly query?: Q
  readonly body?: B
  /** Cheap bounds of the body, asked before its schema: what is refused for its size must not cost the time of reading it. */
  bounds?(body: unknown): readonly Fault[]
  /** Schema of the JSON answer; absent for text, streams and empty answers. */
  readonly returns?: Shape
  /** Status of a plain object that the handler returns. Default 200. */
  readonly status?: 200 | 201 | 202
  /** Media type of an answer that is no JSON. */
  readonly mediaType?: string
}

export interface Call<P, Q, B> {
  readonly params: OutputOf<P>
  readonly query: OutputOf<Q>
  readonly body: OutputOf<B>
  readonly request: Request
  readonly requestId: string
  readonly remoteAddress: string | null
  /** null on public routes without a credential. */
  readonly operator: Operator | null
  /** Whether the credential is still good: an answer that goes on for hours must not outlive it. */
  readonly isStillAllowed: () => boolean
  /** `operator:<name>`, for the audit trail. */
  readonly actor: string
}

/** A handler answers with a value to print as JSON, `undefined` for 204, or a whole response. */
export type Handler<P, Q, B> = (call: Call<P, Q, B>) => Promise<unknown> | unknown

export interface Endpoints {
  readonly api: Api
  add<P extends Shape | undefined = undefined, Q extends Shape | undefined = undefined, B extends Shape | undefined = undefined>(
    spec: EndpointSpec<P, Q, B>,
    handler: Handler<P, Q, B>,
  ): void
}

interface Gates {
  readonly deps: ApiDeps
  readonly perCredential: RateLimiter
  readonly perFailingAddress: RateLimiter
  readonly perAddress: RateLimiter
  readonly idempotency: Idempotency
}

const noQuery = z.strictObject({})

/** Routes added here are described in the OpenAPI document and guarded. */
export function endpoints(deps: ApiDeps): Endpoints {
  const api: Api = new OpenAPIHono<ApiEnv>()
  const { clock, settings = {} } = deps
  const gates: Gates = {
    deps,
    perCredential: rateLimiter({ clock, ratePerS: settings.ratePerS ?? 100, burst: settings.rateBurst ?? 400 }),
    perFailingAddress: rateLimiter({ clock, ratePerS: settings.failureRatePerS ?? 1, burst: settings.failureBurst ?? 20 }),
    perAddress: rateLimiter({ clock, ratePerS: settings.ratePerS ?? 100, burst: settings.rateBurst ?? 400 }),
    idempotency: idempotency(clock),
  }
  return {
    api,
    add(spec, handler) {
      const [method = 'GET', path = '/'] = spec.route.split(' ')
      const role = roleOf(spec.route, deps)
      describe(api, spec, method, path, role)
      api.on([method], [path.replaceAll(/\{(.+?)\}/g, ':$1')], async (c) => {
        const remoteAddress = remoteAddressOf(c)
        const operator = admit(gates, c.req.raw, role, remoteAddress)
        const read: ReadBody = method === 'GET' ? { text: '', value: undefined } : await readStrictBody(c.req.raw)
        const call: Call<typeof spec.params, typeof spec.query, typeof spec.body> = {
          params: check(spec.params, c.req.param(), 'path'),
          query: check(spec.query ?? noQuery, queryOf(c), 'query') as OutputOf<typeof spec.query>,
          body: check(spec.body, bounded(spec.bounds?.(read.value) ?? [], read.value ?? {}), 'body'),
          request: c.req.raw,
          requestId: c.get('requestId'),
          remoteAddress,
          operator,
          isStillAllowed: () => operator === null || deps.operatorTokens.verify(bearerOf(c.req.raw) ?? '')?.id === operator.id,
          actor: `operator:${operator?.name ?? 'anonymous'}`,
        }
        const perform = async () => toResponse(await handler(call), spec.status ?? 200)
        const key = c.req.header('idempotency-key')
        // Without a credential nobody owns the key: a stranger behind the same address must not be shown another's answer.
        if (key === undefined || method === 'GET' || operator === null) return perform()
        if (!/^[\x21-\x7e]{1,200}$/.test(key)) {
          throw new InputError('The Idempotency-Key cannot be used.', [
            { path: '', message: 'Idempotency-Key must be 1 to 200 printable characters' },
          ])
        }
        return gates.idempotency.once({ owner: operator.id, key, method, url: c.req.url, body: read.text }, perform)
      })
    },
  }
}

function roleOf(route: RouteKey, deps: ApiDeps): RequiredRole {
  return route === 'GET /metrics' && deps.settings?.publicMetrics ? 'public' : ROUTE_ROLES[route]
}

/** The operator who may do this. A good credential is never refused for others' failures from the same address. */
function admit(gates: Gates, request: Request, role: RequiredRole, remoteAddress: string | null): Operator | null {
  const address = remoteAddress ?? 'unknown'
  if (role === 'public') {
    limit(gates.perAddress.take(address))
    return null
  }
  const token = bearerOf(request)
  const operator = token === null ? null : gates.deps.operatorTokens.verify(token)
  if (operator === null) {
    limit(gates.perFailingAddress.take(address))
    throw new UnauthorizedError(
      token === null
        ? 'Send an operator token: Authorization: Bearer rbto_…'
        : 'The operator token is not valid (unknown, expired or revoked).',
    )
  }
  limit(gates.perCredential.take(operator.id))
  if (!mayAct(operator.role, role)) throw new ForbiddenError(`This needs the role ${role}; ${operator.name} is ${operator.role}.`)
  return operator
}

/** Throws what answers 429 when there is anything to wait for. */
export function limit(retryAfterS: number): void {
  if (retryAfterS > 0) {
    throw new HttpProblem('rate-limited', `Try again in ${retryAfterS} s.`, { headers: { 'retry-after': String(retryAfterS) } })
  }
}

/** The scheme is case-insensitive (RFC 9110 §11.1). */
function bearerOf(request: Request): string | null {
  const match = /^bearer +([^\s,]+)$/i.exec(request.headers.get('authorization') ?? '')
  return match?.[1] ?? null
}

function bounded(faults: readonly Fault[], value: unknown): unknown {
  if (faults.length > 0) throw new InputError('The body cannot be used.', faults)
  return value
}

function check<S extends Shape | undefined>(schema: S, value: unknown, where: string): OutputOf<S> {
  if (schema === undefined) return undefined as OutputOf<S>
  const result = schema.safeParse(value)
  if (result.success) return result.data as OutputOf<S>
  throw new InputError(`The ${where} cannot be used.`, faultsOf(result.error))
}

/** Zod's findings as pointers, one per unknown field. */
function faultsOf(error: z.ZodError): readonly Fault[] {
  return error.issues.flatMap((issue): Fault[] => {
    const path = issue.path.map((part) => (typeof part === 'number' ? part : String(part)))
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({ path: jsonPointer([...path, key]), message: 'unknown field' }))
    }
    return [{ path: jsonPointer(path), message: issue.message }]
  })
}

/** A parameter given twice becomes a list, which no schema of ours accepts. */
function queryOf(c: Context): Record<string, string | string[]> {
  return Object.fromEntries(
    Object.entries(c.req.queries()).map(([name, values]) => [name, values.length === 1 ? (values[0] ?? '') : values]),
  )
}

function remoteAddressOf(c: Context): string | null {
  const bindings = c.env as { incoming?: { socket?: { remoteAddress?: string } } } | undefined
  return bindings?.incoming?.socket?.remoteAddress ?? null
}

function toResponse(result: unknown, status: number): Response {
  if (result instanceof Response) return result
  if (result === undefined) return new Response(null, { status: 204 })
  return new Response(`${JSON.stringify(result)}\n`, { status, headers: { 'content-type': 'application/json' } })
}

const problemSchema = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.number().int(),
    detail: z.string(),
    instance: z.string(),
    code: z.string(),
    requestId: z.string(),
    errors: z.array(z.object({ pointer: z.string(), detail: z.string(), hint: z.string().optional() })).optional(),
  })
  .openapi('Problem')

function describe(
  api: Api,
  spec: EndpointSpec<Shape | undefined, Shape | undefined, Shape | undefined>,
  method: string,
  path: string,
  role: RequiredRole,
): void {
  const good = spec.returns
    ? { content: { 'application/json': { schema: spec.returns } }, description: 'Done' }
    : spec.mediaType
      ? { content: { [spec.mediaType]: { schema: z.string() } }, description: 'Done' }
      : { description: 'Done' }
  api.openAPIRegistry.registerPath({
    method: method.toLowerCase() as 'get' | 'post' | 'put' | 'delete',
    path,
    tags: [spec.tag],
    summary: spec.summary,
    description: role === 'public' ? 'No credential.' : `Role: ${role}.`,
    ...(role === 'public' ? { security: [] } : {}),
    request: {
      ...(spec.params ? { params: spec.params as z.ZodObject } : {}),
      ...(spec.query ? { query: spec.query as z.ZodObject } : {}),
      ...(spec.body ? { body: { content: { 'application/json': { schema: spec.body } }, required: true } } : {}),
    },
    responses: {
      [spec.returns || spec.mediaType ? (spec.status ?? 200) : 204]: good,
      default: { content: { 'application/problem+json': { schema: problemSchema } }, description: 'A problem (RFC 9457)' },
    },
  })
}
