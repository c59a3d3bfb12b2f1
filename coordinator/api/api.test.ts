/** What each part of the API answers, over a store in memory. */
import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { type ApiBed, apiBed } from '../../test/builders/api-bed.ts'
import { aNodeObservation, anInstanceObservation, anInstanceUse } from '../../test/builders/observed.ts'
import {
  aMachineRecord,
  aNodeRecord,
  anInstanceRecord,
  aPool,
  aServiceRecord,
  someAssignments,
} from '../../test/builders/records.ts'
import { anAppSpec, aPlacement, aScale, aServiceSpec } from '../../test/builders/specs.ts'
import { ROUTE_ROLES } from './roles.ts'
import type { AppView, InstanceView, StatusView } from './schemas.ts'

async function getJson<T>(bed: ApiBed, path: string): Promise<T> {
  const response = await bed.send('GET', path)
  expect(response.status, path).toBe(200)
  return (await response.json()) as T
}

async function oneInstance(bed: ApiBed): Promise<void> {
  await bed.seedApp(anAppSpec())
  await bed.state.commit(
    bed.state
      .change()
      .put('node', 'n-1', aNodeRecord())
      .put('assignments', 'n-1', someAssignments('n-1', [anInstanceRecord({ nodeId: 'n-1' })])),
  )
  bed.observed.setNode(aNodeObservation())
  bed.observed.setInstance(anInstanceObservation({ use: anInstanceUse({ loadPercent: 50 }) }))
}

/** Text of a stream until it holds `wanted`. */
async function readUntil(reader: ReadableStreamDefaultReader<Uint8Array>, wanted: string): Promise<string> {
  const decoder = new TextDecoder()
  let text = ''
  while (!text.includes(wanted)) {
    const { done, value } = await reader.read()
    if (done) throw new Error(`the stream ended with ${JSON.stringify(text)}`)
    text += decoder.decode(value)
  }
  return text
}

describe('a stored app that this host cannot read', () => {
  it('is shown, and hides no other', async () => {
    const bed = await apiBed()
    const zone = { at: '0 3 * * *', timeZone: 'PST' }
    const job = { completions: 1, parallelism: 1, retries: 0, deadlineMs: null, cron: { ...zone, overlap: 'skip' as const } }
    const scale = aScale({ schedules: [{ ...zone, min: 1, max: 4 }] })
    await bed.seedApp(
      anAppSpec({ name: 'bad', services: [aServiceSpec({ name: 'j', job }), aServiceSpec({ name: 's', scale })] }),
    )
    await bed.seedApp(anAppSpec())
    const record = aServiceRecord({ id: 'bad/j', job: { runs: [], decidedAtMs: 1, schedule: '' } })
    await bed.state.commit(bed.state.change().put('service', 'bad/j', record))
    for (const path of [
      '/v1/status',
      '/v1/apps',
      '/v1/apps/bad',
      '/v1/services',
      '/v1/services/bad/j',
      '/v1/services/bad/s/explain',
    ])
      await getJson(bed, path)
    expect((await bed.send('GET', '/metrics')).status).toBe(200)
    expect((await getJson<{ items: readonly AppView[] }>(bed, '/v1/apps')).items.map(({ name }) => name)).toEqual(['bad', 'shop'])
  })
})

