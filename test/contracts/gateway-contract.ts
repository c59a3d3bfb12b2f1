/**
 * What every gateway engine promises (design §9), told with raw sockets on loopback: builtin passes it, haproxy shall.
 * Names of reliability rows stand in the test names. Here the way into an instance; the way to one is in gateway-egress-contract.ts.
 */
import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { LATENCY_BUCKETS_MS } from '../../shared/model/observation.ts'
import { fakeKeyRing } from '../fakes/key-ring.ts'
import { anIngressPort, ask, deadPort, KEYED, PUBLIC, talk, tcpUpstream } from './gateway-bed.ts'
import { egressContract } from './gateway-egress-contract.ts'
import { engineBed, get, until, type MakeGateway } from './gateway-engine-bed.ts'

export function gatewayContract(name: string, make: MakeGateway): void {
  describe(`gateway engine ${name}`, () => {
    const bed = engineBed(make)

    describe('authorization (M10, M11, M13)', () => {
      it('lets a holder of a key through, tells upstream who calls, and keeps the key', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        const answer = await ask(port, get('/items?x=1', bed.withKey()))
        expect(answer).toMatchObject({ status: 200, body: 'web' })
        const seen = bed.upstream.seen[0]
        expect(seen?.url).toBe('/items?x=1')
        expect(seen?.headers['x-rubato-caller']).toBe('alice')
        expect(JSON.stringify(seen)).not.toContain(bed.credential)
      })

      it('takes the key from X-API-Key, and leaves an Authorization that is not ours to the service', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        const answer = await ask(port, get('/', `X-API-Key: ${bed.credential}`, 'Authorization: Bearer eyJ.own.token'))
        expect(answer.status).toBe(200)
        expect(bed.upstream.seen[0]?.headers).toMatchObject({ authorization: 'Bearer eyJ.own.token', 'x-rubato-caller': 'alice' })
        expect(bed.upstream.seen[0]?.headers['x-api-key']).toBeUndefined()
      })

      it('I8: gives one and the same 401 for no, unknown, wrong, expired and revoked keys, and nothing reaches upstream', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        const expired = bed.keys.issue('old', { expiresAtMs: Date.now() - 1 })
        const revoked = bed.keys.issue('gone')
        expect((await ask(port, get('/', bed.withKey(revoked)))).status).toBe(200)
        bed.keys.keys.delete('gone')
        const unknown = fakeKeyRing(null).issue('nobody')
        const wrong = bed.credential.replace(/.$/, (last) => (last === '0' ? '1' : '0'))
        const bodies = new Set<string>()
        for (const extra of [
          [],
          [bed.withKey(expired)],
          [bed.withKey(revoked)],
          [bed.withKey(unknown)],
          [bed.withKey(wrong)],
          [bed.withKey('rbt_')],
        ]) {
          const answer = await ask(port, get('/', ...extra))
          expect(answer.status).toBe(401)
          expect(answer.head.toLowerCase()).toContain('www-authenticate: bearer')
          expect(answer.head.toLowerCase()).toContain('content-type: application/problem+json')
          bodies.add(answer.body)
        }
        expect(bodies.size).toBe(1)
        expect(JSON.parse([...bodies][0] ?? '')).toMatchObject({ status: 401, code: 'unauthorized' })
        expect(bed.upstream.seen).toHaveLength(1)
      })

      it('row "Key in query string": answers 401', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        expect((await ask(port, get(`/?api_key=${bed.credential}&x-api-key=${bed.credential}`))).status).toBe(401)
      })

      it('I7: a revoked key is refused on a connection that it opened', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        const socket = connect({ port, host: '127.0.0.1' })
        let text = ''
        const has = (pattern: RegExp) =>
          new Promise<void>((resolve) => {
            const check = () => pattern.test(text) && resolve()
            socket.on('data', check)
            check()
          })
        socket.on('data', (chunk) => {
          text += chunk.toString()
        })
        socket.write(`${get('/', bed.withKey()).join('\r\n')}\r\n\r\n`)
        await has(/200 OK[\s\S]*web/)
        bed.keys.keys.delete('alice')
        socket.write(`${get('/', bed.withKey()).join('\r\n')}\r\n\r\n`)
        await has(/HTTP\/1\.1 401/)
        socket.destroy()
      })

      it('distinguishes 403: a good key without role, method or path', async () => {
        const access = { ...KEYED, anyKey: false, roles: ['operator'], methods: ['GET'], pathPrefixes: ['/api'] }
        bed.keys.policies.set('shop/web', access)
        const operator = bed.keys.issue('op', { roles: ['operator'] })
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        expect((await ask(port, get('/api', bed.withKey()))).status).toBe(403)
        expect((await ask(port, get('/api/x', bed.withKey(operator)))).status).toBe(200)
        expect((await ask(port, get('/apix', bed.withKey(operator)))).body).toContain('path-forbidden')
        expect((await ask(port, ['DELETE /api HTTP/1.1', 'Host: shop', bed.withKey(operator)])).body).toContain(
          'method-forbidden',
        )
        expect(bed.upstream.seen).toHaveLength(1)
      })

      it('row 39: a key set that nobody confirmed for too long answers 503 keyset-stale, public services excepted', async () => {
        bed.keys.confirmedAtMs = Date.now() - 61_000
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        const answer = await ask(port, get('/', bed.withKey()))
        expect(answer.status).toBe(503)
        expect(answer.body).toContain('keyset-stale')
        const open = await bed.engine.openIngress(
          anIngressPort({ instance: 'shop/site/1/1', access: PUBLIC, targetPort: bed.upstream.port }),
        )
        expect((await ask(open, get('/'))).status).toBe(200)
      })

      it('a pushed policy replaces the one the instance came with', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        expect((await ask(port, get('/'))).status).toBe(401)
        bed.keys.policies.set('shop/web', PUBLIC)
        expect((await ask(port, get('/'))).status).toBe(200)
      })
    })

    describe('request hygiene (reliability §3, rows "Proxy")', () => {
      const refused: readonly [string, readonly string[], number][] = [
        ['CL+TE', ['POST / HTTP/1.1', 'Host: shop', 'Content-Length: 5', 'Transfer-Encoding: chunked'], 400],
        ['two Content-Lengths', ['POST / HTTP/1.1', 'Host: shop', 'Content-Length: 5', 'Content-Length: 5'], 400],
        ['obs-fold', ['GET / HTTP/1.1', 'Host: shop', 'X-A: 1', ' 2'], 400],
        ['NUL in a header', ['GET / HTTP/1.1', 'Host: shop', 'X-A: 1\x002'], 400],
        ['space before the colon', ['GET / HTTP/1.1', 'Host: shop', 'X-A : 1'], 400],
        ['no Host', ['GET / HTTP/1.1'], 400],
        ['two Hosts', ['GET / HTTP/1.1', 'Host: shop', 'Host: shop'], 400],
        ['an empty Host', ['GET / HTTP/1.1', 'Host:'], 400],
        ['a garbage Host', ['GET / HTTP/1.1', 'Host: shop/evil@x'], 400],
        ['absolute URI ≠ Host', ['GET http://other/ HTTP/1.1', 'Host: shop'], 400],
        ['TE on HTTP/1.0', ['POST / HTTP/1.0', 'Host: shop', 'Transfer-Encoding: chunked'], 400],
        ['gzip, chunked', ['POST / HTTP/1.1', 'Host: shop', 'Transfer-Encoding: gzip, chunked'], 501],
        ['TRACE', ['TRACE / HTTP/1.1', 'Host: shop'], 405],
        ['CONNECT', ['CONNECT shop:443 HTTP/1.1', 'Host: shop:443'], 405],
        ['two Authorizations', ['GET / HTTP/1.1', 'Host: shop', 'Authorization: Bearer a', 'authorization: Bearer b'], 400],
        ['two X-API-Keys', ['GET / HTTP/1.1', 'Host: shop', 'X-API-Key: a', 'x-api-key: b'], 400],
        ['X_Auth_User', ['GET / HTTP/1.1', 'Host: shop', 'X_Auth_User: root'], 400],
        ['Connection: host', ['GET / HTTP/1.1', 'Host: shop', 'Connection: host'], 400],
        ['/%2f', ['GET /a%2Fb HTTP/1.1', 'Host: shop'], 400],
        ['/%5c', ['GET /a%5cb HTTP/1.1', 'Host: shop'], 400],
        ['/%00', ['GET /a%00 HTTP/1.1', 'Host: shop'], 400],
        ['/../', ['GET /a/../b HTTP/1.1', 'Host: shop'], 400],
        ['/%2e%2e/', ['GET /a/%2e%2E/b HTTP/1.1', 'Host: shop'], 400],
        ['//', ['GET /a//b HTTP/1.1', 'Host: shop'], 400],
        ['HTTP/2.0', ['PRI * HTTP/2.0', 'Host: shop'], 400],
        ['a header over 16 KiB', ['GET / HTTP/1.1', 'Host: shop', `X-A: ${'a'.repeat(17_000)}`], 431],
      ]
      for (const [what, lines, status] of refused) {
        it(`row Proxy: ${what} is answered with ${status} and nothing reaches upstream`, async () => {
          const port = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: bed.upstream.port }))
          const answer = await ask(port, lines)
          expect(answer.status).toBe(status)
          expect(JSON.parse(answer.body)).toMatchObject({ status })
          expect(bed.upstream.seen).toHaveLength(0)
        })
      }

      it('row Proxy: bare line feeds are answered with 400', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: bed.upstream.port }))
        expect(await talk(port, 'GET / HTTP/1.1\nHost: shop\n\n')).toMatch(/^HTTP\/1\.1 400/)
        expect(bed.upstream.seen).toHaveLength(0)
      })

      it('row Proxy: strips what Connection names first and sets its own headers last', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        const lines = [
          ...get('/', bed.withKey()),
          'X-Forwarded-For: 6.6.6.6',
          'X-Forwarded-Host: evil',
          'X-Forwarded-Proto: https',
          'X-Forwarded-User: root',
          'X-Rubato-Caller: root',
          'X-Rubato-Anything: 1',
          'X-Real-IP: 6.6.6.6',
          'Forwarded: for=6.6.6.6',
          'X-Hop: 1',
          'X-Kept: 1',
          'TE: trailers',
          'Connection: x-hop, x-forwarded-for, x-rubato-caller',
        ]
        expect((await ask(port, lines)).status).toBe(200)
        const { headers, rawHeaders } = bed.upstream.seen[0] ?? { headers: {}, rawHeaders: [] }
        expect(headers).toMatchObject({
          'x-forwarded-for': '127.0.0.1',
          'x-forwarded-host': 'shop',
          'x-forwarded-proto': 'http',
          'x-rubato-caller': 'alice',
          'x-kept': '1',
        })
        expect(JSON.stringify(rawHeaders)).not.toMatch(/6\.6\.6\.6|root|evil|x-hop|anything|trailers/i)
      })

      it('sends a malformed chunked body no further than it was well formed', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: bed.upstream.port }))
        const answer = await talk(
          port,
          'POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0x5\r\nGET /evil HTTP/1.1\r\n\r\n',
        )
        expect(answer).toMatch(/^HTTP\/1\.1 400/)
        expect(bed.upstream.seen).toHaveLength(0)
      })
    })

    describe('forwarding', () => {
      it('streams a large body both ways, with a length and in chunks', async () => {
        const big = Buffer.alloc(3_000_000, 'abcdefgh')
        const echo = await bed.newUpstream('echo', (request) => ({ body: request.body }))
        // On a busy machine an upstream needs its time for so much.
        const patient = await bed.newEngine({ responseTimeoutMs: 20_000 })
        const port = await patient.openIngress(anIngressPort({ access: PUBLIC, targetPort: echo.port }))
        const sized = await ask(port, ['POST / HTTP/1.1', 'Host: shop', `Content-Length: ${big.length}`], big.toString())
        expect(sized.body.length).toBe(big.length)
        const response = await fetch(`http://127.0.0.1:${port}/`, {
          method: 'POST',
          body: new ReadableStream({
            start(controller) {
              for (let at = 0; at < big.length; at += 70_000) controller.enqueue(big.subarray(at, at + 70_000))
              controller.close()
            },
          }),
          duplex: 'half',
        } as RequestInit)
        expect((await response.text()).length).toBe(big.length)
      })

      it('keeps the connection for the next request, pipelined ones in order', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        const one = (path: string) => `${get(path, bed.withKey()).join('\r\n')}\r\n\r\n`
        const text = await talk(
          port,
          `${one('/1')}${one('/2')}${get('/3').join('\r\n')}\r\n\r\n${one('/4')}`,
          /(200 OK[\s\S]*){3}web$/,
        )
        expect(text.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200', 'HTTP/1.1 401', 'HTTP/1.1 200'])
        expect(bed.upstream.seen.map((request) => request.url)).toEqual(['/1', '/2', '/4'])
      })

      it('answers HEAD, 204 and 304 without a body, and a response that ends with its connection whole', async () => {
        const raw = await tcpUpstream((socket) => socket.once('data', () => socket.end('HTTP/1.0 200 OK\r\n\r\nuntil the end')))
        bed.cleanups.push(() => raw.close())
        const port = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: raw.port }))
        expect((await ask(port, get('/'))).body).toBe('until the end')
        const head = await bed.engine.openIngress(
          anIngressPort({ instance: 'shop/web/2/1', access: PUBLIC, targetPort: bed.upstream.port }),
        )
        expect(await ask(head, ['HEAD / HTTP/1.1', 'Host: shop'])).toMatchObject({ status: 200, body: '' })
      })

      it('passes a websocket through, and no other upgrade', async () => {
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: bed.upstream.port }))
        const upgrade = [...get('/ws', bed.withKey()), 'Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: x'].join(
          '\r\n',
        )
        const text = await talk(port, `${upgrade}\r\n\r\nping`, 'PING')
        expect(text).toMatch(/^HTTP\/1\.1 101[\s\S]*hello PING/)
        const h2c = [...get('/h2c', bed.withKey()), 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: x']
        expect((await ask(port, h2c)).status).toBe(200)
        expect(bed.upstream.seen.at(-1)?.headers.upgrade).toBeUndefined()
      })

      it('row Proxy: a dead upstream is a 502 and a slow one a 504', async () => {
        const dead = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: await deadPort() }))
        const gone = await ask(dead, get('/'))
        expect(gone.status).toBe(502)
        expect(gone.body).toContain('upstream-unreachable')
        let release = () => {}
        const held = new Promise<void>((resolve) => {
          release = resolve
        })
        const slow = await bed.newUpstream('slow', () => ({ after: held }))
        const port = await bed.engine.openIngress(
          anIngressPort({ instance: 'shop/slow/1/1', access: PUBLIC, targetPort: slow.port }),
        )
        expect((await ask(port, get('/'))).status).toBe(504)
        release()
      })

      it('row Proxy: repeats nothing that was sent on a new connection', async () => {
        const flaky = await bed.newUpstream('flaky', () => ({ hangUp: true }))
        const port = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: flaky.port }))
        expect((await ask(port, ['POST / HTTP/1.1', 'Host: shop', 'Content-Length: 2'], 'hi')).status).toBe(502)
        expect(flaky.seen).toHaveLength(1)
      })

      it('counts flows and requests under way', async () => {
        let release = () => {}
        const held = new Promise<void>((resolve) => {
          release = resolve
        })
        const slow = await bed.newUpstream('slow', () => ({ after: held }))
        const port = await bed.engine.openIngress(anIngressPort({ targetPort: slow.port }))
        const pending = ask(port, get('/', bed.withKey()))
        await until(() => slow.seen.length === 1)
        expect(bed.engine.inFlight('shop/web/1/1')).toBe(1)
        release()
        await pending
        await ask(port, get('/'))
        expect(bed.engine.inFlight('shop/web/1/1')).toBe(0)
        const [flow] = bed.engine.takeFlows()
        expect(flow).toMatchObject({ instance: 'shop/web/1/1', inFlight: 0, requests: 1, errors: 0, denied: 1, txBytes: 4 })
        // V16: answers count by the time they took; what was refused here is none.
        expect(flow?.latency).toHaveLength(LATENCY_BUCKETS_MS.length + 1)
        expect(flow?.latency?.reduce((sum, count) => sum + count, 0)).toBe(1)
        const [again] = bed.engine.takeFlows()
        expect(again).toMatchObject({ requests: 0, denied: 0, txBytes: 0 })
        expect(again?.latency).toBe(undefined)
      })
    })

    describe('life of an ingress', () => {
      it('keeps its port when opened again, follows a new target, and honours a wanted port or says that it is taken', async () => {
        const other = await bed.newUpstream('other')
        const port = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: bed.upstream.port }))
        expect(await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: other.port }))).toBe(port)
        expect((await ask(port, get('/'))).body).toBe('other')
        const taken = anIngressPort({ instance: 'shop/web/2/1', gatewayPort: port, targetPort: other.port })
        await expect(bed.engine.openIngress(taken)).rejects.toMatchObject({ code: 'conflict' })
      })

      it('closing finishes what is under way and takes nothing new', async () => {
        let release = () => {}
        const held = new Promise<void>((resolve) => {
          release = resolve
        })
        const slow = await bed.newUpstream('slow', () => ({ after: held }))
        const port = await bed.engine.openIngress(anIngressPort({ access: PUBLIC, targetPort: slow.port }))
        const pending = ask(port, get('/'))
        await until(() => slow.seen.length === 1)
        const closing = bed.engine.closeIngress('shop/web/1/1', 5_000)
        await expect(ask(port, get('/'))).rejects.toMatchObject({ code: 'ECONNREFUSED' })
        release()
        expect((await pending).status).toBe(200)
        await closing
        await bed.engine.closeIngress('shop/web/1/1', 0)
      })
    })

    egressContract(bed)
  })
}
