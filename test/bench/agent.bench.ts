/**
 * The agent as a process, on a real Docker engine: memory and CPU with 50 containers, bytes on its link when idle, and how long 20
 * instances take to be ready, next to 20 plain parallel `docker run` on the same engine.
 */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startCoordinator, type CoordinatorProcess } from '../lab/coordinator.ts'
import { startDockerd } from '../lab/dockerd.ts'
import { engineRequest } from '../lab/engine-api.ts'
import { pause, until } from '../lab/hosts.ts'
import { importImage } from '../lab/images.ts'
import { installPackages } from '../lab/packages.ts'
import type { BenchResult } from './result.ts'
import { median, spread } from './statistics.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const CLOCK_TICKS_PER_S = 100
const IMAGE = 'rubato-bench/idle:1'
const PEER_NETWORK = 'rubato-bench-peer'
const INSTANCES = 50
const DEPLOYED = 20

interface Bed {
  readonly socket: string
  readonly coordinator: CoordinatorProcess
  readonly agentPid: number
  deploy(name: string, replicas: number): Promise<void>
  remove(name: string): Promise<void>
}

export async function benchAgent(): Promise<readonly BenchResult[]> {
  return withBed(async (bed) => {
    await bed.deploy('idle', INSTANCES)
    // Start-up garbage is not what a day looks like.
    await pause(20_000)
    const samples: { rssMb: number; cpuPercent: number; bytesPerS: number }[] = []
    let before = await reading(bed)
    for (let round = 0; round < 6; round += 1) {
      await pause(5_000)
      const now = await reading(bed)
      const elapsedS = (now.atMs - before.atMs) / 1000
      samples.push({
        rssMb: now.rssMb,
        cpuPercent: ((now.cpuS - before.cpuS) / elapsedS) * 100,
        bytesPerS: (now.linkBytes - before.linkBytes) / elapsedS,
      })
      before = now
    }
    const figure = (name: string, unit: string, target: number, values: readonly number[]): BenchResult => ({
      name,
      value: median(values),
      unit,
      better: 'lower',
      target,
      peer: `range ${spread(values)}`,
      ratio: null,
    })
    return [
      figure(
        'agent.rss_mb_50_containers',
        'MB',
        110,
        samples.map((sample) => sample.rssMb),
      ),
      figure(
        'agent.cpu_percent_50_containers',
        '% of a core',
        2,
        samples.map((sample) => sample.cpuPercent),
      ),
      figure(
        'link.idle_bytes_per_s',
        'B/s',
        1500,
        samples.map((sample) => sample.bytesPerS),
      ),
    ]
  })
}

export async function benchDeploy(): Promise<readonly BenchResult[]> {
  return withBed(async (bed) => {
    const ours: number[] = []
    const plain: number[] = []
    // The peer's containers get a bridge of their own, as ours do.
    execFileSync('docker', ['-H', `unix://${bed.socket}`, 'network', 'create', PEER_NETWORK], { stdio: 'ignore' })
    for (let round = 0; round < 4; round += 1) {
      const plainStart = performance.now()
      await Promise.all(Array.from({ length: DEPLOYED }, (_, index) => dockerRun(bed.socket, `plain-${round}-${index}`)))
      const plainMs = performance.now() - plainStart
      await Promise.all(
        Array.from({ length: DEPLOYED }, (_, index) =>
          engineRequest(bed.socket, 'DELETE', `/containers/plain-${round}-${index}?force=true`),
        ),
      )
      const ourStart = performance.now()
      await bed.deploy(`deploy-${round}`, DEPLOYED)
      const ourMs = performance.now() - ourStart
      await bed.remove(`deploy-${round}`)
      // The first round warms caches of engine and agent.
      if (round === 0) continue
      ours.push(ourMs)
      plain.push(plainMs)
    }
    const ratio = median(ours.map((value, index) => value / (plain[index] ?? Number.NaN)))
    return [
      {
        name: 'deploy.20_instances_vs_docker_run_ratio',
        value: ratio,
        unit: '×',
        better: 'lower',
        target: 1.9,
        peer: `docker run ${spread(plain, 0)} ms, rubato ${spread(ours, 0)} ms`,
        ratio,
      },
    ]
  })
}