describe('roles', () => {
  it('every route has a role in the role table, and every row of the table is a route', async () => {
    const bed = await apiBed()
    const routes = bed.api.routes
      .filter(({ method }) => method !== 'ALL')
      .map(({ method, path }) => `${method} ${path.replaceAll(/:([a-z]+)/g, '{$1}')}`)
    expect([...new Set(routes)].sort()).toEqual(Object.keys(ROUTE_ROLES).sort())
  })

  it('every route that is not public refuses a request without a credential', async () => {
    const bed = await apiBed({ settings: { failureBurst: 1000 } })
    for (const [route, role] of Object.entries(ROUTE_ROLES)) {
      const [method = '', path = ''] = route.split(' ')
      const response = await bed.send(method, path.replaceAll(/\{.+?\}/g, 'x'), { as: null })
      if (role === 'public') expect(response.status, route).not.toBe(401)
      else expect(response.status, route).toBe(401)
    }
  })

  it('every route is described in the OpenAPI document', async () => {
    const bed = await apiBed()
    const api = await getJson<{ openapi: string; paths: Record<string, Record<string, unknown>> }>(bed, '/openapi.json')
    expect(api.openapi).toBe('3.1.0')
    const described = Object.entries(api.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    )
    expect(described.sort()).toEqual(Object.keys(ROUTE_ROLES).sort())
  })

  it('docs/api.md names every route with its role', async () => {
    const text = await readFile(new URL('../../docs/api.md', import.meta.url), 'utf8')
    for (const [route, role] of Object.entries(ROUTE_ROLES)) expect(text).toContain(`| \`${route}\` | ${role} |`)
  })
})

describe('apps', () => {
  it('a deploy leaves its actor in the audit trail', async () => {
    const bed = await apiBed()
    const response = await bed.send('POST', '/v1/apps', { as: 'operator', body: { spec: anAppSpec(), source: 'x' } })
    expect(response.status).toBe(202)
    expect(await response.json()).toEqual({ name: 'shop', revision: 1, changed: true })
    const { items } = await getJson<{ items: { actor: string; type: string }[] }>(bed, '/v1/events?type=app.deployed')
    expect(items).toMatchObject([{ actor: 'operator:operator', type: 'app.deployed' }])
  })

  it('ifRevision guards against somebody else’s deploy', async () => {
    const bed = await apiBed()
    const deploy = (ifRevision: number) => bed.send('POST', '/v1/apps', { body: { spec: anAppSpec(), ifRevision } })
    expect((await deploy(0)).status).toBe(202)
    expect((await deploy(0)).status).toBe(409)
    expect((await deploy(1)).status).toBe(202)
  })

  it('the name in the path and the one in the spec must agree', async () => {
    const bed = await apiBed()
    expect((await bed.send('PUT', '/v1/apps/other', { body: { spec: anAppSpec() } })).status).toBe(422)
  })

  it('?dryRun=true changes nothing', async () => {
    const bed = await apiBed()
    const revision = bed.state.snapshot.revision
    const response = await bed.send('POST', '/v1/apps?dryRun=true', { body: { spec: anAppSpec() } })
    expect(await response.json()).toMatchObject({ changes: ['add service web'] })
    await bed.send('PUT', '/v1/pools/p?dryRun=true', {
      body: { provider: 'x', max: 1, capacity: { cpuMillis: 1, memoryBytes: 1 }, priceUsdPerHour: 0.1 },
    })
    expect(bed.state.snapshot.revision).toBe(revision)
  })

  it('operators deploy up to their highest priority, administrators above it, and what is there stays', async () => {
    const bed = await apiBed()
    const deploy = (as: 'operator' | 'admin', priority: number, query = '') =>
      bed.send('POST', `/v1/apps${query}`, {
        as,
        body: { spec: anAppSpec({ services: [aServiceSpec({ placement: aPlacement({ priority }) })] }) },
      })
    expect((await deploy('operator', 90)).status).toBe(202)
    const refused = await deploy('operator', 91)
    expect(refused.status).toBe(403)
    expect(await refused.json()).toMatchObject({ errors: [{ pointer: '/spec/services/0/placement/priority' }] })
    expect((await deploy('operator', 91, '?dryRun=true')).status).toBe(403)
    expect((await deploy('admin', 95)).status).toBe(202)
    expect((await deploy('operator', 95)).status).toBeLessThan(300)
    expect((await deploy('operator', 96)).status).toBe(403)
  })

  it('a pool has a price: given, or that of its offering; only static pools need none', async () => {
    const bed = await apiBed()
    const put = (name: string, fields: object) =>
      bed.send('PUT', `/v1/pools/${name}`, { body: { max: 1000, capacity: { cpuMillis: 1000, memoryBytes: 1e9 }, ...fields } })
    const refused = await put('free', { provider: 'x' })
    expect(refused.status).toBe(422)
    expect(await refused.json()).toMatchObject({ errors: [{ pointer: '/priceUsdPerHour' }] })
    expect(bed.state.snapshot.get('pool', 'free')).toBeUndefined()
    for (const [name, fields, price] of [
      ['given', { provider: 'x', priceUsdPerHour: 0 }, 0],
      ['offered', { provider: 'lab', offering: 'small' }, 0.02],
      ['static', { provider: 'x', static: true }, 0],
    ] as const) {
      expect((await put(name, fields)).status, name).toBe(201)
      expect(bed.state.snapshot.get('pool', name)?.priceUsdPerHour, name).toBe(price)
    }
  })

  it('shows the source to operators only', async () => {
    const bed = await apiBed()
    await bed.send('POST', '/v1/apps', { body: { spec: anAppSpec(), source: 'PASSWORD: x' } })
    expect(await (await bed.send('GET', '/v1/apps/shop', { as: 'viewer' })).text()).not.toContain('PASSWORD')
    expect(await (await bed.send('GET', '/v1/apps/shop', { as: 'operator' })).text()).toContain('PASSWORD')
  })

  it('state goes from progressing to ready', async () => {
    const bed = await apiBed()
    await bed.seedApp(anAppSpec())
    expect((await getJson<AppView>(bed, '/v1/apps/shop')).state).toBe('progressing')
    await oneInstance(bed)
    expect((await getJson<AppView>(bed, '/v1/apps/shop')).state).toBe('ready')
  })
})

