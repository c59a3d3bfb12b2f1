import { request as httpRequest } from 'node:http'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type FakeKeyRing, fakeKeyRing } from '../../test/fakes/key-ring.ts'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { seededRandom } from '../../shared/random.ts'
import { createInstanceTokens, type InstanceTokens } from './instance-tokens.ts'
import { createLoadInbox, type LoadInbox } from './load-inbox.ts'
import { createLocalApi, type LocalApi } from './local-api.ts'
import { readLoad } from './read-load.ts'

describe('local API', () => {
  let api: LocalApi
  let inbox: LoadInbox
  let tokens: InstanceTokens
  let keys: FakeKeyRing
  let caller: { instance: string; service: string } | null
  let base: string

  beforeEach(async () => {
    const clock = systemClock()
    inbox = createLoadInbox(clock)
    tokens = createInstanceTokens(seededRandom(3))
    keys = fakeKeyRing(clock.now())
    caller = null
    api = await createLocalApi({
      addresses: ['127.0.0.1', '127.0.0.9'],
      port: 0,
      callerOf: () => caller,
      tokens,
      loadInbox: inbox,
      keys,
      staleAfterMs: () => 60_000,
      status: () => ({ node: 'n-1' }),
      metrics: () => 'up 1\n',
      clock,
      logger: silentLogger(),
    })
    base = `http://127.0.0.1:${api.bound[0]?.port}`
  })
  afterEach(() => api.stop())

  const put = (url: string, body: string, headers: Record<string, string> = {}) => fetch(url, { method: 'PUT', body, headers })

  it('M1: takes a load from a container by its address, and from a process by its token in header or path', async () => {
    caller = { instance: 'shop/web/1/1', service: 'shop/web' }
    expect((await put(`${base}/v1/load`, '{"load":73}')).status).toBe(204)
    expect(inbox.get('shop/web/1/1', 1_000)).toMatchObject({ loadPercent: 73, demand: null })
    caller = null
    const url = api.loadUrlFor('shop/job/1/1') ?? ''
    expect((await put(url, '{"load":100,"demand":3.4}')).status).toBe(204)
    expect(inbox.get('shop/job/1/1', 1_000)).toMatchObject({ loadPercent: 100, demand: 3.4 })
    expect((await put(`${base}/v1/load`, '{"load":1}', { authorization: `Bearer ${url.split('/').at(-1)}` })).status).toBe(204)
    expect(inbox.get('shop/job/1/1', 1_000)?.loadPercent).toBe(1)
  })

  it('tells nobody apart from nobody: without address or token 401, and a forgotten token is none', async () => {
    expect((await put(`${base}/v1/load`, '{"load":73}')).status).toBe(401)
    expect((await put(`${base}/v1/load/guess`, '{"load":73}')).status).toBe(401)
    const url = api.loadUrlFor('shop/job/1/1') ?? ''
    const kept = createInstanceTokens(seededRandom(4), tokens.snapshot())
    expect(kept.instanceOf(url.split('/').at(-1) ?? '')).toBe('shop/job/1/1')
    expect(JSON.stringify(tokens.snapshot())).not.toContain(url.split('/').at(-1))
    tokens.forget('shop/job/1/1')
    expect((await put(url, '{"load":73}')).status).toBe(401)
  })

  it('row 13: refuses NaN, negative, too large and foreign values with the reason, and caps the body', async () => {
    caller = { instance: 'shop/web/1/1', service: 'shop/web' }
    for (const [body, status] of [
      ['NaN', 400],
      ['{"load":NaN}', 400],
      ['{"load":-1}', 422],
      ['{"load":1e308}', 422],
      ['{"load":100.1}', 422],
      ['{"load":"73"}', 422],
      ['{"load":null}', 422],
      ['[]', 422],
      ['{}', 422],
      ['{"load":5,"demand":-1}', 422],
      ['{"load":5,"lod":5}', 422],
      ['', 400],
      [`{"load":5,"x":"${'y'.repeat(5_000)}"}`, 413],
    ] as const) {
      const response = await put(`${base}/v1/load`, body)
      expect(response.status, body.slice(0, 40)).toBe(status)
      expect(response.headers.get('content-type')).toBe('application/problem+json')
    }
    expect(inbox.get('shop/web/1/1', 1_000)).toBeNull()
  })

  it('answers auth_request and forward auth from the same key ring', async () => {
    const access = { public: false, sameApp: true, allow: [], roles: [], anyKey: true, methods: ['GET'], pathPrefixes: ['/api'] }
    keys.policies.set('shop/web', access)
    const credential = keys.issue('alice')
    const ask = (headers: Record<string, string>, service = 'shop/web') =>
      fetch(`${base}/v1/authorize?service=${service}`, { method: 'POST', headers })
    const uri = { 'x-original-uri': '/api/x?y=1', 'x-original-method': 'GET' }
    const good = await ask({ ...uri, authorization: `Bearer ${credential}` })
    expect([good.status, good.headers.get('x-rubato-caller')]).toEqual([200, 'alice'])
    expect((await ask(uri)).status).toBe(401)
    expect((await ask({ 'x-forwarded-uri': '/other', 'x-api-key': credential })).status).toBe(403)
    expect((await ask({ 'x-original-uri': '/api/x', 'x-original-method': 'DELETE', 'x-api-key': credential })).status).toBe(403)
    expect((await ask({ 'x-original-uri': '/api/../x', 'x-api-key': credential })).status).toBe(400)
    expect((await ask(uri, 'shop/none')).status).toBe(404)
    keys.confirmedAtMs = 0
    expect((await ask({ ...uri, 'x-api-key': credential })).status).toBe(503)
  })

  it('shows status and metrics to loopback only, and to no browser', async () => {
    expect(await (await fetch(`${base}/v1/status`)).json()).toEqual({ node: 'n-1' })
    expect(await (await fetch(`${base}/metrics`)).text()).toBe('up 1\n')
    const withOrigin = await new Promise<number>((resolve, reject) => {
      httpRequest(`${base}/v1/status`, { headers: { origin: 'http://evil' } }, (response) => {
        response.resume()
        resolve(response.statusCode ?? 0)
      })
        .on('error', reject)
        .end()
    })
    expect(withOrigin).toBe(403)
    const withHost = (host: string) =>
      new Promise<number>((resolve, reject) => {
        httpRequest(`${base}/v1/status`, { headers: { host } }, (response) => {
          response.resume()
          resolve(response.statusCode ?? 0)
        })
          .on('error', reject)
          .end()
      })
    // A page whose name was pointed at loopback (DNS rebinding) sends no Origin to "its own" host.
    for (const host of ['evil.example', 'evil.example:7700', '127.0.0.1.evil.example', 'localhost.evil', '10.0.0.1'])
      expect(await withHost(host), host).toBe(403)
    for (const host of ['localhost', 'LOCALHOST:7700', '127.0.0.1:7700', '127.0.0.9', '[::1]:7700'])
      expect(await withHost(host), host).toBe(200)
    expect((await fetch(`${base}/nothing`)).status).toBe(404)
    expect((await fetch(`${base}/v1/load`)).status).toBe(405)
  })
})

describe('readLoad', () => {
  it('row 13: whatever it accepts is a number from 0 to 100', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.string(),
          fc.double().map((load) => `{"load":${load}}`),
        ),
        (body) => {
          const read = readLoad(body)
          if (read.kind === 'load') expect(read.load.loadPercent >= 0 && read.load.loadPercent <= 100).toBe(true)
          else expect(read.detail.length).toBeGreaterThan(0)
        },
      ),
    )
  })
})
