/**
 * `make demo`: the main job in a few minutes. A coordinator with the `local` provider, one machine; an app whose service reports
 * its own load; traffic that rises, holds and falls. Machines are bought as load rises, drained and deleted as it falls. Ends by
 * itself with a summary in demo-report.json, and leaves nothing behind; `KEEP=1` stays up until Ctrl-C and prints URL and token.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createWriteStream, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { importTar, labelledOn, engineRequest } from '../lab/engine-api.ts'
import { NODE_IMAGE_COMMAND, writeNodeRootfs } from '../lab/node-image.ts'
import { chooseEngine } from './engine.ts'
import { createScreen, type Frame } from './screen.ts'
import { startTraffic, type Traffic } from './traffic.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const IMAGE = 'rubato-demo/worker:1'
const SERVICE = 'demo/worker'
const PORT = 18080
const startedAt = performance.now()
const seconds = () => (performance.now() - startedAt) / 1000
const screen = createScreen(process.stdout)
const keep = process.env.KEEP === '1'

/** Shortened settings, so that minutes show what takes hours; printed at the start. */
const SETTINGS = {
  'fleet.minNodeAge': '10s',
  'fleet.downInterval': '2s',
  'fleet.reapInterval': '5s',
  'liveness.reportInterval': '1s',
} as const

/** Traffic over time: at `atS` seconds after the start of traffic, so many callers. Between them it moves linearly. */
const LOAD: readonly { readonly atS: number; readonly callers: number; readonly stage: string }[] = [
  { atS: 0, callers: 2, stage: 'calm' },
  { atS: 6, callers: 2, stage: 'rising' },
  { atS: 30, callers: 36, stage: 'high' },
  { atS: 60, callers: 36, stage: 'falling' },
  { atS: 70, callers: 1, stage: 'low' },
]
/** The high stage lasts until so many requests were answered (a slow host needs longer), at most so much longer. */
const WANTED_REQUESTS = 20_000
const HIGH_AT_MOST_S = 120
const HOLD = { fromS: 30, untilS: 60 }

interface Api {
  get(path: string): Promise<unknown>
  send(method: string, path: string, body?: unknown): Promise<unknown>
  setPoolMinimum(pool: string, min: number): Promise<void>
}

mkdirSync(join(ROOT, '.cache'), { recursive: true })
const dir = mkdtempSync(join(ROOT, '.cache', 'demo-'))
const cleanups: (() => Promise<void> | void)[] = []
let interrupted = false
process.on('SIGINT', () => {
  if (interrupted) process.exit(130)
  interrupted = true
  screen.say('interrupted: cleaning up (once more to leave at once)')
})
process.on('SIGTERM', () => {
  interrupted = true
})

const report = {
  engine: 'none',
  nodes: { start: 0, max: 0, end: 0 },
  instances: { start: 0, max: 0, end: 0 },
  requests: { ok: 0, failed: 0, denied: 0 },
  leaked: 0,
  seconds: 0,
}
let problem: string | null = null
let leaks: readonly string[] = []
try {
  await run()
} catch (error) {
  problem = error instanceof Error ? error.message : String(error)
} finally {
  for (const clean of cleanups.reverse()) {
    try {
      await clean()
    } catch (error) {
      screen.say(`clean-up: ${error instanceof Error ? error.message : String(error)}`)
      problem ??= 'the clean-up did not end well'
    }
  }
}
finish()

