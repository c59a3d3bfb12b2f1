/**
 * Containers through the Docker Engine API (1.41 and later). Every call has a time limit; an engine that does not answer gives
 * UnavailableError: unknown, never "gone". What was inspected is kept until an event or a changed summary says otherwise.
 */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { networkInterfaces } from 'node:os'
import { posix } from 'node:path'
import type { Readable } from 'node:stream'
import Docker from 'dockerode'
import { backoffCeilingMs } from '../../../shared/backoff.ts'
import { type Clock, sleep } from '../../../shared/clock.ts'
import { ConflictError, messageOf, NotFoundError, RetryableError } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/logger.ts'
import type { ContainerUse, CreateContainer, ForeignContainer, Runtime } from '../runtime.ts'
import { createCgroupReader } from './cgroup-stats.ts'
import { engineCall, engineError, unless } from './docker-call.ts'
import { createLogSplitter } from './docker-logs.ts'
import {
  createOptionsOf,
  finalNameOf,
  foreignOf,
  LABEL,
  type MappingContext,
  observedOf,
  UNFINISHED_PREFIX,
} from './docker-mapping.ts'
import {
  destroyNetwork,
  findNetwork,
  ensureFirewall,
  ensureNetwork,
  type NetworkSettings,
  type NodeNetwork,
  type RunCommand,
} from './network.ts'
import { isStopSignal } from './stop-signal.ts'
import { type TarEntry, tarOf } from './tar.ts'

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

const PULL_IDLE_MS = 120_000
const PULL_TOTAL_MS = 30 * 60_000
const CREATE_TIMEOUT_MS = 60_000
/** A container of others that outlived its stop signal so long did not take it for one. */
const END_ASKED_MS = 10 * 60_000
const EVENTS_BACKOFF = { baseMs: 250, capMs: 5_000 }
const EVENT_NAMES = ['create', 'start', 'die', 'stop', 'kill', 'oom', 'destroy', 'pause', 'unpause', 'rename', 'health_status']

