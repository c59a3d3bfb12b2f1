/**
 * Row 24 with real processes: a coordinator, two agents on loopback, plain processes. The agent of a strict singleton is killed;
 * its process must end at T, be replaced after that, and never run twice.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type CoordinatorProcess, startCoordinator } from '../lab/coordinator.ts'
import { until } from '../lab/hosts.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const T_MS = 15_000
const APP = `
services:
  web:
    command: sleep 1000000
    stop_grace_period: 1s
    x-rubato:
      runtime: process
      singleton: { after: ${T_MS / 1000}s }
`

const dir = mkdtempSync(join(tmpdir(), 'rubato-strict-'))
const agents = new Map<string, ChildProcess>()
let coordinator: CoordinatorProcess

const stateOf = (name: string) => join(dir, name)
const argvOf = (name: string, number: number) => [
  ...['--state-dir', stateOf(name), '--token-file', join(dir, `${name}.token`), '--urls', coordinator.url],
  ...['--address', '127.0.0.1', '--bind-address', `127.77.24.${number}`, '--hostname', name, '--engine', 'process'],
  ...['--local-api-port', '0', '--gateway-ports', `2${number}500-2${number}599`],
]
function startAgent(name: string, number: number): void {
  const log = openSync(join(dir, `${name}.log`), 'a')
  agents.set(
    name,
    spawn(process.execPath, [join(ROOT, 'agent', 'main.ts'), ...argvOf(name, number)], { stdio: ['ignore', log, log] }),
  )
  closeSync(log)
}

/** How many nodes are live; none while the coordinator does not answer. */
async function live(): Promise<number> {
  try {
    const { items } = await coordinator.get<{ items: { liveness: string }[] }>('/v1/nodes')
    return items.filter((node) => node.liveness === 'live').length
  } catch {
    return 0
  }
}

/** Names of nodes on which a process of the app runs, by the kernel. */
function running(): string[] {
  return ['a', 'b'].filter((name) => {
    let files: string[]
    try {
      files = readdirSync(join(stateOf(name), 'processes')).filter((file) => !file.startsWith('.'))
    } catch {
      return false
    }
    return files.some((file) => {
      const { run } = JSON.parse(readFileSync(join(stateOf(name), 'processes', file), 'utf8')) as { run: { pid: number } | null }
      if (!run || run.pid <= 1) return false
      try {
        return !/\) [ZX] /.test(readFileSync(`/proc/${run.pid}/stat`, 'utf8'))
      } catch {
        return false
      }
    })
  })
}

beforeAll(async () => {
  coordinator = await startCoordinator({
    dir: join(dir, 'coordinator'),
    host: '127.0.0.1',
    port: 18_724,
    catalogPort: 18_725,
    dnsPort: 18_726,
    settings: { liveness: { heartbeat: '1s', suspect: '3s', lost: '6s', unknownFor: '30s', reportInterval: '1s' } },
  })
  for (const [index, name] of ['a', 'b'].entries()) {
    const { stdout } = await coordinator.cli(['token', 'join', '-o', 'json'])
    writeFileSync(join(dir, `${name}.token`), (JSON.parse(stdout) as { text: string }).text, { mode: 0o600 })
    startAgent(name, index + 1)
  }
  await until(async () => (await live()) === 2, 'both nodes to be live', 300_000)
})

afterAll(async () => {
  for (const [index, name] of ['a', 'b'].entries()) {
    agents.get(name)?.kill('SIGKILL')
    spawnSync(process.execPath, [join(ROOT, 'agent', 'main.ts'), 'destroy', ...argvOf(name, index + 1)], { stdio: 'ignore' })
  }
  await coordinator?.stop()
  rmSync(dir, { recursive: true, force: true })
})

it('rows 15 and 24: a strict singleton whose agent was killed ends at T, is replaced after that, and never runs twice', async () => {
  writeFileSync(join(dir, 'app.yaml'), APP)
  const up = await coordinator.cli(['up', '-f', join(dir, 'app.yaml'), '-p', 'lock'])
  expect(up.code, `${up.stdout}${up.stderr}`).toBe(0)
  await until(() => running().length === 1, 'it to run', 60_000)
  // It runs on for longer than T while there is contact.
  const [home = ''] = running()
  for (const endMs = performance.now() + T_MS + 8_000; performance.now() < endMs; ) {
    expect(running()).toEqual([home])
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  agents.get(home)?.kill('SIGKILL')
  const killedMs = performance.now()
  let endedMs = 0
  await until(
    () => {
      const now = running()
      expect(now.length, 'it runs twice').toBeLessThan(2)
      if (endedMs === 0 && !now.includes(home)) endedMs = performance.now()
      return now.length === 1 && now[0] !== home
    },
    'it to run elsewhere',
    180_000,
    50,
  )
  const afterMs = endedMs - killedMs
  process.stdout.write(`the process ended ${Math.round(afterMs)} ms after its agent, T is ${T_MS} ms\n`)
  // The last contact was at most two pings before the kill.
  expect(afterMs).toBeGreaterThan(T_MS - 11_000)
  expect(afterMs).toBeLessThan(T_MS + 10_000)
  startAgent(home, home === 'a' ? 1 : 2)
  await until(async () => (await live()) === 2, 'the node to be back', 180_000)
  expect(running()).toHaveLength(1)
})
