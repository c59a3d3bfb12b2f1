/** A real Prometheus for tests: with samples of any time in its files, or scraping what it is told to. */
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { figureOf, kindOf, labelsOf } from '../../coordinator/history/prometheus/figure-names.ts'
import { LATENCY_BUCKETS_MS } from '../../shared/model/observation.ts'
import type { Sample } from '../contracts/past-contract.ts'
import { until } from './hosts.ts'

export interface PrometheusProcess {
  readonly url: string
  /** Ends it at once, as a crash does; `start` brings it back with its files. */
  kill(): Promise<void>
  start(): Promise<void>
}

const DAY_MS = 86_400_000
/** Time that a sample of what is counted stands for. */
const SAMPLE_S = 10

export async function startPrometheus(options: {
  readonly binary: string
  readonly dir: string
  /** host:port */
  readonly listen: string
  /** Body of `scrape_configs`, as YAML; empty: it scrapes nothing. */
  readonly scrapeConfigs: string
}): Promise<PrometheusProcess> {
  const { binary, dir, listen } = options
  mkdirSync(dir, { recursive: true })
  const configFile = join(dir, 'prometheus.yml')
  writeFileSync(
    configFile,
    `global: { scrape_interval: 1s, scrape_timeout: 1s }\nscrape_configs: ${options.scrapeConfigs === '' ? '[]' : `\n${options.scrapeConfigs}`}\n`,
  )
  const url = `http://${listen}`
  let child: ReturnType<typeof spawn> | null = null
  const prometheus: PrometheusProcess = {
    url,
    async start() {
      const started = spawn(
        binary,
        [
          `--config.file=${configFile}`,
          `--storage.tsdb.path=${dataDir(dir)}`,
          '--storage.tsdb.retention.time=10y',
          `--web.listen-address=${listen}`,
          '--log.level=warn',
        ],
        { stdio: ['ignore', 'ignore', 'inherit'] },
      )
      child = started
      await until(
        async () => {
          if (started.exitCode !== null) throw new Error(`Prometheus ended with ${started.exitCode}`)
          return fetch(`${url}/-/ready`).then(
            ({ ok }) => ok,
            () => false,
          )
        },
        'Prometheus to be ready',
        30_000,
      )
    },
    async kill() {
      const victim = child
      child = null
      victim?.kill('SIGKILL')
      await until(() => victim === null || victim.exitCode !== null || victim.signalCode !== null, 'Prometheus to end', 20_000)
    },
  }
  await prometheus.start()
  return prometheus
}

/** One life of a coordinator: its counters begin with it. */
export interface PrometheusLife {
  readonly cluster: string
  readonly samples: readonly Sample[]
  /** Where it was scraped; absent: the series say nothing of it. */
  readonly instance?: string
}

/** Writes samples into the files that a Prometheus in `dir` reads at its next start: what it would have scraped of these clusters. */
export function fillPrometheus(promtool: string, dir: string, lives: readonly PrometheusLife[]): void {
  // By day, since promtool reads a whole file once for every two hours that it spans; in order of time, or it refuses what is long past.
  const days = new Map<number, { readonly atMs: number; readonly text: string }[]>()
  for (const { cluster, samples, instance } of lives) {
    const totals = new Map<string, number>()
    const count = (key: string, more: number) => {
      const total = (totals.get(key) ?? 0) + more
      totals.set(key, total)
      return total
    }
    for (const { id, atMs, value } of samples) {
      const figure = figureOf(id)
      // Of the cluster there are no counters: they are sums over services.
      if (figure === null || (figure.kind === 'counter' && kindOf(id.subject) === 'cluster')) continue
      const labels = `${labelsOf(id.subject, cluster)}${instance === undefined ? '' : `,instance="${instance}"`}`
      const day = Math.floor(atMs / DAY_MS)
      const lines = days.get(day) ?? []
      const put = (name: string, more: string, of: number) =>
        lines.push({ atMs, text: `${name}{${labels}${more}} ${of} ${(atMs / 1000).toFixed(3)}\n` })
      if (figure.kind === 'gauge') put(figure.name, '', value / figure.factor)
      // As it was scraped at that time: what the sample stands for came after it.
      else if (figure.kind === 'counter') put(figure.name, '', count(labels + figure.name, value * SAMPLE_S) - value * SAMPLE_S)
      else
        for (const boundMs of [...LATENCY_BUCKETS_MS, Number.POSITIVE_INFINITY]) {
          const le = boundMs === Number.POSITIVE_INFINITY ? '+Inf' : boundMs / figure.factor
          put(`${figure.name}_bucket`, `,le="${le}"`, count(`${labels}${figure.name}${le}`, value <= boundMs ? SAMPLE_S : 0))
        }
      days.set(day, lines)
    }
  }
  mkdirSync(dataDir(dir), { recursive: true })
  const file = join(dir, 'samples.txt')
  for (const lines of days.values()) {
    const inOrder = lines.sort((a, b) => a.atMs - b.atMs).map(({ text }) => text)
    writeFileSync(file, `${inOrder.join('')}# EOF\n`)
    const args = ['tsdb', 'create-blocks-from', 'openmetrics', file, dataDir(dir)]
    execFileSync(promtool, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  }
  rmSync(file)
}

function dataDir(dir: string): string {
  return join(dir, 'data')
}
