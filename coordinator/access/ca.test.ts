import { X509Certificate } from 'node:crypto'
import { createServer, request } from 'node:https'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { Files } from '../../shared/files.ts'
import { silentLogger } from '../../shared/logger.ts'
import { systemRandom } from '../../shared/random.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { digestOfPem, ensureTls, tlsFromPem } from './ca.ts'

const DAY_MS = 86_400_000

function world() {
  const modes = new Map<string, number>()
  const texts = new Map<string, string>()
  const files: Files = {
    read: async (path) => texts.get(path) ?? null,
    write: async (path, text, mode = 0o600) => {
      texts.set(path, text)
      modes.set(path, mode)
    },
    remove: async (path) => void texts.delete(path),
    list: async () => [],
  }
  // Real wall time: the TLS handshake below checks validity against the real clock.
  const clock = virtualClock(Date.now())
  return { texts, modes, clock, deps: { files, stateDir: '/s', clock, random: systemRandom(), logger: silentLogger() } }
}

describe('the certificate authority', () => {
  it('is made once, kept with mode 0600, and found again', async () => {
    const { deps, texts, modes } = world()
    const first = await ensureTls(deps, ['127.0.0.1', 'localhost'])
    const again = await ensureTls(deps, ['127.0.0.1', 'localhost'])
    expect(again).toEqual(first)
    expect(first.caDigest).toMatch(/^[0-9a-f]{64}$/)
    expect(new X509Certificate(first.caPem).ca).toBe(true)
    expect([...texts.keys()]).toEqual(['/s/tls/ca.pem', '/s/tls/server.pem'])
    expect([...modes.values()]).toEqual([0o600, 0o600])
  })

  it('makes a server certificate that a client who trusts only this authority accepts', async () => {
    const { deps } = world()
    const tls = await ensureTls(deps, ['127.0.0.1', 'localhost'])
    const server = createServer({ cert: tls.certPem, key: tls.keyPem }, (_, response) => response.end('hello'))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const port = (server.address() as AddressInfo).port
    const statusWith = (ca: string) =>
      new Promise<string>((resolve) => {
        request({ host: '127.0.0.1', port, ca, agent: false }, (response) => resolve(String(response.statusCode)))
          .on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'error'))
          .end()
      })
    const other = await ensureTls(world().deps, ['127.0.0.1'])
    expect(await statusWith(tls.caPem)).toBe('200')
    expect(await statusWith(other.caPem)).not.toBe('200')
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })

  it('renews the server certificate near its expiry and for new names, under the same authority', async () => {
    const { deps, clock } = world()
    const first = await ensureTls(deps, ['10.0.0.1'])
    const renamed = await ensureTls(deps, ['10.0.0.1', 'rubato.example.org'])
    expect(renamed.certPem).not.toBe(first.certPem)
    clock.jumpWall(renamed.renewAtMs - clock.now() - DAY_MS)
    expect((await ensureTls(deps, ['10.0.0.1'])).certPem).toBe(renamed.certPem)
    clock.jumpWall(2 * DAY_MS)
    const renewed = await ensureTls(deps, ['10.0.0.1'])
    expect(renewed.certPem).not.toBe(renamed.certPem)
    expect(renewed.caDigest).toBe(first.caDigest)
  })

  it('stops at a damaged authority, but replaces a damaged server certificate', async () => {
    const { deps, texts } = world()
    const first = await ensureTls(deps, ['10.0.0.1'])
    texts.set('/s/tls/server.pem', 'rubbish')
    expect((await ensureTls(deps, ['10.0.0.1'])).caDigest).toBe(first.caDigest)
    texts.set('/s/tls/ca.pem', first.caPem)
    await expect(ensureTls(deps, ['10.0.0.1'])).rejects.toThrow('damaged')
  })

  it('pins the certificate itself when the user brings one without an authority', async () => {
    const tls = await ensureTls(world().deps, ['10.0.0.1'])
    const own = tlsFromPem(tls.certPem, tls.keyPem, null)
    expect(own.caDigest).toBe(digestOfPem(tls.certPem))
    expect(tlsFromPem(tls.certPem, tls.keyPem, tls.caPem).caDigest).toBe(tls.caDigest)
    expect(() => tlsFromPem('none', tls.keyPem, null)).toThrow()
  })
})
