/**
 * Heads of HTTP/1.x messages: read strictly, and cleaned on the way (reliability §3, rows "Proxy"). Pure.
 *
 * The gateway reads heads itself because Node's server joins or drops what an attacker doubles, and accepts what two parsers
 * may read differently. One rule stands above all: what could be read in two ways is refused, never repaired. Whatever a
 * `Connection` header names is removed first; what the gateway says about the caller is added last, by the proxy.
 */

/** Largest request head; a longer one is answered with 431. */
export const MAX_REQUEST_HEAD_BYTES = 16_384
/** Largest response head; a longer one makes a 502. */
export const MAX_RESPONSE_HEAD_BYTES = 65_536
const MAX_HEADERS = 128
/** Names in `Connection`: each costs a walk over the head, and nobody has reason to name many. */
const MAX_CONNECTION_NAMES = 64

/** An answer that the gateway gives itself. */
export interface Refusal {
  readonly kind: 'refuse'
  readonly status: number
  /** Stable, kebab-case. */
  readonly code: string
  readonly detail: string
}

export interface RequestHead {
  readonly kind: 'request'
  readonly method: string
  /** Origin form: path and query, exactly the bytes that go upstream. */
  readonly target: string
  /** `target` without its query. */
  readonly path: string
  /** 10 or 11. */
  readonly version: number
  readonly host: string
  /** Header lines that may go upstream as they came, each ending in CRLF; framing, hop-by-hop and identity headers are left out. */
  readonly lines: string
  /** −1: none given. */
  readonly contentLength: number
  readonly chunked: boolean
  readonly keepAlive: boolean
  /** A websocket handshake. Other protocols are not switched to (h2c would walk around every check). */
  readonly upgrade: boolean
  readonly authorization: string | null
  readonly apiKey: string | null
  /** `x-rubato-proof` of another gateway. */
  readonly proof: string | null
  /** `X-Forwarded-*`, as sent; counts only when a gateway vouches for it. */
  readonly forwardedFor: string | null
  readonly forwardedProto: string | null
  readonly forwardedHost: string | null
}

export interface ResponseHead {
  readonly kind: 'response'
  readonly status: number
  /** `<code> <reason>` as sent. */
  readonly statusText: string
  readonly version: number
  readonly lines: string
  readonly contentLength: number
  readonly chunked: boolean
  readonly keepAlive: boolean
  /** Seconds of `Keep-Alive: timeout=`; null when not given. */
  readonly keepAliveS: number | null
  readonly upgrade: string | null
}

