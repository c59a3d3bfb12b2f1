/**
 * Records what the cluster does: every 2 s a sample of each service, node and pool, every 10 s the requests between. Measures only:
 * nothing waits for it, and nothing it meets stops the coordinator. Says in the audit trail when the history is not kept, and when
 * it is again.
 */
import type { Clock } from '../../shared/clock.ts'
import { sleep } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop, type Loop } from '../../shared/loop.ts'
import type { JobRules } from '../../shared/model/app.ts'
import { type ServiceId, serviceId } from '../../shared/model/identity.ts'
import { commitChange } from '../access/commit-change.ts'
import type { PlacementNode } from '../placement/model.ts'
import { createIsolation } from '../state/isolation.ts'
import type { ServiceRecord } from '../state/objects.ts'
import { isRoutable, type Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import { answerTimeMs } from './answer-times.ts'
import type { HistoryBackend, Measure } from './series.ts'
import { countTraffic, type TrafficCounts } from './traffic-counts.ts'

export interface RecordingLoopDeps {
  readonly history: HistoryBackend
  readonly state: State
  readonly observed: Observed
  /** Nodes with what their instances are charged. */
  readonly nodes: () => readonly PlacementNode[]
  readonly clock: Clock
  readonly logger: Logger
}

const SAMPLE_MS = 2_000
const TRAFFIC_MS = 10_000
/** At most so much is lost in a crash. */
const FLUSH_MS = 60_000
/** Other work of the coordinator runs after so many instances. */
const INSTANCES_AT_ONCE = 5_000
/** A use report older than this says nothing about now: several report intervals. */
const STALE_MS = 15_000

export function createRecordingLoop({ history, state, observed, nodes, clock, logger: root }: RecordingLoopDeps): Loop {
  const logger = root.with({ loop: 'history' })
  let traffic: TrafficCounts | null = null
  let trafficSince = { wallMs: clock.now(), monotonicMs: clock.monotonicMs() }
  let flushedAtMs = clock.monotonicMs()
  let flushing: Promise<void> | null = null
  let toldFault: string | null = null
  const isolation = createIsolation({ state, clock, logger, part: 'history' })

  const loop = createLoop({
    name: 'history',
    clock,
    logger,
    maxSleepMs: SAMPLE_MS,
    async run(signal) {
      const nowMs = clock.now()
      await recordServices(nowMs, signal)
      recordNodes(nowMs)
      recordFleet(nowMs)
      const elapsedMs = clock.monotonicMs() - trafficSince.monotonicMs
      // The timer may be early by a fraction of a sample.
      if (elapsedMs >= TRAFFIC_MS - SAMPLE_MS / 4) recordTraffic(elapsedMs)
      if (flushing === null && clock.monotonicMs() - flushedAtMs >= FLUSH_MS) flush()
      await tellFault()
      // Samples stand at even times, so that steps have equally many.
      return Math.floor((clock.now() + SAMPLE_MS / 4) / SAMPLE_MS) * SAMPLE_MS + SAMPLE_MS
    },
  })

  const flush = () => {
    flushedAtMs = clock.monotonicMs()
    flushing = history
      .flush()
      .catch((error: unknown) => logger.error('the history could not be flushed', { error: messageOf(error) }))
      .finally(() => {
        flushing = null
      })
  }

  const sample = (subject: string, measure: Measure, atMs: number, value: number) =>
    history.record({ subject, measure }, atMs, value)

  const recordServices = async (nowMs: number, signal: AbortSignal) => {
    let looked = 0
    const total = { wanted: 0, ready: 0 }
    for (const app of [...state.snapshot.all('app').values()]) {
      for (const { name, job } of app.spec.services) {
        const id = serviceId(app.name, name)
        const record = state.snapshot.get('service', id)
        if (record === undefined) continue
        const wanted = wantedOf(record, job)
        const seen = isolation.attempt(id, () => recordService(id, wanted, nowMs))
        total.wanted += wanted
        total.ready += seen?.ready ?? 0
        looked += seen?.count ?? 0
        if (looked < INSTANCES_AT_ONCE) continue
        looked = 0
        await sleep(clock, 0, signal)
      }
    }
    sample('cluster', 'wanted', nowMs, total.wanted)
    sample('cluster', 'ready', nowMs, total.ready)
  }

  const recordService = (id: ServiceId, wanted: number, nowMs: number) => {
    const instances = state.snapshot.instancesOf(id)
    const sums = { ready: 0, loads: 0, demand: 0, load: 0, uses: 0, cpuMillis: 0, memoryBytes: 0 }
    for (const { id: instanceId } of instances) {
      const seen = observed.instance(instanceId)
      if (seen === undefined || !isRoutable(seen, observed.node(seen.nodeId))) continue
      sums.ready += 1
      const { use, useAtMs } = seen
      if (use === null || useAtMs === null || nowMs - useAtMs > STALE_MS) continue
      sums.uses += 1
      sums.cpuMillis += use.cpuMillis
      sums.memoryBytes += use.memoryBytes
      if (use.loadPercent === null) continue
      sums.loads += 1
      sums.load += use.loadPercent
      sums.demand += Math.max(use.loadPercent, 100 * (use.demand ?? 0))
    }
    const subject = `service ${id}`
    sample(subject, 'wanted', nowMs, wanted)
    sample(subject, 'ready', nowMs, sums.ready)
    // With some reports missing the others stand for them; with most missing nothing is known (design §8.1: missing is not zero).
    if (sums.loads > 0 && 2 * sums.loads >= sums.ready) {
      sample(subject, 'demand', nowMs, (sums.demand / sums.loads) * sums.ready)
      sample(subject, 'load', nowMs, sums.load / sums.loads)
    }
    if (sums.uses > 0) {
      sample(subject, 'cpuMillis', nowMs, sums.cpuMillis / sums.uses)
      sample(subject, 'memoryBytes', nowMs, sums.memoryBytes / sums.uses)
    }
    return { count: instances.length, ready: sums.ready }
  }

  /** Per second over the time since the last one, at the beginning of that time. */
  const recordTraffic = (elapsedMs: number) => {
    const atMs = trafficSince.wallMs
    trafficSince = { wallMs: clock.now(), monotonicMs: clock.monotonicMs() }
    if (traffic === null) return
    const total = { requests: 0, errors: 0, denied: 0 }
    const perS = 1000 / elapsedMs
    for (const app of state.snapshot.all('app').values()) {
      for (const { name } of app.spec.services) {
        const id = serviceId(app.name, name)
        const counts = traffic.of(id)
        if (counts === undefined) continue
        const subject = `service ${id}`
        for (const measure of ['requests', 'errors', 'denied'] as const) {
          sample(subject, measure, atMs, counts[measure] * perS)
          total[measure] += counts[measure]
        }
        sample(subject, 'rxBytesPerS', atMs, counts.rxBytes * perS)
        sample(subject, 'txBytesPerS', atMs, counts.txBytes * perS)
        const latency = answerTimeMs(counts.answerTimes, 0.95)
        if (latency !== null) sample(subject, 'latencyP95', atMs, latency)
      }
    }
    for (const measure of ['requests', 'errors', 'denied'] as const) sample('cluster', measure, atMs, total[measure] * perS)
    traffic.reset()
  }

  const recordNodes = (nowMs: number) => {
    const total = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, rxBytesPerS: 0, txBytesPerS: 0 }
    let known = 0
    for (const node of nodes()) {
      const subject = `node ${node.id}`
      sample(subject, 'reservedPercent', nowMs, reservedPercent(node))
      const seen = observed.node(node.id)
      // What a silent node said last says nothing about now.
      if (!seen?.use || seen.liveness !== 'live') continue
      known += 1
      for (const measure of NODE_MEASURES) {
        sample(subject, measure, nowMs, seen.use[measure])
        total[measure] += seen.use[measure]
      }
    }
    if (known > 0) for (const measure of NODE_MEASURES) sample('cluster', measure, nowMs, total[measure])
  }

  const recordFleet = (nowMs: number) => {
    const pools = new Map([...state.snapshot.all('pool').keys()].map((name) => [name, { machines: 0, usdPerHour: 0 }]))
    const total = { machines: 0, usdPerHour: 0 }
    for (const { phase, pool, priceUsdPerHour } of state.snapshot.all('machine').values()) {
      if (phase === 'gone' || phase === 'lost') continue
      for (const sum of [pools.get(pool), total]) {
        if (sum === undefined) continue
        sum.machines += 1
        sum.usdPerHour += priceUsdPerHour
      }
    }
    for (const [subject, sum] of [
      ...[...pools].map(([name, sum]) => [`pool ${name}`, sum] as const),
      ['cluster', total] as const,
    ]) {
      sample(subject, 'machines', nowMs, sum.machines)
      sample(subject, 'usdPerHour', nowMs, sum.usdPerHour)
    }
  }

  const tellFault = async () => {
    const { fault } = history.status()
    if ((fault === null) === (toldFault === null)) return
    try {
      await commitChange(state, (change) =>
        change.event({
          actor: 'history',
          type: fault === null ? 'history.recovered' : 'history.degraded',
          subject: 'history',
          message: fault ?? 'the history is kept again',
          severity: fault === null ? 'info' : 'warning',
        }),
      )
      toldFault = fault
    } catch (error) {
      // The disk that refuses the history often refuses the state too; said with the next sample that finds it well.
      logger.debug('the state of the history could not be told', { error: messageOf(error) })
    }
  }

  return {
    name: loop.name,
    start() {
      traffic ??= countTraffic(observed, (id) => state.snapshot.get('service', id) !== undefined)
      trafficSince = { wallMs: clock.now(), monotonicMs: clock.monotonicMs() }
      loop.start()
    },
    poke: loop.poke,
    async stop() {
      await loop.stop()
      traffic?.stop()
      traffic = null
      await flushing
      await history.flush()
    },
  }
}

const NODE_MEASURES = ['cpuMillis', 'memoryBytes', 'diskBytes', 'rxBytesPerS', 'txBytesPerS'] as const

/** Instances wanted now: of a job those completions of its runs under way that may run at once and have not succeeded. */
export function wantedOf({ desired, job }: Pick<ServiceRecord, 'desired' | 'job'>, rules: JobRules | undefined): number {
  if (rules === undefined) return desired
  const running = (job?.runs ?? []).filter(({ outcome }) => outcome === 'running')
  return running.reduce((sum, { completions, succeeded }) => sum + Math.min(rules.parallelism, completions - succeeded), 0)
}

/** Reserved share of the node's scarcest resource; above 100 when charges grew beyond the capacity. */
export function reservedPercent({ capacity, free }: Pick<PlacementNode, 'capacity' | 'free'>): number {
  let most = 0
  for (const key of ['cpuMillis', 'memoryBytes', 'diskBytes', 'slots'] as const)
    if (capacity[key] > 0) most = Math.max(most, (100 * (capacity[key] - free[key])) / capacity[key])
  return most
}
