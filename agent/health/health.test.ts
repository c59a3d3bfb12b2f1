import fc from 'fast-check'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { HealthSpec } from '../../shared/model/unit.ts'
import { fakeEngine } from '../../test/fakes/fake-runtime.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { nextProbeAtMs, recordProbe, startHealth } from './plan-health.ts'
import { createProber, type ProbeTarget } from './prober.ts'
import { realProbeNetwork } from './probes.ts'

const spec = (fields: Partial<HealthSpec> = {}): HealthSpec => ({
  probe: { kind: 'http', port: 80, path: '/' },
  intervalMs: 10_000,
  timeoutMs: 1_000,
  retries: 3,
  startPeriodMs: 0,
  startIntervalMs: 5_000,
  ...fields,
})

/** When it turns unhealthy if every probe fails at once; null within `limitMs`. */
function unhealthyAtMs(health: HealthSpec, limitMs = 10 ** 7): number | null {
  let state = startHealth(health, 0)
  for (let now = 0; now <= limitMs; ) {
    now = nextProbeAtMs(state)
    state = recordProbe(state, health, { healthy: false, text: 'no' }, now, now)
    if (state.status === 'unhealthy') return now
  }
  return null
}

describe('health by Compose rules', () => {
  it('is unhealthy after as many failures as retries, one interval apart, the first after one interval', () => {
    expect(unhealthyAtMs(spec())).toBe(30_000)
    expect(unhealthyAtMs(spec({ retries: 1, intervalMs: 500 }))).toBe(500)
  })

  it('failures within the start period do not count', () => {
    const at = unhealthyAtMs(spec({ startPeriodMs: 60_000 })) ?? 0
    expect(at).toBeGreaterThanOrEqual(60_000 + 2 * 10_000)
    expect(at).toBeLessThanOrEqual(60_000 + 3 * 10_000)
  })

  it('a success ends the start period: failures count from then on', () => {
    const health = spec({ startPeriodMs: 3_600_000 })
    let state = recordProbe(startHealth(health, 0), health, { healthy: true, text: '' }, 0, 0)
    expect(state.status).toBe('healthy')
    for (let i = 0; i < 3; i += 1) {
      const now = nextProbeAtMs(state)
      state = recordProbe(state, health, { healthy: false, text: 'no' }, now, now)
    }
    expect(state.status).toBe('unhealthy')
  })

  it('a success forgets failures', () => {
    const health = spec()
    let state = startHealth(health, 0)
    for (const healthy of [true, false, false, true, false, false]) {
      const now = nextProbeAtMs(state)
      state = recordProbe(state, health, { healthy, text: '' }, now, now)
    }
    expect(state).toMatchObject({ status: 'healthy', failures: 2 })
  })

  it('property: the next probe is always later, and never further away than the interval', () => {
    fc.assert(
      fc.property(
        fc.array(fc.boolean(), { minLength: 1, maxLength: 50 }),
        fc.integer({ min: 1, max: 100_000 }),
        fc.integer({ min: 0, max: 100_000 }),
        (results, intervalMs, startPeriodMs) => {
          const health = spec({ intervalMs, startPeriodMs })
          let state = startHealth(health, 0)
          let now = 0
          for (const healthy of results) {
            now = Math.max(now, nextProbeAtMs(state))
            state = recordProbe(state, health, { healthy, text: '' }, now, now)
            expect(nextProbeAtMs(state)).toBeGreaterThan(now)
            expect(nextProbeAtMs(state)).toBeLessThanOrEqual(now + intervalMs)
          }
        },
      ),
    )
  })
})

describe('the prober', () => {
  const target = (fields: Partial<ProbeTarget>): ProbeTarget => ({
    key: 'c1@1',
    containerId: 'c1',
    runtime: fakeEngine({ clock: virtualClock() }).runtime({ clusterId: 'c', nodeId: 'n' }),
    spec: spec(),
    address: '10.0.0.2',
    portMap: { 80: 31_000 },
    ...fields,
  })

  it('sees readiness long before the first interval, and leaves no timer behind', async () => {
    const clock = virtualClock()
    let listening = false
    const asked: number[] = []
    const prober = createProber({
      clock,
      logger: silentLogger(),
      network: {
        http: async ({ port }) => {
          asked.push(port)
          return { healthy: listening, text: 'refused' }
        },
        tcp: async () => ({ healthy: true, text: '' }),
      },
    })
    let changes = 0
    prober.onChange(() => {
      changes += 1
    })
    prober.watch([target({})])
    await clock.advance(1_000)
    expect(prober.health('c1@1')).toEqual({ status: 'starting', text: 'refused' })
    listening = true
    await clock.advance(1_000)
    expect(prober.health('c1@1')?.status).toBe('healthy')
    expect(changes).toBe(1)
    expect(asked.every((port) => port === 31_000)).toBe(true)
    prober.stop()
    expect(clock.pendingTimers).toBe(0)
  })

  it('another run of the same container starts afresh', async () => {
    const clock = virtualClock()
    const network = { http: async () => ({ healthy: true, text: '' }), tcp: async () => ({ healthy: true, text: '' }) }
    const prober = createProber({ clock, logger: silentLogger(), network })
    prober.watch([target({})])
    await clock.advance(10)
    prober.watch([target({ key: 'c1@2' })])
    expect(prober.health('c1@1')).toBeNull()
    expect(prober.health('c1@2')?.status).toBe('starting')
    prober.stop()
  })
})

describe('probes over the network', () => {
  it('HTTP: 2xx and 3xx are healthy, the rest, a refusal and silence are not', async () => {
    const clock = systemClock()
    const server = createServer((request, response) => {
      if (request.url === '/silent') return
      response.writeHead(Number(request.url?.slice(1)))
      response.end('x'.repeat(10_000))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const network = realProbeNetwork(clock)
    const ask = (path: string, timeoutMs = 2_000) =>
      network.http({ address: '127.0.0.1', port, path }, timeoutMs, new AbortController().signal)
    expect(await ask('/200')).toEqual({ healthy: true, text: '' })
    expect((await ask('/302')).healthy).toBe(true)
    expect(await ask('/503')).toEqual({ healthy: false, text: 'GET /503 answered 503' })
    expect(await ask('/silent', 50)).toEqual({ healthy: false, text: 'no answer within 50 ms' })
    const tcp = (at: number) => network.tcp({ address: '127.0.0.1', port: at }, 2_000, new AbortController().signal)
    expect((await tcp(port)).healthy).toBe(true)
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    expect((await tcp(port)).text).toContain('ECONNREFUSED')
  })
})
