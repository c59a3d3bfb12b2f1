/** Answers that the gateway gives itself: RFC 9457 problem documents. */
import type { Refusal } from './http-head.ts'

const TITLES: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  405: 'Method Not Allowed',
  404: 'Not Found',
  408: 'Request Timeout',
  413: 'Content Too Large',
  422: 'Unprocessable Content',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
}

/** Title of a status, for people. */
export function titleOf(status: number): string {
  return TITLES[status] ?? 'Error'
}

/** The document: `type`, `title`, `status`, `detail` and the stable `code`. Holds nothing of the request. */
function problemBody(refusal: Refusal): string {
  return JSON.stringify({
    type: 'about:blank',
    title: titleOf(refusal.status),
    status: refusal.status,
    detail: refusal.detail,
    code: refusal.code,
  })
}

/** Headers that belong to a refusal beside its content: lower-case names. */
export function refusalHeaders(status: number): Readonly<Record<string, string>> {
  if (status === 401) return { 'www-authenticate': 'Bearer realm="rubato"' }
  if (status === 405) return { allow: 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS' }
  if (status === 503) return { 'retry-after': '1' }
  return {}
}

/** The whole response as text. `bodyless`: for HEAD, where the length is told but nothing sent. */
export function problemResponse(refusal: Refusal, close: boolean, bodyless: boolean): string {
  const body = problemBody(refusal)
  let head = `HTTP/1.1 ${refusal.status} ${titleOf(refusal.status)}\r\ncontent-type: application/problem+json\r\n`
  for (const [name, value] of Object.entries(refusalHeaders(refusal.status))) head += `${name}: ${value}\r\n`
  head += `cache-control: no-store\r\ncontent-length: ${body.length}\r\n${close ? 'connection: close\r\n' : ''}\r\n`
  return bodyless ? head : head + body
}