describe('instances', () => {
  it('are named in a path by their container’s name or with encoded slashes', async () => {
    const bed = await apiBed()
    await oneInstance(bed)
    for (const name of ['shop.web.1.1', 'shop%2Fweb%2F1%2F1']) {
      const instance = await getJson<InstanceView>(bed, `/v1/instances/${name}`)
      expect(instance).toMatchObject({ id: 'shop/web/1/1', routable: true, loadPercent: 50, node: 'n-1' })
    }
    expect((await bed.send('GET', '/v1/instances/shop.web.1')).status).toBe(404)
  })

  it('are lost in the eyes of the API when their node is, whatever was last reported', async () => {
    const bed = await apiBed()
    await oneInstance(bed)
    bed.observed.setNode(aNodeObservation({ liveness: 'lost' }))
    expect((await getJson<{ items: InstanceView[] }>(bed, '/v1/instances?phase=lost')).items).toHaveLength(1)
    expect((await getJson<{ items: InstanceView[] }>(bed, '/v1/instances?phase=ready')).items).toHaveLength(0)
  })

  it('lists are paged without loss or repetition', async () => {
    const bed = await apiBed()
    const pending = Array.from({ length: 25 }, (_, index) => anInstanceRecord({ id: `shop/web/${index + 1}/1` }))
    await bed.seedApp(anAppSpec())
    await bed.state.commit(bed.state.change().put('service', 'shop/web', aServiceRecord({ pending })))
    const seen: string[] = []
    let after = ''
    for (let pages = 0; pages < 10; pages += 1) {
      const found = await getJson<{ items: InstanceView[]; next: string | null }>(bed, `/v1/instances?limit=10${after}`)
      seen.push(...found.items.map(({ id }) => id))
      if (found.next === null) break
      after = `&after=${encodeURIComponent(found.next)}`
    }
    expect(seen).toHaveLength(25)
    expect(new Set(seen).size).toBe(25)
  })

  it('logs come as one JSON object per line; a failure on the way is the last line', async () => {
    const bed = await apiBed()
    await oneInstance(bed)
    bed.logLines.push({ atMs: 1, stream: 'stdout', text: 'a' }, { atMs: 2, stream: 'stderr', text: 'b' })
    const text = await (await bed.send('GET', '/v1/instances/shop.web.1.1/logs?tail=1')).text()
    expect(text).toBe('{"atMs":2,"stream":"stderr","text":"b"}\n')
    bed.observed.setNode(aNodeObservation({ connected: false }))
    expect((await bed.send('GET', '/v1/instances/shop.web.1.1/logs')).status).toBe(503)

    const failing = await apiBed({
      hub: {
        // biome-ignore lint/correctness/useYield: it fails before the first line
        async *logs() {
          throw new Error('the agent left')
        },
        keysProgress: () => ({ revision: 1, waitingFor: [] }),
      },
    })
    await oneInstance(failing)
    expect(await (await failing.send('GET', '/v1/instances/shop.web.1.1/logs')).text()).toBe('{"error":"the agent left"}\n')
  })

  it('row 46: a reader of logs who leaves ends the stream at its source', async () => {
    let ended = false
    const bed = await apiBed({
      hub: {
        async *logs() {
          try {
            for (;;) yield { atMs: 1, stream: 'stdout' as const, text: 'x'.repeat(1000) }
          } finally {
            ended = true
          }
        },
        keysProgress: () => ({ revision: 1, waitingFor: [] }),
      },
    })
    await oneInstance(bed)
    const response = await bed.send('GET', '/v1/instances/shop.web.1.1/logs?follow')
    const reader = response.body?.getReader()
    await reader?.read()
    await reader?.cancel()
    expect(ended).toBe(true)
  })
})

