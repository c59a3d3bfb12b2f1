/** The "API" rows of the bad-input matrix (reliability §3), each by name. */
import { describe, expect, it } from 'vitest'
import { type ApiBed, apiBed, type Sent } from '../../test/builders/api-bed.ts'
import { aContainerSpec, anAppSpec, aScale, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { aPool } from '../../test/builders/records.ts'
import { appSpecSchema } from '../apps/app-spec-schema.ts'
import type { Problem } from './problem.ts'

async function problemOf(bed: ApiBed, method: string, path: string, sent: Sent = {}) {
  const response = await bed.send(method, path, sent)
  const problem = (await response.json()) as Problem
  return { response, status: response.status, problem }
}

const poolBody = () => {
  const { name: _name, ...body } = aPool()
  return body
}

describe('bad input, row by row', () => {
  it('an app that is too large, or has too many schedules, is refused before its schema is asked', async () => {
    let asked = 0
    const counted = appSpecSchema.refine(() => {
      asked += 1
      return true
    })
    const bed = await apiBed({ appSpecSchema: counted })
    const schedules = Array.from({ length: 50 }, () => ({ at: '0 0 29 2 */7', timeZone: 'UTC', min: 1, max: 2 }))
    const many = Array.from({ length: 60 }, (_, i) => aServiceSpec({ name: `s${i}`, scale: aScale({ max: 2, schedules }) }))
    for (const path of ['/v1/apps', '/v1/apps?dryRun=true']) {
      const { status, problem } = await problemOf(bed, 'POST', path, { body: { spec: anAppSpec({ services: many }) } })
      expect(status).toBe(422)
      expect(problem.errors?.map(({ pointer }) => pointer)).toContain('/spec/services')
    }
    const large = anAppSpec({ services: [aServiceSpec({ labels: { x: 'y'.repeat(300_000) } })] })
    const { problem } = await problemOf(bed, 'POST', '/v1/apps', { body: { spec: large } })
    expect(problem.errors).toMatchObject([{ pointer: '/spec', detail: expect.stringContaining('256 KiB') }])
    expect(asked).toBe(0)
    await problemOf(bed, 'POST', '/v1/apps', { body: { spec: anAppSpec() } })
    expect(asked).toBe(1)
  })

  it('API row 1: invalid JSON is answered 400 without echoing it', async () => {
    const bed = await apiBed()
    const { status, problem } = await problemOf(bed, 'POST', '/v1/keys', { raw: '{"name": "s3cret-text' })
    expect(status).toBe(400)
    expect(problem).toMatchObject({ code: 'json-invalid', instance: '/v1/keys', status: 400 })
    expect(JSON.stringify(problem)).not.toContain('s3cret')
  })

  it('API row 1: a key given twice is answered 400, at any depth', async () => {
    const bed = await apiBed()
    for (const raw of ['{"name":"a","name":"b"}', '{"name":"a","x":[{"k":1,"\\u006b":2}]}']) {
      const { status, problem } = await problemOf(bed, 'POST', '/v1/keys', { raw })
      expect(status).toBe(400)
      expect(problem.detail).toContain('twice')
    }
  })

  it('API row 1: bytes that are no UTF-8 are answered 400', async () => {
    const bed = await apiBed()
    const response = await bed.api.request('/v1/keys', {
      method: 'POST',
      headers: { authorization: `Bearer ${bed.tokens.admin}`, 'content-type': 'application/json' },
      body: new Uint8Array([0x7b, 0xff, 0x7d]),
    })
    expect(response.status).toBe(400)
  })

  it('API row 2: a wrong media type is answered 415', async () => {
    const bed = await apiBed()
    const { status } = await problemOf(bed, 'POST', '/v1/keys', { raw: 'name=a', headers: { 'content-type': 'text/plain' } })
    expect(status).toBe(415)
  })

  it('API row 3: a body over 1 MiB is answered 413, declared or not', async () => {
    const bed = await apiBed()
    const raw = JSON.stringify({ name: 'a'.repeat(1024 * 1024) })
    expect((await problemOf(bed, 'POST', '/v1/keys', { raw })).status).toBe(413)
    const declared = await problemOf(bed, 'POST', '/v1/keys', { raw: '{}', headers: { 'content-length': '99999999' } })
    expect(declared.status).toBe(413)
  })

  it('API row 4: schema faults and unknown fields are answered 422 with pointers to all of them', async () => {
    const bed = await apiBed()
    const { status, problem } = await problemOf(bed, 'POST', '/v1/keys', { body: { name: 7, roles: ['a', 5], color: 'red' } })
    expect(status).toBe(422)
    expect(problem.errors?.map(({ pointer }) => pointer).sort()).toEqual(['/color', '/name', '/roles/1'])
  })

  it('API row 4: an unknown query parameter is answered 422', async () => {
    const bed = await apiBed()
    expect((await problemOf(bed, 'GET', '/v1/nodes?colour=red')).status).toBe(422)
    expect((await problemOf(bed, 'GET', '/v1/nodes?limit=0')).status).toBe(422)
    expect((await problemOf(bed, 'GET', '/v1/nodes?limit=1&limit=2')).status).toBe(422)
  })

  it('API row 5: __proto__, numbers beyond all bounds, bottomless nesting and bad names are answered 422', async () => {
    const bed = await apiBed()
    const proto = await problemOf(bed, 'POST', '/v1/tokens/join', { raw: '{"labels":{"__proto__":{"admin":true}}}' })
    expect(proto.status).toBe(422)
    expect(proto.problem.errors?.[0]?.pointer).toBe('/labels/__proto__')
    expect((await problemOf(bed, 'PUT', '/v1/pools/p', { raw: '{"provider":"x","max":1e999}' })).status).toBe(422)
    expect((await problemOf(bed, 'POST', '/v1/keys', { raw: '['.repeat(5000) + ']'.repeat(5000) })).status).toBe(422)
    expect((await problemOf(bed, 'PUT', '/v1/pools/Not_A_Name', { body: poolBody() })).status).toBe(422)
    expect((await problemOf(bed, 'GET', `/v1/apps/${'a'.repeat(64)}`)).status).toBe(422)
  })

  it('API row 6: no or a bad credential is answered 401 with WWW-Authenticate, all bad ones alike', async () => {
    const bed = await apiBed()
    const none = await problemOf(bed, 'GET', '/v1/apps', { as: null })
    expect(none.status).toBe(401)
    expect(none.response.headers.get('www-authenticate')).toContain('Bearer')
    const details = new Set<string>()
    for (const token of ['rbto_x_y_00000000', 'nonsense', `${bed.tokens.admin}0`, bed.tokens.admin.replace('rbto', 'rbt')]) {
      const { status, problem } = await problemOf(bed, 'GET', '/v1/apps', { headers: { authorization: `Bearer ${token}` } })
      expect(status).toBe(401)
      details.add(problem.detail)
      expect(JSON.stringify(problem)).not.toContain(token)
    }
    expect(details.size).toBe(1)
  })

  it('API row 6: a role that does not suffice is answered 403', async () => {
    const bed = await apiBed()
    expect((await problemOf(bed, 'POST', '/v1/keys', { as: 'operator', body: { name: 'k' } })).status).toBe(403)
    expect((await problemOf(bed, 'DELETE', '/v1/apps/shop', { as: 'viewer' })).status).toBe(403)
  })

  it('API row 7: a stale If-Match is answered 412, a missing one on a pool 428', async () => {
    const bed = await apiBed()
    await bed.seedApp(anAppSpec())
    const body = { spec: anAppSpec() }
    expect((await problemOf(bed, 'PUT', '/v1/apps/shop', { body, headers: { 'if-match': '"7"' } })).status).toBe(412)
    expect((await bed.send('PUT', '/v1/apps/shop', { body, headers: { 'if-match': '"1"' } })).status).toBe(202)

    const made = await bed.send('PUT', '/v1/pools/small', { body: poolBody() })
    expect(made.status).toBe(201)
    const etag = made.headers.get('etag') ?? ''
    expect((await problemOf(bed, 'PUT', '/v1/pools/small', { body: poolBody() })).status).toBe(428)
    expect((await problemOf(bed, 'PUT', '/v1/pools/small', { body: poolBody(), headers: { 'if-match': '"old"' } })).status).toBe(
      412,
    )
    const changed = await bed.send('PUT', '/v1/pools/small', { body: { ...poolBody(), max: 3 }, headers: { 'if-match': etag } })
    expect(changed.status).toBe(200)
  })

  it('API row 8: an Idempotency-Key replays the answer, and is refused for another body', async () => {
    const bed = await apiBed()
    const headers = { 'idempotency-key': 'one' }
    const first = await bed.send('POST', '/v1/keys', { body: { name: 'ci' }, headers })
    const again = await bed.send('POST', '/v1/keys', { body: { name: 'ci' }, headers })
    expect([first.status, again.status]).toEqual([201, 201])
    expect(again.headers.get('idempotency-replayed')).toBe('true')
    expect(await again.text()).toBe(await first.text())
    expect(bed.state.snapshot.all('key').size).toBe(1)
    expect((await problemOf(bed, 'POST', '/v1/keys', { body: { name: 'other' }, headers })).status).toBe(422)
    // Another operator's key of the same name is another key.
    const mine = await bed.send('POST', '/v1/apps', { as: 'operator', body: { spec: anAppSpec() }, headers })
    expect(mine.status).toBe(202)
  })

  it('API row 8: two equal requests at once under one key act once', async () => {
    const bed = await apiBed()
    const send = () => bed.send('POST', '/v1/keys', { body: { name: 'ci' }, headers: { 'idempotency-key': 'k' } })
    const answers = await Promise.all([send(), send(), send()])
    expect(answers.map(({ status }) => status)).toEqual([201, 201, 201])
    expect(bed.state.snapshot.all('key').size).toBe(1)
  })

  it('API row 9: a store that is away or led by another is answered 503 with Retry-After, and repeating works', async () => {
    const bed = await apiBed()
    const headers = { 'idempotency-key': 'again' }
    for (const kind of ['unavailable', 'notLeader'] as const) {
      bed.store.failNext({ kind, detail: 'gone' })
      const { response, status } = await problemOf(bed, 'POST', '/v1/keys', { body: { name: 'ci' }, headers })
      expect(status).toBe(503)
      expect(Number(response.headers.get('retry-after'))).toBeGreaterThan(0)
      expect(response.headers.get('location')).toBeNull()
    }
    expect((await bed.send('POST', '/v1/keys', { body: { name: 'ci' }, headers })).status).toBe(201)
  })

  it('row 33: a full disk is answered 507, and reads go on', async () => {
    const bed = await apiBed()
    bed.store.failNext({ kind: 'unavailable', detail: '/secret/path: database or disk is full', full: true })
    const { problem, status } = await problemOf(bed, 'POST', '/v1/keys', { body: { name: 'ci' } })
    expect(status).toBe(507)
    expect(JSON.stringify(problem)).not.toContain('/secret/path')
    expect((await bed.send('GET', '/v1/keys')).status).toBe(200)
  })

  it('API row 10: over the rate of one credential is answered 429 with Retry-After, others go on', async () => {
    const bed = await apiBed({ settings: { ratePerS: 1, rateBurst: 3 } })
    for (let i = 0; i < 3; i += 1) expect((await bed.send('GET', '/v1/pools')).status).toBe(200)
    const { response, status } = await problemOf(bed, 'GET', '/v1/pools')
    expect(status).toBe(429)
    expect(response.headers.get('retry-after')).toBe('1')
    expect((await bed.send('GET', '/v1/pools', { as: 'viewer' })).status).toBe(200)
    await bed.clock.advance(1000)
    expect((await bed.send('GET', '/v1/pools')).status).toBe(200)
  })

  it('API row 10: dry runs of one credential are planned twenty at once, then one a second', async () => {
    const bed = await apiBed()
    const body = { spec: anAppSpec(), source: '' }
    const dryRun = (as: 'admin' | 'operator') => problemOf(bed, 'POST', '/v1/apps?dryRun=true', { body, as })
    for (let i = 0; i < 20; i += 1) expect((await dryRun('operator')).status).toBe(200)
    expect((await dryRun('operator')).status).toBe(429)
    expect((await dryRun('admin')).status).toBe(200)
    expect((await bed.send('GET', '/v1/apps', { as: 'operator' })).status).toBe(200)
    await bed.clock.advance(1_000)
    expect((await dryRun('operator')).status).toBe(200)
  })

  it('API row 10: failed credentials of one address run dry while good ones pass', async () => {
    const bed = await apiBed({ settings: { failureRatePerS: 1, failureBurst: 2 } })
    const statuses: number[] = []
    for (let i = 0; i < 3; i += 1) statuses.push((await bed.send('GET', '/v1/apps', { as: null })).status)
    expect(statuses).toEqual([401, 401, 429])
    expect((await bed.send('GET', '/v1/apps')).status).toBe(200)
  })

  it('App YAML: what the policy forbids is answered 403 with pointers, also when the client did not check it', async () => {
    const bed = await apiBed()
    const mount = { kind: 'bind' as const, source: '/var/run/docker.sock', target: '/sock', readOnly: true }
    const spec = anAppSpec({
      services: [aServiceSpec({ unit: aUnitSpec({ containers: [aContainerSpec({ mounts: [mount] })] }) })],
    })
    for (const dryRun of [false, true]) {
      const { status, problem } = await problemOf(bed, 'POST', `/v1/apps?dryRun=${dryRun}`, { body: { spec } })
      expect(status).toBe(403)
      expect(problem.errors?.[0]?.pointer).toMatch(/^\/spec\/services/)
    }
    expect(bed.state.snapshot.all('app').size).toBe(0)
  })

  it('answers 404 for unknown paths and 405 with Allow for wrong methods', async () => {
    const bed = await apiBed()
    expect((await problemOf(bed, 'GET', '/v1/nothing')).status).toBe(404)
    const wrong = await problemOf(bed, 'PATCH', '/v1/apps/shop')
    expect(wrong.status).toBe(405)
    expect(wrong.response.headers.get('allow')).toBe('DELETE, GET, PUT')
  })

  it('tells nothing of an unexpected fault but the request id', async () => {
    const bed = await apiBed({
      fleet: {
        figures() {
          throw new Error('password=hunter2')
        },
        view() {
          throw new Error('not asked for')
        },
      },
    })
    const { status, problem } = await problemOf(bed, 'GET', '/v1/status', { headers: { 'x-request-id': 'abc' } })
    expect(status).toBe(500)
    expect(problem.requestId).toBe('abc')
    expect(JSON.stringify(problem)).not.toContain('hunter2')
  })
})
