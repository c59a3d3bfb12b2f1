/** Two hundred agents' links over real sockets to one hub, which vanishes and comes back on the same port. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { createLink, type Link } from '../../agent/link/link.ts'
import { webSocketDialer } from '../../agent/link/websocket-dialer.ts'
import { authenticateNode, mintNodeCredential } from '../../coordinator/access/node-credentials.ts'
import { createHub, type Hub } from '../../coordinator/hub/hub.ts'
import { attachLinkServer } from '../../coordinator/hub/websocket-server.ts'
import { openState, type State } from '../../coordinator/state/state.ts'
import { systemClock } from '../../shared/clock.ts'
import { diskFiles } from '../../shared/disk-files.ts'
import { silentLogger } from '../../shared/logger.ts'
import { systemRandom } from '../../shared/random.ts'
import { aNodeRecord } from '../builders/records.ts'
import { memoryStore } from '../fakes/memory-store.ts'
import { pause, until } from '../lab/hosts.ts'

const AGENTS = 200
/** Greetings that the hub answers at a time. */
const ADMITTED = 32
const HOST = '127.88.0.27'
const PORT = 18_627

describe('two hundred agents on real sockets', () => {
  const [clock, random, logger] = [systemClock(), systemRandom(), silentLogger()]
  const dir = mkdtempSync(join(tmpdir(), 'rubato-reconnect-'))
  const links: Link[] = []
  let hub: Hub | null = null
  let close: () => Promise<void> = async () => {}

  afterAll(async () => {
    await Promise.all(links.map((link) => link.stop()))
    await hub?.stop()
    await close()
    rmSync(dir, { recursive: true, force: true })
  })

  it('row 27: lose the coordinator together, come back spread out, past its bound on greetings, and all come back', async () => {
    const state = await openState(memoryStore(), clock)
    const cluster = { id: 'c1', createdAtMs: 0, meshSecret: 'c2VjcmV0' }
    await state.commit(state.change().put('cluster', 'cluster', cluster))
    for (let number = 0; number < AGENTS; number += 1) await join_(state, `n-${number}`)
    const first = await serve(state)
    await Promise.all(links.map((link) => link.start()))
    await until(() => first.hub.stats().sessions === AGENTS, 'all to connect', 60_000)

    const fellMs = performance.now()
    await first.vanish()
    await pause(3_000)
    const dials: number[] = []
    const second = await serve(state, () => dials.push(performance.now()))
    const backMs = performance.now()
    await until(() => second.hub.stats().sessions === AGENTS, 'all to come back', 90_000)
    process.stdout.write(
      `figure: 200 agents: away ${Math.round(backMs - fellMs)} ms, all back ${Math.round(performance.now() - backMs)} ms after that, ${dials.length} dials\n`,
    )
    // Without jitter they would come at once; a busy test machine may bunch them, but not all.
    const spreadMs = (dials[Math.floor(0.9 * AGENTS)] ?? 0) - (dials[Math.floor(0.1 * AGENTS)] ?? 0)
    expect(spreadMs).toBeGreaterThan(300)
    expect(links.every((link) => link.connected())).toBe(true)
    expect([...second.hub.observed.nodes()].filter((node) => node.connected).length).toBe(AGENTS)
    await pause(1_500)
    expect(second.hub.stats().sessions, 'and they stay').toBe(AGENTS)
  })

  async function join_(state: State, id: string): Promise<void> {
    const { text, secretHash } = mintNodeCredential(id, null, 'c2VjcmV0', random)
    const record = aNodeRecord({ id, hostname: id, address: '127.0.0.1', credentialHash: secretHash })
    await state.commit(state.change().put('node', id, record))
    const { address, platform, runtimes, capacity } = record
    links.push(
      createLink({
        dialer: webSocketDialer({ clock }),
        urls: [`http://${HOST}:${PORT}`],
        credential: text,
        clock,
        random,
        logger,
        files: diskFiles(),
        stateDir: join(dir, id),
        identity: () => ({
          clusterId: 'c1',
          nodeId: id,
          bootId: id,
          agentVersion: '0',
          hostname: id,
          address,
          platform,
          runtimes: [...runtimes],
          capacity,
          labels: {},
          engineLabels: {},
        }),
        inventory: () => [],
        onDesired() {},
        onKeys() {},
        onRoutes() {},
        onLoads() {},
        onLogsRequest() {},
        onLeave() {},
      }),
    )
  }

  /** A hub behind a server; `vanish` ends both without a word to anyone, as a crash does. */
  async function serve(state: State, onDial: () => void = () => {}): Promise<{ readonly hub: Hub; vanish(): Promise<void> }> {
    const own = createHub({ state, clock, logger, settings: { maxGreeting: ADMITTED } })
    const server: Server = createServer()
    const sockets = new Set<Socket>()
    server.on('connection', (socket) => {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
    })
    server.on('upgrade', onDial)
    attachLinkServer(server, {
      clock,
      authenticate: (credential) => authenticateNode(state.snapshot, credential),
      accept: (connection, nodeId) => own.accept(connection, nodeId),
    })
    own.start()
    await new Promise<void>((resolve, reject) => {
      server.on('error', reject)
      server.listen(PORT, HOST, resolve)
    })
    hub = own
    close = async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.resetAndDestroy()
      await closed
    }
    return {
      hub: own,
      async vanish() {
        await close()
        await own.stop()
      },
    }
  }
})
