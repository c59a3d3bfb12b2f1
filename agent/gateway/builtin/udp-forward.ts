/**
 * Datagrams through the gateway, minimal: each sender gets a socket of its own towards the target, answers go back to it, and
 * it is forgotten after a minute of silence. Datagrams carry no proof of who sends them, so only public services are served.
 */
import { createSocket, type Socket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import type { Clock, Timer } from '../../../shared/clock.ts'
import { ConflictError, RetryableError } from '../../../shared/errors.ts'
import type { Connection, Listener } from './listener.ts'
import { endTrack, type Track } from './track.ts'

export interface DatagramTarget {
  readonly address: string
  readonly port: number
  readonly track: Track
}

interface Session extends Connection {
  readonly socket: Socket
  timer: Timer
}

const IDLE_MS = 60_000
/** Senders are easily forged; beyond this many, new ones are dropped. */
const MAX_SESSIONS = 1_024

/** Forwards datagrams from `address:port`. Rejects like `listen`. */
export function listenUdp(address: string, port: number, targetOf: () => DatagramTarget | null, clock: Clock): Promise<Listener> {
  return new Promise((resolve, reject) => {
    const sessions = new Map<string, Session>()
    const connections = new Set<Connection>()
    const server = createSocket({ type: isIPv6(address) ? 'udp6' : 'udp4' })
    const open = (key: string, senderPort: number, sender: string): Session | null => {
      const target = targetOf()
      if (target === null || sessions.size >= MAX_SESSIONS) return null
      const socket = createSocket({ type: isIPv6(target.address) ? 'udp6' : 'udp4' })
      target.track.inFlight += 1
      target.track.requests += 1
      const destroy = () => {
        if (!sessions.delete(key)) return
        session.timer.cancel()
        connections.delete(session)
        endTrack(target.track)
        socket.close()
      }
      const session: Session = { socket, timer: clock.setTimer(IDLE_MS, destroy), drain() {}, destroy }
      socket.on('error', destroy)
      socket.on('message', (message) => {
        target.track.txBytes += message.length
        server.send(message, senderPort, sender)
      })
      socket.connect(target.port, target.address)
      sessions.set(key, session)
      connections.add(session)
      return session
    }
    server.on('message', (message, from) => {
      const key = `${from.address} ${from.port}`
      const known = sessions.get(key)
      const session = known ?? open(key, from.port, from.address)
      if (session === null) return
      session.timer.cancel()
      session.timer = clock.setTimer(IDLE_MS, () => session.destroy())
      const send = () => session.socket.send(message, noop)
      if (known === undefined) session.socket.once('connect', send)
      else send()
    })
    const onError = (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') reject(new ConflictError(`udp port ${port} of ${address} is taken`, error))
      else reject(new RetryableError(`cannot bind udp ${address}:${port}: ${error.code ?? error.message}`, { cause: error }))
    }
    server.once('error', onError)
    server.bind({ address, port, exclusive: true }, () => {
      server.off('error', onError)
      server.on('error', noop)
      resolve({
        port,
        connections,
        close() {
          for (const session of [...sessions.values()]) session.destroy()
          server.close()
        },
      })
    })
  })
}

function noop(): void {}