describe('events', () => {
  it('stream with heartbeats, and resume after Last-Event-ID without loss or repetition', async () => {
    const bed = await apiBed()
    const first = await bed.send('GET', '/v1/events', { headers: { accept: 'text/event-stream' } })
    expect(first.headers.get('content-type')).toBe('text/event-stream')
    const reader = first.body?.getReader()
    if (!reader) throw new Error('no stream')
    await readUntil(reader, 'connected')
    await bed.send('POST', '/v1/keys', { body: { name: 'one' } })
    const text = await readUntil(reader, 'key.created')
    const id = /id: (\d+)/.exec(text)?.[1] ?? ''
    const heartbeat = readUntil(reader, 'heartbeat')
    await bed.clock.advance(20_000)
    expect(await heartbeat).toContain(': heartbeat')
    await reader.cancel()
    expect(bed.clock.pendingTimers).toBe(0)

    await bed.send('POST', '/v1/keys', { body: { name: 'two' } })
    await bed.send('POST', '/v1/keys', { body: { name: 'three' } })
    const second = await bed.send('GET', '/v1/events?follow', { headers: { 'last-event-id': id } })
    const again = second.body?.getReader()
    if (!again) throw new Error('no stream')
    const resumed = await readUntil(again, 'three')
    expect(resumed).not.toContain('Key one')
    expect(resumed).toContain('Key two')
    await again.cancel()
  })

  it('a stream ends with the token that opened it, and tells nothing of what came after', async () => {
    const bed = await apiBed()
    const stream = await bed.send('GET', '/v1/events?follow', { as: 'viewer' })
    const reader = stream.body?.getReader()
    if (!reader) throw new Error('no stream')
    await readUntil(reader, 'connected')
    const rest = readUntil(reader, 'key.created').catch((error: Error) => error.message)
    expect((await bed.send('DELETE', '/v1/tokens/operator/viewer')).status).toBe(204)
    await bed.send('POST', '/v1/keys', { body: { name: 'later' } })
    await bed.clock.advance(20_000)
    expect(await rest).toMatch(/^the stream ended/)
    expect(bed.clock.pendingTimers).toBe(0)
  })

  it('a followed log ends with the token that opened it', async () => {
    let more = Promise.withResolvers<void>()
    const bed = await apiBed({
      hub: {
        async *logs() {
          for (let i = 0; ; i += 1) {
            yield { atMs: i, stream: 'stdout', text: `line ${i}` }
            await more.promise
            more = Promise.withResolvers<void>()
          }
        },
        keysProgress: () => ({ revision: 1, waitingFor: [] }),
      },
    })
    await oneInstance(bed)
    const reader = (await bed.send('GET', '/v1/instances/shop.web.1.1/logs?follow', { as: 'viewer' })).body?.getReader()
    if (!reader) throw new Error('no stream')
    await readUntil(reader, 'line 0')
    await bed.send('DELETE', '/v1/tokens/operator/viewer')
    more.resolve()
    await expect(readUntil(reader, 'line 1')).rejects.toThrow('the stream ended with ""')
  })

  it('a reader that never reads holds nothing but its position', async () => {
    const bed = await apiBed()
    const slow = await bed.send('GET', '/v1/events?follow')
    for (let i = 0; i < 300; i += 1) {
      await bed.state.commit(
        bed.state.change().event({ actor: 't', type: 'x.y', subject: 's', message: `m${i}`, severity: 'info' }),
      )
    }
    const reader = slow.body?.getReader()
    if (!reader) throw new Error('no stream')
    const text = await readUntil(reader, '"m299"')
    expect(text.match(/^id: /gm)).toHaveLength(300)
    await reader.cancel()
  })

  it('a filtered stream passes over what it does not want', async () => {
    const bed = await apiBed()
    const stream = await bed.send('GET', '/v1/events?follow&type=key.revoked')
    const reader = stream.body?.getReader()
    if (!reader) throw new Error('no stream')
    await bed.send('POST', '/v1/keys', { body: { name: 'one' } })
    await bed.send('DELETE', '/v1/keys/one')
    const text = await readUntil(reader, 'key.revoked')
    expect(text).not.toContain('key.created')
    await reader.cancel()
  })
})

