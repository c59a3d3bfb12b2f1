/**
 * `make demo`: the main job in a few minutes. A coordinator with the `local` provider, one machine; an app whose service reports
 * its own load; traffic that rises, holds and falls. Machines are bought as load rises, drained and deleted as it falls. Ends by
 * itself with a summary in demo-report.json, and leaves nothing behind; `KEEP=1` stays up until Ctrl-C and prints URL and token.
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { importTar, engineRequest } from '../lab/engine-api.ts'
import { NODE_IMAGE_COMMAND, writeNodeRootfs } from '../lab/node-image.ts'
import {
  activeNodes,
  type Api,
  apiClient,
  instancesOf,
  type InstanceView,
  nodesOf,
  type NodeView,
  type ServiceView,
} from './api.ts'
import { chooseEngine } from './engine.ts'
import { createLoadCurve, END_OF_CURVE_S } from './load-curve.ts'
import { cli, findLeaks, freePorts, pause, startCoordinator, stopProcess, until } from './processes.ts'
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
    await play(api, traffic)
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
async function play(api: Api, traffic: Traffic): Promise<void> {
  const begin = performance.now()
  const load = createLoadCurve()
  let lastOk = 0
  let lastAt = begin
  let perSecond = 0
  for (;;) {
    const { elapsedS, callers, stage } = load.at((performance.now() - begin) / 1000, traffic.counts.ok)
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
    if (elapsedS > END_OF_CURVE_S && nodes.length <= 1 && instances.length <= 1) return
    if (elapsedS > END_OF_CURVE_S + 120) {
      problem ??= `two minutes after the traffic fell there are still ${nodes.length} nodes and ${instances.length} instances`
      return
    }
    await pause(400)
  }
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

/** Everything goes back: the app, then every machine (the pool's minimum falls to nothing). */
async function giveBack(api: Api): Promise<void> {
  screen.say('giving everything back …')
  await api.send('DELETE', '/v1/apps/demo').catch((error: unknown) => screen.say(`down: ${String(error)}`))
  await until(async () => (await instancesOf(api)).length === 0, 'the instances to stop', 60)
  await api.setPoolMinimum('small', 0)
  await until(async () => (await nodesOf(api)).length === 0, 'the last machine to be given back', 90)
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

/** {'a.b': 1} → {a: {b: 1}} */
function nested(flat: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const result: Record<string, Record<string, unknown>> = {}
  for (const [path, value] of Object.entries(flat)) {
    const [head = '', tail = ''] = path.split('.')
    result[head] = { ...result[head], [tail]: value }
  }
  return result
}