async function run(): Promise<void> {
  const engine = await chooseEngine(process.env.ENGINE, dir, (line) => screen.say(line))
  cleanups.push(() => engine.stop())
  report.engine = engine.kind
  screen.say(`engine: ${engine.kind}${engine.socket ? ` (${engine.socket})` : ''}`)
  screen.say(
    `shortened for the demo: ${Object.entries(SETTINGS)
      .map(([key, value]) => `${key} ${value}`)
      .join(', ')}; the service's window 4s, downWindow 8s`,
  )

  const worker = join(ROOT, 'examples', 'demo', 'worker.mjs')
  const composeFile = join(dir, 'compose.yaml')
  let compose = readFileSync(join(ROOT, 'examples', 'demo', 'compose.yaml'), 'utf8')
  if (engine.socket) {
    const socket = engine.socket
    screen.say('building the demo image (Node and one script, pulled from nowhere)')
    const tar = join(dir, 'image.tar')
    writeNodeRootfs(tar, worker)
    cleanups.push(async () => {
      await engineRequest(socket, 'DELETE', `/images/${IMAGE}?force=true`)
    })
    await importTar(socket, tar, IMAGE, NODE_IMAGE_COMMAND)
    rmSync(tar)
  } else {
    compose = compose
      .replace('    x-rubato:\n', '    x-rubato:\n      runtime: process\n')
      .replace('["/usr/bin/node", "/app.mjs"]', JSON.stringify([process.execPath, worker]))
  }
  writeFileSync(composeFile, compose)

  const [apiPort = 0, catalogPort = 0, dnsPort = 0] = await freePorts(3)
  const url = `http://127.0.0.1:${apiPort}`
  const stateDir = join(dir, 'coordinator')
  const config = {
    stateDir,
    listen: `127.0.0.1:${apiPort}`,
    catalogListen: `127.0.0.1:${catalogPort}`,
    dnsListen: `127.0.0.1:${dnsPort}`,
    ...nested(SETTINGS),
    providers: {
      local: {
        engine: engine.kind,
        ...(engine.socket ? { dockerSocket: engine.socket } : {}),
        offerings: { small: { cpus: 1, memory: '512M', slots: 20, priceUsdPerHour: 0.02 } },
      },
    },
    pools: [{ name: 'small', provider: 'local', offering: 'small', min: 1, max: 4 }],
  }
  const configFile = join(dir, 'rubato.json')
  writeFileSync(configFile, JSON.stringify(config, null, 2))

  const coordinator = startCoordinator(configFile)
  cleanups.push(() => stopProcess(coordinator))
  await until(
    async () => (await fetch(`${url}/healthz`).catch(() => null))?.ok === true,
    'the coordinator to answer',
    60,
    coordinator,
  )
  const token = readFileSync(join(stateDir, 'admin.token'), 'utf8').trim()
  const api = apiClient(url, token)
  const clusterId = ((await api.get('/v1/status')) as { cluster?: string; clusterId?: string }).clusterId ?? ''
  screen.say(`coordinator at ${url}${keep ? `, token ${token}` : ''}`)
  cleanups.push(async () => {
    leaks = await findLeaks(engine.socket, clusterId, stateDir)
    report.leaked = leaks.length
  })
  cleanups.push(() => giveBack(api))

  await until(async () => activeNodes(await nodesOf(api)).length >= 1, 'the first machine to join', 90, coordinator)
  report.nodes.start = activeNodes(await nodesOf(api)).length
  cli(url, token, ['up', '-f', composeFile, '-p', 'demo', '--detach'])
  const key = (JSON.parse(cli(url, token, ['keys', 'create', 'demo-user', '--role', 'demo', '-o', 'json'])) as { text: string })
    .text
  await until(
    async () => (await instancesOf(api)).some((instance) => instance.routable),
    'the service to be ready',
    90,
    coordinator,
  )
  report.instances.start = (await instancesOf(api)).filter((instance) => instance.routable).length

  const traffic = startTraffic(PORT, '/work', key)
  try {
    await play(api, traffic, engine.kind)
    if (keep && !interrupted) {
      screen.say(
        `\nstaying up (KEEP=1): RUBATO_URL=${url} RUBATO_TOKEN=${token}\nrequests: curl -H 'Authorization: Bearer ${key}' http://${activeNodes(await nodesOf(api))[0]?.address}:${PORT}/work\nCtrl-C ends and cleans up`,
      )
      while (!interrupted) await pause(500)
    }
  } finally {
    await traffic.stop()
    report.requests = { ok: traffic.counts.ok, failed: traffic.counts.failed, denied: traffic.counts.denied }
    if (traffic.failures.length > 0) screen.say(`failures: ${traffic.failures.join('; ')}`)
    if (traffic.counts.admittedWithoutKey > 0)
      problem ??= `${traffic.counts.admittedWithoutKey} requests without a key were admitted`
  }
}

