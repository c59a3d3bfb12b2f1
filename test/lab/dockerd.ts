/**
 * A Docker engine of a test's own: own data, own socket, no default bridge, own cgroup parent. Needs root and docker.io. It works in
 * the network namespace of its caller, so that gateways there reach the containers; what it adds to iptables goes with it.
 */
import { execFileSync, spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { basename, join, resolve } from 'node:path'

export interface LabDockerd {
  readonly socket: string
  /** Of dockerd itself, to be frozen or killed by a test. */
  readonly pid: number
  /** Ends it by SIGKILL as a crash does: containers keep running without it unless they are killed too. */
  kill(): Promise<void>
  /** Ends containers, engine and everything it left in the kernel and below `dir`. */
  stop(): Promise<void>
}

const TABLES = ['raw', 'nat', 'filter']

/** Whether such an engine can be started here. */
export function canStartDockerd(): boolean {
  return process.getuid?.() === 0 && ['/usr/sbin/dockerd', '/usr/bin/dockerd'].some((path) => existsSync(path))
}

/** Starts an engine below `dir` (made when absent) and waits until it answers, at most 60 s. */
export async function startDockerd(dir: string): Promise<LabDockerd> {
  const base = resolve(dir)
  mkdirSync(base, { recursive: true })
  const socket = join(base, 'docker.sock')
  const pidFile = join(base, 'docker.pid')
  rmSync(pidFile, { force: true })
  // A containerd that outlived a killed engine answers no more; shims (and so containers) stay.
  for (const orphan of processesBelow(base, /containerd$/)) killQuietly(orphan)
  for (const name of ['containerd.pid', 'containerd.sock', 'containerd-debug.sock', 'containerd.sock.ttrpc'])
    rmSync(join(base, 'exec', 'containerd', name), { force: true })
  const cgroupParent = `/rubato-lab-${basename(base)
    .replace(/[^a-zA-Z0-9]/g, '')
    .slice(-12)}-${process.pid}`
  const rulesBefore = TABLES.map(rulesOf)
  const forwardBefore = readFileSync(FORWARD, 'utf8')
  const log = openSync(join(base, 'dockerd.log'), 'a')
  const child = spawn(
    'dockerd',
    [
      `--data-root=${join(base, 'data')}`,
      `--exec-root=${join(base, 'exec')}`,
      `--pidfile=${pidFile}`,
      `--host=unix://${socket}`,
      `--cgroup-parent=${cgroupParent}`,
      '--bridge=none',
      '--iptables=true',
      '--ip6tables=false',
      '--log-level=warn',
    ],
    { detached: true, stdio: ['ignore', log, log] },
  )
  closeSync(log)
  const exited = new Promise<void>((done) => {
    child.on('exit', () => done())
    child.on('error', () => done())
  })
  const { pid } = child
  if (pid === undefined) throw new Error('dockerd could not be started: is docker.io installed?')

  const end = async (signal: NodeJS.Signals, limitMs: number) => {
    if (child.exitCode === null && child.signalCode === null) process.kill(pid, signal)
    await Promise.race([exited, pause(limitMs)])
  }
  const stop = async () => {
    for (const id of await containerIds(socket)) await api(socket, 'DELETE', `/v1.41/containers/${id}?force=true&v=true`)
    // An engine leaves the bridges of its networks behind when it ends.
    for (const id of await networkIds(socket)) await api(socket, 'DELETE', `/v1.41/networks/${id}`)
    await end('SIGCONT', 0)
    await end('SIGTERM', 20_000)
    await end('SIGKILL', 5_000)
    // containerd and shims of an engine that was killed: told by the paths on their command lines.
    for (const orphan of processesBelow(base)) killQuietly(orphan)
    TABLES.forEach((table, index) => {
      removeRules(table, rulesBefore[index] ?? [])
    })
    writeFileSync(FORWARD, forwardBefore)
    for (const point of mountsBelow(base)) runQuietly('umount', ['-l', point])
    for (const controller of cgroupRoots()) removeCgroups(join(controller, cgroupParent))
    for (const name of ['data', 'exec', 'docker.sock', 'docker.pid']) rmSync(join(base, name), { recursive: true, force: true })
  }

  const deadline = Date.now() + 60_000
  while ((await api(socket, 'GET', '/_ping')) !== 200) {
    if (child.exitCode !== null || Date.now() > deadline) {
      await stop()
      throw new Error(
        `dockerd did not start, see ${join(base, 'dockerd.log')}: ${readFileSync(join(base, 'dockerd.log'), 'utf8').slice(-1500)}`,
      )
    }
    await pause(100)
  }
  return { socket, pid, kill: () => end('SIGKILL', 5_000), stop }
}

const FORWARD = '/proc/sys/net/ipv4/ip_forward'

function pause(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms))
}

