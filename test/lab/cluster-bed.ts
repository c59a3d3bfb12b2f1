/**
 * A whole cluster for tests and benchmarks: hosts of the lab with an engine each, a coordinator, agents on the hosts, a cloud whose
 * machines are further hosts that join by their user data alone, and a dial for the load of services. Needs root on Debian.
 */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EventView, InstanceView, MachineView, NodeView, ServiceView } from '../../coordinator/api/schemas.ts'
import { buildAgentIfStale } from './agent-binary.ts'
import { type CoordinatorProcess, startCoordinator } from './coordinator.ts'
import { engineRequest, importTar } from './engine-api.ts'
import { createHosts, type Host, type HostProcess, type Hosts, until as untilPlain } from './hosts.ts'
import { type LoadDial, startLoadDial } from './load-dial.ts'
import { type MachineServer, startMachineServer } from './machine-server.ts'
import { NODE_IMAGE_COMMAND, writeNodeRootfs } from './node-image.ts'
import { installPackages } from './packages.ts'

const ROOT = join(import.meta.dirname, '..', '..')

/** In every engine of the bed: test/lab/worker.mjs under Node. */
export const WORKER_IMAGE = 'rubato-e2e/worker:1'

export interface ClusterBedOptions {
  /** Names all that is made; ≤ 6 characters, another for each bed. */
  readonly id: string
  /** /24 prefix of the hosts' network, and /16 prefix of their bridges. */
  readonly net: string
  readonly bridgeNet: string
  /** Hosts that are there from the start, without an agent. */
  readonly hosts: number
  /** Settings of the coordinator beside `providers`; the cloud is provider `lab`. */
  readonly settings: Readonly<Record<string, unknown>>
  readonly offerings: Readonly<Record<string, unknown>>
  /** A provider `hasty`, too: the same cloud, given up on after this long. */
  readonly hastyTimeout?: string
  readonly coordinatorEnvironment?: Readonly<Record<string, string>>
}

export interface BedContainer {
  readonly instance: string
  readonly id: string
  readonly startedAt: string
  readonly address: string
}

export interface AgentOptions {
  readonly cpus: number
  readonly memory: string
  readonly environment?: Readonly<Record<string, string>>
}

/** Everything of ours that is on this machine and on the hosts, in a stable order: equal before and after means nothing leaked. */
export interface Footprint {
  readonly machines: readonly string[]
  readonly namespaces: readonly string[]
  readonly containers: readonly string[]
  readonly networks: readonly string[]
  readonly rules: readonly string[]
  readonly processes: readonly string[]
}

export interface ClusterBed {
  readonly dir: string
  readonly lab: Hosts
  readonly coordinator: CoordinatorProcess
  readonly dial: LoadDial
  readonly cloud: MachineServer
  /** The host of that name; throws when there is none. */
  host(name: string): Host
  /** Makes a join token for the host and starts its agent. */
  join(host: Host, options: AgentOptions): Promise<void>
  /** Starts the host's agent, again or for the first time: it finds its state. */
  startAgent(host: Host, options: AgentOptions): HostProcess
  agent(host: Host): HostProcess | undefined
  /** Runs the command line; throws with its output when it fails. */
  cli(...args: readonly string[]): Promise<string>
  /** Deploys an app file; waits until it is done unless told otherwise. */
  up(app: string, text: string, wait?: boolean): Promise<void>
  /** Pins a service's count: what follows must not depend on how busy the test machine is. */
  scale(service: string, replicas: number): Promise<void>
  nodes(): Promise<readonly NodeView[]>
  liveNodes(): Promise<readonly NodeView[]>
  /** Those that are not gone. */
  machines(): Promise<readonly MachineView[]>
  service(id: string): Promise<ServiceView>
  instances(service?: string): Promise<readonly InstanceView[]>
  events(type: string): Promise<readonly EventView[]>
  containersOn(host: Host): Promise<readonly BedContainer[]>
  allContainers(): Promise<readonly BedContainer[]>
  footprint(): Promise<Footprint>
  /** As the lab's, and tells what there was when the wait was in vain. */
  until(condition: () => boolean | Promise<boolean>, what: string, limitMs?: number, everyMs?: number): Promise<void>
  /** Waits until the engines and the coordinator name the same instances, each once. */
  untilNothingTwice(): Promise<void>
  /** Ends everything. With KEEP_LOGS=dir the logs of coordinator and agents are copied there first. */
  stop(): Promise<void>
}

