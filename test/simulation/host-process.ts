/** A machine of the model world with its engine, disk and clock, and the lives of the real agent on it. */
import { type Agent, createAgent } from '../../agent/agent.ts'
import { createProber } from '../../agent/health/prober.ts'
import { joinCluster } from '../../agent/join.ts'
import type { JoinHttp } from '../../agent/join-http.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Capacity } from '../../shared/model/resources.ts'
import type { Random } from '../../shared/random.ts'
import { type FakeEngine, fakeEngine } from '../fakes/fake-runtime.ts'
import { memoryFiles } from '../fakes/memory-files.ts'
import type { ModelNetwork } from '../fakes/model-network.ts'
import type { VirtualClock } from '../fakes/virtual-clock.ts'
import { COORDINATOR_URLS, STATE_DIR } from './coordinator-process.ts'
import { type EffectListener, tellingFiles } from './effects.ts'
import { modelFenceHost } from './host-fence.ts'
import { type Life, newLife } from './life.ts'
import { type ModelGateway, modelGateway, modelMeter, modelProbes } from './model-agent-parts.ts'
import { type MachineClock, machineClock } from './process-clock.ts'
import type { Trace } from './trace.ts'

export interface Host {
  readonly name: string
  readonly address: string
  readonly capacity: Capacity
  readonly engine: FakeEngine
  readonly disk: Map<string, string>
  readonly clock: MachineClock
  /** Nothing can be written to its disk. */
  diskFull: boolean
  agent: Agent | null
  gateway: ModelGateway | null
  life: Life | null
  /** Stops its strict singletons when their lease runs out; outlives the agent. */
  watchdog: Life | null
  /** What its machine was told to join with; it may be asked for again after a crash. */
  token: string | null
  /** null until it joined. */
  nodeId: string | null
  /** The coordinator told it to leave. */
  left: boolean
  /** The machine was deleted. */
  gone: boolean
}

export interface HostParts {
  readonly world: VirtualClock
  readonly network: ModelNetwork
  readonly trace: Trace
  readonly nextRandom: () => Random
  readonly nextLife: () => number
  readonly joinHttp: (host: Host) => JoinHttp
  readonly loadOf: (instance: string) => number | null
  /** Programs of that image answer probes. */
  readonly isGood: (image: string) => boolean
  readonly tell: EffectListener
}

/** The `number`-th machine ever, from 1. */
export function newHost(
  parts: HostParts,
  options: { readonly name: string; readonly number: number; readonly capacity: Capacity; readonly rate: number },
): Host {
  const { world, trace, tell } = parts
  const { name, number, capacity } = options
  const clock = machineClock(world, options.rate)
  const engine = fakeEngine({ clock, addressPrefix: `172.${16 + (number >> 8)}.${number & 255}` })
  engine.onEffect = (operation, subject) => {
    trace.line(`${name} ${operation} ${subject}`)
    tell({ who: name, kind: 'engine', what: `${operation} ${subject}`, when: 'after' })
  }
  engine.onEnd = (container) => trace.line(`${name} end ${container.name} ${container.exitCode}`)
  return {
    name,
    address: `10.${number >> 8}.${number & 255}.1`,
    capacity,
    engine,
    disk: new Map(),
    clock,
    diskFull: false,
    agent: null,
    gateway: null,
    life: null,
    watchdog: null,
    token: null,
    nodeId: null,
    left: false,
    gone: false,
  }
}

/** Starts an agent; with the host's token it joins first, if it has not. */
export function bootAgent(parts: HostParts, host: Host): void {
  if (host.life?.alive) throw new Error(`an agent runs on ${host.name} already`)
  const life = newLife(host.clock)
  host.life = life
  parts.trace.line(`${host.name} agent starts`)
  runAgent(parts, host, life).catch((error: unknown) => {
    if (!life.alive) return
    parts.trace.line(`${host.name} agent ends: ${messageOf(error)}`)
    if (host.life === life) host.life = null
    life.end()
  })
}

/** SIGKILL. Containers stay; what is on its way to a coordinator arrives yet. */
export function killAgentOn(parts: HostParts, host: Host): void {
  if (!host.life?.alive) return
  parts.trace.line(`${host.name} agent is killed`)
  host.life.end()
  host.agent = null
  host.gateway = null
  parts.network.die(host.name)
}

async function runAgent(parts: HostParts, host: Host, life: Life): Promise<void> {
  const { network, trace } = parts
  const own = parts.nextRandom()
  const logger = trace.logger(host.name)
  const files = life.own(tellingFiles(memoryFiles(host.disk), host.name, () => host.diskFull, parts.tell))
  const facts = {
    hostname: host.name,
    address: host.address,
    platform: 'linux/amd64',
    runtimes: ['docker' as const],
    capacity: host.capacity,
    labels: {},
    engineLabels: {},
    agentVersion: '0',
  }
  const identity = await joinCluster({
    token: host.token,
    tokenFile: null,
    urls: [...COORDINATOR_URLS],
    facts: async () => facts,
    machineId: host.name,
    stateDir: STATE_DIR,
    http: life.own(parts.joinHttp(host)),
    files,
    clock: life.clock,
    random: own,
    logger,
  })
  host.nodeId = identity.nodeId
  const { clusterId, nodeId } = identity
  const engine = host.engine.runtime({ clusterId, nodeId, bridgeAddress: host.address })
  const runtime = life.own(engine)
  const isUp = (address: string) =>
    [...host.engine.containers.values()].some(
      (container) => container.state === 'running' && container.address === address && parts.isGood(container.request.spec.image),
    )
  const gateway = modelGateway()
  host.gateway = gateway
  const agent = await createAgent({
    facts: { ...facts, clusterId, nodeId, bootId: `${host.name}-${parts.nextLife()}` },
    credential: identity.credential,
    urls: [...COORDINATOR_URLS],
    stateDir: STATE_DIR,
    runtimes: [runtime],
    fence: modelFenceHost(host, life, engine, parts),
    prober: createProber({ clock: life.clock, logger, network: life.own(modelProbes(host.clock, isUp)) }),
    dialer: life.own(network.dialer(host.name, host.clock)),
    clock: life.clock,
    random: own,
    logger,
    files,
    backend: null,
    registerForeign: false,
    openGateway: async () => gateway,
    openMeter: (view) => modelMeter(view, parts.loadOf),
    environmentFor: () => ({}),
    onLeave(reason) {
      trace.line(`${host.name} leaves: ${reason}`)
      host.left = true
    },
  })
  host.agent = agent
  await agent.start()
}
