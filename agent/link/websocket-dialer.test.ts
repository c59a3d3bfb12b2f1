/** TLS pinned to the cluster's authority, against a real server on loopback. */
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { ensureTls } from '../../coordinator/access/ca.ts'
import { attachLinkServer } from '../../coordinator/hub/websocket-server.ts'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { systemRandom } from '../../shared/random.ts'
import { memoryFiles } from '../../test/fakes/memory-files.ts'
import { webSocketDialer } from './websocket-dialer.ts'

const clock = systemClock()
let server: Server | null = null
afterEach(async () => {
  server?.closeAllConnections()
  await new Promise((resolve) => (server ? server.close(resolve) : resolve(null)))
  server = null
})

const makeTls = () =>
  ensureTls({ files: memoryFiles(), stateDir: '/d', clock, random: systemRandom(), logger: silentLogger() }, ['localhost'])

async function serve(tls: Awaited<ReturnType<typeof makeTls>>) {
  const seen: string[] = []
  const made = createServer({ key: tls.keyPem, cert: tls.certPem })
  server = made
  attachLinkServer(made, {
    clock,
    authenticate: (credential) => {
      seen.push(credential)
      return 'n-1'
    },
    accept: (connection) => connection.close(1000, 'seen'),
  })
  await new Promise<void>((resolve) => made.listen(0, '127.0.0.1', resolve))
  return { seen, url: `https://localhost:${(made.address() as AddressInfo).port}` }
}

describe('websocket dialer over TLS', () => {
  it('connects to a coordinator that its authority, or the digest of it, names', async () => {
    const tls = await makeTls()
    const { url } = await serve(tls)
    for (const pin of [{ caPem: tls.caPem }, { caDigest: tls.caDigest }]) {
      const outcome = await webSocketDialer({ clock, ...pin }).dial(url, 'secret', new AbortController().signal)
      expect(outcome.kind).toBe('open')
      if (outcome.kind === 'open') await new Promise((resolve) => outcome.connection.onClose(resolve))
    }
  })

  it('never shows its credential to a coordinator of another authority', async () => {
    const [ours, theirs] = [await makeTls(), await makeTls()]
    const { url, seen } = await serve(theirs)
    for (const pin of [{ caPem: ours.caPem }, { caDigest: ours.caDigest }, {}]) {
      const outcome = await webSocketDialer({ clock, ...pin }).dial(url, 'secret', new AbortController().signal)
      expect(outcome.kind).toBe('failed')
    }
    expect(seen).toEqual([])
  })
})
