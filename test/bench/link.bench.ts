/**
 * The way of a change to an agent, and of readiness to the catalog's readers: real store file, real websockets, real HTTP and DNS on
 * loopback, a hundred links in this process. Coordinator and agents share its event loop, so the figures hold both sides' work.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createAdaptorServer } from '@hono/node-server'
import DNS from 'dns2'
import { createLink, type Link } from '../../agent/link/link.ts'
import { webSocketDialer } from '../../agent/link/websocket-dialer.ts'
import { createConsulBackend } from '../../agent/registrar/consul-backend.ts'
import { authenticateNode, mintNodeCredential } from '../../coordinator/access/node-credentials.ts'
import { createCatalog } from '../../coordinator/catalog/catalog.ts'
import { createConsulApi } from '../../coordinator/catalog/consul-api.ts'
import { startDnsServer } from '../../coordinator/catalog/dns-server.ts'
import { createHub } from '../../coordinator/hub/hub.ts'
import { attachLinkServer } from '../../coordinator/hub/websocket-server.ts'
import type { InstanceRecord } from '../../coordinator/state/objects.ts'
import { type Change, openState } from '../../coordinator/state/state.ts'
import { openSqliteStore } from '../../coordinator/state/sqlite/sqlite-store.ts'
import { sleep, systemClock } from '../../shared/clock.ts'
import { diskFiles } from '../../shared/disk-files.ts'
import { silentLogger } from '../../shared/logger.ts'
import { systemRandom } from '../../shared/random.ts'
import { anAppRecord, anInstanceRecord, aNodeRecord } from '../builders/records.ts'
import { anAppSpec, aServiceSpec } from '../builders/specs.ts'
import { aStatus } from '../builders/link-bed.ts'
import { startConsul } from '../lab/consul.ts'
import { isRootOnDebian } from '../lab/packages.ts'
import type { BenchResult } from './result.ts'
import { median, quantile } from './statistics.ts'

const LINKS = 100
const SAMPLES = 300
const CONSUL_PORT = 18_640

interface Bed {
  readonly nodes: readonly string[]
  link(node: string): Link
  commit(edit: (change: Change) => Change): Promise<void>
  /** Makes this what the node shall have; resolves with the monotonic ms at which its agent had it, and of the commit's end. */
  assign(node: string, records: readonly InstanceRecord[]): Promise<{ readonly committedMs: number; readonly receivedMs: number }>
  readonly catalogUrl: string
  resolve(name: string): Promise<readonly string[]>
}

/** Change asked for → its agent has it, while nothing else happens. */
export async function benchLink(): Promise<readonly BenchResult[]> {
  return withBed(LINKS, async (bed) => {
    const whole: number[] = []
    const afterCommit: number[] = []
    for (let sample = -20; sample < SAMPLES; sample += 1) {
      const node = bed.nodes[(sample + 20) % bed.nodes.length] as string
      await pause(10)
      const begunMs = performance.now()
      const { committedMs, receivedMs } = await bed.assign(node, [instance(node, sample + 1000)])
      if (sample < 0) continue
      whole.push(receivedMs - begunMs)
      afterCommit.push(receivedMs - committedMs)
    }
    return [
      {
        name: 'link.change_to_agent_ms_p99',
        value: quantile(whole, 0.99),
        unit: 'ms',
        better: 'lower',
        target: 50,
        peer: `${LINKS} agents, ${whole.length} changes, the commit's fsync included: p50 ${ms(median(whole))}, max ${ms(Math.max(...whole))}; after the commit p50 ${ms(median(afterCommit))}, p99 ${ms(quantile(afterCommit, 0.99))}`,
        ratio: null,
      },
    ]
  })
}

