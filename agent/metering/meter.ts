/** Takes samples of the node and of its instances: what the runtime, the gateway, the kernel and the services themselves say. */
import type { Clock } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import type { InstanceUse, NodeUse } from '../../shared/model/observation.ts'
import type { Resources } from '../../shared/model/resources.ts'
import type { LoadSource } from '../../shared/model/unit.ts'
import type { IngressFlow } from '../gateway/engine.ts'
import type { LoadInbox } from '../local-api/load-inbox.ts'
import type { ContainerUse } from '../runtime/runtime.ts'
import { type LoadInput, planLoad } from './plan-load.ts'
import { type ProcReader, parseCpuTicks, parseMemory, parseNetwork } from './proc.ts'
import type { LoadPuller, PullTarget } from './pull.ts'

/** A running instance, as the reconciler knows it. */
export interface MeteredInstance {
  readonly instance: InstanceId
  /** Runtime ids of its containers that run, the main one first. */
  readonly ids: readonly string[]
  readonly load: readonly LoadSource[]
  /** Sums over its containers. */
  readonly limits: Partial<Resources>
  readonly reservations: Partial<Resources>
  /** Address of the main container and where its ports listen; null while it does not run. */
  readonly address: string | null
  readonly portMap: Readonly<Record<number, number>>
}

export interface MeterDeps {
  readonly stats: (ids: readonly string[]) => Promise<readonly ContainerUse[]>
  readonly takeFlows: () => readonly IngressFlow[]
  readonly loadInbox: LoadInbox
  readonly instances: () => readonly MeteredInstance[]
  readonly puller: LoadPuller
  readonly proc: ProcReader
  /** File system that counts as the node's disk. Default `/`. */
  readonly diskPath?: string
  /** Pushed or pulled loads older than this count no more. Default 30 s. */
  readonly loadStaleAfterMs?: number
  /**
   * The node's use is that of the whole host; or, where several nodes share one (local provider), the sum of its instances.
   * Default host.
   */
  readonly nodeUse?: 'host' | 'instances'
  readonly clock: Clock
  readonly logger: Logger
}

export interface Sample {
  readonly node: NodeUse
  readonly instances: readonly InstanceUse[]
}

export interface Meter {
  /** Takes one sample; rates are over the time since the sample before. Never rejects: what cannot be measured is left at its last value or null. */
  sample(): Promise<Sample>
  /**
   * What cannot wait for the next sample: uses of instances whose pushed or pulled load is far from what was last given, each at most
   * twice a second. Measures nothing: the rest is as in the last sample, and counters are 0.
   */
  moved(): readonly InstanceUse[]
}

interface ContainerBefore {
  readonly use: ContainerUse
  readonly atMs: number
}

/** What was last given of an instance, and what its load was made from. */
interface Given {
  readonly use: InstanceUse
  readonly input: Omit<LoadInput, 'customPercent'>
  readonly movedAtMs: number
}

interface HostBefore {
  readonly busy: number
  readonly total: number
  readonly rxBytes: number
  readonly txBytes: number
  readonly atMs: number
}

const DEFAULT_LOAD_STALE_MS = 30_000
/** A smaller change of load can wait for the next sample: it moves no decision, and noise must not keep the link busy. */
const MOVED_PERCENT = 10
const MOVED_EVERY_MS = 500