/** Follows the load curve, draws, and ends when traffic is low and one node is left (or after a limit). */
async function play(api: Api, traffic: Traffic, _engine: string): Promise<void> {
  const begin = performance.now()
  const endOfCurveS = LOAD.at(-1)?.atS ?? 0
  let heldUntilS = 0
  let lastOk = 0
  let lastAt = begin
  let perSecond = 0
  for (;;) {
    const sinceStartS = (performance.now() - begin) / 1000
    const holding = sinceStartS >= HOLD.fromS && traffic.counts.ok < WANTED_REQUESTS && sinceStartS < HOLD.untilS + HIGH_AT_MOST_S
    if (holding) heldUntilS = Math.max(HOLD.untilS, sinceStartS)
    // Time stands still at the end of the high stage for as long as it is held.
    const elapsedS =
      sinceStartS < HOLD.untilS
        ? sinceStartS
        : holding
          ? HOLD.untilS - 0.1
          : HOLD.untilS + sinceStartS - Math.max(HOLD.untilS, heldUntilS)
    const { callers, stage } = loadAt(elapsedS)
    traffic.setConcurrency(callers)
    const [nodes, instances, service, events] = await Promise.all([
      nodesOf(api),
      instancesOf(api),
      api.get(`/v1/services/${encodeURIComponent(SERVICE)}`).catch(() => api.get('/v1/services')),
      api.get('/v1/events?limit=4'),
    ])
    traffic.setEntries(activeNodes(nodes).map((node) => node.address))
    const ready = instances.filter((instance) => instance.routable).length
    report.nodes.max = Math.max(report.nodes.max, nodes.length)
    report.instances.max = Math.max(report.instances.max, ready)
    const now = performance.now()
    if (now - lastAt >= 1000) {
      perSecond = Math.round(((traffic.counts.ok - lastOk) / (now - lastAt)) * 1000)
      lastOk = traffic.counts.ok
      lastAt = now
    }
    screen.draw(frameOf({ stage, callers, nodes, instances, service, events, traffic, perSecond }))
    report.nodes.end = nodes.length
    report.instances.end = instances.length
    if (interrupted) return
    if (traffic.counts.failed > 500) {
      problem ??= 'more than 500 requests failed: giving up'
      return
    }
    if (elapsedS > endOfCurveS && nodes.length <= 1 && instances.length <= 1) return
    if (elapsedS > endOfCurveS + 120) {
      problem ??= `two minutes after the traffic fell there are still ${nodes.length} nodes and ${instances.length} instances`
      return
    }
    await pause(400)
  }
}

interface NodeView {
  readonly id: string
  readonly address: string
  readonly availability: string
  readonly liveness: string
  readonly instances: number
  readonly capacity: { readonly cpuMillis: number; readonly memoryBytes: number }
}

interface InstanceView {
  readonly id: string
  readonly node: string | null
  readonly phase: string
  readonly goal: string
  readonly routable: boolean
  readonly loadPercent: number | null
}

interface ServiceView {
  readonly id: string
  readonly desired: number
  readonly loadPercent: number | null
}

