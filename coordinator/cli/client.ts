/** The API as the command line uses it: problems become errors with an exit code and a next step. */
import { messageOf } from '../../shared/errors.ts'
import type { Problem } from '../api/problem.ts'
import { CliError, EXIT, type Fetch } from './io.ts'

export interface ApiClient {
  readonly url: string
  get<T>(path: string, query?: Query): Promise<T>
  /** Every item of a paged list. */
  list<T>(path: string, query?: Query): Promise<readonly T[]>
  send<T>(method: 'POST' | 'PUT' | 'DELETE', path: string, options?: SendOptions): Promise<T>
  /** The raw response of a stream; checked for problems. */
  open(path: string, query: Query, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<Response>
}

export type Query = Readonly<Record<string, string | number | boolean | undefined>>

export interface SendOptions {
  readonly query?: Query
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
}

/** Pages of one list, at most: a coordinator that always says "next" must not keep us for ever. */
const MAX_PAGES = 10_000
const PAGE = 1000

/** A client for the coordinator at `url`. */
export function apiClient(options: {
  readonly url: string
  readonly token: string | null
  readonly fetch: Fetch
  readonly signal: AbortSignal
}): ApiClient {
  const { token, fetch } = options
  const url = options.url.replace(/\/+$/, '')

  const call = async (method: string, path: string, sent: SendOptions, signal: AbortSignal): Promise<Response> => {
    const headers = new Headers(sent.headers)
    if (token !== null) headers.set('authorization', `Bearer ${token}`)
    if (sent.body !== undefined) headers.set('content-type', 'application/json')
    let response: Response
    try {
      response = await fetch(`${url}${path}${queryText(sent.query ?? {})}`, {
        method,
        headers,
        signal,
        // A redirect would carry the token elsewhere.
        redirect: 'manual',
        ...(sent.body === undefined ? {} : { body: JSON.stringify(sent.body) }),
      })
    } catch (error) {
      if (signal.aborted) throw new CliError(EXIT.interrupted, 'Interrupted.')
      throw new CliError(
        EXIT.unreachable,
        `The coordinator at ${url} does not answer: ${causeOf(error)}.`,
        unreachableHint(error),
      )
    }
    if (!response.ok) throw await errorOf(response, { hasToken: token !== null, url })
    return response
  }
  const json = async <T>(response: Response): Promise<T> => {
    if (response.status === 204) return undefined as T
    try {
      return (await response.json()) as T
    } catch (error) {
      throw new CliError(
        EXIT.unreachable,
        `The answer of ${url} is not JSON: ${messageOf(error)}.`,
        'Is this the address of a Rubato coordinator?',
      )
    }
  }
  const get = async <T>(path: string, query: Query = {}) => json<T>(await call('GET', path, { query }, options.signal))

  return {
    url,
    get,
    async list<T>(path: string, query: Query = {}) {
      const items: T[] = []
      let after: string | undefined
      for (let pages = 0; pages < MAX_PAGES; pages += 1) {
        const found: { items: T[]; next: string | null } = await get(path, { limit: PAGE, ...query, after })
        items.push(...found.items)
        if (found.next === null) break
        after = found.next
      }
      return items
    },
    async send<T>(method: 'POST' | 'PUT' | 'DELETE', path: string, sent: SendOptions = {}) {
      return json<T>(await call(method, path, sent, options.signal))
    },
    open: (path, query, headers, signal) => call('GET', path, { query, headers }, signal),
  }
}

function queryText(query: Query): string {
  const set = Object.entries(query).filter(([, value]) => value !== undefined)
  return set.length === 0 ? '' : `?${new URLSearchParams(set.map(([name, value]) => [name, String(value)]))}`
}

async function errorOf(response: Response, sent: { readonly hasToken: boolean; readonly url: string }): Promise<CliError> {
  const isProblem = (response.headers.get('content-type') ?? '').includes('application/problem+json')
  const text = await response.text()
  let problem: Partial<Problem> = {}
  if (isProblem) {
    try {
      problem = JSON.parse(text) as Partial<Problem>
    } catch (error) {
      problem = { detail: `an answer that cannot be read (${messageOf(error)})` }
    }
  }
  const { status } = response
  const faults = (problem.errors ?? []).map(
    ({ pointer, detail, hint }) => `\n  ${pointer || '(all)'}: ${detail}${hint ? ` (${hint})` : ''}`,
  )
  const what = problem.detail ?? `${sent.url} answered ${status}`
  const message = `${problem.title && problem.title !== what && status !== 404 ? `${problem.title}: ` : ''}${what}${faults.join('')}`
  if (status >= 300 && status < 400) {
    return new CliError(
      EXIT.unreachable,
      `${sent.url} redirects to ${response.headers.get('location') ?? 'elsewhere'}.`,
      'Give the coordinator’s own address with --url.',
    )
  }
  switch (status) {
    case 401:
      return new CliError(
        EXIT.unauthorized,
        sent.hasToken ? message : `${sent.url} wants an operator token, and none was given.`,
        sent.hasToken
          ? 'Ask an admin for a fresh token: "rubato token operator NAME".'
          : 'Set RUBATO_TOKEN, or --token-file FILE; the first token is in admin.token in the coordinator’s state directory.',
      )
    case 403:
      if (faults.length > 0) return new CliError(EXIT.refused, message, 'docs/app-files.md says what is not allowed.')
      return new CliError(EXIT.unauthorized, message, 'Use a token with that role: "rubato token operator NAME --role …".')
    case 404:
      return new CliError(EXIT.notFound, message, whereToLook(message))
    case 409:
    case 412:
    case 428:
      return new CliError(EXIT.conflict, message, 'Look at the present state, then repeat.')
    case 400:
    case 413:
    case 415:
    case 422:
      return new CliError(EXIT.refused, message)
    case 507:
      return new CliError(EXIT.failed, message, 'Make room on the disk of the coordinator, then repeat.')
    case 429:
    case 503:
      return new CliError(EXIT.unreachable, message, `Try again in ${response.headers.get('retry-after') ?? 'a few'} s.`)
    default:
      return new CliError(EXIT.failed, message, problem.requestId ? `Request ${problem.requestId}.` : null)
  }
}

/** The verb that lists what the message says is not there; null where none does. */
function whereToLook(message: string): string | null {
  const [, noun = ''] = /^There is no (app|instance|node|key|pool)\b/.exec(message) ?? []
  const lists = { app: 'ps -s', instance: 'ps', node: 'nodes', key: 'keys ls', pool: 'pools' } as const
  const verb = noun in lists ? `rubato ${lists[noun as keyof typeof lists]}` : undefined
  if (verb !== undefined) return `"${verb}" lists what there is.`
  return /has no service /.test(message) ? '"rubato ps -s" lists what there is.' : null
}

function causeOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const code = (cause as { code?: unknown }).code
  return typeof code === 'string' ? `${code}` : messageOf(cause)
}

function unreachableHint(error: unknown): string {
  const cause = causeOf(error)
  if (/CERT|SELF_SIGNED|UNABLE_TO|ALTNAME|SSL/i.test(cause))
    return 'Pin the cluster’s authority: --ca FILE or RUBATO_CA (ca.pem in the coordinator’s state directory).'
  return 'Start one with "rubato coordinator", or name it with --url or RUBATO_URL. "rubato doctor" checks more.'
}
