/**
 * Several hosts on one machine: each has network, process, mount, hostname and cgroup namespaces of its own and its own Docker
 * engine, joined by one switch. Hosts are <net>.11, .12, …; this machine is <net>.1. Needs root, iproute2, iptables, docker.io.
 * Faults: cut the cable, drop packets one way, power off and boot again (the disk stays).
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Host {
  readonly name: string
  readonly address: string
  readonly dir: string
  /** The engine's socket, reachable from outside the host. */
  readonly dockerSocket: string
  /** Runs a command to its end inside the host; throws with its output when it fails. */
  run(argv: readonly string[], options?: { readonly input?: string; readonly timeoutMs?: number }): string
  /** Starts a command inside the host; its output goes to `<dir>/<label>.log`. */
  start(label: string, argv: readonly string[], environment?: Readonly<Record<string, string>>): HostProcess
  /** Drops all packets between this host and the others and this machine. */
  cut(): void
  heal(): void
  /** kill -9 of the engine; its containers run on. It stays down until it is started again, and then kills what it finds running. */
  killEngine(): void
  startEngine(): Promise<void>
  /** Power off: every process of it dies at once. */
  crash(): Promise<void>
  boot(): Promise<void>
  /** Power off for good: its disk and its namespaces go too. */
  remove(): Promise<void>
  readonly running: boolean
}

export interface HostProcess {
  /** Process id inside the host, once it started. */
  pid(): number
  kill(signal: 'SIGKILL' | 'SIGTERM'): void
  alive(): boolean
  readonly log: string
}

export interface Hosts {
  readonly hosts: readonly Host[]
  /** Address of this machine on the hosts' network. */
  readonly rootAddress: string
  addHost(): Promise<Host>
  down(): Promise<void>
}

const CGROUPS = '/sys/fs/cgroup'

