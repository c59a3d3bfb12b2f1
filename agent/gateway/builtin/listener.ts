/** One listening TCP socket and the connections it accepted. */
import { createServer, type Socket } from 'node:net'
import { ConflictError, RetryableError } from '../../../shared/errors.ts'

export interface Connection {
  /** Ends it after what is under way. */
  drain(): void
  destroy(): void
}

/** Per listener: beyond it new connections are closed at once, so that a flood cannot take the agent's memory (I11). */
const MAX_CONNECTIONS = 10_000

export interface Listener {
  readonly port: number
  readonly connections: ReadonlySet<Connection>
  /** Accepts no more. Open connections go on. */
  close(): void
}

/**
 * Listens on `address:port`. `accept` gets each connection, and a function to call when it has closed. Rejects with ConflictError when
 * the port is taken, with RetryableError when it cannot be bound for another reason.
 */
export function listen(
  address: string,
  port: number,
  accept: (socket: Socket, closed: (connection: Connection) => void) => Connection,
): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const connections = new Set<Connection>()
    const server = createServer({ noDelay: true, keepAlive: true, allowHalfOpen: true }, (socket) => {
      const connection = accept(socket, (closed) => connections.delete(closed))
      if (!socket.destroyed) connections.add(connection)
    })
    server.maxConnections = MAX_CONNECTIONS
    const onError = (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') reject(new ConflictError(`port ${port} of ${address} is taken`, error))
      else reject(new RetryableError(`cannot listen on ${address}:${port}: ${error.code ?? error.message}`, { cause: error }))
    }
    server.once('error', onError)
    server.listen({ host: address, port, backlog: 1024, exclusive: true }, () => {
      server.off('error', onError)
      server.on('error', () => server.close()) // accept() failed for good; the next setRoutes or openIngress binds again
      resolve({ port, connections, close: () => void server.close() })
    })
  })
}
