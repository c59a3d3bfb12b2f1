/**
 * Everything that discovery touches, real and on loopback addresses of its own: engine, coordinator, one agent process, Consul. The
 * agent can be killed and started again. `watch` records what a catalog says, as fast as it says it.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ConsulServer, startConsul } from '../lab/consul.ts'
import { type CoordinatorProcess, startCoordinator } from '../lab/coordinator.ts'
import { type LabDockerd, startDockerd } from '../lab/dockerd.ts'
import { pause, until } from '../lab/hosts.ts'
import { importTar } from '../lab/engine-api.ts'
import { importImage } from '../lab/images.ts'
import { NODE_IMAGE_COMMAND, writeNodeRootfs } from '../lab/node-image.ts'

const ROOT = join(import.meta.dirname, '..', '..')

export const NODE_ADDRESS = '127.88.0.1'
export const CATALOG = `http://${NODE_ADDRESS}:18650`
/** Programs that take their resolver from /etc/resolv.conf ask port 53. */
export const DNS_PORT = 53
const CONSUL_ADDRESS = '127.88.0.2'
const CONSUL_PORT = 18500
export const CONSUL = `http://${CONSUL_ADDRESS}:${CONSUL_PORT}`
export const IMAGE = 'lab/discovery:1'
/** Node and its libraries: it resolves names as programs do, by the C library. */
export const NODE_IMAGE = 'lab/discovery-node:1'

export interface DiscoveryBed {
  readonly dir: string
  readonly engine: LabDockerd
  readonly coordinator: CoordinatorProcess
  readonly consul: () => ConsulServer
  readonly agentLog: string
  readonly agentPid: () => number
  /** Runs the docker client; throws with its message. */
  docker(...args: readonly string[]): string
  /** As `docker`, but says whether it went well. */
  tryDocker(...args: readonly string[]): { readonly code: number; readonly output: string }
  startAgent(): Promise<void>
  /** kill -9. */
  killAgent(): Promise<void>
  /** A Consul without any memory takes the place of the one that runs. */
  replaceConsul(): Promise<void>
  /** Deploys `yaml` and waits until the command line says it is done. */
  up(app: string, yaml: string): Promise<void>
  down(app: string): Promise<void>
  scale(app: string, service: string, replicas: number): Promise<void>
  stop(): Promise<void>
}

export async function startDiscoveryBed(): Promise<DiscoveryBed> {
  const dir = mkdtempSync(join(tmpdir(), 'rubato-discovery-'))
  const cleanups: (() => Promise<void> | void)[] = [() => rmSync(dir, { recursive: true, force: true })]
  const stop = async () => {
    for (const clean of cleanups.splice(0).reverse()) await clean()
  }
  try {
    const engine = await startDockerd(join(dir, 'dockerd'))
    cleanups.push(() => engine.stop())
    await importImage(engine.socket, IMAGE, ['/bin/sh'])
    writeFileSync(join(dir, 'idle.mjs'), 'setInterval(() => {}, 60_000)\n')
    writeNodeRootfs(join(dir, 'node.tar'), join(dir, 'idle.mjs'))
    await importTar(engine.socket, join(dir, 'node.tar'), NODE_IMAGE, NODE_IMAGE_COMMAND)
    const openConsul = async () => {
      const started = await startConsul(mkdtempSync(join(dir, 'consul-')), CONSUL_ADDRESS, CONSUL_PORT)
      if (started === null) throw new Error('no Consul binary could be installed')
      return started
    }
    let consul = await openConsul()
    cleanups.push(() => consul.stop())
    const coordinator = await startCoordinator({
      dir: join(dir, 'coordinator'),
      host: NODE_ADDRESS,
      port: 18600,
      catalogPort: 18650,
      dnsPort: DNS_PORT,
    })
    cleanups.push(() => coordinator.stop())
    const tokenFile = join(dir, 'token')
    const joined = await coordinator.cli(['token', 'join', '-o', 'json'])
    writeFileSync(tokenFile, (JSON.parse(joined.stdout) as { text: string }).text, { mode: 0o600 })
    const agentLog = join(dir, 'agent.log')
    const stateDir = join(dir, 'agent')
    const settings = {
      'state-dir': stateDir,
      'token-file': tokenFile,
      urls: coordinator.url,
      address: NODE_ADDRESS,
      hostname: 'lab-1',
      engine: 'docker',
      'docker-socket': engine.socket,
      'consul-address': `${CONSUL_ADDRESS}:${CONSUL_PORT}`,
      'register-foreign': 'true',
      'capacity-cpus': '32',
      'capacity-memory': '32G',
      'gateway-ports': '28000-28499',
      'local-api-port': '18700',
    }
    const argv = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])
    let agent: ChildProcess | null = null
    const endAgent = async (signal: NodeJS.Signals) => {
      const ending = agent
      agent = null
      if (!ending || ending.exitCode !== null || ending.signalCode !== null) return
      ending.kill(signal)
      await until(() => ending.exitCode !== null || ending.signalCode !== null, 'the agent to end', 30_000, 5)
    }
    cleanups.push(async () => {
      await endAgent('SIGTERM')
      spawnSync(process.execPath, [join(ROOT, 'agent/main.ts'), 'destroy', ...argv], { stdio: 'ignore' })
    })
    const tryDocker = (...args: readonly string[]) => {
      const run = spawnSync('docker', ['-H', `unix://${engine.socket}`, ...args], { encoding: 'utf8' })
      return { code: run.status ?? -1, output: `${run.stdout}${run.stderr}`.trim() }
    }
    const bed: DiscoveryBed = {
      dir,
      engine,
      coordinator,
      consul: () => consul,
      agentLog,
      agentPid: () => agent?.pid ?? 0,
      tryDocker,
      docker(...args) {
        const { code, output } = tryDocker(...args)
        if (code !== 0) throw new Error(`docker ${args.join(' ')}: ${output}`)
        return output
      },
      async startAgent() {
        const log = openSync(agentLog, 'a')
        agent = spawn(process.execPath, [join(ROOT, 'agent/main.ts'), ...argv], { stdio: ['ignore', log, log] })
        closeSync(log)
        await until(
          async () =>
            (await coordinator.get<{ items: { liveness: string }[] }>('/v1/nodes')).items.some(
              (node) => node.liveness === 'live',
            ),
          `the node to be live (see ${agentLog})`,
        )
      },
      killAgent: () => endAgent('SIGKILL'),
      async replaceConsul() {
        await consul.stop()
        consul = await openConsul()
      },
      async up(app, yaml) {
        const file = join(dir, `${app}.yaml`)
        writeFileSync(file, yaml)
        const run = await coordinator.cli(['up', '-f', file, '-p', app])
        if (run.code !== 0) throw new Error(`up ${app}: ${run.stdout}${run.stderr}`)
      },
      async down(app) {
        await coordinator.send('DELETE', `/v1/apps/${app}`)
      },
      async scale(app, service, replicas) {
        await coordinator.send('POST', `/v1/services/${app}/${service}/scale`, { replicas })
      },
      stop,
    }
    await bed.startAgent()
    return bed
  } catch (error) {
    await stop()
    throw error
  }
}

