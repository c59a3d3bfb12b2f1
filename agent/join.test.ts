import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import { ensureTls } from '../coordinator/access/ca.ts'
import { formatJoinToken } from '../shared/credentials.ts'
import { ConfigError, ForbiddenError } from '../shared/errors.ts'
import { silentLogger } from '../shared/logger.ts'
import { seededRandom, systemRandom } from '../shared/random.ts'
import { memoryFiles } from '../test/fakes/memory-files.ts'
import { virtualClock } from '../test/fakes/virtual-clock.ts'
import { type HttpAnswer, type JoinHttp, networkJoinHttp, type Trust } from './join-http.ts'
import { joinCluster, type JoinDeps } from './join.ts'

const FACTS = {
  hostname: 'h',
  address: '10.0.0.1',
  platform: 'linux/amd64',
  runtimes: ['process' as const],
  capacity: { cpuMillis: 1, memoryBytes: 1, diskBytes: 1, slots: 1 },
  labels: {},
  engineLabels: {},
  agentVersion: '1',
}
const RESPONSE = { clusterId: 'c-1', nodeId: 'n-1', credential: 'rbtn_n-1_s_0', urls: ['https://c:7600'] }

/** Answers in order, the last one for ever; keeps what it was asked. */
function scripted(answers: readonly (HttpAnswer | Error)[], caPem = '') {
  const posts: { url: string; body: Record<string, unknown>; trust: Trust }[] = []
  const http: JoinHttp = {
    get: async () => ({ status: 200, body: caPem }),
    async postJson(url, body, trust) {
      posts.push({ url, body: body as Record<string, unknown>, trust })
      const answer = answers[Math.min(posts.length, answers.length) - 1] as HttpAnswer | Error
      if (answer instanceof Error) throw answer
      return answer
    },
  }
  return { http, posts }
}

function depsWith(more: Partial<JoinDeps>) {
  const clock = virtualClock()
  const files = memoryFiles()
  const deps: JoinDeps = {
    token: formatJoinToken({ id: 'j', secret: 's', caDigest: null }),
    tokenFile: '/t',
    urls: ['http://127.0.0.1:1'],
    facts: async () => FACTS,
    machineId: 'host-a',
    stateDir: '/s',
    http: scripted([{ status: 200, body: JSON.stringify(RESPONSE) }]).http,
    files,
    clock,
    random: seededRandom(1),
    logger: silentLogger(),
    ...more,
  }
  return { deps, files, clock }
}

describe('an agent that joins', () => {
  it('keeps what it got, removes the spent token, and asks no more at its next start', async () => {
    const { deps, files } = depsWith({})
    files.disk.set('/t', 'token')
    const joined = await joinCluster(deps)
    expect(joined).toMatchObject({ ...RESPONSE, caPem: null, wasCloned: false })
    expect(files.disk.has('/t')).toBe(false)
    const { http, posts } = scripted([new Error('not to be asked')])
    expect(await joinCluster({ ...deps, http, token: null, urls: [] })).toEqual(joined)
    expect(posts).toEqual([])
  })

  it('tries again after lost replies and errors, with the same proof, also across a restart', async () => {
    const { http, posts } = scripted([
      new Error('reset'),
      { status: 503, body: '' },
      { status: 200, body: '<html>' },
      { status: 200, body: JSON.stringify(RESPONSE) },
    ])
    const abort = new AbortController()
    const { deps, clock, files } = depsWith({ http, signal: abort.signal })
    const first = joinCluster(deps).catch((error: unknown) => error)
    await clock.until(() => posts.length === 2, 'two tries')
    abort.abort(new Error('stopped'))
    expect(await first).toBeInstanceOf(Error)
    const { signal: _, ...rest } = deps
    const second = joinCluster({ ...rest, random: seededRandom(99) })
    await clock.until(() => files.disk.has('/s/identity.json'), 'joined')
    expect((await second).nodeId).toBe('n-1')
    expect(new Set(posts.map((post) => post.body.retryProof)).size).toBe(1)
    expect(files.disk.has('/s/join.proof')).toBe(false)
  })

  it.each([401, 403, 409, 410, 422])('takes %i for a refusal and gives up', async (status) => {
    const { http, posts } = scripted([{ status, body: JSON.stringify({ detail: 'because' }) }])
    const error = await joinCluster(depsWith({ http }).deps).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(ForbiddenError)
    expect(String(error)).toContain('because')
    expect(posts).toHaveLength(1)
  })

  it('V9: a cloned image joins as a node of its own', async () => {
    const { deps } = depsWith({})
    await joinCluster(deps)
    const { http, posts } = scripted([{ status: 200, body: JSON.stringify({ ...RESPONSE, nodeId: 'n-2' }) }])
    const clone = await joinCluster({ ...deps, http, machineId: 'host-b' })
    expect(clone).toMatchObject({ nodeId: 'n-2', wasCloned: true })
    expect(posts).toHaveLength(1)
  })

  it('a damaged identity file is as good as none', async () => {
    const { deps, files } = depsWith({})
    files.disk.set('/s/identity.json', '{"nodeId":')
    expect((await joinCluster(deps)).nodeId).toBe('n-1')
  })

  it.each([
    ['no token', { token: null }],
    ['a cut token', { token: 'rbtj_a_b' }],
    ['no URL', { urls: [] }],
    ['plain HTTP off loopback', { urls: ['http://10.0.0.1:7600'] }],
    [
      'plain HTTP with a token that names an authority',
      { token: formatJoinToken({ id: 'j', secret: 's', caDigest: 'a'.repeat(64) }) },
    ],
  ])('refuses to start with %s', async (_, more) => {
    await expect(joinCluster(depsWith(more).deps)).rejects.toBeInstanceOf(ConfigError)
  })

  it('shows its token over TLS only to the coordinator whose authority the token names', async () => {
    const tlsOf = () =>
      ensureTls(
        { files: memoryFiles(), stateDir: '/c', clock: virtualClock(Date.now()), random: systemRandom(), logger: silentLogger() },
        ['127.0.0.1'],
      )
    const [real, rogue] = [await tlsOf(), await tlsOf()]
    const seen: string[] = []
    const serve = async (tls: typeof real, name: string, servedCa: string) => {
      const server = createServer({ cert: tls.certPem, key: tls.keyPem }, (request, response) => {
        seen.push(`${name} ${request.url}`)
        response.end(request.url === '/v1/ca' ? servedCa : JSON.stringify(RESPONSE))
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      return { server, url: `https://127.0.0.1:${(server.address() as AddressInfo).port}` }
    }
    const honestRogue = await serve(rogue, 'rogue', rogue.caPem)
    // Serves the real authority's certificate, which anyone can have, but cannot speak TLS under it.
    const lyingRogue = await serve(rogue, 'liar', real.caPem)
    const coordinator = await serve(real, 'real', real.caPem)
    const { deps } = depsWith({
      http: networkJoinHttp(),
      token: formatJoinToken({ id: 'j', secret: 's', caDigest: real.caDigest }),
      urls: [honestRogue.url, lyingRogue.url, coordinator.url],
    })
    expect((await joinCluster(deps)).caPem?.trim()).toBe(real.caPem.trim())
    expect(seen).toEqual(['rogue /v1/ca', 'liar /v1/ca', 'real /v1/ca', 'real /v1/join'])
    for (const { server } of [honestRogue, lyingRogue, coordinator]) {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  })
})