function frameOf(now: {
  stage: string
  callers: number
  nodes: readonly NodeView[]
  instances: readonly InstanceView[]
  service: unknown
  events: unknown
  traffic: Traffic
  perSecond: number
}): Frame {
  const one = now.service as ServiceView & { items?: readonly ServiceView[] }
  const service = one.items ? one.items.find((candidate) => candidate.id === SERVICE) : one
  const desired = service?.desired ?? 0
  const { counts } = now.traffic
  return {
    seconds: seconds(),
    stage: now.stage,
    nodes: now.nodes.map((node) => ({
      id: node.id,
      state: node.availability === 'active' ? node.liveness : node.availability,
      instances: node.instances,
      capacity: `${node.capacity.cpuMillis / 1000} cpu, ${Math.round(node.capacity.memoryBytes / 2 ** 20)} MiB`,
    })),
    instances: now.instances.map((instance) => ({
      id: instance.id,
      node: instance.node ?? 'waiting for a machine',
      phase: instance.phase,
      load: instance.loadPercent,
    })),
    desired,
    loadPercent: service?.loadPercent ?? null,
    thresholdPercent: desired > 0 ? 80 - 20 / desired : null,
    requests: { ok: counts.ok, failed: counts.failed, denied: counts.denied, perSecond: now.perSecond },
    concurrency: now.callers,
    lastEvents: ((now.events as { items?: readonly { message: string }[] }).items ?? []).slice(-4).map((event) => event.message),
  }
}

function loadAt(elapsedS: number): { callers: number; stage: string } {
  let current = LOAD[0] ?? { atS: 0, callers: 1, stage: '' }
  for (const next of LOAD) {
    if (next.atS > elapsedS) {
      const share = (elapsedS - current.atS) / (next.atS - current.atS)
      return { callers: Math.round(current.callers + (next.callers - current.callers) * share), stage: current.stage }
    }
    current = next
  }
  return { callers: current.callers, stage: current.stage }
}

/** Everything goes back: the app, then every machine (the pool's minimum falls to nothing). */
async function giveBack(api: Api): Promise<void> {
  screen.say('giving everything back …')
  await api.send('DELETE', '/v1/apps/demo').catch((error: unknown) => screen.say(`down: ${String(error)}`))
  await until(async () => (await instancesOf(api)).length === 0, 'the instances to stop', 60)
  await api.setPoolMinimum('small', 0)
  await until(async () => (await nodesOf(api)).length === 0, 'the last machine to be given back', 90)
}

async function findLeaks(socket: string | null, clusterId: string, stateDir: string): Promise<readonly string[]> {
  const found: string[] = []
  if (socket && clusterId) found.push(...(await labelledOn(socket, `rubato.cluster=${clusterId}`)))
  // Every process that the demo's cluster started carries its directory in its command line or environment.
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue
    try {
      const text = readFileSync(`/proc/${entry}/cmdline`, 'utf8') + readFileSync(`/proc/${entry}/environ`, 'utf8')
      if (text.includes(join(stateDir, 'local')) || text.includes(join(stateDir, 'providers'))) found.push(`process ${entry}`)
    } catch {
      // Gone meanwhile, or a kernel thread.
    }
  }
  return found
}

function finish(): void {
  rmSync(dir, { recursive: true, force: true })
  if (existsSync(dir)) leaks = [...leaks, dir]
  report.leaked = leaks.length
  report.seconds = Math.round(seconds())
  if (!interrupted && problem === null) {
    if (report.requests.failed > 0) problem = `${report.requests.failed} requests failed`
    else if (report.nodes.max < 3) problem = `only ${report.nodes.max} nodes were reached`
    else if (report.leaked > 0) problem = `left behind: ${leaks.join(', ')}`
    else if (report.requests.denied === 0) problem = 'no request without a key was refused'
  }
  writeFileSync(join(ROOT, 'demo-report.json'), `${JSON.stringify(report, null, 2)}\n`)
  const { nodes, instances, requests } = report
  screen.say(
    `\n${problem === null ? 'done' : 'FAILED'} in ${report.seconds} s on ${report.engine}: nodes ${nodes.start} → ${nodes.max} → ${nodes.end}, instances ${instances.start} → ${instances.max} → ${instances.end}`,
  )
  screen.say(
    `requests: ${requests.ok} ok, ${requests.failed} failed, ${requests.denied} without a key refused; left behind: ${leaks.length === 0 ? 'nothing' : leaks.join(', ')}`,
  )
  if (problem !== null) screen.say(`problem: ${problem}`)
  screen.say('report: demo-report.json')
  process.exit(problem === null ? 0 : 1)
}

