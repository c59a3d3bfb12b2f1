import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../../shared/clock.ts'
import { type Logger, silentLogger } from '../../../shared/logger.ts'
import { systemRandom } from '../../../shared/random.ts'
import { type Answer, type FakePrometheus, fakePrometheus, success } from '../../../test/fakes/fake-prometheus.ts'
import { type VirtualClock, virtualClock } from '../../../test/fakes/virtual-clock.ts'
import { memoryFiles } from '../../../test/fakes/memory-files.ts'
import { ensureTls } from '../../access/ca.ts'
import { createMemoryHistory } from '../memory-history.ts'
import { joinedPast, ownPast } from '../past.ts'
import { createPrometheusClient, type PrometheusClient } from './prometheus-client.ts'
import { createPrometheusPast, type PrometheusPast } from './prometheus-past.ts'

const NOW_MS = Date.UTC(2026, 0, 20, 12)
const MINUTE_MS = 60_000
const TOKEN = 'abc-very-secret'
const NEVER = new AbortController().signal
const WEB = { subject: 'service shop/web', measure: 'demand' } as const

let server: FakePrometheus
let client: PrometheusClient
let clock: VirtualClock
let past: PrometheusPast
const logged: string[] = []
const write = (...parts: unknown[]) => void logged.push(JSON.stringify(parts))
const logger: Logger = { debug: write, info: write, warn: write, error: write, with: () => logger }

function begin(timeoutMs: number): void {
  client = createPrometheusClient({ url: `${server.url}/prefix/`, token: TOKEN, caPem: null, timeoutMs, clock: systemClock() })
  past = createPrometheusPast({ client, cluster: 'c1', scrapeIntervalMs: 15_000, clock, logger })
}
beforeEach(async () => {
  server = await fakePrometheus()
  clock = virtualClock(NOW_MS)
  begin(20_000)
  logged.length = 0
})
afterEach(async () => {
  client.close()
  await server.close()
})

const lastMinutes = (minutes: number, stepMs = MINUTE_MS) =>
  past.query({ ...WEB, fromMs: NOW_MS - minutes * MINUTE_MS, toMs: NOW_MS, stepMs })
/** A matrix with these values at every step that was asked for. */
const everyStep =
  (mean: (i: number) => string, max: (i: number) => string = mean): Answer['body'] =>
  (parameters) => {
    const [start, end, step] = ['start', 'end', 'step'].map((name) => Number(parameters.get(name)))
    const count = Math.round(((end ?? 0) - (start ?? 0)) / (step ?? 1)) + 1
    const values = (of: (i: number) => string) =>
      Array.from({ length: count }, (_, i) => [Number(((start ?? 0) + i * (step ?? 0)).toFixed(3)), of(i)])
    return success({
      resultType: 'matrix',
      result: [
        { metric: { stat: 'mean' }, values: values(mean) },
        { metric: { stat: 'max' }, values: values(max) },
      ],
    })
  }
const alive = (atMs: number, count = '1') =>
  success({ resultType: 'vector', result: [{ metric: {}, value: [atMs / 1000, count] }] })

