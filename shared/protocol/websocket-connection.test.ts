import { createServer, type Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import type { Connection } from './connection.ts'
import { CLOSE } from './frames.ts'
import { DEAD_AFTER_MS, PING_INTERVAL_MS, webSocketConnection } from './websocket-connection.ts'

describe('a websocket connection', () => {
  const cleanups: (() => void)[] = []
  afterEach(() => {
    for (const clean of cleanups.splice(0)) clean()
  })

  it('row 26: a peer that answers no ping is dead after 25 s, though its socket stays open', async () => {
    const clock = virtualClock()
    const { connection } = await pair(clock, { autoPong: false })
    const closed = Promise.withResolvers<number>()
    connection.onClose((code) => closed.resolve(code))
    await clock.advance(DEAD_AFTER_MS + 10_000)
    expect(await closed.promise).toBe(1006)
  })

  it('row 24: tells when the latest ping that was answered was sent, not when the answer came', async () => {
    const clock = virtualClock()
    const { connection, peer } = await pair(clock, { autoPong: false })
    const pings: Buffer[] = []
    peer.on('ping', (payload: Buffer) => pings.push(payload))
    const arrived = async (count: number) => {
      while (pings.length < count) await new Promise((resolve) => setTimeout(resolve, 5))
    }
    await clock.advance(PING_INTERVAL_MS)
    await arrived(1)
    await clock.advance(PING_INTERVAL_MS)
    await arrived(2)
    expect(connection.answeredMs()).toBeNull()
    peer.pong('nothing that was asked')
    peer.pong(pings[0])
    const answered = async () => {
      while (connection.answeredMs() === null) await new Promise((resolve) => setTimeout(resolve, 5))
      return connection.answeredMs()
    }
    expect(await answered()).toBe(PING_INTERVAL_MS)
  })

  it('row 46: a peer that stops reading is cut off when its bytes pass the cap', async () => {
    const { connection, peer } = await pair(virtualClock(), {}, 1_000_000)
    const closed = Promise.withResolvers<number>()
    connection.onClose((code) => closed.resolve(code))
    peer.pause()
    let most = 0
    const chunk = 'x'.repeat(100_000)
    // The kernel's own buffers take some megabytes before anything queues here.
    for (let sent = 0; sent < 500; sent += 1) {
      connection.send(chunk)
      most = Math.max(most, connection.bufferedBytes())
    }
    expect(await closed.promise).toBe(CLOSE.slow)
    expect(most).toBeLessThan(1_300_000)
  })

  async function pair(
    clock: ReturnType<typeof virtualClock>,
    options: { autoPong?: boolean },
    maxBufferedBytes?: number,
  ): Promise<{ connection: Connection; peer: WebSocket }> {
    const server: Server = createServer()
    const upgrader = new WebSocketServer({ server })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const accepted = new Promise<WebSocket>((resolve) => upgrader.once('connection', resolve))
    const sockets = new Set<Socket>()
    server.on('connection', (socket: Socket) => sockets.add(socket))
    const peer = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`, options)
    peer.on('error', () => undefined)
    cleanups.push(() => {
      peer.terminate()
      for (const socket of sockets) socket.destroy()
      server.close()
    })
    const socket = await accepted
    return { connection: webSocketConnection(socket, CONNECTION_OPTIONS(clock, maxBufferedBytes)), peer }
  }
})

const CONNECTION_OPTIONS = (clock: ReturnType<typeof virtualClock>, maxBufferedBytes?: number) => ({
  clock,
  ...(maxBufferedBytes === undefined ? {} : { maxBufferedBytes }),
})
