/** The real websocket, over loopback: hub and dialer, and everything that a hostile peer may send. */
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { connect } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { createLink } from '../../agent/link/link.ts'
import { webSocketDialer } from '../../agent/link/websocket-dialer.ts'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { LINK_PATH, MAX_FRAME_BYTES } from '../../shared/protocol/frames.ts'
import { systemRandom } from '../../shared/random.ts'
import { anAppRecord, anInstanceRecord, aNodeRecord, someAssignments } from '../../test/builders/records.ts'
import { anAppSpec } from '../../test/builders/specs.ts'
import { memoryFiles } from '../../test/fakes/memory-files.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { openState, type State } from '../state/state.ts'
import { createHub, type Hub } from './hub.ts'
import { attachLinkServer, type LinkServer } from './websocket-server.ts'

let server: Server
let links: LinkServer
let hub: Hub
let state: State
let port = 0
const clock = systemClock()

beforeEach(async () => {
  state = await openState(memoryStore(), clock)
  await state.commit(
    state
      .change()
      .put('cluster', 'cluster', { id: 'c1', createdAtMs: 0, meshSecret: '' })
      .put('node', 'n-1', aNodeRecord({ id: 'n-1' }))
      .put('app', 'shop', anAppRecord({ spec: anAppSpec() }))
      .put('assignments', 'n-1', someAssignments('n-1', [anInstanceRecord({ nodeId: 'n-1' })])),
  )
  hub = createHub({ state, clock, logger: silentLogger() })
  hub.start()
  server = createServer((_, response) => response.end('plain'))
  links = attachLinkServer(server, {
    clock,
    authenticate: (credential) => (credential === 'good' ? 'n-1' : null),
    accept: (connection, nodeId) => hub.accept(connection, nodeId),
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  port = (server.address() as AddressInfo).port
})
afterEach(async () => {
  links.stop()
  await hub.stop()
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

const wire = (more: object = {}) =>
  new WebSocket(`ws://127.0.0.1:${port}${LINK_PATH}`, {
    headers: { authorization: 'Bearer good' },
    perMessageDeflate: false,
    ...more,
  })
const closeOf = (socket: WebSocket) =>
  new Promise<number>((resolve) => {
    socket.on('error', () => {})
    socket.on('close', (code) => resolve(code))
  })
const statusOf = (headers: Record<string, string>) =>
  new Promise<number>((resolve) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}${LINK_PATH}`, { headers })
    socket.on('error', () => {})
    socket.on('unexpected-response', (request, response) => {
      resolve(response.statusCode ?? 0)
      request.destroy()
    })
    socket.on('open', () => resolve(101))
  })

describe('websocket link', () => {
  it('carries the whole link: hello, sets, acknowledgement', async () => {
    const sets: number[] = []
    const link = createLink({
      dialer: webSocketDialer({ clock }),
      urls: [`http://127.0.0.1:${port}`],
      credential: 'good',
      clock,
      random: systemRandom(),
      logger: silentLogger(),
      files: memoryFiles(),
      stateDir: '/s',
      identity: () => ({
        clusterId: 'c1',
        nodeId: 'n-1',
        bootId: 'b',
        agentVersion: '1',
        hostname: 'h',
        address: '127.0.0.1',
        platform: 'linux/amd64',
        runtimes: ['process'],
        capacity: { cpuMillis: 1, memoryBytes: 1, diskBytes: 1, slots: 1 },
        labels: {},
        engineLabels: {},
      }),
      inventory: () => [],
      onDesired: (set) => void sets.push(set.length),
      onKeys() {},
      onRoutes() {},
      onLoads() {},
      onLogsRequest() {},
      onLeave() {},
    })
    await link.start()
    await expect.poll(() => hub.observed.node('n-1')?.appliedDesiredRevision, { timeout: 5000 }).toBe(1)
    expect(sets).toEqual([1])
    await expect.poll(() => state.snapshot.get('node', 'n-1')?.address, { timeout: 5000 }).toBe('127.0.0.1')
    await link.stop()
    await expect.poll(() => hub.stats().sessions, { timeout: 5000 }).toBe(0)
  })

  it('§3: a bad or missing credential gets 401, anything with an Origin 403, before the upgrade', async () => {
    expect(await statusOf({})).toBe(401)
    expect(await statusOf({ authorization: 'Bearer bad' })).toBe(401)
    expect(await statusOf({ authorization: `Bearer ${'x'.repeat(2000)}` })).toBe(401)
    expect(await statusOf({ authorization: 'Bearer good', origin: 'http://evil.example' })).toBe(403)
    expect(links.refused).toEqual({ 401: 3, 403: 1 })
    const outcome = await webSocketDialer({ clock }).dial(`http://127.0.0.1:${port}`, 'bad', new AbortController().signal)
    expect(outcome).toMatchObject({ kind: 'rejected', status: 401 })
    const nobody = await webSocketDialer({ clock }).dial('http://127.0.0.1:1', 'bad', new AbortController().signal)
    expect(nobody.kind).toBe('failed')
  })

  it('§3: binary is 1003, bad UTF-8 1007, bad JSON 4400', async () => {
    const send = (data: Buffer | string, options: { binary: boolean }) => {
      const socket = wire({ skipUTF8Validation: true })
      socket.on('open', () => socket.send(data, options))
      return closeOf(socket)
    }
    expect(await send(Buffer.from('{}'), { binary: true })).toBe(1003)
    expect(await send(Buffer.from([0x7b, 0xff, 0xfe]), { binary: false })).toBe(1007)
    expect(await send('{"type":', { binary: false })).toBe(4400)
    expect(await send('[1,2]', { binary: false })).toBe(4400)
    expect(await send('{"type":"report","node":null,"instances":[],"full":true}', { binary: false })).toBe(4400)
  })

  it('§3: a frame above 1 MiB and a flood of fragments are closed 1009 or 1008', async () => {
    const large = wire()
    large.on('open', () => large.send('x'.repeat(MAX_FRAME_BYTES + 1)))
    expect(await closeOf(large)).toBe(1009)
    const flood = wire()
    flood.on('open', () => {
      for (let index = 0; index < 2000; index += 1) flood.send('', { fin: false })
    })
    expect([1008, 1009]).toContain(await closeOf(flood))
    expect(hub.stats().sessions).toBe(0)
  })

  it('survives a peer that resets in the middle of the upgrade', async () => {
    const socket = connect(port, '127.0.0.1')
    await new Promise((resolve) => socket.once('connect', resolve))
    socket.write(
      `GET ${LINK_PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nAuthorization: Bearer good\r\n\r\n`,
    )
    socket.resetAndDestroy()
    expect(await statusOf({ authorization: 'Bearer good' })).toBe(101)
  })
})
