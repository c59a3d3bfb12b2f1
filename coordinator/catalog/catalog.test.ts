import { Resolver } from 'node:dns/promises'
import { createServer } from 'node:net'
import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import { seededRandom } from '../../shared/random.ts'
import { aNodeObservation, anInstanceObservation, testObserved } from '../../test/builders/observed.ts'
import { aNodeRecord, anAppRecord, anInstanceRecord, someAssignments, T0 } from '../../test/builders/records.ts'
import { aContainerSpec, anAppSpec, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openState } from '../state/state.ts'
import { createCatalog } from './catalog.ts'
import { createConsulApi } from './consul-api.ts'
import { addressName, parseDnsName } from './dns-names.ts'
import { startDnsServer } from './dns-server.ts'

const ID = 'shop/web/1/1'

async function bed(labels: Record<string, string> = {}) {
  const clock = virtualClock(T0)
  const state = await openState(memoryStore(), clock)
  const observed = testObserved()
  const unit = aUnitSpec({
    containers: [aContainerSpec({ name: 'web', labels })],
    ports: [{ containerPort: 80, protocol: 'http' }],
  })
  const node = aNodeRecord({ id: 'node-a', hostname: 'h1', address: '10.0.0.7' })
  const spec = anAppSpec({ name: 'shop', services: [aServiceSpec({ name: 'web', unit })] })
  const put = state
    .change()
    .put('node', 'node-a', node)
    .put('app', 'shop', anAppRecord({ name: 'shop', spec }))
  await state.commit(
    put.put('assignments', 'node-a', someAssignments('node-a', [anInstanceRecord({ id: ID, nodeId: 'node-a' })])),
  )
  const catalog = createCatalog({ state, observed, clock, logger: silentLogger(), startIndex: 1000 })
  catalog.start()
  const report = (phase: 'ready' | 'draining' | 'starting', healthy = true) => {
    observed.setNode(aNodeObservation({ nodeId: 'node-a', liveness: 'live' }))
    observed.setInstance(
      anInstanceObservation({
        instance: ID,
        nodeId: 'node-a',
        phase,
        healthy,
        ports: [{ containerPort: 80, protocol: 'http', gatewayPort: 20001 }],
      }),
    )
  }
  const api = createConsulApi({ catalog, random: seededRandom(1), datacenter: 'dc1', version: '0.1.0', leader: '127.0.0.1:7600' })
  return { clock, state, observed, catalog, report, api }
}

