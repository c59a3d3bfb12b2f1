/**
 * One client connection of an HTTP listener: reads requests strictly, asks the handler, and streams request and response.
 *
 * H1 Nothing of a request reaches an upstream before the handler allowed it. H2 Nothing of a body passes unchecked framing.
 * H3 A request is repeated only when nothing of it was sent, or (bodyless and idempotent) when a kept-open connection
 * turned out to be closed. H4 Every exchange that began is ended exactly once in its tracks. H5 Reading stops while
 * writing is blocked, in both directions.
 *
 * Written on sockets instead of node:http for two reasons: the checks of http-head.ts need the bytes, and it is several times faster.
 */
import type { Socket } from 'node:net'
import { type ChunkScanner, createChunkScanner } from './chunks.ts'
import type { Forward, FrontConnection, FrontShared, HttpHandler } from './http-exchange.ts'
import { plainAddress } from './http-exchange.ts'
import type { Refusal, RequestHead, ResponseHead } from './http-head.ts'
import { problemResponse } from './problem.ts'
import { requestHeadText, takeRequestHead, takeResponseHead } from './read-head.ts'
import { countAnswer, endTrack } from './track.ts'
import type { Upstream, UpstreamOwner } from './upstream-pool.ts'

const MAX_PIPELINED_BYTES = 65_536
const SMALL_BODY_BYTES = 16_384
const LINGER_MS = 2_000
/** A connection used this recently is taken to be open still. */
const FRESHLY_USED_MS = 1_000
const IDEMPOTENT: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])
const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'