/** On a busy host an answer may come later than the short time allowed. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setImmediate(resolve))
}

describe('the past in a Prometheus', () => {
  it('gives means and maxima of steps; what is no number, infinite or absurd is a gap, not a load', async () => {
    const values = ['10', 'NaN', '+Inf', '-Inf', '1e300', '', 'twelve', '20.5']
    server.answer({
      body: everyStep(
        (i) => values[i] ?? '1',
        (i) => (i === 0 ? '30' : '5'),
      ),
    })
    const { points, isWhole } = await lastMinutes(8)
    expect(isWhole).toBe(true)
    expect(points).toEqual([
      { atMs: NOW_MS - 8 * MINUTE_MS, value: 10, max: 30 },
      { atMs: NOW_MS - MINUTE_MS, value: 20.5, max: 20.5 },
    ])
    expect(server.asked[0]).toMatchObject({ path: '/prefix/api/v1/query_range', authorization: `Bearer ${TOKEN}` })
  })

  it('leaves out what it was not asked for', async () => {
    const at = (NOW_MS - 5 * MINUTE_MS - 1) / 1000
    const values = [
      [at, '1'],
      [at + 7, '2'],
      [at - 86_400, '3'],
      [at + 86_400, '4'],
    ]
    server.answer({ body: success({ resultType: 'matrix', result: [{ metric: { stat: 'mean' }, values }] }) })
    expect((await lastMinutes(8)).points).toEqual([{ atMs: NOW_MS - 6 * MINUTE_MS, value: 1, max: 1 }])
  })

  it('asks in parts that Prometheus answers: no query for 11,000 points or more', async () => {
    server.answer({ body: everyStep(() => '1') })
    const { points } = await past.query({ ...WEB, fromMs: NOW_MS - 8 * 86_400_000, toMs: NOW_MS, stepMs: MINUTE_MS })
    expect(points).toHaveLength(11_520)
    expect(new Set(points.map(({ atMs }) => atMs)).size).toBe(11_520)
    expect(server.asked).toHaveLength(6)
  })

  const BROKEN: readonly (readonly [string, Answer | null, RegExp])[] = [
    ['does not answer', null, /did not answer within/],
    ['answers with a page', { body: '<html>Grafana</html>', headers: { 'content-type': 'text/html' } }, /not of Prometheus/],
    ['answers with other JSON', { body: '{"hello":1}' }, /not of Prometheus/],
    [
      'answers with data of another shape',
      { body: success({ resultType: 'matrix', result: [{ values: [[1]] }] }) },
      /not of Prom/,
    ],
    ['answers with nothing', { body: '' }, /not of Prometheus/],
    ['is a wrong path', { status: 404, body: 'page not found' }, /status 404/],
    ['fails', { status: 500, body: 'oops' }, /status 500/],
    ['is behind a proxy that lost it', { status: 502, body: '<html>bad gateway</html>' }, /status 502/],
    ['redirects', { status: 302, headers: { location: '/login' }, body: '' }, /redirects/],
    ['refuses the token', { status: 401, body: 'Unauthorized' }, /refuses the token/],
    ['breaks off', { body: '{"status":"succ', isCut: true }, /ended within its answer|cannot be reached/],
  ]
  for (const [what, answer, expected] of BROKEN)
    it(`one that ${what} is away: asked nothing more until it gives a sign of life`, async () => {
      if (answer === null) begin(200)
      server.answer(answer)
      let calls = 0
      past.onAway(() => {
        calls += 1
      })
      expect(await lastMinutes(5)).toEqual({ points: [], isWhole: false })
      expect(past.status()).toMatchObject({ isAway: true, failures: 1, fault: expect.stringMatching(expected) })
      expect(calls).toBe(1)
      expect(await lastMinutes(5)).toEqual({ points: [], isWhole: false })
      expect([...(await past.series())]).toEqual([])
      expect(server.asked).toHaveLength(1)
      server.answer({ body: alive(NOW_MS) })
      await until(async () => {
        await past.probe(NEVER)
        return !past.status().isAway
      })
      server.answer({ body: everyStep(() => '7') })
      if (answer !== null) expect((await lastMinutes(5)).points).toHaveLength(5)
    })

  it('one that hangs costs its time-out once, however many ask at that time, and holds up no shutdown', async () => {
    begin(300)
    server.answer(null)
    const answers = await Promise.all(Array.from({ length: 40 }, () => lastMinutes(5)))
    expect(answers.every(({ isWhole }) => !isWhole)).toBe(true)
    expect(server.asked.length).toBeLessThanOrEqual(4)
    begin(600_000)
    const stopping = new AbortController()
    const probed = past.probe(stopping.signal)
    stopping.abort()
    await probed
    expect(past.status()).toMatchObject({ isAway: false, failures: 0 })
  })

  it('trusts only the authority that it is given', async () => {
    const identity = () =>
      ensureTls(
        { files: memoryFiles(), stateDir: '/state', clock: systemClock(), random: systemRandom(), logger: silentLogger() },
        ['127.0.0.1'],
      )
    const [tls, stranger] = [await identity(), await identity()]
    const tlsServer = createServer({ key: tls.keyPem, cert: tls.certPem }, (_, response) => response.end(alive(NOW_MS)))
    await new Promise<void>((resolve) => tlsServer.listen(0, '127.0.0.1', resolve))
    const url = `https://127.0.0.1:${(tlsServer.address() as AddressInfo).port}`
    for (const caPem of [tls.caPem, stranger.caPem, null]) {
      const trusting = createPrometheusClient({ url, token: TOKEN, caPem, clock: systemClock() })
      const reply = await trusting.ask('query', {}, { maxBytes: 1000 })
      expect(reply.kind).toBe(caPem === tls.caPem ? 'data' : 'away')
      expect(JSON.stringify(reply)).not.toContain('secret')
      trusting.close()
    }
    tlsServer.close()
    tlsServer.closeAllConnections()
  })

  it('one that nothing listens for is away', async () => {
    await server.close()
    expect(await lastMinutes(5)).toEqual({ points: [], isWhole: false })
    expect(past.status().fault).toMatch(/cannot be reached: ECONNREFUSED/)
  })

  it('one that refuses a query, or answers it with too much, is well: other queries are asked all the same', async () => {
    const refusal = { status: 422, body: JSON.stringify({ status: 'error', errorType: 'execution', error: 'too\nmany samples' }) }
    for (const answer of [refusal, { body: `{"status":"success","data":"${'x'.repeat(5 << 20)}"}` }]) {
      server.answer(answer)
      expect(await lastMinutes(5)).toEqual({ points: [], isWhole: false })
      expect(past.status()).toMatchObject({ isAway: false, fault: null })
    }
    expect(past.status().failures).toBe(2)
    expect(logged).toHaveLength(1)
    expect(logged[0]).toContain('too many samples')
    server.answer({ body: everyStep(() => '7') })
    expect((await lastMinutes(5)).isWhole).toBe(true)
  })

  it('says when Prometheus has no figures of this cluster, but not of a coordinator that just began', async () => {
    server.answer({ body: alive(NOW_MS, '0') })
    await past.probe(NEVER)
    expect(past.status().fault).toBeNull()
    await clock.advance(6 * MINUTE_MS)
    server.answer({ body: alive(clock.now(), '0') })
    await past.probe(NEVER)
    expect(past.status()).toMatchObject({ isAway: false, fault: expect.stringMatching(/does it scrape \/metrics\?/) })
    server.answer({ body: alive(clock.now()) })
    await past.probe(NEVER)
    expect(past.status().fault).toBeNull()
  })

  it('says when its clock is another', async () => {
    for (const [offMs, expected] of [
      [90_000, /90 s ahead of ours/],
      [-90_000, /90 s behind ours/],
    ] as const) {
      server.answer({ body: alive(NOW_MS + offMs) })
      await past.probe(NEVER)
      expect(past.status()).toMatchObject({ clockAheadMs: offMs, isAway: false, fault: expect.stringMatching(expected) })
    }
    server.answer({ body: alive(NOW_MS + 3_000) })
    await past.probe(NEVER)
    expect(past.status().fault).toBeNull()
  })

  it('lists what stands behind its series: each once, however many series there are of it, and no other subject', async () => {
    const labels = (more: Record<string, string>) => ({ rubato_cluster: 'c1', job: 'x', ...more })
    const service = { app: 'shop', service: 'web' }
    server.answer({
      body: success([
        labels({ __name__: 'rubato_service_demand_percent', instance: 'old', ...service }),
        labels({ __name__: 'rubato_service_demand_percent', instance: 'new', ...service }),
        labels({ __name__: 'rubato_service_answer_seconds_bucket', le: '+Inf', ...service }),
        labels({ __name__: 'rubato_service_requests_total', ...service }),
        labels({ __name__: 'rubato_cluster_cpu_cores' }),
        labels({ __name__: 'something_else' }),
      ]),
    })
    const keys = async (subject?: string) => [...(await past.series(subject))].map((id) => `${id.subject} ${id.measure}`)
    expect(await keys('service shop/web')).toEqual([
      'service shop/web demand',
      'service shop/web latencyP95',
      'service shop/web requests',
    ])
    expect(await keys()).toContain('cluster requests')
    expect(await keys('cluster')).toEqual(['cluster cpuMillis', 'cluster requests'])
  })

  it('keeps its token out of logs and faults', async () => {
    for (const [, answer] of BROKEN.slice(1)) {
      server.answer(answer)
      await past.probe(NEVER)
      expect(JSON.stringify(past.status())).not.toContain('secret')
    }
    server.answer({ status: 400, body: JSON.stringify({ status: 'error', errorType: 'bad_data', error: 'x'.repeat(10_000) }) })
    await past.probe(NEVER)
    expect(logged.join()).not.toContain('secret')
    expect(logged.join().length).toBeLessThan(1_000)
  })

  it('joined with our own records, its holes are filled with those, and all is theirs while it is away', async () => {
    const history = createMemoryHistory(clock)
    for (let i = 1; i <= 8; i += 1) history.record(WEB, NOW_MS - i * MINUTE_MS, 100 + i)
    const joined = joinedPast(past, ownPast(history))
    const values = async () => {
      const { points, isWhole } = await joined.query({ ...WEB, fromMs: NOW_MS - 8 * MINUTE_MS, toMs: NOW_MS, stepMs: 10_000 })
      return [isWhole, ...points.map(({ value }) => value)]
    }
    server.answer({ body: everyStep((i) => (i % 2 === 0 ? 'NaN' : '1')) })
    expect(await values()).toEqual([true, 108, 1, 106, 1, 104, 1, 102, 1])
    server.answer({ status: 500, body: '' })
    expect(await values()).toEqual([false, 108, 107, 106, 105, 104, 103, 102, 101])
    expect([...(await joined.series('service shop/web'))]).toEqual([WEB])
  })
})
