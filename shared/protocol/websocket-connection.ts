/**
 * A websocket as a Connection, the same at both ends. A ping goes out every 5 s; a peer from which nothing came for 25 s is
 * dead, whatever TCP believes (fault row 26). Binary frames close 1003. The peer's slowness is bounded: more than
 * `maxBufferedBytes` waiting closes the connection (fault row 46).
 */
import type { Clock, Timer } from '../clock.ts'
import type { Connection } from './connection.ts'
import { CLOSE } from './frames.ts'

export const PING_INTERVAL_MS = 5_000
export const DEAD_AFTER_MS = 25_000
const MAX_BUFFERED_BYTES = 16 * 1_048_576
/** A peer that does not answer our close frame is cut off after this long. */
const CLOSE_GRACE_MS = 2000

/** The part of a `ws` WebSocket that is used here; `shared` depends on the shape, not on the package. */
export interface RawWebSocket {
  readonly readyState: number
  readonly bufferedAmount: number
  send(text: string, callback: (error?: Error) => void): void
  ping(payload: string): void
  close(code: number, reason: string): void
  terminate(): void
  on(event: 'message', handler: (data: unknown, isBinary: boolean) => void): unknown
  on(event: 'close', handler: (code: number, reason: Buffer) => void): unknown
  on(event: 'error', handler: (error: Error) => void): unknown
  on(event: 'ping' | 'pong', handler: (payload: Buffer) => void): unknown
}

export interface WebSocketConnectionOptions {
  readonly clock: Clock
  readonly maxBufferedBytes?: number
}

/** Wraps an open websocket. Messages that come before `onMessage` is set are kept. */
export function webSocketConnection(socket: RawWebSocket, options: WebSocketConnectionOptions): Connection {
  const { clock } = options
  const maxBufferedBytes = options.maxBufferedBytes ?? MAX_BUFFERED_BYTES
  let onMessage: ((text: string) => void) | null = null
  let onClose: ((code: number, reason: string) => void) | null = null
  const early: string[] = []
  let closed: { code: number; reason: string } | null = null
  let closing: { code: number; reason: string } | null = null
  let lastHeardMs = clock.monotonicMs()
  let answeredMs: number | null = null
  let pings = 0
  /** Those not answered yet. */
  const waiting = new Map<string, number>()
  let pingTimer: Timer | null = null
  let graceTimer: Timer | null = null

  const heard = () => {
    lastHeardMs = clock.monotonicMs()
  }
  const finish = (code: number, reason: string) => {
    if (closed) return
    // What we closed for is worth more than the peer's echo of it, or the 1006 of a socket that was cut.
    closed = closing ?? { code, reason }
    pingTimer?.cancel()
    graceTimer?.cancel()
    onClose?.(closed.code, closed.reason)
  }
  const close = (code: number, reason: string) => {
    if (closed || closing) return
    closing = { code, reason }
    // A close frame holds at most 125 bytes.
    socket.close(code, reason.slice(0, 120).replace(/[^\x20-\x7e]/g, '?'))
    graceTimer = clock.setTimer(CLOSE_GRACE_MS, () => socket.terminate())
  }
  const ping = () => {
    if (closed) return
    if (clock.monotonicMs() - lastHeardMs >= DEAD_AFTER_MS) {
      closing ??= { code: 1006, reason: `nothing heard for ${DEAD_AFTER_MS / 1000} s` }
      socket.terminate()
      return
    }
    if (socket.readyState === 1) {
      pings += 1
      waiting.set(String(pings), clock.monotonicMs())
      socket.ping(String(pings))
    }
    pingTimer = clock.setTimer(PING_INTERVAL_MS, ping)
  }

  socket.on('message', (data, isBinary) => {
    heard()
    if (closing) return
    if (isBinary) return close(1003, 'text frames only')
    const text = String(data)
    if (onMessage) onMessage(text)
    else early.push(text)
  })
  socket.on('ping', heard)
  socket.on('pong', (payload) => {
    heard()
    const text = payload.toString()
    const sentMs = waiting.get(text)
    if (sentMs === undefined) return
    answeredMs = sentMs
    for (const earlier of waiting.keys()) if (Number(earlier) <= Number(text)) waiting.delete(earlier)
  })
  socket.on('close', (code, reason) => finish(code, reason.toString()))
  // `close` follows every error with a code that says as much (1009 too large, 1007 bad UTF-8, 1006 cut).
  socket.on('error', (error) => {
    closing ??= { code: closeCodeOf(error), reason: error.message }
  })
  pingTimer = clock.setTimer(PING_INTERVAL_MS, ping)

  return {
    send(text) {
      if (closed || closing || socket.readyState !== 1) return
      socket.send(text, () => {}) // A failed send ends in `close`.
      if (socket.bufferedAmount > maxBufferedBytes) {
        closing = { code: CLOSE.slow, reason: 'too slow: the outgoing buffer is full' }
        socket.terminate() // A close frame would wait behind the very bytes that nobody reads.
      }
    },
    bufferedBytes: () => socket.bufferedAmount,
    answeredMs: () => answeredMs,
    close,
    onMessage(handler) {
      onMessage = handler
      for (const text of early.splice(0)) handler(text)
    },
    onClose(handler) {
      onClose = handler
      if (closed) handler(closed.code, closed.reason)
    },
  }
}

function closeCodeOf(error: Error): number {
  const code = 'code' in error ? String(error.code) : ''
  if (code === 'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH' || code === 'WS_ERR_TOO_MANY_BUFFERED_PARTS') return 1009
  if (code === 'WS_ERR_INVALID_UTF8') return 1007
  return code.startsWith('WS_ERR') ? 1002 : 1006
}