export interface Entry {
  readonly id: string
  readonly address: string
  readonly port: number
  readonly tags: readonly string[]
  readonly instance: string | null
  /** Of the service's own check; null: it has none. */
  readonly status: string | null
}

export interface Snapshot {
  readonly atMs: number
  readonly entries: readonly Entry[]
}

export interface Watch {
  readonly snapshots: readonly Snapshot[]
  /** The first snapshot (after epoch ms `afterMs`) that satisfies it, waited for. */
  first(satisfies: (entries: readonly Entry[]) => boolean, what: string, afterMs?: number): Promise<Snapshot>
  stop(): Promise<void>
}

interface HealthEntry {
  readonly Service: {
    readonly ID: string
    readonly Address: string
    readonly Port: number
    readonly Tags: readonly string[]
    readonly Meta: Readonly<Record<string, string>> | null
  }
  readonly Checks: readonly { readonly CheckID: string; readonly Status: string }[]
}

/** What the catalog at `base` says of `service` now. */
export async function healthOf(base: string, service: string): Promise<readonly Entry[]> {
  const response = await fetch(`${base}/v1/health/service/${service}`)
  return entriesOf((await response.json()) as HealthEntry[])
}

/**
 * Records what the catalog says of `service`. `blocking`: by blocking queries, so that `atMs` is when it became visible; else it
 * asks every `pollMs`.
 */
export function watch(base: string, service: string, mode: 'blocking' | { readonly pollMs: number } = { pollMs: 5 }): Watch {
  const snapshots: Snapshot[] = []
  const ended = new AbortController()
  const run = async () => {
    let index = '0'
    while (!ended.signal.aborted) {
      const query = mode === 'blocking' ? `?index=${index}&wait=10s` : ''
      try {
        const response = await fetch(`${base}/v1/health/service/${service}${query}`, { signal: ended.signal })
        const body = (await response.json()) as HealthEntry[]
        index = response.headers.get('x-consul-index') ?? '0'
        snapshots.push({ atMs: Date.now(), entries: entriesOf(body) })
      } catch {
        if (!ended.signal.aborted) await pause(50) // restarting
      }
      if (mode !== 'blocking') await pause(mode.pollMs)
    }
  }
  const done = run()
  return {
    snapshots,
    async first(satisfies, what, afterMs = 0) {
      let at = 0
      let found: Snapshot | undefined
      await until(
        () => {
          for (; at < snapshots.length && found === undefined; at += 1)
            if ((snapshots[at]?.atMs ?? 0) > afterMs && satisfies(snapshots[at]?.entries ?? [])) found = snapshots[at]
          return found !== undefined
        },
        `${what} at ${base}`,
        60_000,
        5,
      )
      return found as Snapshot
    },
    async stop() {
      ended.abort()
      await done
    },
  }
}

function entriesOf(body: readonly HealthEntry[]): readonly Entry[] {
  return body.map(({ Service, Checks }) => ({
    id: Service.ID,
    address: Service.Address,
    port: Service.Port,
    tags: Service.Tags,
    instance: Service.Meta?.['rubato-instance'] ?? null,
    status: Checks.find((check) => check.CheckID === `service:${Service.ID}`)?.Status ?? null,
  }))
}

export interface AnswerLog {
  /** Every answer and refusal, in order. */
  readonly seen: readonly { readonly atMs: number; readonly ok: boolean }[]
  stop(): Promise<void>
}

/** Asks `url` again and again and records whether it answers with 200. */
export function askRepeatedly(url: string, headers: Readonly<Record<string, string>> = {}, everyMs = 10): AnswerLog {
  const seen: { atMs: number; ok: boolean }[] = []
  let ended = false
  const run = async () => {
    while (!ended) {
      let ok = false
      try {
        const response = await fetch(url, { headers: { ...headers, connection: 'close' }, signal: AbortSignal.timeout(1_000) })
        await response.text()
        ok = response.status === 200
      } catch {
        ok = false
      }
      seen.push({ atMs: Date.now(), ok })
      await pause(everyMs)
    }
  }
  const done = run()
  return {
    seen,
    async stop() {
      ended = true
      await done
    },
  }
}