/** Agent reports an instance ready → a reader has its address, by blocking query and by DNS; next to registering in a real Consul. */
export async function benchCatalog(): Promise<readonly BenchResult[]> {
  const consul = isRootOnDebian()
    ? await startConsul(mkdtempSync(join(tmpdir(), 'rubato-bench-consul-')), '127.0.0.1', CONSUL_PORT)
    : null
  try {
    return await withBed(LINKS, async (bed) => {
      const byHttp: number[] = []
      const byDns: number[] = []
      const peer: number[] = []
      for (let sample = -10; sample < SAMPLES; sample += 1) {
        const node = bed.nodes[(sample + 10) % bed.nodes.length] as string
        const useDns = sample % 2 === 0
        const tookMs = await readiness(bed, node, sample + 1000, useDns)
        if (sample >= 0) (useDns ? byDns : byHttp).push(tookMs)
        if (consul === null || useDns) continue
        const peerMs = await consulReadiness(`http://${consul.host}:${consul.httpPort}`, consul.host, consul.httpPort, sample)
        if (sample >= 0) peer.push(peerMs)
      }
      const all = [...byHttp, ...byDns]
      const ours = `blocking query p50 ${ms(median(byHttp))}, p99 ${ms(quantile(byHttp, 0.99))}; DNS p50 ${ms(median(byDns))}, p99 ${ms(quantile(byDns, 0.99))}`
      const theirs =
        peer.length === 0
          ? 'no Consul here'
          : `Consul, register → blocking query: p50 ${ms(median(peer))}, p99 ${ms(quantile(peer, 0.99))}`
      return [
        {
          name: 'catalog.ready_to_resolvable_ms_p99',
          value: quantile(all, 0.99),
          unit: 'ms',
          better: 'lower',
          target: 200,
          peer: `${ours}; ${theirs}`,
          ratio: peer.length === 0 ? null : median(byHttp) / median(peer),
        },
      ]
    })
  } finally {
    await consul?.stop()
  }
}

async function readiness(bed: Bed, node: string, serial: number, useDns: boolean): Promise<number> {
  const record = instance(node, serial)
  await bed.assign(node, [record])
  const path = `${bed.catalogUrl}/v1/health/service/web?passing`
  const before = await query(path)
  const reader = useDns ? null : query(`${path}&index=${before.index}&wait=10s`)
  await pause(10)
  const begunMs = performance.now()
  bed.link(node).sendStatus([aStatus(record.id, { specHash: record.specHash })])
  if (reader !== null) {
    const { entries } = await reader
    if (entries.length !== 1) throw new Error(`the catalog answered ${entries.length} entries`)
  } else while ((await bed.resolve('web.service.consul')).length === 0);
  const tookMs = performance.now() - begunMs
  await bed.assign(node, [])
  bed.link(node).sendStatus([], [record.id])
  while ((await query(path)).entries.length > 0) await pause(2)
  return tookMs
}

async function consulReadiness(url: string, host: string, port: number, serial: number): Promise<number> {
  const backend = createConsulBackend({ host, port, secure: false, token: null, nodeId: 'bench' })
  const path = `${url}/v1/health/service/web?passing`
  const before = await query(path)
  const reader = query(`${path}&index=${before.index}&wait=10s`)
  await pause(10)
  const begunMs = performance.now()
  const id = `bench:web-${serial}:80`
  await backend.register({ id, name: 'web', address: '127.0.0.1', port: 80, tags: [], meta: {}, check: null })
  let { entries, index } = await reader
  while (entries.length === 0) ({ entries, index } = await query(`${path}&index=${index}&wait=10s`))
  const tookMs = performance.now() - begunMs
  await backend.deregister(id)
  while ((await query(path)).entries.length > 0) await pause(2)
  return tookMs
}

async function query(url: string): Promise<{ readonly index: number; readonly entries: readonly unknown[] }> {
  const response = await fetch(url)
  const entries = (await response.json()) as unknown[]
  return { index: Number(response.headers.get('x-consul-index')), entries }
}

