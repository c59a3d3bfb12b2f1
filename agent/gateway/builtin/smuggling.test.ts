/** Hostile bytes over raw sockets against a running gateway with a real HTTP server behind it. */
import { connect } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { anIngressPort, ask, httpUpstream, KEYED, PUBLIC, talk, type Upstream } from '../../../test/contracts/gateway-bed.ts'
import { fakeKeyRing } from '../../../test/fakes/key-ring.ts'
import { systemClock } from '../../../shared/clock.ts'
import { silentLogger } from '../../../shared/logger.ts'
import { seededRandom } from '../../../shared/random.ts'
import { type BuiltinGateway, createBuiltinGateway } from './builtin-gateway.ts'

const piece = fc.constantFrom(
  'GET /secret HTTP/1.1\r\n',
  'POST /a HTTP/1.1\r\n',
  'POST /a HTTP/1.0\r\n',
  'GET http://shop/x HTTP/1.1\r\n',
  'Host: shop\r\n',
  'Host: evil\r\n',
  'Content-Length: 3\r\n',
  'Content-Length: 0\r\n',
  'Content-Length: +3\r\n',
  'Content-Length : 40\r\n',
  'Transfer-Encoding: chunked\r\n',
  'Transfer-Encoding: xchunked\r\n',
  'Transfer-Encoding:\x0bchunked\r\n',
  'Transfer_Encoding: chunked\r\n',
  'Connection: content-length\r\n',
  'Connection: keep-alive, x-rubato-caller\r\n',
  'X-Rubato-Caller: root\r\n',
  'Authorization: Bearer rbt_x_y_z\r\n',
  'Expect: 100-continue\r\n',
  '\r\n',
  '\n',
  '\r',
  '\0',
  'abc',
  '0\r\n\r\n',
  '3\r\nabc\r\n',
  'ffffffff\r\n',
)
const bytes = fc.array(piece, { minLength: 1, maxLength: 14 }).map((pieces) => pieces.join(''))

describe('builtin gateway under hostile bytes', () => {
  let upstream: Upstream
  let gateway: BuiltinGateway
  let keyed = 0
  let open = 0

  beforeAll(async () => {
    upstream = await httpUpstream('web')
    gateway = await createBuiltinGateway({
      nodeId: 'n-1',
      address: '127.0.0.1',
      portRange: { from: 27_000, to: 27_099 },
      keys: fakeKeyRing(Date.now()),
      staleAfterMs: () => 60_000,
      callerOf: () => null,
      limits: { headTimeoutMs: 300, responseTimeoutMs: 300, keepAliveMs: 300 },
      clock: systemClock(),
      random: seededRandom(1),
      logger: silentLogger(),
    })
    keyed = await gateway.openIngress(anIngressPort({ access: KEYED, targetPort: upstream.port }))
    open = await gateway.openIngress(anIngressPort({ instance: 'shop/open/1/1', access: PUBLIC, targetPort: upstream.port }))
  })
  afterAll(async () => {
    await gateway.stop()
    await upstream.close()
  })

  const FIRST_ANSWER = /^HTTP\/1\.1 \d{3}/

  it('I11: refusals that nobody reads do not gather in memory: the gateway reads no further requests until they went out', async () => {
    const patient = await createBuiltinGateway({
      nodeId: 'n-1',
      address: '127.0.0.1',
      portRange: { from: 27_100, to: 27_199 },
      keys: fakeKeyRing(Date.now()),
      staleAfterMs: () => 60_000,
      callerOf: () => null,
      clock: systemClock(),
      random: seededRandom(1),
      logger: silentLogger(),
    })
    const port = await patient.openIngress(anIngressPort({ access: KEYED, targetPort: upstream.port }))
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    socket.pause()
    await new Promise((resolve) => socket.once('connect', resolve))
    const requests = `GET / HTTP/1.1\r\nHost: shop\r\nX-Pad: ${'x'.repeat(60)}\r\n\r\n`.repeat(2_000)
    const isTaken = () =>
      new Promise<boolean>((resolve) => {
        const timer = setTimeout(() => resolve(false), 1_000)
        socket.write(requests, (error) => {
          clearTimeout(timer)
          resolve(!error)
        })
      })
    let taken = 0
    while (taken < 100 && (await isTaken())) taken += 1
    socket.destroy()
    await patient.stop()
    expect(taken).toBeLessThan(100)
  })

  it('I8: without a key no byte reaches the service, whatever is sent', async () => {
    await fc.assert(
      fc.asyncProperty(bytes, async (text) => {
        const seen = upstream.seen.length
        await talk(keyed, `GET / HTTP/1.1\r\nHost: shop\r\n${text}\r\n\r\n`, FIRST_ANSWER)
        expect(upstream.seen.length).toBe(seen)
      }),
      { numRuns: 300 },
    )
  })

  it('row Proxy: a public service sees only whole requests with one host, and no header that names a caller', async () => {
    await fc.assert(
      // Many at once: what is left unfinished has to wait for its time-out.
      fc.asyncProperty(fc.array(bytes, { minLength: 30, maxLength: 30 }), async (texts) => {
        upstream.seen.length = 0
        await Promise.all(texts.map((text) => talk(open, `GET /first HTTP/1.1\r\nHost: shop\r\n${text}`, FIRST_ANSWER)))
        for (const request of upstream.seen) {
          expect(request.rawHeaders.filter((name) => name.toLowerCase() === 'host')).toHaveLength(1)
          expect(request.headers['x-rubato-caller']).toBeUndefined()
          expect(request.headers['x-forwarded-for']).toBe('127.0.0.1')
          expect(request.headers['content-length'] !== undefined && request.headers['transfer-encoding'] !== undefined).toBe(
            false,
          )
        }
      }),
      { numRuns: 8, endOnFailure: true },
    )
  })

  it('still serves after all that', async () => {
    expect((await ask(open, ['GET / HTTP/1.1', 'Host: shop'])).status).toBe(200)
    expect(gateway.inFlight('shop/open/1/1')).toBe(0)
    expect(gateway.inFlight('shop/web/1/1')).toBe(0)
  })
})