function startCoordinator(configFile: string): ChildProcess {
  const child = spawn(process.execPath, [join(ROOT, 'coordinator', 'main.ts'), 'coordinator', '--config', configFile], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const log = createWriteStream(join(ROOT, '.cache', 'demo-coordinator.log'))
  child.stdout?.pipe(log)
  child.stderr?.pipe(log)
  return child
}

async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  const end = performance.now() + 15_000
  while (child.exitCode === null && child.signalCode === null) {
    if (performance.now() > end) child.kill('SIGKILL')
    await pause(50)
  }
}

function cli(url: string, token: string, args: readonly string[]): string {
  const result = spawnSync(process.execPath, [join(ROOT, 'coordinator', 'main.ts'), ...args], {
    encoding: 'utf8',
    env: { ...process.env, RUBATO_URL: url, RUBATO_TOKEN: token },
  })
  if (result.status !== 0) throw new Error(`rubato ${args.join(' ')} exited ${result.status}: ${result.stderr}${result.stdout}`)
  return result.stdout
}

function apiClient(url: string, token: string): Api {
  const call = async (method: string, path: string, body?: unknown, headers: Readonly<Record<string, string>> = {}) => {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text.slice(0, 300)}`)
    return { etag: response.headers.get('etag') ?? '', body: text === '' ? null : (JSON.parse(text) as unknown) }
  }
  return {
    get: async (path) => (await call('GET', path)).body,
    send: async (method, path, body) => (await call(method, path, body)).body,
    async setPoolMinimum(name, min) {
      const present = await call('GET', `/v1/pools/${name}`)
      const { name: _, machines: __, ...pool } = present.body as Record<string, unknown>
      await call('PUT', `/v1/pools/${name}`, { ...pool, min }, { 'if-match': present.etag })
    },
  }
}

async function nodesOf(api: Api): Promise<readonly NodeView[]> {
  return ((await api.get('/v1/nodes')) as { items: readonly NodeView[] }).items
}

async function instancesOf(api: Api): Promise<readonly InstanceView[]> {
  return ((await api.get('/v1/instances?app=demo')) as { items: readonly InstanceView[] }).items
}

function activeNodes(nodes: readonly NodeView[]): readonly NodeView[] {
  return nodes.filter((node) => node.availability === 'active' && node.liveness === 'live')
}

async function freePorts(count: number): Promise<readonly number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve) => {
          const server = createServer()
          server.listen(0, '127.0.0.1', () => resolve(server))
        }),
    ),
  )
  const ports = servers.map((server) => (server.address() as { port: number }).port)
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

/** {'a.b': 1} → {a: {b: 1}} */
function nested(flat: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result: Record<string, Record<string, unknown>> = {}
  for (const [path, value] of Object.entries(flat)) {
    const [head = '', tail = ''] = path.split('.')
    result[head] = { ...result[head], [tail]: value }
  }
  return result
}

async function until(condition: () => Promise<boolean>, what: string, limitS: number, child?: ChildProcess): Promise<void> {
  const end = performance.now() + limitS * 1000
  while (!(await condition())) {
    if (child && child.exitCode !== null)
      throw new Error(`the coordinator ended with exit code ${child.exitCode}; see .cache/demo-coordinator.log`)
    if (performance.now() > end) throw new Error(`waited ${limitS} s in vain for ${what}`)
    await pause(200)
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