export function createMeter(deps: MeterDeps): Meter {
  let before = new Map<string, ContainerBefore>()
  let hostBefore: HostBefore | null = null
  let given: ReadonlyMap<InstanceId, Given> = new Map()
  let nodeMemoryBytes = 0
  let statsFailing = false
  const staleAfterMs = deps.loadStaleAfterMs ?? DEFAULT_LOAD_STALE_MS

  const readStats = async (ids: readonly string[]): Promise<readonly ContainerUse[]> => {
    if (ids.length === 0) return []
    try {
      const stats = await deps.stats(ids)
      statsFailing = false
      return stats
    } catch (error) {
      if (!statsFailing) deps.logger.warn('container use cannot be measured', { error: messageOf(error) })
      statsFailing = true
      return []
    }
  }

  const measureHost = async (nowMs: number): Promise<NodeUse> => {
    const [stat, meminfo, netDev, disk] = await Promise.all([
      deps.proc.read('/proc/stat'),
      deps.proc.read('/proc/meminfo'),
      deps.proc.read('/proc/net/dev'),
      deps.proc.disk(deps.diskPath ?? '/'),
    ])
    const ticks = parseCpuTicks(stat ?? '')
    const memory = parseMemory(meminfo ?? '')
    const network = parseNetwork(netDev ?? '')
    if (memory !== null) nodeMemoryBytes = memory.totalBytes
    const last = hostBefore
    if (ticks !== null) hostBefore = { busy: ticks.busy, total: ticks.total, ...network, atMs: nowMs }
    const seconds = last === null ? 0 : (nowMs - last.atMs) / 1_000
    const rate = (now: number, then: number) => (seconds > 0 && now >= then ? Math.round((now - then) / seconds) : 0)
    const passed = last === null || ticks === null ? 0 : ticks.total - last.total
    return {
      cpuMillis:
        passed > 0 && ticks !== null && last !== null
          ? Math.max(0, Math.round(((ticks.busy - last.busy) / passed) * ticks.cores * 1_000))
          : 0,
      memoryBytes: memory?.usedBytes ?? 0,
      diskBytes: disk?.usedBytes ?? 0,
      rxBytesPerS: last === null ? 0 : rate(network.rxBytes, last.rxBytes),
      txBytesPerS: last === null ? 0 : rate(network.txBytes, last.txBytes),
    }
  }

  return {
    async sample() {
      const instances = deps.instances()
      deps.puller.setTargets(pullTargets(instances))
      const stats = new Map((await readStats(instances.flatMap(({ ids }) => ids))).map((use) => [use.id, use]))
      const nowMs = deps.clock.monotonicMs()
      const host = await measureHost(nowMs)
      const flows = new Map(deps.takeFlows().map((flow) => [flow.instance, flow]))
      const seen = new Map<string, ContainerBefore>()
      const next = new Map<InstanceId, Given>()
      const uses = instances.map((metered): InstanceUse => {
        const measured = sumUse(metered, stats, before, nowMs)
        for (const id of metered.ids) {
          const use = stats.get(id)
          const last = before.get(id)
          if (use !== undefined) seen.set(id, { use, atMs: nowMs })
          else if (last !== undefined) seen.set(id, last)
        }
        const flow = flows.get(metered.instance)
        const pushed = deps.loadInbox.get(metered.instance, staleAfterMs)
        const inFlight = flow?.inFlight ?? 0
        const input = {
          sources: metered.load,
          limits: metered.limits,
          reservations: metered.reservations,
          cpuMillis: measured.cpuMillis,
          memoryBytes: measured.memoryBytes,
          inFlight,
          nodeMemoryBytes,
        }
        const use: InstanceUse = {
          instance: metered.instance,
          loadPercent: planLoad({ ...input, customPercent: pushed?.loadPercent ?? null }),
          demand: pushed?.demand ?? null,
          cpuMillis: measured.cpuMillis ?? 0,
          memoryBytes: measured.memoryBytes ?? 0,
          rxBytes: measured.rxBytes + (measured.rxBytes === 0 ? (flow?.rxBytes ?? 0) : 0),
          txBytes: measured.txBytes + (measured.txBytes === 0 ? (flow?.txBytes ?? 0) : 0),
          inFlight,
          requests: flow?.requests ?? 0,
          errors: flow?.errors ?? 0,
          denied: flow?.denied ?? 0,
          ...(flow?.latency === undefined ? {} : { latency: flow.latency }),
        }
        next.set(metered.instance, { use, input, movedAtMs: given.get(metered.instance)?.movedAtMs ?? Number.NEGATIVE_INFINITY })
        return use
      })
      before = seen
      given = next
      return { node: deps.nodeUse === 'instances' ? nodeOfInstances(uses, host) : host, instances: uses }
    },
    moved() {
      const nowMs = deps.clock.monotonicMs()
      const next = new Map(given)
      const uses = [...given].flatMap(([instance, last]): InstanceUse[] => {
        const pushed = deps.loadInbox.get(instance, staleAfterMs)
        if (pushed === null || nowMs - last.movedAtMs < MOVED_EVERY_MS) return []
        const loadPercent = planLoad({ ...last.input, customPercent: pushed.loadPercent })
        if (Math.abs((loadPercent ?? 0) - (last.use.loadPercent ?? 0)) < MOVED_PERCENT) return []
        const { latency: _, ...measured } = last.use
        const use = { ...measured, ...NOTHING_COUNTED, loadPercent, demand: pushed.demand }
        next.set(instance, { ...last, use, movedAtMs: nowMs })
        return [use]
      })
      given = next
      return uses
    },
  }
}

const NOTHING_COUNTED = { rxBytes: 0, txBytes: 0, requests: 0, errors: 0, denied: 0 }

interface Measured {
  readonly cpuMillis: number | null
  readonly memoryBytes: number | null
  readonly rxBytes: number
  readonly txBytes: number
}

/** Sums an instance's containers. Counters that went back belong to a restarted container and count from zero. */
function sumUse(
  metered: MeteredInstance,
  stats: ReadonlyMap<string, ContainerUse>,
  before: ReadonlyMap<string, ContainerBefore>,
  nowMs: number,
): Measured {
  let cpuMillis: number | null = null
  let memoryBytes: number | null = null
  let rxBytes = 0
  let txBytes = 0
  for (const [index, id] of metered.ids.entries()) {
    const use = stats.get(id)
    if (use === undefined) continue
    if (Number.isFinite(use.memoryBytes) && use.memoryBytes >= 0) memoryBytes = (memoryBytes ?? 0) + use.memoryBytes
    const last = before.get(id)
    if (last === undefined || nowMs <= last.atMs) continue
    const spentMs = grown(use.cpuTotalMs, last.use.cpuTotalMs)
    cpuMillis = (cpuMillis ?? 0) + Math.round((spentMs / (nowMs - last.atMs)) * 1_000)
    // Sidecars share the main container's network: counted once.
    if (index > 0) continue
    rxBytes += grown(use.rxBytes, last.use.rxBytes)
    txBytes += grown(use.txBytes, last.use.txBytes)
  }
  return { cpuMillis, memoryBytes, rxBytes, txBytes }
}

function grown(now: number, then: number): number {
  if (!Number.isFinite(now) || now < 0) return 0
  return now >= then ? now - then : now
}

function pullTargets(instances: readonly MeteredInstance[]): PullTarget[] {
  return instances.flatMap(({ instance, address, load, portMap }) =>
    load.flatMap((source): PullTarget[] => {
      if (source.kind !== 'custom' || source.pull === undefined || address === null) return []
      return [{ instance, pull: source.pull, address, port: portMap[source.pull.port] ?? source.pull.port }]
    }),
  )
}

function nodeOfInstances(uses: readonly InstanceUse[], host: NodeUse): NodeUse {
  let cpuMillis = 0
  let memoryBytes = 0
  for (const use of uses) {
    cpuMillis += use.cpuMillis
    memoryBytes += use.memoryBytes
  }
  return { ...host, cpuMillis, memoryBytes }
}
