import { createServer } from 'node:http'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { listening } from '../../test/contracts/gateway-bed.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { anInstanceUse } from '../../test/builders/observed.ts'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { IngressFlow } from '../gateway/engine.ts'
import { createLoadInbox } from '../local-api/load-inbox.ts'
import type { ContainerUse } from '../runtime/runtime.ts'
import { detectCapacity } from './capacity.ts'
import { deltaReport } from './delta-report.ts'
import { createMeter, type MeteredInstance } from './meter.ts'
import { type LoadInput, planLoad } from './plan-load.ts'
import { type ProcReader, parseCpuTicks, parseNetwork } from './proc.ts'
import { createLoadPuller, httpFetchText } from './pull.ts'
import { pulledPercent } from './pulled-value.ts'

const GIB = 2 ** 30
const nothing: LoadInput = {
  sources: [],
  limits: {},
  reservations: {},
  cpuMillis: null,
  memoryBytes: null,
  inFlight: 0,
  customPercent: null,
  nodeMemoryBytes: 4 * GIB,
}

describe('planLoad', () => {
  it('measures CPU against the limit, else the reservation, else one core', () => {
    expect(planLoad({ ...nothing, cpuMillis: 250 })).toBe(25)
    expect(planLoad({ ...nothing, cpuMillis: 250, reservations: { cpuMillis: 500 } })).toBe(50)
    expect(planLoad({ ...nothing, cpuMillis: 250, reservations: { cpuMillis: 500 }, limits: { cpuMillis: 250 } })).toBe(100)
    expect(planLoad({ ...nothing, cpuMillis: 9_000 })).toBe(100)
  })

  it('lets the largest source win, and says null when none gave a value', () => {
    const sources = [{ kind: 'custom' as const }, { kind: 'requests' as const, capacity: 10 }, { kind: 'memory' as const }]
    expect(planLoad({ ...nothing, sources, customPercent: 20, inFlight: 4, memoryBytes: GIB })).toBe(40)
    expect(planLoad({ ...nothing, sources: [{ kind: 'custom' }] })).toBeNull()
    expect(planLoad({ ...nothing, sources: [{ kind: 'requests', capacity: 0 }], inFlight: 3 })).toBeNull()
  })

  it('row 13: NaN, negative and infinite inputs never become a load', () => {
    const odd = fc.oneof(fc.double(), fc.constant(null))
    fc.assert(
      fc.property(odd, odd, odd, fc.double(), (cpuMillis, memoryBytes, customPercent, capacity) => {
        const sources = [
          { kind: 'cpu' as const },
          { kind: 'memory' as const },
          { kind: 'custom' as const },
          { kind: 'requests' as const, capacity },
        ]
        const load = planLoad({ ...nothing, sources, cpuMillis, memoryBytes, customPercent, inFlight: 1 })
        expect(load === null || (load >= 0 && load <= 100)).toBe(true)
      }),
    )
  })
})

