/** Opens the link's websocket: credential in the upgrade request, TLS pinned to the cluster's own authority. */
import type { ClientRequest, IncomingMessage } from 'node:http'
import { WebSocket } from 'ws'
import type { Clock } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { DialOutcome, Dialer } from '../../shared/protocol/connection.ts'
import { LINK_PATH, MAX_FRAME_BYTES } from '../../shared/protocol/frames.ts'
import { webSocketConnection } from '../../shared/protocol/websocket-connection.ts'
import { fetchPinnedCa, pinnedTlsOptions } from './pinned-tls.ts'

export interface WebSocketDialerOptions {
  readonly clock: Clock
  /** Certificate authority (PEM) that must have signed the coordinator's certificate. */
  readonly caPem?: string
  /** SHA-256 (hex) of that authority's certificate in DER: enough where the server sends its authority along (join tokens hold it). */
  readonly caDigest?: string
  /** Give up an upgrade after this long. Default 10 s. */
  readonly timeoutMs?: number
}

/** A dialer over `ws`. URLs are the coordinator's `http(s)://host:port` (or `ws(s)://`); the link's path is added. */
export function webSocketDialer(options: WebSocketDialerOptions): Dialer {
  const timeoutMs = options.timeoutMs ?? 10_000
  let caPem = options.caPem ?? null

  return {
    async dial(url, credential, signal) {
      const target = linkUrl(url)
      if (target === null) return { kind: 'failed', detail: `${url} is no usable coordinator address` }
      try {
        // The authority must be known before the credential leaves this host.
        if (target.protocol === 'wss:' && caPem === null && options.caDigest !== undefined)
          caPem = await fetchPinnedCa(target, options.caDigest, timeoutMs)
        return await upgrade(target, credential, signal)
      } catch (error) {
        return { kind: 'failed', detail: messageOf(error) }
      }
    },
  }

  function upgrade(target: URL, credential: string, signal: AbortSignal): Promise<DialOutcome> {
    const socket = new WebSocket(target, {
      headers: { authorization: `Bearer ${credential}` },
      perMessageDeflate: false,
      maxPayload: MAX_FRAME_BYTES,
      followRedirects: false,
      handshakeTimeout: timeoutMs,
      ...(target.protocol === 'wss:' && caPem !== null ? pinnedTlsOptions(caPem) : {}),
    })
    return new Promise<DialOutcome>((resolve) => {
      let settled = false
      const settle = (outcome: DialOutcome) => {
        if (settled) return
        settled = true
        signal.removeEventListener('abort', onAbort)
        resolve(outcome)
        if (outcome.kind !== 'open') socket.terminate()
      }
      const onAbort = () => settle({ kind: 'failed', detail: 'dialing was cancelled' })
      socket.on('error', (error) => settle({ kind: 'failed', detail: error.message }))
      socket.on('unexpected-response', (request: ClientRequest, response: IncomingMessage) => {
        const status = response.statusCode ?? 0
        if (status === 401 || status === 403 || status === 410)
          settle({ kind: 'rejected', status, detail: `the coordinator answered ${status}` })
        else settle({ kind: 'failed', detail: `the coordinator answered ${status} instead of an upgrade` })
        request.destroy()
      })
      // Wrapped at once: a welcome may follow the upgrade in the same packet.
      socket.on('open', () => settle({ kind: 'open', connection: webSocketConnection(socket, { clock: options.clock }) }))
      signal.addEventListener('abort', onAbort, { once: true })
      if (signal.aborted) onAbort()
    })
  }
}

function linkUrl(url: string): URL | null {
  if (!URL.canParse(url)) return null
  const protocol = { 'http:': 'ws:', 'https:': 'wss:', 'ws:': 'ws:', 'wss:': 'wss:' }[new URL(url).protocol]
  if (protocol === undefined) return null
  // A special scheme's protocol may be changed within the special ones only, which all four are.
  const target = new URL(LINK_PATH, url)
  target.protocol = protocol
  return target
}
