/** The API on a socket: plain HTTP (loopback only) or TLS. Returns the server, to which the hub adds the websocket upgrade. */
import { createServer as createHttpServer, type Server } from 'node:http'
import { createServer as createHttpsServer, type Server as HttpsServer } from 'node:https'
import { BlockList, type AddressInfo, createServer as createNetServer, isIP, type Server as NetServer } from 'node:net'
import { createAdaptorServer } from '@hono/node-server'
import { ConfigError, UnavailableError, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'

export interface HttpServerOptions {
  readonly app: { fetch(request: Request, env?: unknown): Response | Promise<Response> }
  readonly listen: { readonly host: string; readonly port: number }
  /** Absent: plain HTTP, refused off loopback unless `insecure`. */
  readonly tls?: { readonly keyPem: string; readonly certPem: string }
  /** Serves plain HTTP off loopback, for a TLS-terminating balancer in front. */
  readonly insecure?: boolean
  readonly logger: Logger
}

export interface HttpServer {
  /** With the port that was bound, should 0 have been asked for. */
  readonly url: string
  readonly port: number
  readonly server: Server
  /** New connections get this certificate; those that are open keep theirs. Does nothing without TLS. */
  setCertificate(pem: { readonly keyPem: string; readonly certPem: string }): void
  /** Refuses new connections, ends idle ones and streams, resolves when all are closed. */
  close(): Promise<void>
}

/** Listens, or throws `ConfigError` (plain HTTP off loopback) or `UnavailableError` (port taken). */
export async function startHttpServer({ app, listen, tls, insecure, logger }: HttpServerOptions): Promise<HttpServer> {
  if (tls === undefined && !insecure && !isLoopback(listen.host)) {
    throw new ConfigError(`Off loopback the API needs TLS; ${listen.host} is not a loopback address.`, [
      { path: 'listen', message: 'needs a certificate', hint: 'listen on 127.0.0.1, or configure TLS' },
    ])
  }
  const limits = { maxHeaderSize: 16 * 1024, requestTimeout: 60_000, headersTimeout: 15_000, keepAliveTimeout: 75_000 }
  const fetch = (request: Request, env: unknown) => app.fetch(request, env)
  const server = (
    tls
      ? createAdaptorServer({
          fetch,
          createServer: createHttpsServer,
          serverOptions: { ...limits, key: tls.keyPem, cert: tls.certPem, minVersion: 'TLSv1.2' },
        })
      : createAdaptorServer({ fetch, createServer: createHttpServer, serverOptions: limits })
  ) as Server
  await listenOn(server, listen)
  server.on('error', (error) => logger.error('http server failed', { error: messageOf(error) }))
  const { port } = server.address() as AddressInfo
  const host = listen.host === '0.0.0.0' || listen.host === '::' ? 'localhost' : listen.host
  const url = `${tls ? 'https' : 'http'}://${isIP(host) === 6 ? `[${host}]` : host}:${port}`
  logger.info('api listens', { url })
  return {
    url,
    port,
    server,
    setCertificate({ keyPem, certPem }) {
      if (tls) (server as unknown as HttpsServer).setSecureContext({ key: keyPem, cert: certPem, minVersion: 'TLSv1.2' })
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/**
 * Throws `UnavailableError` when nobody can listen there now. Asked before anything is made: whoever starts a second coordinator by
 * mistake shall find no state directory and no token of it.
 */
export async function requireFreePort(listen: HttpServerOptions['listen']): Promise<void> {
  const server = createNetServer()
  await listenOn(server, listen)
  await new Promise<void>((resolve) => server.close(() => resolve()))
}

function listenOn(server: NetServer, { host, port }: HttpServerOptions['listen']): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const remedy =
        error.code === 'EADDRINUSE' ? '. Is a coordinator running there already? Choose another address with --listen' : ''
      reject(new UnavailableError(`Cannot listen on ${host}:${port}: ${messageOf(error)}${remedy}`, error))
    })
    server.listen(port, host, resolve)
  })
}

function isLoopback(host: string): boolean {
  if (host === 'localhost') return true
  const family = isIP(host)
  if (family === 0) return false
  const loopback = new BlockList()
  loopback.addSubnet('127.0.0.0', 8, 'ipv4')
  loopback.addAddress('::1', 'ipv6')
  return loopback.check(host, family === 6 ? 'ipv6' : 'ipv4')
}