/** Whether an engine answers on that socket. */
export async function dockerAnswers(socketPath: string, clock: Clock): Promise<boolean> {
  try {
    await engineCall(clock, () => new Docker({ socketPath }).ping(), { timeoutMs: 5_000 })
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
  const docker = new Docker({ socketPath: options.socketPath })
  const filters = { label: [`${LABEL.cluster}=${clusterId}`, `${LABEL.node}=${nodeId}`] }
  for (const { Id } of await engineCall(clock, (abortSignal) => docker.listContainers({ all: true, filters, abortSignal })))
    await unless(
      ['not-found'],
      engineCall(clock, (abortSignal) => docker.getContainer(Id).remove({ force: true, v: true, abortSignal }), {
        timeoutMs: CREATE_TIMEOUT_MS,
      }),
    )
  const deps = { docker, clock, logger, clusterId, nodeId, run: options.run ?? runOnHost, settings: options.network ?? {} }
  const network = await findNetwork(deps)
  if (network !== null) await destroyNetwork(deps, network)
}

/** Connects, finds or makes the node's network and shields it. Throws UnavailableError when no engine answers. */
export async function createDockerRuntime(options: DockerRuntimeOptions): Promise<DockerRuntime> {
  const { clock, logger, clusterId, nodeId } = options
  const docker = new Docker({ socketPath: options.socketPath })
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
  const ownFilter = { label: [`${LABEL.cluster}=${clusterId}`, `${LABEL.node}=${nodeId}`] }
  const cgroups = createCgroupReader()
  /** By id; `summary` is what the list said when it was inspected. */
  const inspected = new Map<string, { readonly summary: string; readonly info: Docker.ContainerInspectInfo }>()
  let liveStreams = 0
  /** Containers of others whose end was asked for, and when (epoch ms of the engine). */
  const ending = new Map<string, number>()

  const call = <T>(make: (signal: AbortSignal) => Promise<T>, limits: { timeoutMs?: number; signal?: AbortSignal } = {}) =>
    engineCall(clock, make, limits)
  const inspect = (id: string) => call((abortSignal) => docker.getContainer(id).inspect({ abortSignal }))
  const listAll = (filters: Record<string, string[]> | undefined) =>
    call((abortSignal) => docker.listContainers({ all: true, ...(filters ? { filters } : {}), abortSignal }))

  /** Inspections of what the list shows: kept ones while events flow and the summary is the same. */
  const inspectAll = async (list: readonly Docker.ContainerInfo[]): Promise<Docker.ContainerInspectInfo[]> => {
    const infos: Docker.ContainerInspectInfo[] = []
    for (let i = 0; i < list.length; i += 8) {
      const found = await Promise.all(
        list.slice(i, i + 8).map(async (item) => {
          const summary = `${item.State} ${item.Names.join(',')}`
          const kept = inspected.get(item.Id)
          if (kept?.summary === summary && liveStreams > 0) return kept.info
          const info = await unless(['not-found'], inspect(item.Id))
          if (info) inspected.set(item.Id, { summary, info })
          else inspected.delete(item.Id)
          return info
        }),
      )
      for (const info of found) if (info) infos.push(info)
    }
    return infos
  }

  const forceRemove = (id: string) =>
    unless(
      ['not-found'],
      call((abortSignal) => docker.getContainer(id).remove({ force: true, v: true, abortSignal }), {
        timeoutMs: CREATE_TIMEOUT_MS,
      }),
    )

  /** The container that has the name; null when none has. */
  const byName = (name: string) => unless(['not-found'], inspect(name))

  const isOwn = (info: Docker.ContainerInspectInfo, instance: string) =>
    info.Config.Labels?.[LABEL.cluster] === clusterId &&
    info.Config.Labels?.[LABEL.node] === nodeId &&
    info.Config.Labels?.[LABEL.instance] === instance

  const refreshNetwork = async () => {
    network = await ensureNetwork(networkDeps)
    shielded = await ensureFirewall(networkDeps, network)
  }

  // Left by an agent that died between creating a container and filling it.
  for (const item of await listAll(ownFilter))
    if (item.Names.some((name) => name.startsWith(`/${UNFINISHED_PREFIX}`))) await forceRemove(item.Id)

  const statsOfEngine = async (id: string): Promise<ContainerUse | null> => {
    const stats = await unless(
      ['not-found', 'conflict', 'retryable'],
      call((abortSignal) => docker.getContainer(id).stats({ stream: false, 'one-shot': true, abortSignal } as { stream: false })),
    )
    if (!stats?.cpu_stats?.cpu_usage) return null
    const networks = Object.values(stats.networks ?? {})
    const io = stats.blkio_stats?.io_service_bytes_recursive ?? []
    const ioOf = (kind: string) =>
      io.filter((entry) => entry.op.toLowerCase() === kind).reduce((sum, entry) => sum + entry.value, 0)
    const memory = stats.memory_stats as { usage?: number; stats?: Record<string, number> }
    return {
      id,
      cpuTotalMs: stats.cpu_stats.cpu_usage.total_usage / 1e6,
      memoryBytes: Math.max(0, (memory.usage ?? 0) - (memory.stats?.total_inactive_file ?? memory.stats?.inactive_file ?? 0)),
      rxBytes: networks.reduce((sum, item) => sum + item.rx_bytes, 0),
      txBytes: networks.reduce((sum, item) => sum + item.tx_bytes, 0),
      blockReadBytes: ioOf('read'),
      blockWriteBytes: ioOf('write'),
    }
  }

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
      const infos = await inspectAll(await listAll(ownFilter))
      const here = context()
      const present = new Set(infos.map((info) => info.Id))
      for (const [id, { info }] of inspected)
        if (info.Config.Labels?.[LABEL.node] === nodeId && !present.has(id)) inspected.delete(id)
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

    async pull(image, { auth, platform }, signal) {
      // Without a tag the engine would fetch every tag of the repository.
      const reference = /[@:][^/]+$/.test(image) ? image : `${image}:latest`
      const limit = new AbortController()
      const whole = AbortSignal.any([limit.signal, signal])
      const stream = (await call(
        (abortSignal) =>
          docker.pull(reference, {
            ...(platform ? { platform } : {}),
            ...(auth ? { authconfig: { username: auth.username, password: auth.password, serveraddress: auth.server } } : {}),
            abortSignal,
          }),
        { timeoutMs: PULL_IDLE_MS, signal },
      )) as Readable
      const giveUp = (text: string) => () => limit.abort(new RetryableError(text))
      const total = clock.setTimer(PULL_TOTAL_MS, giveUp(`the pull of ${image} took longer than ${PULL_TOTAL_MS} ms`))
      const stalled = giveUp(`the pull of ${image} made no progress for ${PULL_IDLE_MS} ms`)
      let idle = clock.setTimer(PULL_IDLE_MS, stalled)
      const onAbort = () => stream.destroy()
      whole.addEventListener('abort', onAbort, { once: true })
      try {
        let rest = ''
        for await (const chunk of stream) {
          idle.cancel()
          idle = clock.setTimer(PULL_IDLE_MS, stalled)
          const lines = (rest + String(chunk)).split('\n')
          rest = (lines.pop() ?? '').slice(-64 * 1024)
          for (const line of lines) throwPullError(line, image)
        }
        throwPullError(rest, image)
        whole.throwIfAborted()
      } catch (error) {
        if (whole.aborted) throw whole.reason
        throw engineError(error)
      } finally {
        total.cancel()
        idle.cancel()
        whole.removeEventListener('abort', onAbort)
      }
    },

    async create(request) {
      const wanted = createOptionsOf(request, context())
      const name = finalNameOf(request)
      for (let attempt = 0; attempt < 3; attempt += 1) {
        const there = await byName(name)
        if (there) {
          if (!isOwn(there, request.instance))
            throw new ConflictError(`the name ${name} is taken by a container that is not this instance's`)
          const same = there.Config.Labels?.[LABEL.specHash] === request.specHash && !there.State.Dead
          // A sidecar in the network of a container that is gone can never start.
          const network = there.HostConfig.NetworkMode ?? ''
          if (same && network === wanted.HostConfig?.NetworkMode) return there.Id
          await forceRemove(there.Id)
        }
        if (wanted.name !== name) {
          const unfinished = await byName(wanted.name ?? '')
          if (unfinished) {
            if (!isOwn(unfinished, request.instance)) throw new ConflictError(`the name ${wanted.name} is taken`)
            await forceRemove(unfinished.Id)
          }
        }
        try {
          const container = await call((abortSignal) => docker.createContainer({ ...wanted, abortSignal }), {
            timeoutMs: CREATE_TIMEOUT_MS,
          })
          if (wanted.name !== name) {
            for (const { directory, entries } of archivesOf(request.spec))
              await call((abortSignal) => container.putArchive(tarOf(entries), { path: directory, abortSignal }), {
                timeoutMs: CREATE_TIMEOUT_MS,
              })
            await call((abortSignal) => container.rename({ name, abortSignal }))
          }
          return container.id
        } catch (error) {
          // Someone was faster with the name: look who.
          if (error instanceof ConflictError && attempt < 2) continue
          if (error instanceof NotFoundError && /network/i.test(error.message)) {
            await refreshNetwork()
            continue
          }
          throw error
        }
      }
      throw new RetryableError(`the container ${name} could not be created`)
    },

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
        inspected.delete(id)
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
        inspected.delete(id)
      }
    },

    async remove(id) {
      // Volumes without a name go with their container; named ones stay.
      await unless(
        ['not-found'],
        call((abortSignal) => docker.getContainer(id).remove({ force: true, v: true, abortSignal }), {
          timeoutMs: CREATE_TIMEOUT_MS,
        }),
      )
      inspected.delete(id)
    },

    async stats(ids) {
      const uses: ContainerUse[] = []
      for (const id of ids) {
        const info = inspected.get(id)?.info ?? (await unless(['not-found'], inspect(id)))
        if (!info?.State.Running) continue
        inspected.set(id, inspected.get(id) ?? { summary: '', info })
        const ownNetwork = !(info.HostConfig.NetworkMode ?? '').startsWith('container:')
        const use = cgroups.read(id, info.State.Pid, ownNetwork) ?? (await statsOfEngine(id))
        if (use) uses.push(use)
        else inspected.delete(id)
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
      const raw = (await inspect(id)).Config.Tty
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
      for await (const event of follow(signal)) {
        if (event === 'again') yield { kind: 'resync' }
        else if (event.instance !== null) yield { kind: 'changed', instance: event.instance }
      }
    },

    async *foreignEvents(signal) {
      for await (const event of follow(signal)) {
        if (event !== 'again') {
          if (!event.foreign) continue
          if (event.action === 'kill' && (await endsIt(event.id, event.signal))) ending.set(event.id, event.atMs)
        }
        yield
      }
    },

    async foreign() {
      const list = await listAll(undefined)
      const others = list.filter((item) => !(LABEL.cluster in (item.Labels ?? {})))
      const infos = await inspectAll(others)
      const present = new Set(infos.map((info) => info.Id))
      for (const [id, atMs] of ending) if (!present.has(id) || clock.now() - atMs > END_ASKED_MS) ending.delete(id)
      return infos.map((info): ForeignContainer => foreignOf(info, ending.get(info.Id) ?? null))
    },

    destroy: () => destroyDockerNode(options),
  }

  /** Events of containers until the signal aborts; connects again by itself, then says `again`: some may have been missed. */
  async function* follow(signal: AbortSignal): AsyncIterable<EngineEvent | 'again'> {
    let failures = 0
    let first = true
    while (!signal.aborted) {
      let stream: Readable | null = null
      const onAbort = () => stream?.destroy()
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        stream = (await call(
          (abortSignal) => docker.getEvents({ filters: { type: ['container'], event: EVENT_NAMES }, abortSignal }),
          { signal },
        )) as Readable
        failures = 0
        liveStreams += 1
        try {
          // What happened while nobody listened is not in the stream.
          inspected.clear()
          if (!first) {
            await refreshNetwork()
            yield 'again'
          }
          first = false
          yield* eventsIn(stream)
        } finally {
          liveStreams -= 1
          inspected.clear()
        }
        if (!signal.aborted) logger.info('the event stream of the engine ended, connecting again', {})
      } catch (error) {
        if (signal.aborted) break
        first = false
        if (failures === 0) logger.warn('the event stream of the engine broke, connecting again', { error: messageOf(error) })
      } finally {
        signal.removeEventListener('abort', onAbort)
        stream?.destroy()
      }
      await sleep(clock, backoffCeilingMs(failures++, EVENTS_BACKOFF), signal).catch(() => {})
    }
  }

  async function* eventsIn(stream: Readable): AsyncIterable<EngineEvent> {
    let rest = ''
    for await (const chunk of stream) {
      const lines = (rest + String(chunk)).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        const event = readEvent(line)
        if (event === null) continue
        inspected.delete(event.id)
        const own = event.labels[LABEL.cluster] === clusterId && event.labels[LABEL.node] === nodeId
        const instance = event.labels[LABEL.instance]
        yield { ...event, instance: own && instance ? instance : null, foreign: !(LABEL.cluster in event.labels) }
      }
    }
  }

  /** Whether that signal is the one that stops the container (it may also be told to reload by one). */
  async function endsIt(id: string, signal: string): Promise<boolean> {
    const info = await unless(['not-found', 'retryable', 'unavailable'], inspect(id))
    return isStopSignal(signal, (info?.Config as { StopSignal?: string } | undefined)?.StopSignal)
  }

  return runtime
}