async function withBed<T>(links: number, work: (bed: Bed) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), 'rubato-bench-link-'))
  const [clock, random, logger] = [systemClock(), systemRandom(), silentLogger()]
  const cleanups: (() => Promise<unknown> | unknown)[] = [() => rmSync(dir, { recursive: true, force: true })]
  try {
    const store = await openSqliteStore({ path: join(dir, 'state.db'), clock, logger })
    cleanups.push(() => store.close())
    const state = await openState(store, clock)
    const commit = async (edit: (change: Change) => Change) => {
      const outcome = await state.commit(edit(state.change()))
      if (outcome.kind !== 'committed') throw new Error(`${outcome.kind}: ${outcome.detail}`)
    }
    await commit((change) =>
      change
        .put('cluster', 'cluster', { id: 'bench', createdAtMs: 0, meshSecret: 'c2VjcmV0' })
        .put('app', 'shop', anAppRecord({ spec: anAppSpec({ services: [SERVICE] }) })),
    )
    const credentials = new Map<string, string>()
    for (let i = 1; i <= links; i += 1) {
      const id = `n-${i}`
      const { text, secretHash } = mintNodeCredential(id, null, 'c2VjcmV0', random)
      credentials.set(id, text)
      await commit((change) => change.put('node', id, aNodeRecord({ id, address: '127.0.0.1', credentialHash: secretHash })))
    }
    const hub = createHub({ state, clock, logger })
    const catalog = createCatalog({ state, observed: hub.observed, clock, logger: silentLogger(), startIndex: 1_000_000 })
    hub.start()
    catalog.start()
    cleanups.push(() => hub.stop())
    cleanups.push(() => catalog.stop())
    const linkServer = createServer()
    attachLinkServer(linkServer, {
      clock,
      authenticate: (credential) => authenticateNode(state.snapshot, credential),
      accept: (connection, nodeId) => hub.accept(connection, nodeId),
    })
    const linkPort = await listen(linkServer, cleanups)
    const consul = createConsulApi({ catalog, random, datacenter: 'dc1', version: 'bench', leader: '127.0.0.1:1' })
    const catalogServer = createAdaptorServer({ fetch: consul.fetch, createServer }) as Server
    const catalogPort = await listen(catalogServer, cleanups)
    const dns = await startDnsServer({ catalog, random, logger, datacenter: 'dc1', host: '127.0.0.1', port: 0 })
    cleanups.push(() => dns.close())
    const ask = DNS.UDPClient({ dns: '127.0.0.1', port: dns.port })

    const byNode = new Map<string, Link>()
    const waiting = new Map<string, { readonly wanted: string; done(atMs: number): void }>()
    for (const [id, credential] of credentials) {
      const record = state.snapshot.get('node', id) ?? aNodeRecord({ id })
      const link = createLink({
        dialer: webSocketDialer({ clock }),
        urls: [`http://127.0.0.1:${linkPort}`],
        credential,
        clock,
        random,
        logger,
        files: diskFiles(),
        stateDir: join(dir, id),
        identity: () => ({
          clusterId: 'bench',
          nodeId: id,
          bootId: id,
          agentVersion: '0',
          hostname: id,
          address: record.address,
          platform: record.platform,
          runtimes: [...record.runtimes],
          capacity: record.capacity,
          labels: {},
          engineLabels: {},
        }),
        inventory: () => [],
        onDesired(assignments) {
          const has = assignments.map((assignment) => assignment.instance).join()
          const waiter = waiting.get(id)
          if (waiter?.wanted !== has) return
          waiting.delete(id)
          waiter.done(performance.now())
        },
        onKeys() {},
        onRoutes() {},
        onLoads() {},
        onLogsRequest() {},
        onLeave() {},
      })
      await link.start()
      cleanups.push(() => link.stop())
      byNode.set(id, link)
    }
    while (![...byNode.values()].every((link) => link.connected())) await pause(50)
    await pause(1_000)
    const linkOf = (node: string): Link => {
      const link = byNode.get(node)
      if (!link) throw new Error(`no link of ${node}`)
      return link
    }
    return await work({
      nodes: [...byNode.keys()],
      link: linkOf,
      commit,
      async assign(node, instances) {
        const received = new Promise<number>((resolve) => {
          waiting.set(node, { wanted: instances.map((record) => record.id).join(), done: resolve })
        })
        await commit((change) => change.put('assignments', node, { nodeId: node, instances }))
        const committedMs = performance.now()
        return { committedMs, receivedMs: await received }
      },
      catalogUrl: `http://127.0.0.1:${catalogPort}`,
      resolve: async (name) => (await ask(name)).answers.flatMap((answer) => answer.address ?? []),
    })
  } finally {
    for (const clean of cleanups.reverse()) await clean()
  }
}

const SERVICE = aServiceSpec()

function instance(node: string, serial: number): InstanceRecord {
  return anInstanceRecord({ id: `shop/web/${serial}/1`, specHash: SERVICE.specHash, nodeId: node })
}

async function listen(server: Server, cleanups: (() => unknown)[]): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanups.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

function ms(value: number): string {
  return `${value.toFixed(1)} ms`
}

function pause(delayMs: number): Promise<void> {
  return sleep(systemClock(), delayMs)
}