/** Serves the connection until it closes. `closed` is called once. */
export function serveHttp(
  socket: Socket,
  handler: HttpHandler,
  shared: FrontShared,
  closed: (connection: FrontConnection) => void,
): FrontConnection {
  const { pool, limits } = shared
  const peerAddress = plainAddress(socket.remoteAddress ?? '')
  let state: 'head' | 'exchange' | 'tunnel' | 'linger' | 'closed' = 'head'
  let deadlineMs = shared.coarseMs + limits.headTimeoutMs
  let pending: Buffer | null = null
  let clientEnded = false
  let draining = false

  // The exchange under way.
  let head: RequestHead | null = null
  let forward: Forward | null = null
  let upstream: Upstream | null = null
  let requestDone = true
  let hasBody = false
  let requestLeft = 0
  let requestChunks: ChunkScanner | null = null
  let keepAlive = false
  let response: ResponseHead | null = null
  let responseHeadPart: Buffer | null = null
  /** −1: until the upstream closes. */
  let responseLeft = 0
  let responseChunks: ChunkScanner | null = null
  let repeated = false
  /** When its head was complete: answer times begin there, retries included. */
  let beganMs = 0
  let waitsForClient = false
  let continued = false

  const owner: UpstreamOwner = {
    onConnect() {
      deadlineMs = shared.coarseMs + limits.responseTimeoutMs
      feedPending()
    },
    onData: onUpstreamData,
    onDrain() {
      if (state !== 'closed') socket.resume()
    },
    onEnd() {
      if (state === 'tunnel') {
        socket.end()
        return
      }
      upstreamGone()
    },
    onClose: upstreamGone,
  }

  socket.on('data', onClientData)
  socket.on('drain', () => {
    waitsForClient = false
    upstream?.socket.resume()
  })
  socket.on('end', () => {
    clientEnded = true
    if (state === 'tunnel') upstream?.socket.end()
    else if (state === 'exchange') {
      if (!requestDone) abort()
    } else if (state === 'head') socket.end()
    else socket.destroy()
  })
  socket.on('error', noop) // `close` follows
  socket.on('close', () => {
    if (state === 'closed') return
    const wasBusy = state === 'exchange' || state === 'tunnel'
    state = 'closed'
    if (wasBusy) endExchange(true)
    closed(connection)
  })

  const connection: FrontConnection = {
    sweep(nowMs) {
      if (nowMs < deadlineMs) return
      if (state === 'head') {
        if (pending === null) socket.destroy()
        else
          refuse({ kind: 'refuse', status: 408, code: 'request-timeout', detail: 'The request head did not come in time.' }, true)
      } else if (state === 'exchange' && response === null) {
        const connecting = upstream?.connected === false
        if (connecting) upstreamGone()
        else fail({ kind: 'refuse', status: 504, code: 'upstream-timeout', detail: 'The service did not answer in time.' })
      } else abort()
    },
    drain() {
      draining = true
      if (state === 'head' && pending === null) linger()
    },
    destroy: () => socket.destroy(),
  }
  return connection

  function onClientData(chunk: Buffer): void {
    if (state === 'tunnel') {
      deadlineMs = shared.coarseMs + limits.idleTimeoutMs
      count('rxBytes', chunk.length)
      if (upstream !== null && !upstream.socket.write(chunk)) socket.pause()
      return
    }
    if (state === 'linger' || state === 'closed') return
    pending = pending === null ? chunk : Buffer.concat([pending, chunk])
    if (state === 'head' && !waitsForClient) readRequests()
    else if (!requestDone && upstream?.connected) feedPending()
    else if (pending.length > MAX_PIPELINED_BYTES) socket.pause()
  }

  /** Reads heads until one must wait for an upstream. */
  function readRequests(): void {
    while (state === 'head' && pending !== null && !waitsForClient && readRequest()) {}
  }

  function readRequest(): boolean {
    const read = takeRequestHead(pending as Buffer)
    if (read.kind === 'more') return false
    if (read.kind === 'refuse') {
      refuse(read.refusal, true)
      return false
    }
    pending = read.rest
    if (read.kind === 'blank') return true
    const parsed = read.head
    hasBody = parsed.chunked || parsed.contentLength > 0
    const decision = handler.decide(parsed, peerAddress)
    head = parsed
    if (decision.kind === 'refuse') {
      // Bytes of a body that nobody wants would be read as the next request; the connection ends instead.
      const close = hasBody || !parsed.keepAlive || handler.closing || draining
      refuse(decision, close)
      return !close
    }
    keepAlive = parsed.keepAlive
    requestDone = !hasBody
    requestLeft = Math.max(0, parsed.contentLength)
    requestChunks = parsed.chunked ? createChunkScanner(true) : null
    repeated = false
    continued = false
    state = 'exchange'
    beganMs = shared.nowMs()
    begin(decision, false)
    return false
  }

  function begin(next: Forward, fresh: boolean): void {
    const request = head as RequestHead
    forward = next
    response = null
    responseHeadPart = null
    for (const track of next.tracks) {
      track.inFlight += 1
      track.requests += 1
    }
    // What cannot be repeated goes only where nobody had time to close the connection behind our back.
    const safe = !hasBody && IDEMPOTENT.has(request.method)
    upstream = pool.lease(next.address, next.port, owner, fresh ? 0 : safe ? Number.POSITIVE_INFINITY : FRESHLY_USED_MS)
    const text = requestHeadText(request, next.addedLines)
    upstream.socket.write(text, 'latin1')
    if (upstream.connected) {
      deadlineMs = shared.coarseMs + limits.responseTimeoutMs
      feedPending()
    } else deadlineMs = shared.coarseMs + limits.connectTimeoutMs
  }

  /** Passes on what has come of the request's body. */
  function feedPending(): void {
    if (state === 'tunnel') {
      if (pending !== null) {
        const early = pending
        pending = null
        onClientData(early)
      }
      return
    }
    if (requestDone || pending === null || upstream === null) return
    const buffer = pending
    let end: number
    if (requestChunks !== null) {
      end = requestChunks.scan(buffer, 0)
      if (requestChunks.bad) {
        fail({ kind: 'refuse', status: 400, code: 'bad-framing', detail: 'The chunked body is malformed.' })
        return
      }
      requestDone = requestChunks.done
    } else {
      end = Math.min(requestLeft, buffer.length)
      requestLeft -= end
      requestDone = requestLeft === 0
    }
    pending = end < buffer.length ? buffer.subarray(end) : null
    count('rxBytes', end)
    deadlineMs = shared.coarseMs + limits.responseTimeoutMs
    if (!upstream.socket.write(end === buffer.length ? buffer : buffer.subarray(0, end))) socket.pause()
    else if (socket.isPaused()) socket.resume()
  }

  function onUpstreamData(chunk: Buffer): void {
    if (state === 'tunnel') {
      deadlineMs = shared.coarseMs + limits.idleTimeoutMs
      count('txBytes', chunk.length)
      toClient(chunk)
      return
    }
    if (response === null) readResponseHead(chunk)
    else passBody(chunk, 0)
  }

  function readResponseHead(chunk: Buffer): void {
    let buffer = responseHeadPart === null ? chunk : Buffer.concat([responseHeadPart, chunk])
    for (;;) {
      const read = takeResponseHead(buffer)
      if (read.kind === 'bad') {
        badUpstream()
        return
      }
      if (read.kind === 'more') {
        responseHeadPart = buffer
        return
      }
      if (read.head.status >= 200 || read.head.status === 101) {
        responseHeadPart = null
        startResponse(read.head, buffer, read.bodyAt)
        return
      }
      // Once is enough: an upstream that repeats it would fill the buffer of a client that does not read.
      if (read.head.status === 100 && head?.version === 11 && !continued) socket.write(CONTINUE)
      if (read.head.status === 100) continued = true
      buffer = buffer.subarray(read.bodyAt)
    }
  }

  function startResponse(parsed: ResponseHead, buffer: Buffer, bodyAt: number): void {
    const request = head as RequestHead
    response = parsed
    deadlineMs = shared.coarseMs + limits.idleTimeoutMs
    if (forward !== null) for (const track of forward.tracks) track.connectFailures = 0
    if (parsed.status >= 500) count('errors', 1)
    else if (forward !== null) countAnswer(forward.tracks, shared.nowMs() - beganMs)
    let text = `HTTP/1.1 ${parsed.statusText}\r\n${parsed.lines}`
    if (parsed.status === 101) {
      if (!request.upgrade || parsed.upgrade?.toLowerCase() !== 'websocket') {
        response = null
        badUpstream()
        return
      }
      socket.write(`${text}connection: upgrade\r\nupgrade: websocket\r\n\r\n`, 'latin1')
      state = 'tunnel'
      if (bodyAt < buffer.length) onUpstreamData(buffer.subarray(bodyAt))
      feedPending()
      return
    }
    responseChunks = null
    if (request.method === 'HEAD' || parsed.status === 204 || parsed.status === 304) {
      responseLeft = 0
      if (parsed.contentLength >= 0) text += `content-length: ${parsed.contentLength}\r\n`
      else if (parsed.chunked) text += 'transfer-encoding: chunked\r\n'
    } else if (parsed.chunked) {
      responseLeft = 1
      responseChunks = createChunkScanner(false)
      text += 'transfer-encoding: chunked\r\n'
    } else if (parsed.contentLength >= 0) {
      responseLeft = parsed.contentLength
      text += `content-length: ${parsed.contentLength}\r\n`
    } else {
      responseLeft = -1
      keepAlive = false
    }
    if (!requestDone || handler.closing || draining || clientEnded) keepAlive = false
    text += keepAlive ? '\r\n' : 'connection: close\r\n\r\n'
    // The usual answer is short and came whole: one write, one packet.
    const rest = buffer.length - bodyAt
    if (responseChunks === null && responseLeft >= 0 && rest === responseLeft && rest <= SMALL_BODY_BYTES) {
      if (rest > 0) text += buffer.toString('latin1', bodyAt)
      count('txBytes', rest)
      if (!socket.write(text, 'latin1')) waitsForClient = true
      finish()
      return
    }
    socket.cork()
    socket.write(text, 'latin1')
    if (responseLeft === 0) finish(rest > 0)
    else if (rest > 0) passBody(buffer, bodyAt)
    socket.uncork()
  }

  function passBody(chunk: Buffer, from: number): void {
    let end = chunk.length
    let done = false
    if (responseChunks !== null) {
      end = responseChunks.scan(chunk, from)
      if (responseChunks.bad) {
        abort()
        return
      }
      done = responseChunks.done
    } else if (responseLeft >= 0) {
      end = Math.min(chunk.length, from + responseLeft)
      responseLeft -= end - from
      done = responseLeft === 0
    }
    count('txBytes', end - from)
    deadlineMs = shared.coarseMs + limits.idleTimeoutMs
    toClient(from === 0 && end === chunk.length ? chunk : chunk.subarray(from, end))
    if (done) finish(end < chunk.length)
  }

  function toClient(chunk: Buffer): void {
    if (socket.write(chunk)) return
    waitsForClient = true
    upstream?.socket.pause()
  }

  /** The response is complete. `surplus`: the upstream sent more than it announced, so its connection cannot be trusted. */
  function finish(surplus = false): void {
    const reusable = !surplus && requestDone && response?.keepAlive === true
    const keepMs =
      response?.keepAliveS == null ? limits.upstreamKeepMs : Math.min(limits.upstreamKeepMs, response.keepAliveS * 1_000 - 1_000)
    endExchange(!reusable || keepMs <= 0, keepMs)
    if (!keepAlive || !requestDone || draining || clientEnded) {
      linger()
      return
    }
    state = 'head'
    deadlineMs = shared.coarseMs + limits.keepAliveMs
    if (waitsForClient) {
      socket.once('drain', continueReading)
      return
    }
    continueReading()
  }

  function continueReading(): void {
    if (socket.isPaused()) socket.resume()
    if (pending !== null) readRequests()
  }

  function endExchange(discard: boolean, keepMs = 0): void {
    const used = upstream
    upstream = null
    if (used !== null) {
      if (discard) pool.discard(used)
      else pool.release(used, keepMs)
    }
    const over = forward
    forward = null
    if (over !== null) for (const track of over.tracks) endTrack(track)
  }

  /** The upstream cannot be reached, or went away. */
  function upstreamGone(): void {
    if (state === 'tunnel') {
      socket.end()
      deadlineMs = shared.coarseMs + LINGER_MS
      endExchange(true)
      state = 'linger'
      return
    }
    if (state !== 'exchange') return
    const request = head as RequestHead
    const gone = upstream
    if (response !== null) {
      if (responseLeft === -1) finish(true)
      else abort()
      return
    }
    const failed = forward
    if (failed === null || gone === null) return
    const sent = gone.connected
    const mayRepeat = sent && gone.reused && !repeated && responseHeadPart === null && !hasBody && IDEMPOTENT.has(request.method)
    for (const track of failed.tracks) {
      // Counters may have been taken in between.
      track.requests = Math.max(0, track.requests - 1) // counted again by the next attempt, or below
      if (!sent) track.connectFailures += 1
    }
    endExchange(true)
    if (mayRepeat) {
      repeated = true
      begin(failed, true)
      return
    }
    const next = sent ? null : failed.retry()
    if (next?.kind === 'forward') {
      begin(next, false)
      return
    }
    for (const track of failed.tracks) {
      track.requests += 1
      track.errors += 1
    }
    refuse(
      next ?? {
        kind: 'refuse',
        status: 502,
        code: 'upstream-closed',
        detail: 'The service closed the connection without an answer.',
      },
      !requestDone || !keepAlive,
    )
    // Reading may have been paused while more came than one exchange may keep.
    if (!waitsForClient) continueReading()
  }

  function badUpstream(): void {
    fail({ kind: 'refuse', status: 502, code: 'upstream-invalid', detail: 'The service gave no valid HTTP answer.' })
  }

  /** Ends the exchange with an answer of our own, or with the connection when the upstream's has begun. */
  function fail(refusal: Refusal): void {
    if (response !== null) {
      abort()
      return
    }
    if (refusal.status >= 500) count('errors', 1)
    // Whoever waited in vain waited that long; other failures are no answers.
    if (refusal.status === 504 && forward !== null) countAnswer(forward.tracks, shared.nowMs() - beganMs)
    endExchange(true)
    refuse(refusal, true)
  }

  function refuse(refusal: Refusal, close: boolean): void {
    const bodyless = head?.method === 'HEAD'
    const flushed = socket.write(problemResponse(refusal, close, bodyless), 'latin1')
    if (close) {
      linger()
      return
    }
    state = 'head'
    deadlineMs = shared.coarseMs + limits.keepAliveMs
    // Whoever sends on and reads nothing must not fill our memory with answers.
    if (!flushed) {
      waitsForClient = true
      socket.once('drain', continueReading)
    }
  }

  /** Ends our half and swallows the rest for a moment: closing at once could destroy the answer on its way. */
  function linger(): void {
    state = 'linger'
    pending = null
    deadlineMs = shared.coarseMs + LINGER_MS
    socket.end()
    socket.resume()
  }

  function abort(): void {
    socket.destroy()
  }

  function count(what: 'rxBytes' | 'txBytes' | 'errors', amount: number): void {
    if (forward !== null) for (const track of forward.tracks) track[what] += amount
  }
}

function noop(): void {}
