/** The processes of the demo: the coordinator, one-off commands, and what is looked for when all should be gone. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createWriteStream, readdirSync, readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { labelledOn } from '../lab/engine-api.ts'

const ROOT = join(import.meta.dirname, '..', '..')

/** Its output goes to .cache/demo-coordinator.log. */
export function startCoordinator(configFile: string): ChildProcess {
  const child = spawn(process.execPath, [join(ROOT, 'coordinator', 'main.ts'), 'coordinator', '--config', configFile], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const log = createWriteStream(join(ROOT, '.cache', 'demo-coordinator.log'))
  child.stdout?.pipe(log)
  child.stderr?.pipe(log)
  return child
}

/** Killed when it takes longer than 15 s. */
export async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGTERM')
  const end = performance.now() + 15_000
  while (child.exitCode === null && child.signalCode === null) {
    if (performance.now() > end) child.kill('SIGKILL')
    await pause(50)
  }
}

/** Runs `rubato ARGS`; throws with its output when it fails. */
export function cli(url: string, token: string, args: readonly string[]): string {
  const result = spawnSync(process.execPath, [join(ROOT, 'coordinator', 'main.ts'), ...args], {
    encoding: 'utf8',
    env: { ...process.env, RUBATO_URL: url, RUBATO_TOKEN: token },
  })
  if (result.status !== 0) throw new Error(`rubato ${args.join(' ')} exited ${result.status}: ${result.stderr}${result.stdout}`)
  return result.stdout
}

/** What is left of the cluster: containers on the engine, processes. */
export async function findLeaks(socket: string | null, clusterId: string, stateDir: string): Promise<readonly string[]> {
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

/** Different ones that nobody listens on now. */
export async function freePorts(count: number): Promise<readonly number[]> {
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

/** Throws after `limitS`, or as soon as `child` has ended. */
export async function until(
  condition: () => Promise<boolean>,
  what: string,
  limitS: number,
  child?: ChildProcess,
): Promise<void> {
  const end = performance.now() + limitS * 1000
  while (!(await condition())) {
    if (child && child.exitCode !== null)
      throw new Error(`the coordinator ended with exit code ${child.exitCode}; see .cache/demo-coordinator.log`)
    if (performance.now() > end) throw new Error(`waited ${limitS} s in vain for ${what}`)
    await pause(200)
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
