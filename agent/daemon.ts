import { readFile, rm } from 'node:fs/promises'
import { hostname as osHostname } from 'node:os'
import { join, resolve } from 'node:path'
import { sleep, systemClock } from '../shared/clock.ts'
import { diskFiles } from '../shared/disk-files.ts'
import { ConfigError, ForbiddenError, messageOf, RubatoError } from '../shared/errors.ts'
import { randomIds } from '../shared/ids.ts'
import { pinoLogger } from '../shared/pino-logger.ts'
import { systemRandom } from '../shared/random.ts'
import { systemSettings } from '../shared/system-settings.ts'
import { VERSION } from '../shared/version.ts'
import { type AgentGateway, type AgentView, createAgent } from './agent.ts'
import { type AgentConfig, loadAgentConfig } from './config.ts'
import { consulOf, destroyNode, markRunning, readFootprint, saveFootprint, type World } from './destroy.ts'
import { defaultRouteAddress, machineId, runCommand } from './host.ts'
import { createSavedTokens } from './saved-tokens.ts'
import { leaseFile } from './fence/lease-file.ts'
import { hostSteadyClock, leasePathOf, watchdogProcess } from './fence/watchdog-process.ts'
import { type AgentDns, createAgentDns, parseResolvers } from './dns.ts'
import { type BuiltinGateway, createBuiltinGateway } from './gateway/builtin/builtin-gateway.ts'
import { deviceAddresses, loopbackAddresses } from './gateway/builtin/virtual-addresses.ts'
import { createProber } from './health/prober.ts'
import { realProbeNetwork } from './health/probes.ts'
import { networkJoinHttp } from './join-http.ts'
import { joinCluster, type JoinFacts } from './join.ts'
import { webSocketDialer } from './link/websocket-dialer.ts'
import { createInstanceTokens } from './local-api/instance-tokens.ts'
import { createLocalApi, type LocalApi } from './local-api/local-api.ts'
import { meshSliceOf } from './mesh-slice.ts'
import { detectCapacity } from './metering/capacity.ts'
import { createMeter, type Meter } from './metering/meter.ts'
import { systemProc } from './metering/proc.ts'
import { createLoadPuller, httpFetchText } from './metering/pull.ts'
import { agentMetrics } from './metrics.ts'
import { createDockerRuntime, dockerAnswers, type DockerRuntime } from './runtime/docker/docker-runtime.ts'
import { createProcessRuntime } from './runtime/process/process-runtime.ts'
import { readBootId } from './runtime/process/process-table.ts'
import type { Runtime } from './runtime/runtime.ts'

const EXIT_CONFIG = 78
/** Runs until the signal aborts or the node leaves; resolves with the exit code. */
export async function runAgent(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const config = await configOf(argv)
  if (config === null) return EXIT_CONFIG
  const logger = pinoLogger(config.logLevel, { program: 'rubato-agent' })
  const world: World = { clock: systemClock(), random: systemRandom(), files: diskFiles(), logger }
  try {
    const left = await serve(config, world, signal)
    if (left) await destroyNode(config, world)
    return 0
  } catch (error) {
    if (signal.aborted) return 0
    // A stack is for faults of ours.
    const stack = error instanceof Error && !(error instanceof RubatoError) ? error.stack : undefined
    logger.error('the agent cannot go on', { error: messageOf(error), stack })
    return error instanceof ConfigError || error instanceof ForbiddenError ? EXIT_CONFIG : 1
  }
}

/** Ends everything of this node that runs here and forgets its state. Resolves with the exit code; may be repeated. */
export async function destroyAgent(argv: readonly string[]): Promise<number> {
  const config = await configOf(argv)
  if (config === null) return EXIT_CONFIG
  const logger = pinoLogger(config.logLevel, { program: 'rubato-agent' })
  try {
    await destroyNode(config, { clock: systemClock(), random: systemRandom(), files: diskFiles(), logger })
    return 0
  } catch (error) {
    logger.error('not everything could be removed; run it again', { error: messageOf(error) })
    return 1
  }
}

async function configOf(argv: readonly string[]): Promise<AgentConfig | null> {
  try {
    return await loadAgentConfig(systemSettings(argv))
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    process.stderr.write(`${error.message}\n`)
    return null
  }
}

