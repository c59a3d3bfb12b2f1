/**
 * The agent's HTTP API on its own host: loopback and the container bridge only.
 *
 *   PUT  /v1/load           {"load": 73, "demand": 3.4?}  from an instance; known by its address, or by `Authorization: Bearer <token>`
 *   PUT  /v1/load/<token>   the same for what cannot set headers (RUBATO_LOAD_URL of processes)
 *   POST /v1/authorize?service=app/service   for nginx auth_request, forwardAuth, ext_authz; GET too; 200, or 401/403/503
 *   GET  /v1/status         loopback only
 *   GET  /metrics           loopback only
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Clock } from '../../shared/clock.ts'
import { ConflictError, messageOf, RetryableError } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { InstanceId, ServiceId } from '../../shared/model/identity.ts'
import { plainAddress } from '../gateway/builtin/http-exchange.ts'
import { refusalHeaders, titleOf } from '../gateway/builtin/problem.ts'
import type { KeyRing } from '../gateway/key-ring.ts'
import { authorize } from '../gateway/policy.ts'
import { createVerifier, presentedCredential } from '../gateway/verifier.ts'
import { readExternalRequest } from './external-request.ts'
import type { InstanceTokens } from './instance-tokens.ts'
import type { LoadInbox } from './load-inbox.ts'
import { readLoad } from './read-load.ts'

export interface LocalApiDeps {
  /** Addresses to bind: loopback and the bridge. */
  readonly addresses: readonly string[]
  /** Default in production: 7700. 0 lets the system choose one per address. */
  readonly port: number
  /** Which local container has this source address. */
  readonly callerOf: (address: string) => { readonly instance: InstanceId; readonly service: ServiceId } | null
  readonly tokens: InstanceTokens
  readonly loadInbox: LoadInbox
  readonly keys: KeyRing
  readonly staleAfterMs: () => number
  /** Answer of /v1/status; holds no secrets. */
  readonly status: () => unknown
  /** Answer of /metrics in Prometheus' text format. */
  readonly metrics: () => Promise<string> | string
  readonly clock: Clock
  readonly logger: Logger
}

export interface LocalApi {
  /** Where it listens, in the order of `addresses`; those that could not be bound are left out. */
  readonly bound: readonly { readonly address: string; readonly port: number }[]
  /** URL to which the instance's process pushes its load; holds a fresh token. Null when nothing could be bound. */
  loadUrlFor(instance: InstanceId): string | null
  stop(): Promise<void>
}

const MAX_BODY_BYTES = 4_096
const LOOPBACK_HOST = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i
/** Per address that it listens on: sockets opened without end take no more of the agent's than this. */
const MAX_CONNECTIONS = 2_000

interface Answer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  readonly type?: string
}