/** Status of a call, 0 when nobody answers. */
function api(socket: string, method: string, path: string, take?: (text: string) => void): Promise<number> {
  return new Promise((done) => {
    const call = request({ socketPath: socket, method, path, timeout: 20_000 }, (response) => {
      let text = ''
      response.on('data', (chunk) => {
        text += String(chunk)
      })
      response.on('end', () => {
        take?.(text)
        done(response.statusCode ?? 0)
      })
      response.on('error', () => done(0))
    })
    call.on('timeout', () => call.destroy())
    call.on('error', () => done(0))
    call.end()
  })
}

async function containerIds(socket: string): Promise<string[]> {
  let ids: string[] = []
  await api(socket, 'GET', '/v1.41/containers/json?all=true', (text) => {
    ids = (JSON.parse(text) as { Id: string }[]).map((item) => item.Id)
  })
  return ids
}

async function networkIds(socket: string): Promise<string[]> {
  let ids: string[] = []
  await api(socket, 'GET', '/v1.41/networks?filters=%7B%22type%22%3A%5B%22custom%22%5D%7D', (text) => {
    ids = (JSON.parse(text) as { Id: string }[]).map((item) => item.Id)
  })
  return ids
}

function rulesOf(table: string): string[] {
  try {
    return execFileSync('iptables', ['-w', '5', '-t', table, '-S'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
      .trim()
      .split('\n')
  } catch {
    return []
  }
}

/** Takes away what the engine (or an agent on it) added: rules first, then its chains; restores policies. */
function removeRules(table: string, before: readonly string[]): void {
  const added = rulesOf(table).filter((rule) => !before.includes(rule))
  const ours = added.filter((rule) => /DOCKER|rb-|rubato-|docker/.test(rule))
  const words = (rule: string) => (rule.match(/"[^"]*"|\S+/g) ?? []).map((word) => word.replace(/^"|"$/g, ''))
  for (const rule of ours)
    if (rule.startsWith('-A ')) runQuietly('iptables', ['-w', '5', '-t', table, '-D', ...words(rule).slice(1)])
  for (const rule of ours)
    if (rule.startsWith('-N ')) runQuietly('iptables', ['-w', '5', '-t', table, '-F', words(rule)[1] ?? ''])
  for (const rule of ours)
    if (rule.startsWith('-N ')) runQuietly('iptables', ['-w', '5', '-t', table, '-X', words(rule)[1] ?? ''])
  for (const rule of before) if (rule.startsWith('-P ')) runQuietly('iptables', ['-w', '5', '-t', table, ...words(rule)])
}

function mountsBelow(base: string): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((point) => point.startsWith(`${base}/`))
    .sort()
    .reverse()
}

function processesBelow(base: string, program = /containerd/): number[] {
  const found: number[] = []
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) continue
    try {
      const argv = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0')
      if (program.test(argv[0] ?? '') && argv.some((word) => word.includes(`${base}/`))) found.push(Number(name))
    } catch {
      // It ended meanwhile.
    }
  }
  return found
}

function cgroupRoots(): string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter((fields) => fields[2] === 'cgroup' || fields[2] === 'cgroup2')
    .map((fields) => fields[1] ?? '')
}

function removeCgroups(path: string): void {
  if (!existsSync(path)) return
  for (const item of readdirSync(path, { withFileTypes: true })) if (item.isDirectory()) removeCgroups(join(path, item.name))
  try {
    rmdirSync(path)
  } catch {
    // Still in use by a process that is ending; an empty group costs nothing.
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended meanwhile.
  }
}

function runQuietly(file: string, args: readonly string[]): void {
  try {
    execFileSync(file, [...args], { stdio: 'ignore' })
  } catch {
    // Already gone.
  }
}