describe('fleet', () => {
  it('an app is moved to other pools; pools that do not exist are named', async () => {
    const bed = await apiBed()
    await bed.seedApp(anAppSpec({ services: [aServiceSpec(), aServiceSpec({ name: 'each', mode: 'global' })] }))
    await bed.state.commit(bed.state.change().put('pool', 'large', aPool({ name: 'large' })))
    const migrate = (to: string[], path = '/v1/apps/shop/migrate') => bed.send('POST', path, { as: 'operator', body: { to } })
    expect((await migrate(['nowhere'])).status).toBe(404)
    expect((await migrate([])).status).toBe(422)
    const dry = (await (await migrate(['large'], '/v1/apps/shop/migrate?dryRun=true')).json()) as { changed: boolean }
    expect(dry.changed).toBe(false)
    expect((await migrate(['large'])).status).toBe(202)
    for (const service of bed.state.snapshot.get('app', 'shop')?.spec.services ?? [])
      expect(service.placement.pools).toEqual(service.mode === 'global' ? [] : ['large'])
  })

  it('a node is drained by id or host name, with the operator as its author', async () => {
    const bed = await apiBed()
    await bed.state.commit(bed.state.change().put('node', 'n-1', aNodeRecord({ hostname: 'alpha' })))
    expect((await bed.send('POST', '/v1/nodes/alpha/drain', { as: 'operator', body: { deadline: '90s' } })).status).toBe(202)
    expect(bed.state.snapshot.get('node', 'n-1')).toMatchObject({ availability: 'draining', drain: { by: 'operator:operator' } })
    expect((await bed.send('POST', '/v1/nodes/alpha/drain', { body: { deadline: 'soon' } })).status).toBe(422)
  })

  it('a pool with machines is not removed', async () => {
    const bed = await apiBed()
    await bed.state.commit(bed.state.change().put('pool', 'small', aPool()).put('machine', 'm-1', aMachineRecord()))
    expect((await bed.send('DELETE', '/v1/pools/small')).status).toBe(409)
    await bed.state.commit(bed.state.change().put('machine', 'm-1', aMachineRecord({ phase: 'gone' })))
    expect((await bed.send('DELETE', '/v1/pools/small')).status).toBe(204)
  })
})