/** `id` (≤ 6 characters) names everything that is made; `net` is a /24 prefix such as "10.91.0". */
export async function createHosts(options: {
  readonly id: string
  readonly net: string
  readonly bridgeNet: string
  readonly count: number
  readonly dir: string
}): Promise<Hosts> {
  const { id, net, dir } = options
  const switchNs = `${id}-sw`
  const bridge = `${id}br`
  mkdirSync(dir, { recursive: true })
  const hosts: Host[] = []

  removeLeftovers(id)
  ip(['netns', 'add', switchNs])
  ip(['-n', switchNs, 'link', 'set', 'lo', 'up'])
  ip(['-n', switchNs, 'link', 'add', bridge, 'type', 'bridge'])
  ip(['-n', switchNs, 'link', 'set', bridge, 'up'])
  ip(['link', 'add', `${id}-up`, 'type', 'veth', 'peer', 'name', 'uplink', 'netns', switchNs])
  ip(['addr', 'add', `${net}.1/24`, 'dev', `${id}-up`])
  ip(['link', 'set', `${id}-up`, 'up'])
  ip(['-n', switchNs, 'link', 'set', 'uplink', 'master', bridge])
  ip(['-n', switchNs, 'link', 'set', 'uplink', 'up'])

  const addHost = async () => {
    const number = hosts.length + 1
    const host = makeHost({
      id,
      number,
      address: `${net}.${10 + number}`,
      gateway: `${net}.1`,
      bridgeCidr: `${options.bridgeNet}.${number}.1/24`,
      dir: join(dir, `h${number}`),
      switchNs,
      bridge,
    })
    hosts.push(host)
    await host.boot()
    return host
  }
  const started = await Promise.all(Array.from({ length: options.count }, () => addHost()))
  started.sort((a, b) => (a.name < b.name ? -1 : 1))

  return {
    hosts,
    rootAddress: `${net}.1`,
    addHost,
    async down() {
      for (const host of hosts) await host.crash()
      removeLeftovers(id)
      removeCgroups(id)
      unmountBelow(dir)
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

interface HostSettings {
  readonly id: string
  readonly number: number
  readonly address: string
  readonly gateway: string
  readonly bridgeCidr: string
  readonly dir: string
  readonly switchNs: string
  readonly bridge: string
}

function makeHost(settings: HostSettings): Host {
  const { id, number, address, dir } = settings
  const name = `h${number}`
  const ns = `${id}-${name}`
  const socket = join(dir, 'docker.sock')
  let init: { pid: number } | null = null

  const enter = (argv: readonly string[]) => {
    if (init === null) throw new Error(`${ns} is not running`)
    return ['-t', String(init.pid), '-m', '-u', '-i', '-n', '-p', '-C', '--', ...argv]
  }
  const joinCgroups = (pid: number) => {
    for (const controller of v1Controllers()) writeFileSync(join(CGROUPS, controller, id, name, 'cgroup.procs'), String(pid))
    if (isV2()) {
      mkdirSync(join(CGROUPS, id, name, 'init'), { recursive: true })
      writeFileSync(join(CGROUPS, id, name, 'init', 'cgroup.procs'), String(pid))
    }
  }
  const inNet = (argv: readonly string[]) => execFileSync('nsenter', [`--net=/run/netns/${ns}`, '--', ...argv], { stdio: 'pipe' })

  const engineAnswers = () =>
    until(
      () => spawnSync('curl', ['-fs', '--max-time', '2', '--unix-socket', socket, 'http://d/_ping']).status === 0,
      `the engine of ${ns} (see ${dir}/dockerd.log)`,
      60_000,
    )

  const host: Host = {
    name,
    address,
    dir,
    dockerSocket: socket,
    get running() {
      return init !== null
    },
    run(argv, runOptions = {}) {
      const result = spawnSync('nsenter', enter(argv), {
        encoding: 'utf8',
        input: runOptions.input ?? '',
        timeout: runOptions.timeoutMs ?? 60_000,
        maxBuffer: 64 * 2 ** 20,
      })
      if (result.status !== 0)
        throw new Error(`${name}: ${argv.join(' ')} exited ${result.status}: ${result.stderr}${result.stdout}`)
      return result.stdout
    },
    start(label, argv, environment = {}) {
      const pidFile = join(dir, `${label}.pid`)
      const log = join(dir, `${label}.log`)
      rmSync(pidFile, { force: true })
      const out = openSync(log, 'a')
      const child = spawn('nsenter', enter(['sh', '-c', 'echo $$ >"$0"; exec "$@"', pidFile, ...argv]), {
        stdio: ['ignore', out, out],
        detached: true,
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...environment },
      })
      child.unref()
      closeSync(out)
      const pid = () => Number(existsSync(pidFile) ? readFileSync(pidFile, 'utf8') : Number.NaN)
      return {
        log,
        pid,
        kill(signal) {
          if (init !== null && Number.isInteger(pid()))
            spawnSync('nsenter', enter(['kill', signal === 'SIGKILL' ? '-9' : '-15', String(pid())]))
        },
        alive: () =>
          init !== null && Number.isInteger(pid()) && spawnSync('nsenter', enter(['kill', '-0', String(pid())])).status === 0,
      }
    },
    cut() {
      inNet(['iptables', '-w', '-t', 'raw', '-I', 'PREROUTING', '-i', 'eth0', '-j', 'DROP'])
      inNet(['iptables', '-w', '-t', 'raw', '-I', 'OUTPUT', '-o', 'eth0', '-j', 'DROP'])
    },
    heal() {
      inNet(['iptables', '-w', '-t', 'raw', '-F'])
    },
    killEngine() {
      writeFileSync(join(dir, 'engine-off'), '')
      // A containerd that outlives its engine answers the next one no more, and what it leaves here stops that one from starting.
      host.run([
        'sh',
        '-c',
        // The files end without a line break.
        `cd /run/docker/containerd && kill -9 $(cat ../../docker.pid) $(cat containerd.pid) || exit
        rm -f ../../docker.pid containerd.pid containerd.sock containerd.sock.ttrpc containerd-debug.sock`,
      ])
      rmSync(socket, { force: true })
    },
    async startEngine() {
      rmSync(join(dir, 'engine-off'), { force: true })
      await engineAnswers()
    },
    async crash() {
      if (init === null) return
      const { pid } = init
      init = null
      process.kill(pid, 'SIGKILL')
      await until(() => hostPids(id, name).length === 0, `every process of ${ns} to end`, 20_000, 25)
      rmSync(socket, { force: true })
    },
    async remove() {
      await host.crash()
      spawnSync('ip', ['netns', 'del', ns])
      unmountBelow(dir)
      rmSync(dir, { recursive: true, force: true })
    },
    async boot() {
      if (init !== null) return
      mkdirSync(dir, { recursive: true })
      rmSync(join(dir, 'booted'), { force: true })
      makeNetwork(settings, ns, name)
      makeCgroups(id, name)
      const log = openSync(join(dir, 'init.log'), 'a')
      const script = join(import.meta.dirname, 'host-init.sh')
      // The shell joins the host's cgroups before it becomes `unshare`, so that the cgroup namespace is rooted there.
      const procs = isV2()
        ? [join(CGROUPS, id, name, 'cgroup.procs')]
        : v1Controllers().map((controller) => join(CGROUPS, controller, id, name, 'cgroup.procs'))
      const child = spawn(
        'sh',
        [
          '-c',
          'for f in $1; do echo $$ >$f; done; shift; exec "$@"',
          'sh',
          procs.join(' '),
          'nsenter',
          `--net=/run/netns/${ns}`,
          'unshare',
          '-m',
          '-u',
          '-i',
          '-p',
          '-C',
          '-f',
          '--kill-child',
          'bash',
          script,
          name,
          address,
          dir,
          settings.bridgeCidr,
          v1Controllers().join(' '),
        ],
        { stdio: ['ignore', log, log], detached: true, env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } },
      )
      closeSync(log)
      child.unref()
      await until(() => existsSync(join(dir, 'booted')), `${ns} to boot (see ${dir}/init.log)`, 30_000)
      init = { pid: childOf(child.pid ?? 0) }
      joinCgroups(init.pid)
      await engineAnswers()
    },
  }
  return host
}

function makeNetwork(settings: HostSettings, ns: string, name: string): void {
  if (!existsSync(`/run/netns/${ns}`)) ip(['netns', 'add', ns])
  ip(['-n', ns, 'link', 'set', 'lo', 'up'])
  if (spawnSync('ip', ['-n', ns, 'link', 'show', 'eth0']).status !== 0) {
    ip(['-n', ns, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', `p-${name}`, 'netns', settings.switchNs])
    ip(['-n', ns, 'addr', 'add', `${settings.address}/24`, 'dev', 'eth0'])
    ip(['-n', settings.switchNs, 'link', 'set', `p-${name}`, 'master', settings.bridge])
    ip(['-n', settings.switchNs, 'link', 'set', `p-${name}`, 'up'])
  }
  ip(['-n', ns, 'link', 'set', 'eth0', 'up'])
  ip(['-n', ns, 'route', 'replace', 'default', 'via', settings.gateway])
}

function makeCgroups(id: string, name: string): void {
  for (const controller of v1Controllers()) {
    const parent = join(CGROUPS, controller, id)
    const own = join(parent, name)
    mkdirSync(own, { recursive: true })
    if (controller.split(',').includes('cpuset'))
      for (const [folder, above] of [
        [parent, join(CGROUPS, controller)],
        [own, parent],
      ] as const)
        for (const file of ['cpuset.cpus', 'cpuset.mems'])
          if (readFileSync(join(folder, file), 'utf8').trim() === '')
            writeFileSync(join(folder, file), readFileSync(join(above, file), 'utf8'))
  }
  if (isV2()) {
    mkdirSync(join(CGROUPS, id, name), { recursive: true })
    for (const folder of [CGROUPS, join(CGROUPS, id)])
      for (const controller of ['cpu', 'memory', 'pids']) {
        const result = spawnSync('sh', ['-c', `echo +${controller} >${folder}/cgroup.subtree_control`])
        if (result.status !== 0) continue
      }
  }
}

function v1Controllers(): readonly string[] {
  return readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter((fields) => fields[2] === 'cgroup' && fields[1]?.startsWith(`${CGROUPS}/`))
    .map((fields) => (fields[1] ?? '').slice(CGROUPS.length + 1))
}

function isV2(): boolean {
  return existsSync(join(CGROUPS, 'cgroup.controllers'))
}

function hostPids(id: string, name: string): readonly string[] {
  const root = isV2()
    ? join(CGROUPS, id, name)
    : join(CGROUPS, v1Controllers().includes('freezer') ? 'freezer' : (v1Controllers()[0] ?? ''), id, name)
  return spawnSync('sh', ['-c', `find '${root}' -name cgroup.procs -exec cat {} + 2>/dev/null`], { encoding: 'utf8' })
    .stdout.split('\n')
    .filter(Boolean)
}

function unmountBelow(dir: string): void {
  for (const mount of readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '')
    .filter((path) => path.startsWith(`${dir}/`))
    .reverse())
    spawnSync('umount', ['-l', mount])
}

/** What a run that was killed left behind: processes of its hosts, namespaces, links. */
function removeLeftovers(id: string): void {
  for (let attempt = 0; attempt < 50; attempt += 1) {
    const pids = hostPids(id, '')
    if (pids.length === 0) break
    spawnSync('kill', ['-9', ...pids])
    spawnSync('sleep', ['0.1'])
  }
  for (const name of existsSync('/run/netns') ? readdirSync('/run/netns') : [])
    if (name.startsWith(`${id}-`)) spawnSync('ip', ['netns', 'del', name])
  spawnSync('ip', ['link', 'del', `${id}-up`], { stdio: 'ignore' })
}

function removeCgroups(id: string): void {
  for (const root of isV2() ? [join(CGROUPS, id)] : v1Controllers().map((controller) => join(CGROUPS, controller, id)))
    for (let attempt = 0; attempt < 10 && existsSync(root); attempt += 1)
      spawnSync('find', [root, '-depth', '-type', 'd', '-exec', 'rmdir', '{}', '+'], { stdio: 'ignore' })
}

/** The process that `unshare -f` forked: pid 1 of the host, seen from outside. */
function childOf(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')
  const child = Number(children[0])
  if (!Number.isInteger(child) || child <= 0) throw new Error(`process ${pid} has no child`)
  return child
}

function ip(argv: readonly string[]): void {
  const result = spawnSync('ip', argv, { encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`ip ${argv.join(' ')}: ${result.stderr.trim()}`)
}

/** Waits until `condition` holds, polling; throws naming `what` after `limitMs`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  limitMs = 60_000,
  everyMs = 100,
): Promise<void> {
  const end = performance.now() + limitMs
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`waited ${limitMs} ms in vain for ${what}`)
    await pause(everyMs)
  }
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