async function withBed(measure: (bed: Bed) => Promise<readonly BenchResult[]>): Promise<readonly BenchResult[]> {
  if (
    !(await installPackages((line) => process.stderr.write(`${line}\n`), ['docker.io', 'iptables', 'iproute2', 'busybox-static']))
  )
    throw new Error('needs root on Debian or Ubuntu')
  const dir = mkdtempSync(join(tmpdir(), 'rubato-bench-'))
  const dockerd = await startDockerd(join(dir, 'dockerd'))
  const cleanups: (() => Promise<void>)[] = [() => dockerd.stop()]
  try {
    await importImage(dockerd.socket, IMAGE, ['sleep', '1000000'])
    const coordinator = await startCoordinator({
      dir: join(dir, 'coordinator'),
      host: '127.0.0.1',
      port: 17690,
      catalogPort: 17691,
      dnsPort: 17692,
    })
    cleanups.push(() => coordinator.stop())
    const joined = await coordinator.cli(['token', 'join', '-o', 'json'])
    const token = (JSON.parse(joined.stdout) as { text: string }).text
    const tokenFile = join(dir, 'token')
    writeFileSync(tokenFile, token, { mode: 0o600 })
    const stateDir = join(dir, 'agent')
    const binary = join(ROOT, 'dist', 'rubato-agent')
    const command = existsSync(binary) ? [binary] : [process.execPath, join(ROOT, 'agent', 'main.ts')]
    const agent = spawn(
      command[0] ?? '',
      [
        ...command.slice(1),
        '--state-dir',
        stateDir,
        '--token-file',
        tokenFile,
        '--urls',
        coordinator.url,
        '--address',
        '127.0.0.1',
        '--engine',
        'docker',
        '--docker-socket',
        dockerd.socket,
        '--capacity-cpus',
        '64',
        '--capacity-memory',
        '64G',
        '--local-api-port',
        '17700',
        '--log-level',
        'warn',
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    )
    cleanups.push(async () => {
      agent.kill('SIGTERM')
      await until(() => agent.exitCode !== null || agent.signalCode !== null, 'the agent to stop')
      execFileSync(command[0] ?? '', [...command.slice(1), 'destroy', '--state-dir', stateDir, '--docker-socket', dockerd.socket])
    })
    await until(
      async () =>
        (await coordinator.get<{ items: { liveness: string }[] }>('/v1/nodes')).items.some((node) => node.liveness === 'live'),
      'the node to join',
    )
    return await measure({
      socket: dockerd.socket,
      coordinator,
      agentPid: agent.pid ?? 0,
      async deploy(name, replicas) {
        const file = join(dir, `${name}.yaml`)
        writeFileSync(
          file,
          `services:\n  idle:\n    image: ${IMAGE}\n    pull_policy: never\n    stop_grace_period: 0s\n    deploy: { replicas: ${replicas}, resources: { reservations: { cpus: "0.01", memory: 8M } } }\n    x-rubato: { drain: 0s }\n`,
        )
        const up = await coordinator.cli(['up', '-f', file, '-p', name, '--detach'])
        if (up.code !== 0) throw new Error(`up: ${up.stderr}`)
        await until(async () => (await ready(coordinator, name)) === replicas, `${replicas} instances of ${name}`, 180_000, 25)
      },
      async remove(name) {
        await coordinator.send('DELETE', `/v1/apps/${name}`)
        await until(
          async () => (await coordinator.get<{ items: unknown[] }>(`/v1/instances?app=${name}&limit=1`)).items.length === 0,
          `${name} to be gone`,
          120_000,
        )
      },
    })
  } finally {
    for (const clean of cleanups.reverse()) await clean()
    rmSync(dir, { recursive: true, force: true })
  }
}

async function ready(coordinator: CoordinatorProcess, app: string): Promise<number> {
  const services = await coordinator.get<{ items: { app: string; ready: number }[] }>('/v1/services')
  return services.items.find((service) => service.app === app)?.ready ?? 0
}

async function reading(bed: Bed): Promise<{ atMs: number; rssMb: number; cpuS: number; linkBytes: number }> {
  const status = readFileSync(`/proc/${bed.agentPid}/status`, 'utf8')
  const rssKb = Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN)
  const fields = readFileSync(`/proc/${bed.agentPid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  const cpuS = (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS_PER_S
  const { bytesIn, bytesOut } = linkBytes(await metricsText(bed.coordinator))
  return { atMs: performance.now(), rssMb: rssKb / 1024, cpuS, linkBytes: bytesIn + bytesOut }
}

async function metricsText(coordinator: CoordinatorProcess): Promise<string> {
  const response = await fetch(`${coordinator.url}/metrics`, { headers: { authorization: `Bearer ${coordinator.token}` } })
  return response.text()
}

function linkBytes(metrics: string): { bytesIn: number; bytesOut: number } {
  const value = (name: string) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(metrics)?.[1] ?? Number.NaN)
  return { bytesIn: value('rubato_link_bytes_in'), bytesOut: value('rubato_link_bytes_out') }
}

function dockerRun(socket: string, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn('docker', ['-H', `unix://${socket}`, 'run', '-d', '--network', PEER_NETWORK, '--name', name, IMAGE], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    child.on('error', reject)
    child.on('exit', (code) => (code === 0 ? resolve() : reject(new Error(`docker run ${name} exited ${code}`))))
  })
}