describe('embedded catalog (V1)', () => {
  it('lists an instance once it is ready, and drops it as soon as it drains', async () => {
    const { catalog, report } = await bed()
    report('starting')
    expect(catalog.service('web')).toEqual([])
    report('ready')
    expect(catalog.service('web')).toMatchObject([
      { address: '10.0.0.7', port: 20001, status: 'passing', tags: ['shop'], instance: ID },
    ])
    report('draining')
    expect(catalog.service('web')).toEqual([])
  })
  it('shows an unhealthy instance as critical', async () => {
    const { catalog, report } = await bed()
    report('ready', false)
    expect(catalog.service('web')).toMatchObject([{ status: 'critical' }])
  })
  it('names it by its labels', async () => {
    const { catalog, report } = await bed({ 'rubato.service': 'front', 'rubato.tags': 'blue' })
    report('ready')
    expect(catalog.service('front')).toMatchObject([{ tags: ['shop', 'blue'] }])
  })
  it('raises the index with every change and with nothing else', async () => {
    const { catalog, report } = await bed()
    report('ready')
    const first = catalog.index
    report('ready')
    expect(catalog.index).toBe(first)
    report('draining')
    expect(catalog.index).toBeGreaterThan(first)
  })
  it('answers a blocking query when the service changes, not before', async () => {
    const { catalog, report, api, clock } = await bed()
    report('ready')
    const index = catalog.indexOf('web')
    let done = false
    const pending = Promise.resolve(api.request(`/v1/health/service/web?passing=true&index=${index}&wait=60s`)).then(
      (response) => {
        done = true
        return response
      },
    )
    await clock.advance(1000)
    expect(done).toBe(false)
    report('draining')
    const response = await pending
    expect(await response.json()).toEqual([])
    expect(Number(response.headers.get('x-consul-index'))).toBeGreaterThan(index)
  })
  it('ends a blocking query after its wait', async () => {
    const { catalog, report, api, clock } = await bed()
    report('ready')
    const pending = api.request(`/v1/catalog/services?index=${catalog.index}&wait=10s`)
    await clock.advance(11_000)
    expect(await (await pending).json()).toEqual({ web: ['shop'] })
  })
  it('does not block on an index from another life of the coordinator', async () => {
    const { report, api } = await bed()
    report('ready')
    expect((await api.request('/v1/catalog/services?index=999999999')).status).toBe(200)
  })
  it('refuses what it would have to ignore', async () => {
    const { api } = await bed()
    expect((await api.request('/v1/catalog/services?filter=x')).status).toBe(400)
    expect((await api.request('/v1/catalog/services?index=abc')).status).toBe(400)
    expect((await api.request('/v1/catalog/services?node-meta=a:b')).status).toBe(400)
    expect((await api.request('/v1/catalog/services?dc=other')).status).toBe(500)
    expect((await api.request('/v1/kv/x')).status).toBe(404)
    const write = await api.request('/v1/kv/x', { method: 'PUT' })
    expect([write.status, write.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
  })
  it('accepts what only orders or speeds up answers, and HEAD', async () => {
    const { report, api } = await bed()
    report('ready')
    const query = '/v1/health/service/web?near=_agent&stale&cached&dc=dc1'
    expect(await (await api.request(query)).json()).toHaveLength(1)
    const head = await api.request(query, { method: 'HEAD' })
    expect([head.status, await head.text()]).toEqual([200, ''])
    expect(head.headers.get('X-Consul-Index')).not.toBeNull()
  })
  it('holds a bounded number of blocking queries', async () => {
    const { state, observed, clock } = await bed()
    const catalog = createCatalog({ state, observed, clock, logger: silentLogger(), startIndex: 1, maxWaiters: 2 })
    const api = createConsulApi({ catalog, random: seededRandom(1), datacenter: 'dc1', version: '0', leader: 'x' })
    const ask = () => api.request(`/v1/catalog/services?index=${catalog.index}&wait=10s`)
    const held = [ask(), ask()]
    await clock.advance(10)
    const refused = await ask()
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '5'])
    await clock.advance(11_000)
    for (const response of await Promise.all(held)) expect(response.status).toBe(200)
    expect(catalog.wait('web', catalog.index, 10, new AbortController().signal)).not.toBeNull()
  })
  it('names that are gone keep their index, and are forgotten before they fill the memory', async () => {
    const { catalog, observed } = await bed()
    const indexes: number[] = []
    for (let batch = 0; batch < 3; batch += 1) {
      const foreign = Array.from({ length: 6_000 }, (_, at) => ({
        id: `h:${batch}-${at}`,
        name: `name-${batch}-${at}`,
        address: '10.0.0.7',
        port: 1,
        tags: [],
        meta: {},
        passing: true,
      }))
      observed.setNode(aNodeObservation({ nodeId: 'node-a', liveness: 'live', foreign }))
      indexes.push(catalog.indexOf('name-0-0'))
    }
    expect(indexes).toEqual([...indexes].sort((a, b) => a - b))
    expect(catalog.services().size).toBe(6_000)
    expect(catalog.services()).toBe(catalog.services())
  })
})

describe('DNS names', () => {
  it('reads Consul forms and ours', () => {
    expect(parseDnsName('web.service.consul.', 'dc1')).toEqual({ kind: 'service', service: 'web', tag: null })
    expect(parseDnsName('Blue.Web.service.dc1.consul', 'dc1')).toEqual({ kind: 'service', service: 'web', tag: 'blue' })
    expect(parseDnsName('_web._tcp.service.consul', 'dc1')).toEqual({ kind: 'service', service: 'web', tag: null })
    expect(parseDnsName('web.shop.rubato', 'dc1')).toEqual({ kind: 'service', service: 'web', tag: 'shop' })
    expect(parseDnsName(addressName('10.0.0.7', 'dc1'), 'dc1')).toEqual({ kind: 'address', address: '10.0.0.7' })
    expect(parseDnsName('example.org', 'dc1')).toEqual({ kind: 'foreign' })
    expect(parseDnsName('consul', 'dc1')).toEqual({ kind: 'unknown' })
  })
  it('answers A and SRV over UDP and TCP, NXDOMAIN for the unknown', async () => {
    const { catalog, report } = await bed()
    report('ready')
    const port = await freePort()
    const server = await startDnsServer({
      catalog,
      random: seededRandom(1),
      logger: silentLogger(),
      datacenter: 'dc1',
      host: '127.0.0.1',
      port,
    })
    try {
      const resolver = new Resolver()
      resolver.setServers([`127.0.0.1:${port}`])
      expect(await resolver.resolve4('web.service.consul')).toEqual(['10.0.0.7'])
      expect(await resolver.resolve4('web.shop.rubato')).toEqual(['10.0.0.7'])
      const [srv] = await resolver.resolveSrv('_web._tcp.service.consul')
      expect(srv).toMatchObject({ port: 20001, name: '0a000007.addr.dc1.consul' })
      expect(await resolver.resolve4(srv?.name ?? '')).toEqual(['10.0.0.7'])
      await expect(resolver.resolve4('nothing.service.consul')).rejects.toMatchObject({ code: 'ENOTFOUND' })
    } finally {
      await server.close()
    }
  })
})

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => (address !== null && typeof address === 'object' ? resolve(address.port) : reject(new Error('no port'))))
    })
  })
}