/** What goes into the container before its start. A read-only root takes only archives that end in one of its volumes. */
function archivesOf(spec: CreateContainer['spec']): { readonly directory: string; readonly entries: readonly TarEntry[] }[] {
  const byDirectory = new Map<string, TarEntry[]>()
  for (const file of spec.files) {
    const target = posix.resolve('/', file.target)
    const directory = spec.readOnlyRootfs ? posix.dirname(target) : '/'
    const entry = {
      path: posix.relative(directory, target),
      mode: file.mode,
      content: Buffer.from(file.contentBase64, 'base64'),
    }
    byDirectory.set(directory, [...(byDirectory.get(directory) ?? []), entry])
  }
  return [...byDirectory].map(([directory, entries]) => ({ directory, entries }))
}

interface RawEvent {
  readonly id: string
  readonly action: string
  /** Epoch ms by the engine's clock. */
  readonly atMs: number
  /** Of a `kill`; else ''. */
  readonly signal: string
  readonly labels: Readonly<Record<string, string>>
}

interface EngineEvent extends RawEvent {
  /** Ours, on this node. */
  readonly instance: string | null
  /** Nobody's of any cluster. */
  readonly foreign: boolean
}

function readEvent(line: string): RawEvent | null {
  if (line.trim() === '') return null
  try {
    const event = JSON.parse(line) as {
      Action?: string
      time?: number
      timeNano?: number
      Actor?: { ID?: string; Attributes?: Record<string, string> }
    }
    const labels = event.Actor?.Attributes ?? {}
    const atMs = event.timeNano === undefined ? (event.time ?? 0) * 1000 : event.timeNano / 1e6
    return { id: event.Actor?.ID ?? '', action: event.Action ?? '', atMs, signal: labels.signal ?? '', labels }
  } catch {
    // Half a line of a broken stream; what it meant is seen at the next look.
    return null
  }
}

function throwPullError(line: string, image: string): void {
  if (!line.includes('"error"')) return
  let text: string
  try {
    text = (JSON.parse(line) as { error?: string }).error ?? ''
  } catch {
    return
  }
  if (text === '') return
  if (/not found|manifest unknown|does not exist|no matching manifest/i.test(text))
    throw new NotFoundError(`no image ${image}: ${text}`)
  throw new RetryableError(`pull of ${image}: ${text}`)
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

function hostSubnets(): string[] {
  return Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).flatMap((item) => (item.family === 'IPv4' && item.cidr ? [item.cidr] : [])),
  )
}

const runOnHost: RunCommand = ([file = '', ...args]) =>
  new Promise((resolve) => {
    execFile(file, args, { timeout: 10_000 }, (error, _stdout, stderr) =>
      resolve({
        code: error === null ? 0 : typeof error.code === 'number' ? error.code : 127,
        stderr: stderr || (error?.message ?? ''),
      }),
    )
  })
