/**
 * Containers through the Docker Engine API (1.41 and later). Every call has a time limit; an engine that does not answer gives
 * UnavailableError: unknown, never "gone". What was inspected is kept until an event or a changed summary says otherwise.
 */
import { once } from 'node:events'
import type { Readable } from 'node:stream'
import type Docker from 'dockerode'
import type { Clock } from '../../../shared/clock.ts'
import { RetryableError } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/logger.ts'
import type { ContainerUse, ForeignContainer, Runtime } from '../runtime.ts'
import { createCgroupReader } from './cgroup-stats.ts'
import { createContainer } from './create-container.ts'
import { engineError, unless } from './docker-call.ts'
import { createLogSplitter } from './docker-logs.ts'
import { foreignOf, LABEL, type MappingContext, observedOf, UNFINISHED_PREFIX } from './docker-mapping.ts'
import { CREATE_TIMEOUT_MS, createEngine } from './engine.ts'
import { followEngine } from './engine-events.ts'
import { statsOfEngine } from './engine-stats.ts'
import { hostSubnets, runOnHost } from './host.ts'
import { createInspections } from './inspections.ts'
import {
  destroyNetwork,
  findNetwork,
  ensureFirewall,
  ensureNetwork,
  type NetworkSettings,
  type NodeNetwork,
  type RunCommand,
} from './network.ts'
import { pullImage } from './pull-image.ts'
import { isStopSignal } from './stop-signal.ts'

export interface DockerRuntimeOptions {
  readonly socketPath: string
  readonly clusterId: string
  readonly nodeId: string
  readonly network?: NetworkSettings
  /** Resolvers for containers that name none; asked at each creation. */
  readonly dns?: () => readonly string[]
  readonly clock: Clock
  readonly logger: Logger
  /** Runs `iptables`; the host's own unless given. */
  readonly run?: RunCommand
}

export interface DockerRuntime extends Runtime {
  readonly network: NodeNetwork
  /** Whether traffic from elsewhere to container addresses is dropped. */
  readonly shielded: boolean
  /** Removes every container of this node, its network and its firewall rules; volumes and images stay. */
  destroy(): Promise<void>
}

/** A container of others that outlived its stop signal so long did not take it for one. */
const END_ASKED_MS = 10 * 60_000

/** Whether an engine answers on that socket. */
export async function dockerAnswers(socketPath: string, clock: Clock): Promise<boolean> {
  try {
    const { docker, call } = createEngine(socketPath, clock)
    await call(() => docker.ping(), { timeoutMs: 5_000 })
    return true
  } catch {
    return false
  }
}

/**
 * Removes every container of the node and its network; makes nothing, so that it works on an engine that can make no network any
 * more. Absent ones are fine. Throws UnavailableError when no engine answers.
 */
export async function destroyDockerNode(options: DockerRuntimeOptions): Promise<void> {
  const { clock, logger, clusterId, nodeId } = options
  const engine = createEngine(options.socketPath, clock)
  for (const { Id } of await engine.listAll(ownFilterOf(options))) await engine.remove(Id)
  const deps = {
    docker: engine.docker,
    clock,
    logger,
    clusterId,
    nodeId,
    run: options.run ?? runOnHost,
    settings: options.network ?? {},
  }
  const network = await findNetwork(deps)
  if (network !== null) await destroyNetwork(deps, network)
}

