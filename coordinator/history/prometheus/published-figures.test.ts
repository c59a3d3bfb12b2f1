import { describe, expect, it } from 'vitest'
import { aNodeObservation, anInstanceObservation, anInstanceUse, testObserved } from '../../../test/builders/observed.ts'
import { T0 } from '../../../test/builders/records.ts'
import { virtualClock } from '../../../test/fakes/virtual-clock.ts'
import { LATENCY_BUCKETS_MS } from '../../../shared/model/observation.ts'
import { createMemoryHistory } from '../memory-history.ts'
import type { Measure, SeriesId } from '../series.ts'
import { createPublishedFigures } from './published-figures.ts'

function bed() {
  const clock = virtualClock()
  const observed = testObserved()
  observed.setNode(aNodeObservation())
  observed.setInstance(anInstanceObservation())
  const services = new Set(['shop/web'])
  const published = createPublishedFigures({
    cluster: 'c1',
    observed,
    services: () => services,
    exists: (id) => services.has(id),
    clock,
  })
  const history = published.over(createMemoryHistory(clock))
  const record = (subject: string, measure: Measure, value: number, atMs = clock.now()) =>
    history.record({ subject, measure }, atMs, value)
  const lines = () =>
    published
      .text()
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
  return { clock, observed, services, published, history, record, lines }
}

describe('published figures', () => {
  it('O6: are the last sample of what the history records, in the units of Prometheus, with the cluster’s name', () => {
    const { published, history, record, clock } = bed()
    record('service shop/web', 'demand', 120)
    record('service shop/web', 'demand', 130)
    record('node n-1', 'cpuMillis', 1500)
    record('cluster', 'usdPerHour', 0.5)
    expect(published.text()).toBe(
      [
        '# HELP rubato_service_demand_percent Sum of the loads of the ready instances; 100 is one full instance.',
        '# TYPE rubato_service_demand_percent gauge',
        'rubato_service_demand_percent{rubato_cluster="c1",app="shop",service="web"} 130',
        '# HELP rubato_node_cpu_cores CPU that a node uses.',
        '# TYPE rubato_node_cpu_cores gauge',
        'rubato_node_cpu_cores{rubato_cluster="c1",node="n-1"} 1.5',
        '# HELP rubato_cluster_price_usd_per_hour What the present machines cost.',
        '# TYPE rubato_cluster_price_usd_per_hour gauge',
        'rubato_cluster_price_usd_per_hour{rubato_cluster="c1"} 0.5',
        '',
      ].join('\n'),
    )
    const query = { subject: 'service shop/web', measure: 'demand' as const, fromMs: 0, toMs: clock.now() + 1, stepMs: 10_000 }
    expect(history.query(query)).toMatchObject([{ value: 125, max: 130 }])
  })

  it('say nothing of what was not measured just now: missing is neither zero nor the last value', async () => {
    const { clock, record, lines } = bed()
    record('node n-1', 'memoryBytes', 5)
    await clock.advance(8_000)
    record('node n-2', 'memoryBytes', 6)
    record('node n-3', 'memoryBytes', Number.NaN)
    expect(lines()).toHaveLength(2)
    await clock.advance(4_000)
    expect(lines()).toEqual(['rubato_node_memory_bytes{rubato_cluster="c1",node="n-2"} 6'])
    clock.jumpWall(86_400_000)
    expect(lines()).toHaveLength(1)
    await clock.advance(8_000)
    expect(lines()).toEqual([])
  })

  it('give a forecast when its minute has come', async () => {
    const { clock, record, lines } = bed()
    const nowMs = clock.now()
    record('service shop/web', 'forecast', 100, nowMs + 60_000)
    record('service shop/web', 'forecast', 200, nowMs + 120_000)
    record('service shop/web', 'forecast', 210, nowMs + 120_000)
    expect(lines()).toEqual([])
    const values: (string | undefined)[] = []
    for (let i = 0; i < 3; i += 1) {
      await clock.advance(60_000)
      values.push(lines()[0]?.split(' ').at(-1))
    }
    expect(values).toEqual(['100', '210', undefined])
  })

  it('count requests and answer times of each service since the start, and forget a service with it', () => {
    const { observed, services, published, lines } = bed()
    published.start()
    const latency = LATENCY_BUCKETS_MS.map(() => 0).concat(1)
    latency[2] = 4
    for (let i = 0; i < 2; i += 1)
      observed.setUse(anInstanceUse({ requests: 5, errors: 1, rxBytes: 100, txBytes: 200, latency }), T0)
    const labels = 'rubato_cluster="c1",app="shop",service="web"'
    for (const line of [
      `rubato_service_requests_total{${labels}} 10`,
      `rubato_service_request_errors_total{${labels}} 2`,
      `rubato_service_requests_denied_total{${labels}} 0`,
      `rubato_service_received_bytes_total{${labels}} 200`,
      `rubato_service_sent_bytes_total{${labels}} 400`,
      `rubato_service_answer_seconds_bucket{${labels},le="0.002"} 0`,
      `rubato_service_answer_seconds_bucket{${labels},le="0.005"} 8`,
      `rubato_service_answer_seconds_bucket{${labels},le="10"} 8`,
      `rubato_service_answer_seconds_bucket{${labels},le="+Inf"} 10`,
      `rubato_service_answer_seconds_count{${labels}} 10`,
    ])
      expect(lines()).toContain(line)
    expect(published.text().match(/# TYPE rubato_service_answer_seconds histogram\n/g)).toHaveLength(1)
    services.clear()
    expect(lines()).toEqual([])
    published.stop()
  })

  it('stay bounded: one app has at most 10,000 series, and those that ended make room', async () => {
    const { clock, published, lines } = bed()
    const history = published.over({ record: (_id: SeriesId, _atMs: number, _value: number) => {} })
    const record = (subject: string, measure: Measure, value: number) => history.record({ subject, measure }, clock.now(), value)
    for (let i = 0; i < 10_050; i += 1) record(`service greedy/s${i}`, 'ready', 1)
    record('service shop/web', 'ready', 1)
    expect(lines()).toHaveLength(10_001)
    await clock.advance(11_000)
    record('service greedy/new', 'ready', 1)
    expect(lines()).toEqual(['rubato_service_instances_ready{rubato_cluster="c1",app="greedy",service="new"} 1'])
  })
})