/** Starts it. An address that cannot be bound is logged; rejects when none can. */
export async function createLocalApi(deps: LocalApiDeps): Promise<LocalApi> {
  const verify = createVerifier(deps.keys)
  const ring = {
    verify,
    get confirmedAtMs() {
      return deps.keys.confirmedAtMs
    },
  }

  const putLoad = async (request: IncomingMessage, pathToken: string | null): Promise<Answer> => {
    const bearer = /^Bearer (\S+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? null
    const token = pathToken ?? bearer
    const instance = token !== null ? deps.tokens.instanceOf(token) : (deps.callerOf(sourceOf(request))?.instance ?? null)
    if (instance === null)
      return problem(401, 'unknown-instance', 'Neither the source address nor a token says which instance this load belongs to.')
    const body = await readBody(request)
    if (body === null) return problem(413, 'too-large', `A load takes at most ${MAX_BODY_BYTES} bytes.`)
    const read = readLoad(body)
    if (read.kind === 'refused') return problem(read.status, 'load-invalid', read.detail, { errors: read.errors })
    deps.loadInbox.set(instance, read.load)
    return { status: 204 }
  }

  const askAuthorize = (request: IncomingMessage, query: URLSearchParams): Answer => {
    const service = query.get('service') ?? ''
    const policy = deps.keys.policy(service)
    if (policy === undefined)
      return problem(404, 'unknown-service', 'This node holds no policy of that service: ?service=app/service.')
    const facts = readExternalRequest(request.rawHeaders)
    if ('fault' in facts) return problem(400, 'bad-request', `The original request cannot be judged: ${facts.fault}.`)
    const presented = presentedCredential(facts.authorization, facts.apiKey)
    if (presented.ambiguous) return problem(400, 'duplicate-credential', 'Two different keys were presented.')
    const verdict = authorize(
      { method: facts.method, path: facts.path, credential: presented.credential, callerService: null, service },
      policy,
      ring,
      deps.clock.now(),
      deps.staleAfterMs(),
    )
    if (!verdict.allow) return problem(verdict.status, verdict.code, verdict.detail)
    return { status: 200, headers: verdict.caller === null ? {} : { 'x-rubato-caller': encodeURI(verdict.caller) } }
  }

  const answer = async (request: IncomingMessage): Promise<Answer> => {
    const url = new URL(request.url?.startsWith('/') ? `http://local${request.url}` : 'http://local/')
    const { method } = request
    if (url.pathname === '/v1/load' || url.pathname.startsWith('/v1/load/')) {
      if (method !== 'PUT' && method !== 'POST')
        return problem(405, 'method-not-allowed', 'PUT a load.', {}, { allow: 'PUT, POST' })
      return putLoad(request, url.pathname.length > '/v1/load/'.length ? url.pathname.slice('/v1/load/'.length) : null)
    }
    if (url.pathname === '/v1/authorize') return askAuthorize(request, url.searchParams)
    const isOwn =
      /^(?:127\.|::1$)/.test(sourceOf(request)) && /^(?:127\.|::1$)/.test(plainAddress(request.socket.localAddress ?? ''))
    if (url.pathname === '/v1/status' || url.pathname === '/metrics') {
      if (!isOwn) return problem(403, 'loopback-only', 'This is answered on loopback only.')
      // A page in a browser on this host reaches loopback too, also under a name of its own choosing that resolves to it.
      if (request.headers.origin !== undefined || !LOOPBACK_HOST.test(request.headers.host ?? ''))
        return problem(403, 'loopback-only', 'Browsers, and names other than localhost, are not served.')
      if (method !== 'GET' && method !== 'HEAD') return problem(405, 'method-not-allowed', 'GET it.', {}, { allow: 'GET, HEAD' })
      if (url.pathname === '/metrics') return { status: 200, type: 'text/plain; version=0.0.4', body: await deps.metrics() }
      return { status: 200, type: 'application/json', body: JSON.stringify(deps.status()) }
    }
    return problem(404, 'not-found', 'There is nothing here.')
  }

  const serve = (request: IncomingMessage, response: ServerResponse): void => {
    answer(request)
      .catch((error: unknown) => {
        deps.logger.error('local request failed', { error: messageOf(error) })
        return problem(500, 'internal', 'The agent failed to answer; its log says why.')
      })
      .then((result) => {
        const body = result.body ?? ''
        response.writeHead(result.status, {
          ...(result.type ? { 'content-type': result.type } : {}),
          ...(result.status === 204 ? {} : { 'content-length': Buffer.byteLength(body) }),
          ...(request.complete ? {} : { connection: 'close' }),
          ...result.headers,
        })
        response.end(request.method === 'HEAD' ? undefined : body)
      })
      .catch((error: unknown) => deps.logger.debug('local answer was not sent', { error: messageOf(error) }))
  }

  const servers: Server[] = []
  const bound: { address: string; port: number }[] = []
  let lastError: unknown = null
  for (const address of new Set(deps.addresses)) {
    const server = createServer(
      { maxHeaderSize: 16_384, requestTimeout: 10_000, headersTimeout: 10_000, keepAliveTimeout: 30_000 },
      serve,
    )
    server.maxConnections = MAX_CONNECTIONS
    try {
      bound.push({ address, port: await bind(server, address, deps.port) })
      servers.push(server)
    } catch (error) {
      lastError = error
      deps.logger.warn('local API cannot listen', { address, port: deps.port, error: messageOf(error) })
    }
  }
  if (servers.length === 0) {
    if ((lastError as NodeJS.ErrnoException | null)?.code === 'EADDRINUSE')
      throw new ConflictError(`port ${deps.port} is taken`, lastError)
    throw new RetryableError('the local API has no address to listen on', { cause: lastError })
  }
  return {
    bound,
    loadUrlFor(instance) {
      const first = bound[0]
      if (first === undefined) return null
      const host = first.address.includes(':') ? `[${first.address}]` : first.address
      return `http://${host}:${first.port}/v1/load/${deps.tokens.issue(instance)}`
    },
    async stop() {
      await Promise.all(
        servers.map((server) => {
          server.closeAllConnections()
          return new Promise<void>((resolve) => server.close(() => resolve()))
        }),
      )
    },
  }
}

function problem(
  status: number,
  code: string,
  detail: string,
  more: Readonly<Record<string, unknown>> = {},
  headers: Readonly<Record<string, string>> = {},
): Answer {
  const body = JSON.stringify({ type: 'about:blank', title: titleOf(status), status, detail, code, ...more })
  return { status, type: 'application/problem+json', headers: { ...refusalHeaders(status), ...headers }, body }
}

function sourceOf(request: IncomingMessage): string {
  return plainAddress(request.socket.remoteAddress ?? '')
}

/** The body, or null when it is longer than it may be. */
async function readBody(request: IncomingMessage): Promise<string | null> {
  const parts: Buffer[] = []
  let length = 0
  // Leaving early must not destroy the connection: the answer goes over it.
  for await (const part of request.iterator({ destroyOnReturn: false })) {
    length += (part as Buffer).length
    if (length > MAX_BODY_BYTES) return null
    parts.push(part as Buffer)
  }
  return Buffer.concat(parts).toString('utf8')
}

function bind(server: Server, address: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ host: address, port }, () => {
      server.off('error', reject)
      const bound = server.address()
      resolve(typeof bound === 'object' && bound !== null ? bound.port : port)
    })
  })
}