/** True when the node was told to leave. */
async function serve(config: AgentConfig, world: World, signal: AbortSignal): Promise<boolean> {
  const { clock, random, files, logger } = world
  const stateDir = resolve(config.stateDir)
  const address = config.address ?? (await defaultRouteAddress())
  const bindAddress = config.bindAddress ?? address
  // A node that ran containers before is still one, also while its engine is not up yet.
  const ranDocker = (await readFootprint(files, stateDir))?.engine === 'docker'
  const wantsDocker =
    config.engine === 'docker' || (config.engine === 'auto' && (ranDocker || (await dockerAnswers(config.dockerSocket, clock))))
  const proc = systemProc()
  const measured = await detectCapacity(proc, config.capacity)
  const capacity = {
    ...measured,
    cpuMillis: Math.max(0, measured.cpuMillis - config.reserved.cpuMillis),
    memoryBytes: Math.max(0, measured.memoryBytes - config.reserved.memoryBytes),
  }
  const facts: JoinFacts = {
    hostname: config.hostname ?? osHostname(),
    address,
    platform: process.arch === 'arm64' ? 'linux/arm64' : 'linux/amd64',
    // One or the other: plain processes have no walls, so a node with an engine offers none.
    runtimes: [wantsDocker ? 'docker' : 'process'],
    capacity,
    labels: { ...config.labels },
    engineLabels: {},
    agentVersion: VERSION,
  }
  const identity = await joinCluster({
    token: config.token,
    tokenFile: config.tokenFile,
    urls: config.urls,
    facts: async () => facts,
    machineId: await machineId(),
    stateDir,
    http: networkJoinHttp(),
    files,
    clock,
    random,
    logger,
    signal,
  })
  if (identity.wasCloned)
    for (const part of ['link', 'fence', 'processes', 'work', 'tokens.json'])
      await rm(join(stateDir, part), { recursive: true, force: true })
  const log = logger.with({ nodeId: identity.nodeId })
  await markRunning(files, stateDir)
  await saveFootprint(files, stateDir, {
    engine: wantsDocker ? 'docker' : 'process',
    dockerSocket: config.dockerSocket,
    bindAddress,
  })

  const runtimes: Runtime[] = []
  let docker: DockerRuntime | null = null
  const resolvers = parseResolvers(await readFile('/etc/resolv.conf', 'utf8').catch(() => ''))
  let dns: AgentDns | null = null
  let gateway: BuiltinGateway | null = null
  if (wantsDocker) {
    docker = await createDockerRuntime({
      socketPath: config.dockerSocket,
      clusterId: identity.clusterId,
      nodeId: identity.nodeId,
      // The host's own resolvers come second: names of elsewhere resolve while this agent is restarted.
      dns: () => (dns === null || docker === null ? [] : [docker.bridgeAddress, ...reachable(resolvers)]),
      clock,
      logger: log,
    })
    runtimes.push(docker)
  } else {
    const { clusterId, nodeId } = identity
    runtimes.push(await createProcessRuntime({ stateDir, clusterId, nodeId, bindAddress, clock, random, files, logger: log }))
  }

  const bridge = docker?.bridgeAddress ?? null
  const savedTokens = createSavedTokens(files, stateDir, log)
  const tokens = createInstanceTokens(random, await savedTokens.read())
  // Callers that share the host with other agents tell them apart by address: loopback belongs to whoever binds it first.
  const localAddresses = [
    ...new Set([...(bindAddress.startsWith('127.') ? [bindAddress] : ['127.0.0.1']), ...(bridge === null ? [] : [bridge])]),
  ]
  let localApi: LocalApi | null = null
  const left = Promise.withResolvers<string>()
  const agent = await createAgent({
    facts: { ...facts, clusterId: identity.clusterId, nodeId: identity.nodeId, bootId: randomIds(random).next('boot') },
    credential: identity.credential,
    urls: identity.urls.length > 0 ? identity.urls : config.urls,
    stateDir,
    runtimes,
    prober: createProber({ clock, logger: log, network: realProbeNetwork(clock) }),
    dialer: webSocketDialer({ clock, ...(identity.caPem === null ? {} : { caPem: identity.caPem }) }),
    clock,
    random,
    logger: log,
    files,
    backend: consulOf(config, identity.nodeId),
    fence: {
      lease: leaseFile(leasePathOf(stateDir)),
      watchdog: watchdogProcess({
        stateDir,
        engine: wantsDocker ? 'docker' : 'process',
        dockerSocket: config.dockerSocket,
        clock,
      }),
      bootId: readBootId(),
      steadyMs: hostSteadyClock(),
    },
    registerForeign: config.registerForeign && docker !== null,
    namesAreServed: () => dns !== null,
    async openGateway(view) {
      const opened = await openGateway(view, {
        world: { ...world, logger: log },
        nodeId: identity.nodeId,
        bindAddress,
        docker,
        range: config.gatewayPortRange,
      })
      gateway = opened
      return opened
    },
    openMeter: (view, gateway) =>
      openMeter(view, gateway, runtimes, { ...world, logger: log }, bindAddress.startsWith('127.77.')),
    environmentFor(instance): Readonly<Record<string, string>> {
      const isDocker = agent.reconciler.assignmentOf(instance)?.unit.runtime === 'docker'
      if (isDocker) {
        const port = localApi?.bound.find((bound) => bound.address === bridge)?.port
        return bridge === null || port === undefined ? {} : { RUBATO_LOAD_URL: `http://${bridge}:${port}/v1/load` }
      }
      const url = localApi?.loadUrlFor(instance) ?? null
      if (url === null) return {}
      savedTokens.save(tokens)
      return { RUBATO_LOAD_URL: url }
    },
    onInstanceGone(instance) {
      tokens.forget(instance)
      savedTokens.save(tokens)
    },
    onLeave: (reason) => left.resolve(reason),
  })
  localApi = await createLocalApi({
    addresses: localAddresses,
    port: config.localApiPort,
    callerOf: agent.view.callerOf,
    tokens,
    loadInbox: agent.view.loadInbox,
    keys: agent.view.keys,
    staleAfterMs: agent.view.staleAfterMs,
    status: agent.view.status,
    metrics: () => agentMetrics(agent.view, agent.link),
    clock,
    logger: log,
  })
  if (docker !== null && gateway !== null)
    dns = await openDns(agent.view, gateway, docker.bridgeAddress, resolvers, { ...world, logger: log })
  await agent.start()
  log.info('agent runs', {
    version: VERSION,
    address,
    engines: runtimes.map((runtime) => runtime.name),
    localApi: localApi.bound,
  })
  const reason = await Promise.race([aborted(signal), left.promise])
  log.info('agent stops', reason === null ? {} : { reason })
  const stopping = agent.stop().then(async () => {
    await (dns as AgentDns | null)?.stop()
    await localApi?.stop()
  })
  // What hangs (an engine, a link) is left to the next start, which copes with any state; a node that leaves has none.
  await (reason === null ? Promise.race([stopping, sleep(clock, config.drainTimeoutMs)]) : stopping)
  return reason !== null
}

