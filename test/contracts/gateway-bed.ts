/** What gateway tests talk to and with: upstreams that remember what reached them, and a client that sends raw bytes. */
import { createServer as createHttpServer, type IncomingMessage } from 'node:http'
import { connect, createServer, type Server, type Socket } from 'node:net'
import type { IngressPort } from '../../agent/gateway/engine.ts'
import type { AccessPolicy } from '../../shared/model/unit.ts'
import type { Route, RouteEndpoint } from '../../shared/protocol/frames.ts'

export interface SeenRequest {
  readonly method: string
  readonly url: string
  readonly rawHeaders: readonly string[]
  readonly headers: IncomingMessage['headers']
  readonly body: string
}

export interface Upstream {
  readonly port: number
  readonly seen: SeenRequest[]
  close(): Promise<void>
}

export interface AnswerDetails {
  readonly status?: number
  readonly headers?: Record<string, string>
  readonly body?: string | Buffer
  /** The answer waits for this. */
  readonly after?: Promise<unknown>
  readonly hangUp?: boolean
}

/** An HTTP server that answers what `answer` says (default: 200 with the name). */
export async function httpUpstream(
  name: string,
  answer: (request: SeenRequest) => AnswerDetails = () => ({}),
): Promise<Upstream> {
  const seen: SeenRequest[] = []
  const server = createHttpServer(async (request, response) => {
    const parts: Buffer[] = []
    try {
      for await (const part of request) parts.push(part as Buffer)
    } catch {
      return // the client went away in the middle of its body
    }
    const entry: SeenRequest = {
      method: request.method ?? '',
      url: request.url ?? '',
      rawHeaders: request.rawHeaders,
      headers: request.headers,
      body: Buffer.concat(parts).toString(),
    }
    seen.push(entry)
    const details = answer(entry)
    await details.after
    if (details.hangUp) return request.socket.destroy()
    const body = details.body ?? name
    response.writeHead(details.status ?? 200, { 'content-length': Buffer.byteLength(body), ...details.headers })
    response.end(body)
  })
  server.on('upgrade', (request, socket: Socket) => {
    socket.write(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nsec-websocket-accept: x\r\n\r\nhello ',
    )
    seen.push({
      method: request.method ?? '',
      url: request.url ?? '',
      rawHeaders: request.rawHeaders,
      headers: request.headers,
      body: '',
    })
    socket.on('data', (chunk) => socket.write(chunk.toString().toUpperCase()))
    socket.on('end', () => socket.end())
    socket.on('error', () => {})
  })
  const port = await listening(server)
  return {
    port,
    seen,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** A TCP server; `talk` gets each connection. */
export async function tcpUpstream(talk: (socket: Socket) => void): Promise<{ port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    talk(socket)
  })
  const port = await listening(server)
  return {
    port,
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

export function listening(server: Server, host = '127.0.0.1'): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, host, () => {
      const address = server.address()
      resolve(typeof address === 'object' && address !== null ? address.port : 0)
    })
  })
}

/** A port of loopback on which nobody listens. */
export async function deadPort(): Promise<number> {
  const server = createServer()
  const port = await listening(server)
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** Sends bytes and collects everything until the other side closes, or `until` is found in what came. */
export function talk(port: number, bytes: string | Buffer, until?: string | RegExp, host = '127.0.0.1'): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host })
    let text = ''
    const finish = () => {
      socket.destroy()
      resolve(text)
    }
    socket.on('connect', () => socket.write(bytes))
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1')
      if (until !== undefined && (typeof until === 'string' ? text.includes(until) : until.test(text))) finish()
    })
    socket.on('end', finish)
    socket.on('close', finish)
    socket.on('error', (error: NodeJS.ErrnoException) => (error.code === 'ECONNREFUSED' ? reject(error) : finish()))
  })
}

/** One request with `Connection: close`; lines are joined with CRLF. */
export async function ask(
  port: number,
  lines: readonly string[],
  body = '',
  host?: string,
): Promise<{ status: number; head: string; body: string }> {
  const text = await talk(port, `${[...lines, 'Connection: close'].join('\r\n')}\r\n\r\n${body}`, undefined, host)
  const end = text.indexOf('\r\n\r\n')
  return { status: Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0), head: text.slice(0, end), body: text.slice(end + 4) }
}

export const KEYED: AccessPolicy = {
  public: false,
  sameApp: true,
  allow: [],
  roles: [],
  anyKey: true,
  methods: [],
  pathPrefixes: [],
}
export const PUBLIC: AccessPolicy = { ...KEYED, public: true }

export function anIngressPort(fields: Partial<IngressPort> & { targetPort: number }): IngressPort {
  return {
    instance: 'shop/web/1/1',
    service: 'web',
    containerPort: 80,
    protocol: 'http',
    access: KEYED,
    targetAddress: '127.0.0.1',
    gatewayPort: null,
    hostPorts: [],
    ...fields,
  }
}

export function anEndpoint(fields: Partial<RouteEndpoint> & { gatewayPort: number }): RouteEndpoint {
  return { instance: 'shop/web/1/1', node: 'n-1', address: '127.0.0.1', zone: null, state: 'ready', ...fields }
}

export function aRoute(fields: Partial<Route>): Route {
  return {
    service: 'shop/web',
    containerPort: 80,
    protocol: 'http',
    balance: 'least-load',
    publishedPorts: [],
    ordinal: 1,
    endpoints: [],
    ...fields,
  }
}