describe('keys', () => {
  it('row 39: revoke with wait tells which live nodes have not applied it', async () => {
    const bed = await apiBed()
    await bed.send('POST', '/v1/keys', { body: { name: 'ci' } })
    bed.keysWaitingFor.push('n-7')
    const waiting = bed.send('DELETE', '/v1/keys/ci?wait&timeoutMs=1000')
    await bed.clock.advance(2000)
    expect(await (await waiting).json()).toMatchObject({ applied: { everywhere: false, waitingFor: ['n-7'] } })
    const again = bed.send('DELETE', '/v1/keys/ci?wait=true')
    await bed.clock.advance(500)
    bed.keysWaitingFor.pop()
    await bed.clock.advance(500)
    expect(await (await again).json()).toMatchObject({ applied: { everywhere: true } })
  })

  it('I12: no secret and no hash of one is in any list', async () => {
    const bed = await apiBed()
    const made = (await (await bed.send('POST', '/v1/keys', { body: { name: 'ci' } })).json()) as { text: string }
    const secret = made.text.split('_')[2] ?? ''
    const hash = [...bed.state.snapshot.all('key').values()][0]?.secretHash ?? ''
    for (const path of ['/v1/keys', '/v1/tokens/operator', '/v1/events', '/v1/status']) {
      const text = await (await bed.send('GET', path)).text()
      expect(text).not.toContain(secret)
      expect(text).not.toContain(hash)
    }
  })
})

describe('system', () => {
  it('status counts what there is', async () => {
    const bed = await apiBed()
    await oneInstance(bed)
    bed.observed.setFrozen({ reason: 'too many silent nodes', untilMs: 5 })
    const status = await getJson<StatusView>(bed, '/v1/status')
    expect(status.counts).toMatchObject({ apps: 1, nodes: 1, liveNodes: 1, instances: 1, ready: 1, pending: 0 })
    expect(status.frozen?.reason).toBe('too many silent nodes')
    expect(status.operator).toEqual({ name: 'admin', role: 'admin' })
  })

  it('metrics are read from state at the scrape', async () => {
    const bed = await apiBed()
    await oneInstance(bed)
    const text = await (await bed.send('GET', '/metrics')).text()
    expect(text).toContain('rubato_nodes{liveness="live"} 1')
    expect(text).toContain('rubato_instances{phase="ready"} 1')
    expect(text).toContain('rubato_spent_usd_this_month 1.25')
    expect(text).toMatch(/rubato_commits_total [1-9]/)
  })

  it('serves health, installer, agent and its own description without a credential', async () => {
    const bed = await apiBed()
    const get = (path: string) => bed.send('GET', path, { as: null })
    expect(await (await get('/healthz')).text()).toBe('ok\n')
    expect(await (await get('/install.sh')).text()).toBe('#!/bin/sh\n')
    expect(new Uint8Array(await (await get('/v1/agent-binary/linux-x64')).arrayBuffer())).toEqual(new Uint8Array([1, 2, 3]))
    expect(await (await get('/v1/agent-binary/linux-x64.sha256')).text()).toMatch(/^[0-9a-f]{64} {2}rubato-agent\n$/)
    expect((await get('/v1/agent-binary/linux-riscv')).status).toBe(404)
    expect((await get('/v1/ca')).status).toBe(404)
    const docs = await get('/docs')
    expect(await docs.text()).not.toMatch(/(src|href)="https?:/)
    expect(docs.headers.get('content-security-policy')).toContain("script-src 'sha256-")
  })

  it('a host joins with a join token, once', async () => {
    const bed = await apiBed()
    await bed.state.commit(bed.state.change().put('cluster', 'cluster', { id: 'c-1', createdAtMs: 0, meshSecret: 'c2VjcmV0' }))
    const { text: token } = (await (await bed.send('POST', '/v1/tokens/join', { body: {} })).json()) as { text: string }
    const join = (hostname: string) =>
      bed.send('POST', '/v1/join', {
        as: null,
        body: {
          token,
          hostname,
          address: '10.0.0.9',
          platform: 'linux/amd64',
          runtimes: ['process'],
          capacity: { cpuMillis: 1000, memoryBytes: 1, diskBytes: 1, slots: 1 },
          labels: {},
          engineLabels: {},
          agentVersion: '0',
        },
      })
    expect((await join('a')).status).toBe(200)
    expect(bed.state.snapshot.all('node').size).toBe(1)
    expect((await join('b')).status).toBe(409)
  })
})