export async function startClusterBed(options: ClusterBedOptions): Promise<ClusterBed> {
  const dir = mkdtempSync(join(tmpdir(), `rubato-${options.id}-`))
  const agents = new Map<string, HostProcess>()
  const cleanups: (() => Promise<void> | void)[] = [() => rmSync(dir, { recursive: true, force: true })]
  const stop = async () => {
    for (const clean of cleanups.splice(0).reverse()) await clean()
  }
  try {
    return await start()
  } catch (error) {
    await stop()
    throw error
  }

  async function start(): Promise<ClusterBed> {
    await installPackages(say)
    const image = join(dir, 'image.tar')
    // A copy: another build must not change it under the running coordinator.
    const binaries = join(dir, 'dist')
    mkdirSync(binaries)
    copyFileSync(buildAgentIfStale(say), join(binaries, 'rubato-agent-linux-x64'))
    writeNodeRootfs(image, join(ROOT, 'test', 'lab', 'worker.mjs'))
    const hasImage = (target: Host) => importTar(target.dockerSocket, image, WORKER_IMAGE, NODE_IMAGE_COMMAND)
    const { id, net, bridgeNet, offerings, hastyTimeout } = options
    const lab = await createHosts({ id, net, bridgeNet, count: options.hosts, dir: join(dir, 'hosts') })
    cleanups.push(() => lab.down())
    cleanups.push(() => keepLogs(dir))
    await Promise.all(lab.hosts.map(hasImage))
    const dial = await startLoadDial(lab.rootAddress, 7800)
    cleanups.push(() => dial.stop())
    const cloud = await startMachineServer(lab, join(dir, 'cloud.sock'), hasImage)
    cleanups.push(() => cloud.stop())
    const coordinator = await startCoordinator({
      dir: join(dir, 'coordinator'),
      host: lab.rootAddress,
      port: 7600,
      catalogPort: 7650,
      dnsPort: 7653,
      environment: options.coordinatorEnvironment ?? {},
      settings: {
        agentBinaryDir: binaries,
        ...options.settings,
        providers: {
          lab: { kind: 'exec', command: cloud.command('lab'), offerings },
          ...(hastyTimeout === undefined
            ? {}
            : { hasty: { kind: 'exec', command: cloud.command('hasty'), offerings, createTimeout: hastyTimeout } }),
        },
      },
    })
    cleanups.push(() => coordinator.stop())
    cleanups.push(() => {
      for (const agent of agents.values()) agent.kill('SIGTERM')
    })
    return bedOf(lab, coordinator, dial, cloud)
  }

  function bedOf(lab: Hosts, coordinator: CoordinatorProcess, dial: LoadDial, cloud: MachineServer): ClusterBed {
    const list = async <T>(path: string) => (await coordinator.get<{ items: T[] }>(path)).items
    const running = () => lab.hosts.filter((target) => target.running)
    const tokenFile = (target: Host) => join(target.dir, 'join.token')
    const bed: ClusterBed = {
      dir,
      lab,
      coordinator,
      dial,
      cloud,
      host(name) {
        const found = lab.hosts.find((candidate) => candidate.name === name)
        if (!found) throw new Error(`there is no host ${name}`)
        return found
      },
      async join(target, agentOptions) {
        const token = (await bed.cli('token', 'join', '--label', `rack=${target.name}`)).trim().split('\n').at(-1) ?? ''
        writeFileSync(tokenFile(target), token, { mode: 0o600 })
        bed.startAgent(target, agentOptions)
      },
      startAgent(target, { cpus, memory, environment = {} }) {
        const settings = {
          'state-dir': '/var/lib/rubato-agent',
          'token-file': tokenFile(target),
          urls: coordinator.url,
          engine: 'docker',
          'capacity-cpus': String(cpus),
          'capacity-memory': memory,
          hostname: target.name,
        }
        const flags = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])
        const command = [process.execPath, join(ROOT, 'agent', 'main.ts'), ...flags]
        const agent = target.start('agent', command, environment)
        agents.set(target.name, agent)
        return agent
      },
      agent: (target) => agents.get(target.name),
      async cli(...args) {
        const { code, stdout, stderr } = await coordinator.cli(args)
        if (code !== 0) throw new Error(`rubato ${args.join(' ')} exited ${code}: ${stderr}${stdout}`)
        return stdout
      },
      async up(app, text, wait = true) {
        const file = join(dir, `${app}.yaml`)
        writeFileSync(file, text)
        await bed.cli('up', '-f', file, '-p', app, ...(wait ? ['--timeout', '120'] : ['--detach']))
      },
      scale: (service, replicas) => coordinator.send('POST', `/v1/services/${service}/scale`, { replicas }),
      nodes: () => list<NodeView>('/v1/nodes'),
      liveNodes: async () => (await bed.nodes()).filter((one) => one.liveness === 'live'),
      machines: () => list<MachineView>('/v1/machines?limit=500'),
      service: (service) => coordinator.get<ServiceView>(`/v1/services/${service}`),
      instances: async (service) =>
        (await list<InstanceView>('/v1/instances?limit=500')).filter(
          (instance) => service === undefined || `${instance.app}/${instance.service}` === service,
        ),
      events: async (type) => (await list<EventView>('/v1/events?limit=500')).filter((event) => event.type === type),
      containersOn,
      allContainers: async () => (await Promise.all(running().map(containersOn))).flat(),
      footprint: () => footprintOf(options.id, dir, running(), cloud),
      async until(condition, what, limitMs = 60_000, everyMs = 100) {
        try {
          await untilPlain(condition, what, limitMs, everyMs)
        } catch (error) {
          for (const args of [['ps'], ['ps', '-s'], ['nodes'], ['pools', '-a'], ['events', '--tail', '30']])
            say((await coordinator.cli(args)).stdout)
          say(cloud.calls.filter((call) => !call.startsWith('list')).join(', '))
          throw error
        }
      },
      async untilNothingTwice() {
        const agree = async () => {
          const inEngines = (await bed.allContainers()).map((container) => container.instance).sort()
          const known = (await bed.instances()).map((instance) => instance.id).sort()
          return JSON.stringify(inEngines) === JSON.stringify(known)
        }
        await bed.until(agree, 'engines and coordinator to agree', 30_000)
      },
      stop,
    }
    return bed
  }
}