describe('pulled loads', () => {
  const json = { kind: 'json' as const, port: 80, path: '/', pointer: '/a~1b/0', intervalMs: 1_000 }
  const prometheus = { kind: 'prometheus' as const, port: 80, path: '/', metric: 'busy{kind="x"}', full: 50, intervalMs: 1_000 }

  it('follow a JSON pointer or sum a metric', () => {
    expect(pulledPercent(json, '{"a/b":[42.5]}')).toBe(42.5)
    expect(pulledPercent(json, '{"a/b":["7"]}')).toBe(7)
    const text = '# HELP busy x\nbusy{kind="x",n="1"} 10\nbusy{kind="x",n="2"} 5 1700000000\nbusy{kind="y"} 99\nbusy_total 1\n'
    expect(pulledPercent(prometheus, text)).toBe(30)
    expect(pulledPercent({ ...prometheus, metric: 'busy_total' }, text)).toBe(2)
    expect(pulledPercent(prometheus, 'busy{kind="x"} 60\n')).toBe(100)
  })

  it('row 13: drop NaN, negative, 1e308, missing and malformed values', () => {
    for (const body of [
      '{"a/b":[-1]}',
      '{"a/b":[1e308]}',
      '{"a/b":["x"]}',
      '{"a/b":[]}',
      '{}',
      'nope',
      '{"a/b":[null]}',
      '{"__proto__":[1]}',
    ])
      expect(pulledPercent(json, body), body).toBeNull()
    for (const value of ['NaN', '-1', '+Inf', '1e308', 'x'])
      expect(pulledPercent(prometheus, `busy{kind="x"} ${value}\n`), value).toBeNull()
  })

  it('are asked for at their own interval, forgotten with the instance, and bounded', async () => {
    const clock = virtualClock()
    const loadInbox = createLoadInbox(clock)
    let asked = 0
    const puller = createLoadPuller({
      fetchText: async () => {
        asked += 1
        return `{"a/b":[${asked}]}`
      },
      loadInbox,
      clock,
      logger: silentLogger(),
    })
    puller.setTargets([{ instance: 'i', pull: json, address: 'x', port: 1 }])
    await clock.advance(3_100)
    expect(asked).toBe(4)
    expect(loadInbox.get('i', 1_000)?.loadPercent).toBe(4)
    puller.setTargets([])
    await clock.advance(10_000)
    expect(asked).toBe(4)
    expect(clock.pendingTimers).toBe(0)

    const server = createServer((request, response) => {
      if (request.url === '/big') response.end(Buffer.alloc(3_000_000))
      else if (request.url === '/moved') response.writeHead(302, { location: '/' }).end()
      else response.end('fine')
    })
    const port = await listening(server)
    const fetchText = httpFetchText(systemClock())
    expect(await fetchText('127.0.0.1', port, '/')).toBe('fine')
    await expect(fetchText('127.0.0.1', port, '/big')).rejects.toThrow('bytes')
    await expect(fetchText('127.0.0.1', port, '/moved')).rejects.toThrow('302')
    server.closeAllConnections()
    server.close()
  })
})