interface GatewaySettings {
  readonly world: World
  readonly nodeId: string
  readonly bindAddress: string
  readonly docker: DockerRuntime | null
  readonly range: { readonly from: number; readonly to: number }
}

async function openGateway(view: AgentView, settings: GatewaySettings): Promise<BuiltinGateway> {
  const { clock, random, logger } = settings.world
  const { docker } = settings
  const onDevice = docker !== null && process.getuid?.() === 0
  return createBuiltinGateway({
    nodeId: settings.nodeId,
    address: settings.bindAddress,
    portRange: settings.range,
    keys: view.keys,
    staleAfterMs: view.staleAfterMs,
    callerOf: view.callerOf,
    meshSlice: meshSliceOf(onDevice ? docker.network.subnet : null, settings.bindAddress),
    virtualAddresses: onDevice ? deviceAddresses(docker.network.bridge, runCommand, logger) : loopbackAddresses(),
    onProblem: (problem) => logger.warn('the gateway cannot offer everything', { problem }),
    clock,
    random,
    logger,
  })
}

/** Names for containers, on their bridge; null (hosts files must do) when port 53 cannot be had there. */
async function openDns(
  view: AgentView,
  gateway: BuiltinGateway,
  address: string,
  resolvers: ReturnType<typeof parseResolvers>,
  { clock, logger }: World,
): Promise<AgentDns | null> {
  try {
    return await createAgentDns({
      address,
      port: 53,
      appOf: (source) => view.callerOf(source)?.service.split('/')[0] ?? null,
      virtualAddressOf: gateway.virtualAddressOf,
      resolvers,
      clock,
      logger,
    })
  } catch (error) {
    logger.warn('containers get names of services only at their creation: no DNS on the bridge', { error: messageOf(error) })
    return null
  }
}

/** Those that containers can ask themselves; the engine takes three in all. */
function reachable(resolvers: ReturnType<typeof parseResolvers>): readonly string[] {
  return resolvers
    .map(({ address }) => address)
    .filter((address) => !/^(127\.|::1$|fe80:)/i.test(address))
    .slice(0, 2)
}

function openMeter(
  view: AgentView,
  gateway: AgentGateway,
  runtimes: readonly Runtime[],
  world: World,
  sharesHost: boolean,
): Meter {
  const { clock, logger } = world
  const puller = createLoadPuller({ fetchText: httpFetchText(clock), loadInbox: view.loadInbox, clock, logger })
  return createMeter({
    stats: async (ids) => (await Promise.all(runtimes.map((runtime) => runtime.stats(ids)))).flat(),
    takeFlows: () => gateway.takeFlows(),
    loadInbox: view.loadInbox,
    instances: view.metered,
    puller,
    proc: systemProc(),
    nodeUse: sharesHost ? 'instances' : 'host',
    clock,
    logger,
  })
}

function aborted(signal: AbortSignal): Promise<null> {
  return new Promise((resolveAbort) => {
    if (signal.aborted) resolveAbort(null)
    else signal.addEventListener('abort', () => resolveAbort(null), { once: true })
  })
}
