/**
 * A container engine under virtual time. `fakeEngine` is the machine's engine and disk: it outlives agents and may be shared by
 * several of them; `engine.runtime(…)` is what one agent sees of it. Durations, crashes, conflicts and silence are levers.
 */
import { type Clock, sleep } from '../../shared/clock.ts'
import { ConflictError, NotFoundError, RetryableError, UnavailableError } from '../../shared/errors.ts'
import { containerName } from '../../shared/model/identity.ts'
import type {
  ContainerUse,
  CreateContainer,
  ForeignContainer,
  LogLine,
  ObservedContainer,
  Runtime,
  RuntimeEvent,
} from '../../agent/runtime/runtime.ts'

export interface FakeContainer {
  readonly id: string
  readonly name: string
  readonly clusterId: string
  readonly nodeId: string
  readonly request: CreateContainer
  state: 'created' | 'running' | 'exited' | 'dead'
  startedAtMs: number | null
  exitedAtMs: number | null
  exitCode: number | null
  oomKilled: boolean
  address: string | null
  portMap: Record<number, number>
  starts: number
  readonly logs: LogLine[]
}

export type FakeOperation = 'list' | 'hasImage' | 'pull' | 'create' | 'start' | 'stop' | 'remove' | 'exec' | 'stats' | 'foreign'

export interface FakeEngineOptions {
  readonly clock: Clock
  readonly pullMs?: number
  readonly createMs?: number
  readonly startMs?: number
  /** How long a container takes to end after the stop signal. */
  readonly stopMs?: number
  /** First three parts of container addresses. Default `172.31.0`. */
  readonly addressPrefix?: string
  readonly name?: 'docker' | 'process'
}

export interface FakeEngine {
  /** What one agent sees: containers of that cluster and node. Several calls share the engine. */
  runtime(identity: { readonly clusterId: string; readonly nodeId: string; readonly bridgeAddress?: string }): Runtime
  readonly containers: Map<string, FakeContainer>
  /** Images on the disk; every other one must be pulled. */
  readonly images: Set<string>
  /** Images that the registry has; null: every image. */
  registry: Set<string> | null
  /** Completed and failed operations in order, as `operation subject`. */
  readonly journal: string[]
  foreign: ForeignContainer[]
  /** Use of a container by its id; default 5 ms CPU per second, 8 MiB. */
  useOf: (container: FakeContainer) => Partial<ContainerUse>
  /** Exit code of a command; default 0. */
  onExec: (container: FakeContainer, argv: readonly string[]) => number
  /** Called when a container begins to run: a model of the program in it may listen now. */
  onRun: (container: FakeContainer) => void
  onEnd: (container: FakeContainer) => void
  /** Called after every effect that lasts; throws here look like the death of the caller. */
  onEffect: ((operation: FakeOperation, subject: string) => void) | null
  /** While set every call rejects with UnavailableError. */
  down: boolean
  /** While above 0 every call is given up with UnavailableError only after so long, as the driver does with an engine that hangs. */
  hangMs: number
  /** How long the next pulls take. */
  pullMs: number
  /** The next calls of that operation reject with this. */
  failNext(operation: FakeOperation, error: Error, times?: number): void
  /** Takes back what `failNext` ordered and was not used. */
  failNoMore(): void
  /** Containers of that image end with that code so long after each start. */
  exitAfterStart(image: string, exitCode: number, afterMs: number): void
  /** Cancels `exitAfterStart`. */
  mend(image: string): void
  /** Ends a running container of the instance. */
  crash(instance: string, exitCode: number, options?: { readonly oomKilled?: boolean; readonly container?: string }): void
  /** Kills a running container's processes past the engine, which may be down. */
  kill(id: string): void
  /** A container of someone else takes a name. */
  occupyName(name: string): void
  /** Kills every container and breaks every event stream, as a restart of dockerd does. */
  restart(): void
  /** Containers of that instance that run now. */
  running(instance: string): FakeContainer[]
}

