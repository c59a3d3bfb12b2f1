/** A real Prometheus for tests: with samples of any time in its files, or scraping what it is told to. */
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { figureOf, kindOf, labelsOf } from '../../coordinator/history/prometheus/figure-names.ts'
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

/** Writes samples into the files that a Prometheus in `dir` reads at its next start: what it would have scraped of these clusters. */
export function fillPrometheus(
  promtool: string,
  dir: string,
  /** Each with the samples of one life of a coordinator: counters begin with it. */
  lives: readonly (readonly [cluster: string, samples: readonly Sample[]])[],
): void {
  // By day: promtool reads a whole file once for every two hours that it spans.
  const days = new Map<number, string[]>()
  for (const [cluster, samples] of lives) {
    const totals = new Map<string, number>()
    for (const { id, atMs, value } of samples) {
      const figure = figureOf(id)
      // Of the cluster there are no counters: they are sums over services.
      if (figure === null || (figure.kind === 'counter' && kindOf(id.subject) === 'cluster')) continue
      const key = `${figure.name}{${labelsOf(id.subject, cluster)}}`
      const total = totals.get(key) ?? 0
      totals.set(key, total + value * SAMPLE_S)
      const day = Math.floor(atMs / DAY_MS)
      const lines = days.get(day) ?? []
      lines.push(`${key} ${figure.kind === 'counter' ? total : value / figure.factor} ${(atMs / 1000).toFixed(3)}\n`)
      days.set(day, lines)
    }
  }
  mkdirSync(dataDir(dir), { recursive: true })
  const file = join(dir, 'samples.txt')
  for (const lines of days.values()) {
    writeFileSync(file, `${lines.join('')}# EOF\n`)
    const args = ['tsdb', 'create-blocks-from', 'openmetrics', file, dataDir(dir)]
    execFileSync(promtool, args, { stdio: ['ignore', 'ignore', 'inherit'] })
  }
  rmSync(file)
}

function dataDir(dir: string): string {
  return join(dir, 'data')
}
