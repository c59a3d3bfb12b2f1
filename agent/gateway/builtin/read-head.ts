/** Heads of messages out of the bytes that have come so far, and back into text. Pure; the rules are http-head.ts's. */
import {
  MAX_REQUEST_HEAD_BYTES,
  MAX_RESPONSE_HEAD_BYTES,
  parseRequestHead,
  parseResponseHead,
  type Refusal,
  type RequestHead,
  type ResponseHead,
} from './http-head.ts'

const HEAD_END = Buffer.from('\r\n\r\n')

/** `rest`: what came behind it; null for nothing. */
export type TakenRequest =
  | { readonly kind: 'more' }
  /** An empty line, which a client may send before a request (RFC 9112 §2.2). */
  | { readonly kind: 'blank'; readonly rest: Buffer | null }
  | { readonly kind: 'head'; readonly head: RequestHead; readonly rest: Buffer | null }
  | { readonly kind: 'refuse'; readonly refusal: Refusal }

/** The first request head of the bytes. What can never become one is refused as soon as that is certain. */
export function takeRequestHead(buffer: Buffer): TakenRequest {
  if (buffer.length >= 2 && buffer[0] === 13 && buffer[1] === 10) return { kind: 'blank', rest: behind(buffer, 2) }
  const end = buffer.indexOf(HEAD_END)
  if (end > MAX_REQUEST_HEAD_BYTES || (end < 0 && buffer.length > MAX_REQUEST_HEAD_BYTES))
    return refused(431, 'head-too-large', 'The request head is longer than 16 KiB.')
  if (end < 0) return hasBareLineFeed(buffer) ? refused(400, 'bad-header', 'Lines end in CR LF.') : { kind: 'more' }
  const head = parseRequestHead(buffer.toString('latin1', 0, end + 2))
  return head.kind === 'refuse' ? { kind: 'refuse', refusal: head } : { kind: 'head', head, rest: behind(buffer, end + 4) }
}

export type TakenResponse =
  | { readonly kind: 'more' }
  | { readonly kind: 'bad' }
  | { readonly kind: 'head'; readonly head: ResponseHead; readonly bodyAt: number }

/** The first response head of the bytes, be it an interim one. */
export function takeResponseHead(buffer: Buffer): TakenResponse {
  const end = buffer.indexOf(HEAD_END)
  if (end < 0 || end > MAX_RESPONSE_HEAD_BYTES)
    return buffer.length > MAX_RESPONSE_HEAD_BYTES ? { kind: 'bad' } : { kind: 'more' }
  const head = parseResponseHead(buffer.toString('latin1', 0, end + 2))
  return head.kind === 'bad' ? { kind: 'bad' } : { kind: 'head', head, bodyAt: end + 4 }
}

/** The head as an upstream gets it. `addedLines`: the gateway's own, each ending in CRLF; they go last. */
export function requestHeadText(request: RequestHead, addedLines: string): string {
  let text = `${request.method} ${request.target} HTTP/1.${request.version === 11 ? 1 : 0}\r\nhost: ${request.host}\r\n${request.lines}`
  if (request.chunked) text += 'transfer-encoding: chunked\r\n'
  else if (request.contentLength >= 0) text += `content-length: ${request.contentLength}\r\n`
  if (request.upgrade) text += 'connection: upgrade\r\nupgrade: websocket\r\n'
  else if (request.version === 10) text += 'connection: close\r\n'
  return `${text}${addedLines}\r\n`
}

function behind(buffer: Buffer, at: number): Buffer | null {
  return buffer.length > at ? buffer.subarray(at) : null
}

function refused(status: Refusal['status'], code: string, detail: string): TakenRequest {
  return { kind: 'refuse', refusal: { kind: 'refuse', status, code, detail } }
}

function hasBareLineFeed(buffer: Buffer): boolean {
  for (let at = buffer.indexOf(10); at >= 0; at = buffer.indexOf(10, at + 1)) if (at === 0 || buffer[at - 1] !== 13) return true
  return false
}