const REQUEST_LINE = /([A-Za-z][A-Za-z-]{0,31}) ([!-~]+) HTTP\/1\.([01])\r\n/y
const STATUS_LINE = /HTTP\/1\.([01]) ([1-9]\d\d(?: [\t -~\x80-\xff]*)?)\r\n/y
const HEADER_LINE = /([!#$%&'*+.^`|~0-9A-Za-z_-]+):([\t -~\x80-\xff]*)\r\n/y
const HOST = /^(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/
const ABSOLUTE = /^https?:\/\/([^/?#]*)(.*)$/i

/** What becomes of a request header, by lower-case name; absent: passed on. */
const REQUEST_HEADER: ReadonlyMap<string, number> = new Map([
  ['host', 1],
  ['content-length', 2],
  ['transfer-encoding', 3],
  ['connection', 4],
  ['upgrade', 5],
  ['authorization', 6],
  ['x-api-key', 7],
  ['x-forwarded-for', 8],
  ['x-forwarded-proto', 9],
  ['x-forwarded-host', 10],
  ['keep-alive', 0],
  ['proxy-connection', 0],
  ['proxy-authorization', 0],
  ['proxy-authenticate', 0],
  ['te', 0],
  ['trailer', 0],
  ['forwarded', 0],
  ['x-real-ip', 0],
])

function refuse(status: number, code: string, detail: string): Refusal {
  return { kind: 'refuse', status, code, detail }
}

/**
 * Reads a request head. `text` is the head as latin1 from the request line to the CRLF of its last header line, without the
 * empty line. Everything ambiguous, and everything a gateway must not pass on, is a refusal.
 */
export function parseRequestHead(text: string): RequestHead | Refusal {
  REQUEST_LINE.lastIndex = 0
  const line = REQUEST_LINE.exec(text)
  if (line === null) return refuse(400, 'bad-request-line', 'The request line is malformed.')
  const method = line[1] as string
  const version = line[3] === '1' ? 11 : 10

  let host: string | null = null
  let contentLength = -1
  let chunked = false
  let connection = ''
  let upgradeTo = ''
  let authorization: string | null = null
  let apiKey: string | null = null
  let proof: string | null = null
  let forwardedFor: string | null = null
  let forwardedProto: string | null = null
  let forwardedHost: string | null = null
  let lines = ''
  let count = 0
  let at = REQUEST_LINE.lastIndex
  while (at < text.length) {
    HEADER_LINE.lastIndex = at
    const header = HEADER_LINE.exec(text)
    if (header === null) return refuse(400, 'bad-header', 'A header line is malformed.')
    const start = at
    at = HEADER_LINE.lastIndex
    if (++count > MAX_HEADERS) return refuse(431, 'too-many-headers', `More than ${MAX_HEADERS} header lines.`)
    const rawName = header[1] as string
    const name = rawName.toLowerCase()
    const action = REQUEST_HEADER.get(name)
    if (action === undefined) {
      // Servers map both _ and - to one variable, so the former can pose as the latter.
      if (name.includes('_')) return refuse(400, 'header-underscore', 'Header names with underscores are refused.')
      if (name.startsWith('x-rubato-')) {
        if (name === 'x-rubato-proof') {
          if (proof !== null) return refuse(400, 'duplicate-header', 'x-rubato-proof is given twice.')
          proof = (header[2] as string).trim()
        }
        continue
      }
      if (name.startsWith('x-forwarded-')) continue
      lines += text.slice(start, at)
      continue
    }
    if (action === 0) continue
    const value = (header[2] as string).trim()
    switch (action) {
      case 1:
        if (host !== null) return refuse(400, 'bad-host', 'Host is given twice.')
        host = value
        break
      case 2:
        if (contentLength >= 0) return refuse(400, 'bad-framing', 'Content-Length is given twice.')
        if (!/^\d{1,15}$/.test(value)) return refuse(400, 'bad-framing', 'Content-Length is no number.')
        contentLength = Number(value)
        break
      case 3:
        if (chunked) return refuse(400, 'bad-framing', 'Transfer-Encoding is given twice.')
        if (version === 10) return refuse(400, 'bad-framing', 'HTTP/1.0 has no Transfer-Encoding.')
        if (value.toLowerCase() !== 'chunked') return refuse(501, 'unsupported-transfer-coding', 'Only chunked is supported.')
        chunked = true
        break
      case 4:
        connection = connection === '' ? value : `${connection},${value}`
        break
      case 5:
        upgradeTo = upgradeTo === '' ? value : `${upgradeTo},${value}`
        break
      case 6:
        if (authorization !== null) return refuse(400, 'duplicate-header', 'Authorization is given twice.')
        authorization = value
        break
      case 7:
        if (apiKey !== null) return refuse(400, 'duplicate-header', 'X-API-Key is given twice.')
        apiKey = value
        break
      case 8:
        forwardedFor = forwardedFor === null ? value : `${forwardedFor}, ${value}`
        break
      case 9:
        forwardedProto = value
        break
      default:
        forwardedHost = value
    }
  }

  if (method === 'TRACE' || method === 'CONNECT') return refuse(405, 'method-not-allowed', `${method} is not offered here.`)
  if (method !== method.toUpperCase()) return refuse(400, 'bad-request-line', 'Methods are upper case.')
  if (contentLength >= 0 && chunked) return refuse(400, 'bad-framing', 'Content-Length and Transfer-Encoding exclude each other.')
  if (host === null || !HOST.test(host)) return refuse(400, 'bad-host', 'Exactly one valid Host is needed.')

  let target = line[2] as string
  if (target.charCodeAt(0) !== 47) {
    const absolute = ABSOLUTE.exec(target)
    if (absolute !== null) {
      if ((absolute[1] as string).toLowerCase() !== host.toLowerCase())
        return refuse(400, 'bad-host', 'The request target and Host name different hosts.')
      const rest = absolute[2] as string
      target = rest.startsWith('/') ? rest : `/${rest}`
    } else if (!(target === '*' && method === 'OPTIONS'))
      return refuse(400, 'bad-request-line', 'The request target is malformed.')
  }
  const query = target.indexOf('?')
  const path = query < 0 ? target : target.slice(0, query)
  const fault = target === '*' ? null : pathFault(path, target)
  if (fault !== null) return refuse(400, 'bad-path', fault)

  let keepAlive = version === 11
  let upgrade = false
  if (connection !== '') {
    const names = connection.toLowerCase().split(',', MAX_CONNECTION_NAMES + 1)
    if (names.length > MAX_CONNECTION_NAMES) return refuse(400, 'bad-header', 'Connection names too many headers.')
    for (const part of names) {
      const token = part.trim()
      if (token === 'close') keepAlive = false
      else if (token === 'upgrade') upgrade = true
      else if (token === '' || token === 'keep-alive') continue
      else {
        if (token === 'host' || token === 'content-length' || token === 'transfer-encoding')
          return refuse(400, 'bad-framing', `Connection must not name ${token}.`)
        lines = dropHeader(lines, token)
        if (token === 'authorization') authorization = null
        else if (token === 'x-api-key') apiKey = null
        else if (token === 'x-forwarded-for') forwardedFor = null
        else if (token === 'x-forwarded-proto') forwardedProto = null
        else if (token === 'x-forwarded-host') forwardedHost = null
        else if (token === 'x-rubato-proof') proof = null
      }
    }
  }
  upgrade = upgrade && version === 11 && method === 'GET' && upgradeTo.toLowerCase() === 'websocket'
  if (upgrade && (contentLength > 0 || chunked)) return refuse(400, 'bad-framing', 'A websocket handshake has no body.')
  return {
    kind: 'request',
    method,
    target,
    path,
    version,
    host,
    lines,
    contentLength,
    chunked,
    keepAlive,
    upgrade,
    authorization,
    apiKey,
    proof,
    forwardedFor,
    forwardedProto,
    forwardedHost,
  }
}

const PLAIN_PATH = /^(?:\/[A-Za-z0-9_~!$&'()*+,=:@-]+(?:\.[A-Za-z0-9_~!$&'()*+,=:@-]+)*)*\/?$/

/** Why a path could mean another one to whoever reads it next, or null when it is plain. `target` adds the query's own rules. */
export function pathFault(path: string, target: string = path): string | null {
  if (target.includes('#')) return 'A request target has no fragment.'
  if (!path.startsWith('/')) return 'A path starts with a slash.'
  if (PLAIN_PATH.test(path)) return null
  if (path.includes('//')) return 'Empty path segments are refused.'
  if (path.includes('\\')) return 'Backslashes in a path are refused.'
  if (/%(?:2f|5c|00)/i.test(path)) return 'Encoded slashes, backslashes and NULs in a path are refused.'
  if (/%(?![0-9a-f]{2})/i.test(path)) return 'A percent sign must begin an encoded byte.'
  if (/[^!-~]/.test(path)) return 'A path holds only visible ASCII.'
  for (const segment of path.split('/')) {
    const plain = segment.replace(/%2e/gi, '.')
    // `..;x` is `..` to servers that know path parameters.
    if (/^\.\.?(?:;|%3b|$)/i.test(plain)) return 'Dot segments are refused.'
  }
  return null
}

/** `lines` without the headers of that lower-case name. */
function dropHeader(lines: string, name: string): string {
  let kept = ''
  for (let at = 0; at < lines.length; ) {
    const end = lines.indexOf('\r\n', at) + 2
    const colon = lines.indexOf(':', at)
    if (lines.slice(at, colon).toLowerCase() !== name) kept += lines.slice(at, end)
    at = end
  }
  return kept
}

const RESPONSE_HEADER: ReadonlyMap<string, number> = new Map([
  ['content-length', 1],
  ['transfer-encoding', 2],
  ['connection', 3],
  ['keep-alive', 4],
  ['upgrade', 5],
  ['proxy-connection', 0],
  ['proxy-authenticate', 0],
  ['trailer', 6],
])

/** Reads a response head (latin1, without the empty line), or says why it cannot be trusted. */
export function parseResponseHead(text: string): ResponseHead | { readonly kind: 'bad'; readonly detail: string } {
  STATUS_LINE.lastIndex = 0
  const line = STATUS_LINE.exec(text)
  if (line === null) return { kind: 'bad', detail: 'malformed status line' }
  const version = line[1] === '1' ? 11 : 10
  const statusText = line[2] as string
  let contentLength = -1
  let chunked = false
  let connection = ''
  let keepAliveS: number | null = null
  let upgrade: string | null = null
  let lines = ''
  let at = STATUS_LINE.lastIndex
  while (at < text.length) {
    HEADER_LINE.lastIndex = at
    const header = HEADER_LINE.exec(text)
    if (header === null) return { kind: 'bad', detail: 'malformed header line' }
    const start = at
    at = HEADER_LINE.lastIndex
    const name = (header[1] as string).toLowerCase()
    const action = RESPONSE_HEADER.get(name)
    if (action === undefined) {
      if (!name.startsWith('x-rubato-')) lines += text.slice(start, at)
      continue
    }
    if (action === 0) continue
    const value = (header[2] as string).trim()
    switch (action) {
      case 1:
        if (!/^\d{1,15}$/.test(value) || (contentLength >= 0 && contentLength !== Number(value)))
          return { kind: 'bad', detail: 'contradictory Content-Length' }
        contentLength = Number(value)
        break
      case 2:
        if (chunked || version === 10 || value.toLowerCase() !== 'chunked')
          return { kind: 'bad', detail: 'unsupported Transfer-Encoding' }
        chunked = true
        break
      case 3:
        connection += `,${value.toLowerCase()}`
        break
      case 4: {
        const timeout = /timeout\s*=\s*(\d{1,6})/i.exec(value)
        if (timeout) keepAliveS = Number(timeout[1])
        break
      }
      case 5:
        upgrade = value
        break
      default:
        lines += text.slice(start, at)
    }
  }
  if (chunked && contentLength >= 0) return { kind: 'bad', detail: 'Content-Length beside Transfer-Encoding' }
  let keepAlive = version === 11
  if (connection !== '') {
    const names = connection.split(',', MAX_CONNECTION_NAMES + 1)
    if (names.length > MAX_CONNECTION_NAMES) return { kind: 'bad', detail: 'Connection names too many headers' }
    for (const part of names) {
      const token = part.trim()
      if (token === 'close') keepAlive = false
      else if (token === 'keep-alive') keepAlive = true
      else if (token !== '' && token !== 'upgrade') lines = dropHeader(lines, token)
    }
    if (/(?:^|,)\s*close\s*(?:,|$)/.test(connection)) keepAlive = false
  }
  return {
    kind: 'response',
    status: Number(statusText.slice(0, 3)),
    statusText,
    version,
    lines,
    contentLength,
    chunked,
    keepAlive,
    keepAliveS,
    upgrade,
  }
}