/** Containers of Rubato on one host, by instance. */
async function containersOn(target: Host): Promise<readonly BedContainer[]> {
  const filters = encodeURIComponent(JSON.stringify({ label: ['rubato.cluster'] }))
  const listed = (await engineRequest(target.dockerSocket, 'GET', `/containers/json?filters=${filters}`)) as { Id: string }[]
  const found = await Promise.all(
    listed.map(async ({ Id }): Promise<BedContainer | null> => {
      const seen = (await engineRequest(target.dockerSocket, 'GET', `/containers/${Id}/json`).catch(() => null)) as {
        Config: { Labels: Record<string, string> }
        State: { StartedAt: string }
        NetworkSettings: { Networks: Record<string, { IPAddress: string }> }
      } | null
      return seen === null
        ? null
        : {
            instance: seen.Config.Labels['rubato.instance'] ?? '',
            id: Id,
            startedAt: seen.State.StartedAt,
            address: Object.values(seen.NetworkSettings.Networks)[0]?.IPAddress ?? '',
          }
    }),
  )
  return found.filter((container) => container !== null).sort((a, b) => (a.instance < b.instance ? -1 : 1))
}

async function footprintOf(id: string, dir: string, hosts: readonly Host[], cloud: MachineServer): Promise<Footprint> {
  const perHost = async (list: (host: Host) => Promise<readonly string[]>) =>
    (await Promise.all(hosts.map(async (host) => (await list(host)).map((line) => `${host.name}: ${line}`)))).flat().sort()
  return {
    machines: cloud.machines.filter((machine) => !machine.deleted).map((machine) => machine.name),
    namespaces: linesOf('ip', ['netns', 'list'])
      .map((line) => line.split(' ')[0] ?? '')
      .filter((name) => name.startsWith(`${id}-`))
      .sort(),
    containers: await perHost(async (host) =>
      ((await engineRequest(host.dockerSocket, 'GET', '/containers/json?all=1')) as { Names: string[] }[]).map(
        ({ Names }) => Names[0] ?? '',
      ),
    ),
    networks: await perHost(async (host) =>
      ((await engineRequest(host.dockerSocket, 'GET', '/networks')) as { Name: string }[]).map(({ Name }) => Name),
    ),
    rules: await perHost(async (host) =>
      host
        .run(['iptables-save'])
        .split('\n')
        .filter((line) => /^-[AN] /.test(line)),
    ),
    processes: [
      ...(await perHost(async (host) => programs(host.run(['ps', '-eo', 'args', '--no-headers', '-ww']).split('\n')))),
      ...programs(linesOf('ps', ['-eo', 'args', '--no-headers', '-ww']).filter((line) => line.includes(`${dir}/`))),
    ],
  }
}

/** Command lines, without what watches, sleeps or asks the cloud what there is, all of which come and go; in order. */
function programs(lines: readonly string[]): readonly string[] {
  return lines
    .map((line) => line.trim().replace(/\b[0-9a-f]{64}\b/g, '(id)'))
    .filter((line) => line !== '' && !/^(ps|sleep) |exec-hosts\.mjs .* list$/.test(line))
    .sort()
}

function linesOf(program: string, args: readonly string[]): readonly string[] {
  return execFileSync(program, [...args], { encoding: 'utf8', maxBuffer: 2 ** 26 })
    .split('\n')
    .filter(Boolean)
}

function keepLogs(dir: string): void {
  if (!process.env.KEEP_LOGS) return
  const copy =
    'mkdir -p "$1"; cp "$0"/coordinator/coordinator.log "$1"/; for d in "$0"/hosts/*; do for f in agent.log dockerd.log user-data.log log/rubato-agent.log; do [ ! -f $d/$f ] || cp $d/$f "$1"/$(basename $d)-$(basename $f); done; done'
  execFileSync('sh', ['-c', copy, dir, process.env.KEEP_LOGS])
}

/** Prints a line of progress. */
export function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

/** Prints what was measured: seconds from one monotonic time to another, by default now. */
export function figure(name: string, fromMs: number, toMs = performance.now()): void {
  say(`figure: ${name}: ${((toMs - fromMs) / 1000).toFixed(2)} s`)
}