describe('meter', () => {
  const proc: ProcReader = { read: async () => null, disk: async () => null }
  const flow: IngressFlow = { instance: 'shop/web/1/1', inFlight: 3, requests: 7, errors: 1, denied: 2, rxBytes: 5, txBytes: 6 }

  it('turns counters into rates over the time between samples, restarts included, and adds the gateway flows', async () => {
    const clock = virtualClock()
    let stats: ContainerUse[] | null = []
    const use = (cpuTotalMs: number): ContainerUse => ({
      id: 'c1',
      cpuTotalMs,
      memoryBytes: 100,
      rxBytes: cpuTotalMs,
      txBytes: 0,
      blockReadBytes: 0,
      blockWriteBytes: 0,
    })
    const instance: MeteredInstance = {
      instance: 'shop/web/1/1',
      ids: ['c1'],
      load: [],
      limits: { cpuMillis: 1_000 },
      reservations: {},
      address: null,
      portMap: {},
    }
    const meter = createMeter({
      stats: async () => {
        if (stats === null) throw new Error('engine is away')
        return stats
      },
      takeFlows: () => [flow],
      loadInbox: createLoadInbox(clock),
      instances: () => [instance],
      puller: { setTargets() {}, stop() {} },
      proc,
      clock,
      logger: silentLogger(),
    })
    stats = [use(1_000)]
    expect((await meter.sample()).instances[0]).toMatchObject({ loadPercent: null, memoryBytes: 100, requests: 7, inFlight: 3 })
    await clock.advance(2_000)
    stats = [use(1_500)]
    expect((await meter.sample()).instances[0]).toMatchObject({ loadPercent: 25, cpuMillis: 250, rxBytes: 500 })
    await clock.advance(2_000)
    stats = null
    expect((await meter.sample()).instances[0]).toMatchObject({ loadPercent: null })
    await clock.advance(2_000)
    stats = [use(400)]
    expect((await meter.sample()).instances[0]).toMatchObject({ cpuMillis: 100, loadPercent: 10 })
  })

  it('tells a pushed load that moved far at once, twice a second at most, and counts nothing twice', async () => {
    const clock = virtualClock()
    const loadInbox = createLoadInbox(clock)
    const load = [{ kind: 'custom' as const }]
    const instance: MeteredInstance = {
      instance: 'shop/web/1/1',
      ids: [],
      load,
      limits: {},
      reservations: {},
      address: null,
      portMap: {},
    }
    const meter = createMeter({
      stats: async () => [],
      takeFlows: () => [flow],
      loadInbox,
      instances: () => [instance],
      puller: { setTargets() {}, stop() {} },
      proc,
      clock,
      logger: silentLogger(),
    })
    const push = (loadPercent: number) => loadInbox.set('shop/web/1/1', { loadPercent, demand: null })
    push(30)
    expect(meter.moved(), 'never sampled').toEqual([])
    await meter.sample()
    push(38)
    expect(meter.moved(), 'noise').toEqual([])
    push(95)
    expect(meter.moved()).toMatchObject([{ instance: 'shop/web/1/1', loadPercent: 95, inFlight: 3, requests: 0, rxBytes: 0 }])
    expect(meter.moved(), 'told already').toEqual([])
    await clock.advance(200)
    push(10)
    expect(meter.moved(), 'too soon').toEqual([])
    await clock.advance(300)
    expect(meter.moved()).toMatchObject([{ loadPercent: 10 }])
    expect((await meter.sample()).instances[0]).toMatchObject({ loadPercent: 10, requests: 7 })
  })

  it('reads the host from /proc, leaving out loopback and bridges', async () => {
    expect(parseCpuTicks('cpu  10 0 10 70 10 0 0 0 0 0\ncpu0 1\ncpu1 1\n')).toEqual({ busy: 20, total: 100, cores: 2 })
    const net = 'Inter-|\n face |\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 100 1 0 0 0 0 0 0 200 1 0\nveth1: 5 0 0 0 0 0 0 0 5 0\n'
    expect(parseNetwork(net)).toEqual({ rxBytes: 100, txBytes: 200 })
  })

  it('detects capacity within a cgroup, overridden by a declared slice', async () => {
    const files: Record<string, string> = {
      '/proc/stat': 'cpu  1 1 1 1\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\n',
      '/proc/meminfo': 'MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n',
      '/sys/fs/cgroup/cpu.max': '150000 100000\n',
      '/sys/fs/cgroup/memory.max': 'max\n',
    }
    const reader: ProcReader = { read: async (path) => files[path] ?? null, disk: async () => ({ totalBytes: 10, usedBytes: 1 }) }
    expect(await detectCapacity(reader)).toEqual({ cpuMillis: 1_500, memoryBytes: 8 * GIB, diskBytes: 10, slots: 250 })
    expect(await detectCapacity(reader, { cpuMillis: 500, slots: 4 })).toMatchObject({ cpuMillis: 500, slots: 4 })
  })
})

describe('deltaReport', () => {
  it('sends what changed, everything that counts requests, and all when asked', () => {
    const idle = anInstanceUse({ instance: 'a', loadPercent: 10, cpuMillis: 100, memoryBytes: 1_000 })
    const first = deltaReport(new Map(), [idle], false)
    expect(first.instances).toHaveLength(1)
    const same = deltaReport(first.sent, [{ ...idle, loadPercent: 10.2, memoryBytes: 1_010 }], false)
    expect(same.instances).toHaveLength(0)
    // Small steps add up: it is compared with what was sent, not with what was seen.
    expect(deltaReport(same.sent, [{ ...idle, loadPercent: 10.5 }], false).instances).toHaveLength(1)
    expect(deltaReport(same.sent, [{ ...idle, requests: 1 }], false).instances).toHaveLength(1)
    expect(deltaReport(same.sent, [{ ...idle, latency: [0, 1] }], false).instances).toHaveLength(1)
    expect(deltaReport(same.sent, [{ ...idle, loadPercent: null }], false).instances).toHaveLength(1)
    expect(deltaReport(same.sent, [idle], true).instances).toHaveLength(1)
  })
})