export function fakeEngine(options: FakeEngineOptions): FakeEngine {
  const { clock } = options
  const failures = new Map<FakeOperation, Error[]>()
  const exits = new Map<string, { exitCode: number; afterMs: number }>()
  const occupied = new Set<string>()
  const streams = new Set<(event: RuntimeEvent) => void>()
  let serial = 0

  const tell = (event: RuntimeEvent) => {
    for (const stream of streams) stream(event)
  }
  const enter = async (operation: FakeOperation, subject: string) => {
    if (engine.hangMs > 0) {
      await sleep(clock, engine.hangMs)
      throw new UnavailableError('the fake engine does not answer')
    }
    if (engine.down) throw new UnavailableError('the fake engine is down')
    const failure = failures.get(operation)?.shift()
    if (failure) {
      engine.journal.push(`${operation} ${subject} failed`)
      throw failure
    }
  }
  const done = (operation: FakeOperation, subject: string) => {
    engine.journal.push(`${operation} ${subject}`)
    engine.onEffect?.(operation, subject)
  }
  const end = (container: FakeContainer, exitCode: number, oomKilled = false) => {
    if (container.state !== 'running') return
    Object.assign(container, { state: 'exited', exitCode, oomKilled, exitedAtMs: clock.now(), address: null })
    engine.onEnd(container)
    tell({ kind: 'changed', instance: container.request.instance })
  }
  const find = (id: string) => {
    const container = engine.containers.get(id)
    if (!container) throw new NotFoundError(`no container ${id}`)
    return container
  }

  const engine: FakeEngine = {
    containers: new Map(),
    images: new Set(),
    registry: null,
    journal: [],
    foreign: [],
    useOf: () => ({}),
    onExec: () => 0,
    onRun: () => {},
    onEnd: () => {},
    onEffect: null,
    down: false,
    hangMs: 0,
    pullMs: options.pullMs ?? 500,
    failNext(operation, error, times = 1) {
      const list = failures.get(operation) ?? []
      for (let i = 0; i < times; i += 1) list.push(error)
      failures.set(operation, list)
    },
    failNoMore: () => failures.clear(),
    exitAfterStart: (image, exitCode, afterMs) => void exits.set(image, { exitCode, afterMs }),
    mend: (image) => void exits.delete(image),
    crash(instance, exitCode, { oomKilled = false, container: name } = {}) {
      for (const container of engine.running(instance))
        if (name === undefined || container.request.spec.name === name) end(container, exitCode, oomKilled)
    },
    kill(id) {
      const container = engine.containers.get(id)
      if (container) end(container, 137)
    },
    occupyName: (name) => void occupied.add(name),
    restart() {
      for (const container of engine.containers.values()) end(container, 137)
      tell({ kind: 'resync' })
    },
    running: (instance) =>
      [...engine.containers.values()].filter((item) => item.request.instance === instance && item.state === 'running'),
    runtime({ clusterId, nodeId, bridgeAddress = '172.31.0.1' }) {
      const own = () => [...engine.containers.values()].filter((item) => item.clusterId === clusterId && item.nodeId === nodeId)
      return {
        name: options.name ?? 'docker',
        bridgeAddress,
        async list() {
          await enter('list', '')
          return own().map(observed)
        },
        async hasImage(image) {
          await enter('hasImage', image)
          return engine.images.has(image)
        },
        async pull(image, _options, signal) {
          await enter('pull', image)
          await sleep(clock, engine.pullMs, signal)
          if (engine.down) throw new UnavailableError('the fake engine is down')
          if (engine.registry !== null && !engine.registry.has(image)) throw new NotFoundError(`no image ${image}`)
          engine.images.add(image)
          done('pull', image)
        },
        async create(request) {
          const name = containerName(request.instance, request.sharesNetworkOf === null ? undefined : request.spec.name)
          await enter('create', name)
          if (!engine.images.has(request.spec.image) && (options.name ?? 'docker') === 'docker')
            throw new NotFoundError(`no image ${request.spec.image}`)
          if (request.sharesNetworkOf !== null && !engine.containers.has(request.sharesNetworkOf))
            throw new NotFoundError(`no container ${request.sharesNetworkOf}`)
          if (occupied.has(name)) throw new ConflictError(`the name ${name} is taken by a container of someone else`)
          await sleep(clock, options.createMs ?? 50)
          const there = [...engine.containers.values()].find((item) => item.name === name)
          if (there) {
            if (there.clusterId !== clusterId || there.nodeId !== nodeId) throw new ConflictError(`the name ${name} is taken`)
            if (there.request.specHash === request.specHash) return there.id
            if (there.state === 'running') end(there, 137)
            engine.containers.delete(there.id)
          }
          serial += 1
          const container: FakeContainer = {
            id: `c${String(serial).padStart(6, '0')}`,
            name,
            clusterId,
            nodeId,
            request,
            state: 'created',
            startedAtMs: null,
            exitedAtMs: null,
            exitCode: null,
            oomKilled: false,
            address: null,
            portMap: {},
            starts: 0,
            logs: [],
          }
          engine.containers.set(container.id, container)
          done('create', name)
          tell({ kind: 'changed', instance: request.instance })
          return container.id
        },
        async start(id) {
          await enter('start', id)
          const container = find(id)
          if (container.state === 'running') return
          await sleep(clock, options.startMs ?? 200)
          if (engine.down) throw new UnavailableError('the fake engine is down')
          find(id)
          // Two starts at once find the first one's work.
          if ((container.state as string) === 'running') return
          const { request } = container
          if (request.sharesNetworkOf !== null && engine.containers.get(request.sharesNetworkOf)?.state !== 'running')
            throw new RetryableError(`container ${request.sharesNetworkOf} does not run, its network cannot be joined`)
          container.starts += 1
          Object.assign(container, {
            state: 'running',
            startedAtMs: clock.now(),
            exitedAtMs: null,
            exitCode: null,
            oomKilled: false,
            address:
              request.sharesNetworkOf === null
                ? `${options.addressPrefix ?? '172.31.0'}.${2 + (Number(id.slice(1)) % 250)}`
                : null,
            portMap: Object.fromEntries(request.ports.map(({ containerPort }) => [containerPort, containerPort])),
          })
          container.logs.push({ atMs: clock.now(), stream: 'stdout', text: `start ${container.starts}` })
          engine.onRun(container)
          const exit = exits.get(request.spec.image)
          const { starts } = container
          if (exit)
            clock.setTimer(exit.afterMs, () => {
              if (container.starts === starts) end(container, exit.exitCode)
            })
          done('start', container.name)
          tell({ kind: 'changed', instance: request.instance })
        },
        async stop(id, graceMs) {
          await enter('stop', id)
          const container = engine.containers.get(id)
          if (container?.state !== 'running') return
          await sleep(clock, Math.min(graceMs, options.stopMs ?? 100))
          end(container, (options.stopMs ?? 100) > graceMs ? 137 : 143)
          done('stop', container.name)
        },
        async remove(id) {
          await enter('remove', id)
          const container = engine.containers.get(id)
          if (!container) return
          end(container, 137)
          engine.containers.delete(id)
          done('remove', container.name)
          tell({ kind: 'changed', instance: container.request.instance })
        },
        async stats(ids) {
          await enter('stats', '')
          return ids.flatMap((id) => {
            const container = engine.containers.get(id)
            if (container?.state !== 'running') return []
            const ranMs = clock.now() - (container.startedAtMs ?? clock.now())
            return [
              {
                id,
                cpuTotalMs: ranMs * 0.005,
                memoryBytes: 8 * 2 ** 20,
                rxBytes: 0,
                txBytes: 0,
                blockReadBytes: 0,
                blockWriteBytes: 0,
                ...engine.useOf(container),
              },
            ]
          })
        },
        async exec(id, argv, timeoutMs) {
          await enter('exec', id)
          const container = find(id)
          if (container.state !== 'running') throw new ConflictError(`container ${id} does not run`)
          await sleep(clock, Math.min(5, timeoutMs))
          return engine.onExec(container, argv)
        },
        async *logs(id, { tail, follow }, signal) {
          const container = find(id)
          let next = Math.max(0, container.logs.length - tail)
          for (;;) {
            for (; next < container.logs.length; next += 1) yield container.logs[next] as LogLine
            if (!follow || signal.aborted || container.state !== 'running') return
            await sleep(clock, 100, signal).catch(() => {})
          }
        },
        events: (signal) => eventsOf(streams, signal),
        async foreign() {
          await enter('foreign', '')
          return engine.foreign
        },
      }
    },
  }
  return engine
}

function observed(container: FakeContainer): ObservedContainer {
  const { id, request, state, startedAtMs, exitedAtMs, exitCode, oomKilled, address, portMap } = container
  return {
    id,
    instance: request.instance,
    container: request.spec.name,
    specHash: request.specHash,
    state,
    startedAtMs,
    exitedAtMs,
    exitCode,
    oomKilled,
    address: state === 'running' ? address : null,
    portMap: { ...portMap },
  }
}

async function* eventsOf(streams: Set<(event: RuntimeEvent) => void>, signal: AbortSignal): AsyncIterable<RuntimeEvent> {
  const queue: RuntimeEvent[] = []
  let wake = () => {}
  const take = (event: RuntimeEvent) => {
    queue.push(event)
    wake()
  }
  const onAbort = () => wake()
  streams.add(take)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    while (!signal.aborted) {
      const event = queue.shift()
      if (event) yield event
      else
        await new Promise<void>((resolve) => {
          wake = resolve
        })
    }
  } finally {
    streams.delete(take)
    signal.removeEventListener('abort', onAbort)
  }
}