/** Connects, finds or makes the node's network and shields it. Throws UnavailableError when no engine answers. */
export async function createDockerRuntime(options: DockerRuntimeOptions): Promise<DockerRuntime> {
  const { clock, logger, clusterId, nodeId } = options
  const engine = createEngine(options.socketPath, clock)
  const { docker, call } = engine
  const networkDeps = {
    docker,
    clock,
    logger,
    clusterId,
    nodeId,
    run: options.run ?? runOnHost,
    settings: { usedSubnets: hostSubnets(), ...options.network },
  }
  let network = await ensureNetwork(networkDeps)
  let shielded = await ensureFirewall(networkDeps, network)
  const context = (): MappingContext => ({ clusterId, nodeId, networkName: network.name, dns: options.dns?.() ?? [] })
  const cgroups = createCgroupReader()
  const inspections = createInspections(engine)
  /** Containers of others whose end was asked for, and when (epoch ms of the engine). */
  const ending = new Map<string, number>()

  const refreshNetwork = async () => {
    network = await ensureNetwork(networkDeps)
    shielded = await ensureFirewall(networkDeps, network)
  }
  const events = { engine, clusterId, nodeId, inspections, clock, logger, onAgain: refreshNetwork }

  // Left by an agent that died between creating a container and filling it.
  for (const item of await engine.listAll(ownFilterOf(options)))
    if (item.Names.some((name) => name.startsWith(`/${UNFINISHED_PREFIX}`))) await engine.remove(item.Id)

  const runtime: DockerRuntime = {
    name: 'docker',
    get network() {
      return network
    },
    get shielded() {
      return shielded
    },
    get bridgeAddress() {
      return network.gateway
    },

    async list() {
      const infos = await inspections.of(await engine.listAll(ownFilterOf(options)))
      const here = context()
      const present = new Set(infos.map((info) => info.Id))
      inspections.retain((info) => info.Config.Labels?.[LABEL.node] !== nodeId || present.has(info.Id))
      return infos.map((info) => observedOf(info, here)).filter((container) => container !== null)
    },

    async hasImage(image) {
      return (
        (await unless(
          ['not-found'],
          call((abortSignal) => docker.getImage(image).inspect({ abortSignal } as object)),
        )) !== null
      )
    },

    pull: (image, how, signal) => pullImage(engine, clock, image, how, signal),

    create: (request) => createContainer({ engine, clusterId, nodeId, context, refreshNetwork }, request),

    async start(id) {
      try {
        await call(
          async (abortSignal) => {
            try {
              await docker.getContainer(id).start({ abortSignal })
            } catch (error) {
              if ((error as { statusCode?: number }).statusCode !== 304) throw error
            }
          },
          { timeoutMs: CREATE_TIMEOUT_MS },
        )
      } finally {
        inspections.forget(id)
      }
    },

    async stop(id, graceMs) {
      const container = docker.getContainer(id)
      // The engine counts whole seconds; the last resort comes from us when it takes longer than that.
      const graceS = Math.max(graceMs > 0 ? 1 : 0, Math.round(graceMs / 1000))
      try {
        await unless(
          ['not-found', 'conflict'],
          call((abortSignal) => container.stop({ t: graceS, abortSignal }), { timeoutMs: graceMs + 30_000 }),
        )
      } finally {
        inspections.forget(id)
      }
    },

    async remove(id) {
      await engine.remove(id)
      inspections.forget(id)
    },

    async stats(ids) {
      const uses: ContainerUse[] = []
      for (const id of ids) {
        const info = await inspections.one(id)
        if (!info?.State.Running) continue
        const ownNetwork = !(info.HostConfig.NetworkMode ?? '').startsWith('container:')
        const use = cgroups.read(id, info.State.Pid, ownNetwork) ?? (await statsOfEngine(engine, id))
        if (use) uses.push(use)
        else inspections.forget(id)
      }
      return uses
    },

    async exec(id, argv, timeoutMs) {
      const exec = await call((abortSignal) =>
        docker.getContainer(id).exec({ Cmd: [...argv], AttachStdout: true, AttachStderr: true, abortSignal }),
      )
      const stream = (await call(() => exec.start({ hijack: true, stdin: false }))) as unknown as Readable
      const limit = new AbortController()
      const timer = clock.setTimer(timeoutMs, () => limit.abort())
      try {
        stream.resume()
        if (!stream.readableEnded) await once(stream, 'end', { signal: limit.signal })
        const { ExitCode } = await call((abortSignal) => exec.inspect({ abortSignal }))
        return ExitCode ?? 0
      } catch (error) {
        if (!limit.signal.aborted) throw engineError(error)
        await endExec(exec)
        throw new RetryableError(`the command did not end within ${timeoutMs} ms`)
      } finally {
        timer.cancel()
        stream.destroy()
      }
    },

    async *logs(id, { follow, tail }, signal) {
      const container = docker.getContainer(id)
      const raw = (await engine.inspect(id)).Config.Tty
      const splitter = createLogSplitter(raw, () => clock.now())
      const common = { stdout: true, stderr: true, timestamps: true, tail }
      if (!follow) {
        const whole = await call((abortSignal) => container.logs({ ...common, follow: false, abortSignal }))
        yield* splitter.push(Buffer.from(whole))
        yield* splitter.end()
        return
      }
      const stream = (await call((abortSignal) => container.logs({ ...common, follow: true, abortSignal }), {
        signal,
      })) as Readable
      const onAbort = () => stream.destroy()
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        for await (const chunk of stream) yield* splitter.push(Buffer.from(chunk))
        yield* splitter.end()
      } catch (error) {
        if (!signal.aborted) throw engineError(error)
      } finally {
        signal.removeEventListener('abort', onAbort)
        stream.destroy()
      }
    },

    async *events(signal) {
      for await (const event of followEngine(events, signal)) {
        if (event === 'again') yield { kind: 'resync' }
        else if (event.instance !== null) yield { kind: 'changed', instance: event.instance }
      }
    },

    async *foreignEvents(signal) {
      for await (const event of followEngine(events, signal)) {
        if (event !== 'again') {
          if (!event.foreign) continue
          if (event.action === 'kill' && (await endsIt(event.id, event.signal))) ending.set(event.id, event.atMs)
        }
        yield
      }
    },

    async foreign() {
      const list = await engine.listAll()
      const others = list.filter((item) => !(LABEL.cluster in (item.Labels ?? {})))
      const infos = await inspections.of(others)
      const present = new Set(infos.map((info) => info.Id))
      for (const [id, atMs] of ending) if (!present.has(id) || clock.now() - atMs > END_ASKED_MS) ending.delete(id)
      return infos.map((info): ForeignContainer => foreignOf(info, ending.get(info.Id) ?? null))
    },

    destroy: () => destroyDockerNode(options),
  }

  /** Whether that signal is the one that stops the container (it may also be told to reload by one). */
  async function endsIt(id: string, signal: string): Promise<boolean> {
    const info = await unless(['not-found', 'retryable', 'unavailable'], engine.inspect(id))
    return isStopSignal(signal, (info?.Config as { StopSignal?: string } | undefined)?.StopSignal)
  }

  return runtime
}

function ownFilterOf({ clusterId, nodeId }: DockerRuntimeOptions): Record<string, string[]> {
  return { label: [`${LABEL.cluster}=${clusterId}`, `${LABEL.node}=${nodeId}`] }
}

/** Ends a command that ran out of time; the engine has no call for it. */
async function endExec(exec: Docker.Exec): Promise<void> {
  try {
    const { Running, Pid } = await exec.inspect()
    if (Running && Pid > 1) process.kill(Pid, 'SIGKILL')
  } catch {
    // Gone already, or not ours to end: it ends with its container.
  }
}
