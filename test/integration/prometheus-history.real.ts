/**
 * The past read from a real Prometheus: the contract of the past over files that promtool made, and a real coordinator that it scrapes,
 * through restarts of both.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createPrometheusClient } from '../../coordinator/history/prometheus/prometheus-client.ts'
import { createPrometheusPast } from '../../coordinator/history/prometheus/prometheus-past.ts'
import type { HistoryView } from '../../coordinator/api/routes-history.ts'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { type PastScenario, pastContract, type Sample } from '../contracts/past-contract.ts'
import { virtualClock } from '../fakes/virtual-clock.ts'
import { type CoordinatorProcess, startCoordinator } from '../lab/coordinator.ts'
import { until } from '../lab/hosts.ts'
import { installPrometheusTools, isRootOnDebian } from '../lab/packages.ts'
import { fillPrometheus, type PrometheusLife, type PrometheusProcess, startPrometheus } from '../lab/prometheus.ts'

const HOST = '127.0.0.1'
const PORTS = { files: 18_691, scraping: 18_692, coordinator: 18_693, catalog: 18_694, dns: 18_695 }
const MINUTE_MS = 60_000
const START_MS = Date.UTC(2026, 0, 5)
const WEB = { subject: 'service shop/web' }

const report = (line: string) => void process.stdout.write(`  ${line}\n`)
const tools = isRootOnDebian() ? installPrometheusTools(report) : null

describe.skipIf(tools === null)('history from a real Prometheus (needs root on Debian)', () => {
  let directory = ''
  let scraping: PrometheusProcess | null = null
  let files: PrometheusProcess | null = null
  let coordinator: CoordinatorProcess | null = null
  const client = createPrometheusClient({ url: `http://${HOST}:${PORTS.files}`, token: null, caPem: null, clock: systemClock() })

  const pastOf = (cluster: string, nowMs: number, scrapeIntervalMs = 10_000) =>
    createPrometheusPast({ client, cluster, scrapeIntervalMs, clock: virtualClock(nowMs), logger: silentLogger() })

  const fill = async (lives: readonly PrometheusLife[]) => {
    if (tools === null) return
    fillPrometheus(tools.promtool, join(directory, 'files'), lives)
    files = await startPrometheus({
      binary: tools.prometheus,
      dir: join(directory, 'files'),
      listen: `${HOST}:${PORTS.files}`,
      scrapeConfigs: '',
    })
  }

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'rubato-prometheus-'))
  })
  afterAll(async () => {
    await coordinator?.stop()
    await scraping?.kill()
    await files?.kill()
    client.close()
    rmSync(directory, { recursive: true, force: true })
  })

  const errorsFrom = (fromMs: number): Sample[] =>
    Array.from({ length: 90 }, (_, i) => ({
      id: { ...WEB, measure: 'errors' as const },
      atMs: START_MS + fromMs + i * 10_000,
      value: 3,
    }))

  const twice: readonly Sample[] = (['demand', 'requests', 'latencyP95'] as const).flatMap((measure) =>
    Array.from({ length: 60 }, (_, i) => ({ id: { ...WEB, measure }, atMs: START_MS + i * 10_000, value: 19.5 })),
  )

  pastContract('a real Prometheus', 1e-9, async (scenarios) => {
    const clusterOf = (scenario: PastScenario) => `c"${scenarios.indexOf(scenario)}`
    await fill([
      ...scenarios.map((scenario) => ({ cluster: clusterOf(scenario), samples: scenario.samples })),
      // Restarted after a quarter of an hour: its counters began anew.
      { cluster: 'c-restarted', samples: errorsFrom(0) },
      { cluster: 'c-restarted', samples: errorsFrom(15 * MINUTE_MS) },
      // Scraped by two jobs.
      { cluster: 'c-twice', samples: twice, instance: 'a:7600' },
      { cluster: 'c-twice', samples: twice, instance: 'b:7600' },
    ])
    return (scenario) => pastOf(clusterOf(scenario), scenario.nowMs)
  })

  it('counters that began anew count on, as finely as it scrapes', async () => {
    for (const scrapeIntervalMs of [10_000, 60_000]) {
      const { points, isWhole } = await pastOf('c-restarted', START_MS + 30 * MINUTE_MS, scrapeIntervalMs).query({
        ...WEB,
        measure: 'errors',
        fromMs: START_MS,
        toMs: START_MS + 30 * MINUTE_MS,
        stepMs: MINUTE_MS,
      })
      expect(isWhole).toBe(true)
      expect(points).toHaveLength(30)
      // What was counted between the last scrape of one life and the first of the next is lost: ten seconds' worth.
      for (const { value } of points.slice(2)) expect(value).toBeGreaterThan(2.2)
      for (const { value, max } of points) expect(Math.max(value, max)).toBeLessThan(3.1)
    }
  })

  it('what is scraped twice counts once', async () => {
    const past = pastOf('c-twice', START_MS + 10 * MINUTE_MS)
    for (const measure of ['demand', 'requests', 'latencyP95'] as const)
      for (const id of [{ ...WEB, measure }, ...(measure === 'requests' ? [{ subject: 'cluster', measure }] : [])]) {
        const { points } = await past.query({ ...id, fromMs: START_MS, toMs: START_MS + 10 * MINUTE_MS, stepMs: MINUTE_MS })
        expect(points).toHaveLength(10)
        for (const point of points.slice(2))
          expect(point).toMatchObject({ value: expect.closeTo(19.5, 2), max: expect.closeTo(19.5, 2) })
      }
  })

  it('knows nothing of another cluster in the same Prometheus', async () => {
    expect([...(await pastOf('c-other', START_MS + 30 * MINUTE_MS).series())]).toEqual([])
  })

  it('answers API and command line with what it scraped of a coordinator, without it with what that recorded, and says so', async () => {
    if (tools === null) return
    coordinator = await startCoordinator({
      dir: join(directory, 'coordinator'),
      host: HOST,
      port: PORTS.coordinator,
      catalogPort: PORTS.catalog,
      dnsPort: PORTS.dns,
      settings: { history: { prometheus: { url: `http://${HOST}:${PORTS.scraping}`, scrapeInterval: '1s' } } },
    })
    const begunMs = Date.now()
    const { text } = await coordinator.send<{ text: string }>('POST', '/v1/tokens/operator', { name: 'scraper', role: 'viewer' })
    writeFileSync(join(directory, 'token'), text, { mode: 0o600 })
    scraping = await startPrometheus({
      binary: tools.prometheus,
      dir: join(directory, 'scraping'),
      listen: `${HOST}:${PORTS.scraping}`,
      scrapeConfigs: `  - job_name: rubato
    bearer_token_file: ${join(directory, 'token')}
    static_configs: [{ targets: ["${HOST}:${PORTS.coordinator}"] }]`,
    })
    const scraped = async () => {
      const answer = await fetch(
        `http://${HOST}:${PORTS.scraping}/api/v1/query?query=count_over_time(rubato_cluster_machines[1h])`,
      )
      const { data } = (await answer.json()) as { data: { result: { value: [number, string] }[] } }
      return Number(data.result[0]?.value[1] ?? 0)
    }
    await until(async () => (await scraped()) >= 3, 'Prometheus to scrape the coordinator')

    // A new life without a memory of its own: what it knows of the one before, Prometheus told it.
    await coordinator.kill()
    const killedMs = Date.now()
    for (const suffix of ['', '-wal', '-shm']) rmSync(join(coordinator.dir, 'state', `history.db${suffix}`), { force: true })
    await coordinator.start()
    const historyOf = (more = '') =>
      (coordinator as CoordinatorProcess).get<HistoryView>(
        `/v1/history?subject=cluster&measure=machines,ready&step=10s&from=${begunMs - 10_000}${more}`,
      )
    const before = await historyOf()
    expect(before.stepMs).toBe(10_000)
    for (const { points } of before.series) {
      expect(points[0]).toEqual({ atMs: expect.any(Number), value: 0, max: 0 })
      expect(points[0]?.atMs).toBeLessThan(killedMs)
    }
    const listed = await coordinator.cli(['history', 'cluster', 'machines', '--since', '5m', '-o', 'csv'])
    expect(listed).toMatchObject({ code: 0, stdout: expect.stringMatching(/^timestamp,value\n\d{4}-.*,0\n/) })

    const told = async (type: string) => {
      const { items } = await (coordinator as CoordinatorProcess).get<{ items: { type: string }[] }>('/v1/events?limit=200')
      return items.filter((event) => event.type === type).length
    }
    const metrics = async () =>
      (await fetch(`${coordinator?.url}/metrics`, { headers: { authorization: `Bearer ${coordinator?.token}` } })).text()
    // The coordinator was there before Prometheus, and may have said so.
    const [faults, returns] = [await told('history.prometheus-fault'), await told('history.prometheus-back')]
    await scraping.kill()
    await until(async () => (await historyOf()).series.every(({ points }) => points.length > 0), 'its own records to answer')
    await until(async () => (await told('history.prometheus-fault')) > faults, 'the fault to be told')
    expect(await metrics()).toContain('rubato_history_prometheus_up 0\n')
    const meanwhile = await historyOf()
    for (const { points } of meanwhile.series) expect(points[0]?.atMs).toBeGreaterThan(killedMs - 10_000)

    await scraping.start()
    await until(async () => (await told('history.prometheus-back')) > returns, 'its return to be told')
    expect(await metrics()).toContain('rubato_history_prometheus_up 1\n')
    expect((await historyOf()).series[0]?.points[0]?.atMs).toBe(before.series[0]?.points[0]?.atMs)
  })
})
