/**
 * The coordinator's end of the link: takes websocket upgrades for LINK_PATH from an HTTP server, and only those. Who may not
 * come in is told so before the upgrade: 403 for anything a browser sent (it has an `Origin`), 401 for a bad credential.
 */
import type { IncomingMessage, Server } from 'node:http'
import type { Server as TlsServer } from 'node:https'
import type { Duplex } from 'node:stream'
import { WebSocketServer } from 'ws'
import type { Clock } from '../../shared/clock.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { Connection } from '../../shared/protocol/connection.ts'
import { LINK_PATH, MAX_FRAME_BYTES } from '../../shared/protocol/frames.ts'
import { webSocketConnection } from '../../shared/protocol/websocket-connection.ts'

/** An agent has no reason to send a frame in many pieces; a flood of empty ones costs memory and time. */
const MAX_FRAGMENTS = 256

export interface LinkServerDeps {
  readonly clock: Clock
  /** The node that this credential belongs to; null when it is none of ours. */
  authenticate(credential: string): NodeId | null
  /** Takes the connection of a node that has authenticated. */
  accept(connection: Connection, nodeId: NodeId): void
  /** Bytes that may wait for one slow agent. Default 16 MiB. */
  readonly maxBufferedBytes?: number
}

export interface LinkServer {
  /** Refusals since the start, by status. */
  readonly refused: Readonly<Record<number, number>>
  /** Stops taking upgrades; open connections are the hub's to close. */
  stop(): void
}

/** Attaches to the server's `upgrade` event. Upgrades for other paths are left to other listeners, or answered 404 if there are none. */
export function attachLinkServer(server: Server | TlsServer, deps: LinkServerDeps): LinkServer {
  const refused: Record<number, number> = {}
  const upgrader = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: MAX_FRAME_BYTES,
    maxFragments: MAX_FRAGMENTS,
    clientTracking: false,
  } as ConstructorParameters<typeof WebSocketServer>[0])

  const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    const path = (request.url ?? '').split('?', 1)[0]
    if (path !== LINK_PATH) {
      if (server.listenerCount('upgrade') === 1) refuse(socket, 404)
      return
    }
    // Without a handler an early reset would end the process.
    socket.on('error', () => socket.destroy())
    const verdict = judge(request, deps)
    if ('status' in verdict) {
      refused[verdict.status] = (refused[verdict.status] ?? 0) + 1
      return refuse(socket, verdict.status)
    }
    upgrader.handleUpgrade(request, socket, head, (websocket) => {
      const limits = deps.maxBufferedBytes === undefined ? {} : { maxBufferedBytes: deps.maxBufferedBytes }
      deps.accept(webSocketConnection(websocket, { clock: deps.clock, ...limits }), verdict.nodeId)
    })
  }
  server.on('upgrade', onUpgrade)
  return {
    refused,
    stop() {
      server.off('upgrade', onUpgrade)
      upgrader.close()
    },
  }
}

function judge(request: IncomingMessage, deps: LinkServerDeps): { nodeId: NodeId } | { status: 401 | 403 } {
  if (request.headers.origin !== undefined) return { status: 403 }
  const headers = request.rawHeaders.filter(
    (_, index) => index % 2 === 0 && /^authorization$/i.test(request.rawHeaders[index] ?? ''),
  )
  const credential = /^Bearer ([\x21-\x7e]{1,512})$/i.exec(request.headers.authorization ?? '')?.[1]
  if (headers.length !== 1 || credential === undefined) return { status: 401 }
  const nodeId = deps.authenticate(credential)
  return nodeId === null ? { status: 401 } : { nodeId }
}

const REASONS = { 401: 'Unauthorized', 403: 'Forbidden', 404: 'Not Found' } as const

function refuse(socket: Duplex, status: keyof typeof REASONS): void {
  const body = JSON.stringify({ type: 'about:blank', title: REASONS[status], status })
  socket.end(
    `HTTP/1.1 ${status} ${REASONS[status]}\r\nContent-Type: application/problem+json\r\nContent-Length: ${body.length}\r\n` +
      `${status === 401 ? 'WWW-Authenticate: Bearer\r\n' : ''}Connection: close\r\n\r\n${body}`,
  )
  socket.once('finish', () => socket.destroy())
}
