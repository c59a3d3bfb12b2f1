/** Makes listeners of each protocol with what they share: upstream connections, limits, and one sweep over all connections. */
import type { Clock, Timer } from '../../../shared/clock.ts'
import { type FrontConnection, type FrontLimits, type FrontShared, type HttpHandler, plainAddress } from './http-exchange.ts'
import { serveHttp } from './http-front.ts'
import { type Listener, listen } from './listener.ts'
import { type RelayHandler, serveTcp } from './tcp-relay.ts'
import { type DatagramTarget, listenUdp } from './udp-forward.ts'
import { createUpstreamPool } from './upstream-pool.ts'

export interface ListenerFactory {
  http(address: string, port: number, handler: HttpHandler): Promise<Listener>
  tcp(address: string, port: number, handler: RelayHandler): Promise<Listener>
  /** `target` is asked for each new sender; null drops what it sends. */
  udp(address: string, port: number, target: () => DatagramTarget | null): Promise<Listener>
  /** Ends the sweep and all upstream connections. Listeners are their makers' business. */
  stop(): void
}

const SWEEP_MS = 250
const OPENING_TIMEOUT_MS = 5_000

export function createListenerFactory(clock: Clock, limits: FrontLimits): ListenerFactory {
  const shared: FrontShared = {
    pool: createUpstreamPool(() => shared.coarseMs),
    limits,
    coarseMs: clock.monotonicMs(),
    nowMs: () => clock.monotonicMs(),
  }
  const fronts = new Set<FrontConnection>()
  const relayDeps = { clock, connectTimeoutMs: limits.connectTimeoutMs, openingTimeoutMs: OPENING_TIMEOUT_MS }
  let timer: Timer
  const sweep = () => {
    shared.coarseMs = clock.monotonicMs()
    shared.pool.sweep(shared.coarseMs)
    for (const front of fronts) front.sweep(shared.coarseMs)
    timer = clock.setTimer(SWEEP_MS, sweep)
  }
  timer = clock.setTimer(SWEEP_MS, sweep)

  return {
    http: (address, port, handler) =>
      listen(address, port, (socket, closed) => {
        const front = serveHttp(socket, handler, shared, (connection) => {
          fronts.delete(connection)
          closed(connection)
        })
        fronts.add(front)
        return front
      }),
    tcp: (address, port, handler) =>
      listen(address, port, (socket, closed) =>
        serveTcp(socket, plainAddress(socket.remoteAddress ?? ''), handler, relayDeps, closed),
      ),
    udp: (address, port, target) => listenUdp(address, port, target, clock),
    stop() {
      timer.cancel()
      shared.pool.close()
    },
  }
}
