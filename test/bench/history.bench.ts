/**
 * The history at the size of 1,000 services and 200 nodes: what a sample costs with its share of flushing, how long the coordinator's
 * other work waits for one turn of a flush, what is written to the disk, how many bytes a kept point takes, and how long it takes to
 * read 8 days by the minute. Time is simulated; disk and processor are real.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { LEVELS } from '../../coordinator/history/levels.ts'
import type { HistoryBackend, Measure, SeriesId } from '../../coordinator/history/series.ts'
import { openSqliteHistory } from '../../coordinator/history/sqlite/sqlite-history.ts'
import type { Clock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { seededRandom } from '../../shared/random.ts'
import { createMemoryHistory } from '../../coordinator/history/memory-history.ts'
import { createRecordingLoop } from '../../coordinator/history/recording-loop.ts'
import { createNodeView } from '../../coordinator/placement/node-view.ts'
import type { InstanceRecord } from '../../coordinator/state/objects.ts'
import { openState } from '../../coordinator/state/state.ts'
import { aNodeObservation, aNodeUse, anInstanceObservation, anInstanceUse, testObserved } from '../builders/observed.ts'
import { anAppRecord, anInstanceRecord, aNodeRecord, aServiceRecord, someAssignments } from '../builders/records.ts'
import { anAppSpec, aServiceSpec } from '../builders/specs.ts'
import { memoryStore } from '../fakes/memory-store.ts'
import { virtualClock } from '../fakes/virtual-clock.ts'
import type { BenchResult } from './result.ts'
import { median, quantile } from './statistics.ts'

const START_MS = Date.UTC(2026, 0, 5)
const DAY_MS = 86_400_000

interface Signal {
  readonly id: SeriesId
  value(atMs: number): number
}

/** Signals as the recording loop gives them: demand of a day with noise, counts that follow, errors that are rare, memory that drifts. */
function signals(services: number, nodes: number): readonly Signal[] {
  const random = seededRandom(1)
  const noise = (share: number) => 1 + share * (random.next() + random.next() - 1)
  const found: Signal[] = []
  const add = (subject: string, measure: Measure, value: (atMs: number) => number) =>
    found.push({ id: { subject, measure }, value })
  for (let i = 0; i < services; i += 1) {
    const subject = `service app-${Math.floor(i / 10)}/service-${i % 10}`
    const size = 1 + (i % 30)
    const busy = (atMs: number) => size * 70 * (1.1 + Math.sin((2 * Math.PI * (atMs - START_MS)) / DAY_MS + i))
    const count = (atMs: number) => Math.max(1, Math.ceil(busy(atMs) / 70))
    add(subject, 'demand', (atMs) => busy(atMs) * noise(0.1))
    add(subject, 'load', (atMs) => (busy(atMs) / count(atMs)) * noise(0.1))
    add(subject, 'wanted', count)
    add(subject, 'ready', count)
    add(subject, 'requests', (atMs) => busy(atMs) * 3 * noise(0.2))
    add(subject, 'errors', () => (random.next() < 0.02 ? random.next() : 0))
    add(subject, 'denied', () => 0)
    add(subject, 'latencyP95', (atMs) => 20 + (busy(atMs) / count(atMs)) * noise(0.5))
    add(subject, 'cpuMillis', (atMs) => (busy(atMs) / count(atMs)) * 5 * noise(0.1))
    add(subject, 'memoryBytes', (atMs) => 2e8 + 1e7 * Math.sin(atMs / 4e6 + i))
    add(subject, 'rxBytesPerS', (atMs) => busy(atMs) * 3000 * noise(0.2))
    add(subject, 'txBytesPerS', (atMs) => busy(atMs) * 9000 * noise(0.2))
  }
  for (let i = 0; i < nodes; i += 1) {
    const subject = `node n-${i}`
    add(subject, 'cpuMillis', () => 4000 * noise(0.3))
    add(subject, 'memoryBytes', (atMs) => 6e9 + 1e8 * Math.sin(atMs / 4e6 + i))
    add(subject, 'diskBytes', (atMs) => 2e10 + (atMs - START_MS))
    add(subject, 'rxBytesPerS', () => 5e6 * noise(0.4))
    add(subject, 'txBytesPerS', () => 8e6 * noise(0.4))
    add(subject, 'reservedPercent', (atMs) => Math.round(60 + 20 * Math.sin(atMs / 1e7 + i)))
  }
  return found
}

function simulatedClock() {
  let nowMs = START_MS
  const clock: Clock = {
    now: () => nowMs,
    monotonicMs: () => nowMs - START_MS,
    setTimer: () => ({ cancel() {} }),
  }
  return {
    clock,
    advance(ms: number) {
      nowMs += ms
    },
  }
}

async function withHistory<T>(
  run: (open: (clock: Clock, pause: () => Promise<void>) => HistoryBackend) => Promise<T>,
): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'rubato-bench-history-'))
  try {
    return await run((clock, pause) =>
      openSqliteHistory({ path: join(directory, 'history.db'), clock, logger: silentLogger(), maxBytes: 2 ** 32, pause }),
    )
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

/** Bytes that this process has had written to storage. */
function writtenBytes(): number {
  return Number(/^write_bytes: (\d+)/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1] ?? 0)
}

export async function benchHistory(): Promise<readonly BenchResult[]> {
  const rounds: Awaited<ReturnType<typeof fullSize>>[] = []
  for (let round = 0; round < 3; round += 1) rounds.push(await fullSize())
  const kept = await eightDays()
  const passMs = await recordingPass()
  const of = (key: keyof (typeof rounds)[number]) => rounds.map((round) => round[key])
  const spread = (values: readonly number[], digits = 0) =>
    `spread ${Math.min(...values).toFixed(digits)}–${Math.max(...values).toFixed(digits)}`
  const atSize = '1,000 services + 200 nodes = 13,200 series, a sample each 2 s, flushed each minute'
  const result = (
    name: string,
    value: number,
    unit: string,
    better: BenchResult['better'],
    target: number | null,
    peer: string,
  ): BenchResult => ({ name: `history.${name}`, value, unit, better, target, peer, ratio: null })
  return [
    result(
      'samples_per_s',
      median(of('samplesPerS')),
      'samples/s',
      'higher',
      // 13,200 series each 2 s are 6,600 a second: this is 2 % of a core.
      330_000,
      `per second of processor time, flushes and folding included; ${atSize}; ${spread(of('samplesPerS'))}`,
    ),
    result('record_ns', median(of('recordNs')), 'ns', 'lower', null, `a sample without flushing; ${spread(of('recordNs'))}`),
    result(
      'longest_turn_cpu_ms',
      median(of('longestCpuMs')),
      'ms',
      'lower',
      25,
      `processor time of one turn of a flush, at most; ${spread(of('longestCpuMs'), 1)}`,
    ),
    result(
      'p99_turn_ms',
      median(of('p99TurnMs')),
      'ms',
      'lower',
      null,
      `other work waits so long, disk and other processes included; median ${median(of('medianTurnMs')).toFixed(1)}, most ${Math.max(...of('longestTurnMs')).toFixed(0)}; ${spread(of('p99TurnMs'), 1)}`,
    ),
    result(
      'recording_pass_ms',
      median(passMs),
      'ms',
      'lower',
      // Every 2 s: 2 % of a core.
      40,
      `processor time of one look at 1,000 services with 30,000 instances on 200 nodes, in turns of 5,000 instances; ${spread(passMs, 1)}`,
    ),
    result('written_kb_per_s', median(of('writtenPerS')) / 1024, 'KiB/s', 'lower', null, `to storage, ${atSize}`),
    result(
      'bytes_per_point',
      kept.bytesPerPoint,
      'bytes',
      'lower',
      5,
      `${kept.points} points of 132 series, all levels; mean and max`,
    ),
    result(
      'full_size_mb_1000_services',
      (kept.bytesPerPoint * 13_200 * LEVELS.reduce((sum, { keepMs, stepMs }) => sum + keepMs / stepMs, 0)) / 2 ** 20,
      'MiB',
      'lower',
      null,
      'reckoned from bytes_per_point: 13,200 series × (6 h by 10 s + 8 d by 1 min + 90 d by 15 min)',
    ),
    result('query_8d_1min_ms', median(kept.queryMs), 'ms', 'lower', 20, `11,520 points; ${spread(kept.queryMs, 1)}`),
    result('query_6h_10s_ms', median(kept.rawQueryMs), 'ms', 'lower', null, `2,160 points; ${spread(kept.rawQueryMs, 1)}`),
  ]
}

/** 40 simulated minutes: two blocks are finished and folded. */
function fullSize() {
  return withHistory(async (open) => {
    const all = signals(1000, 200)
    const { clock, advance } = simulatedClock()
    const turns: number[] = []
    const cpuTurns: number[] = []
    let turnBegan = performance.now()
    let cpuBegan = process.cpuUsage()
    const begin = () => {
      turnBegan = performance.now()
      cpuBegan = process.cpuUsage()
    }
    const end = () => {
      turns.push(performance.now() - turnBegan)
      const { user, system } = process.cpuUsage(cpuBegan)
      cpuTurns.push((user + system) / 1000)
    }
    const history = open(clock, async () => {
      end()
      await new Promise<void>((resolve) => setImmediate(resolve))
      begin()
    })
    const values = new Float64Array(all.length)
    const writtenBefore = writtenBytes()
    let samples = 0
    let recordMs = 0
    let cpuS = 0
    const steps = 40 * 30
    for (let step = 0; step < steps; step += 1) {
      // What the signals cost to make is not the history's.
      for (let i = 0; step % 5 === 0 && i < all.length; i += 1) values[i] = all[i]?.value(clock.now()) ?? 0
      const cpuBefore = process.cpuUsage()
      const began = performance.now()
      for (let i = 0; i < all.length; i += 1) {
        const signal = all[i]
        if (signal !== undefined) history.record(signal.id, clock.now(), (values[i] ?? 0) + (step % 5))
      }
      recordMs += performance.now() - began
      samples += all.length
      advance(2000)
      if (step % 30 === 29) {
        begin()
        await history.flush()
        end()
      }
      const { user, system } = process.cpuUsage(cpuBefore)
      cpuS += (user + system) / 1e6
    }
    await history.close()
    const { fault, dropped } = history.status()
    if (fault !== null || dropped > 0) throw new Error(`the history failed: ${fault}, ${dropped} dropped`)
    return {
      samplesPerS: samples / cpuS,
      recordNs: (recordMs * 1e6) / samples,
      longestTurnMs: Math.max(...turns),
      longestCpuMs: Math.max(...cpuTurns),
      p99TurnMs: quantile(turns, 0.99),
      medianTurnMs: median(turns),
      writtenPerS: (writtenBytes() - writtenBefore) / (steps * 2),
    }
  })
}

/** 9 simulated days of 10 services and 2 nodes, two samples a step. */
function eightDays() {
  return withHistory(async (open) => {
    const all = signals(10, 2)
    const { clock, advance } = simulatedClock()
    const history = open(clock, () => Promise.resolve())
    const steps = (9 * DAY_MS) / 5000
    for (let step = 0; step < steps; step += 1) {
      for (const { id, value } of all) history.record(id, clock.now(), value(clock.now()))
      advance(5000)
      if (step % 180 === 179) await history.flush()
    }
    await history.flush()
    const ask = (id: SeriesId, stepMs: number, spanMs: number) => {
      const began = performance.now()
      const points = history.query({ ...id, fromMs: clock.now() - spanMs, toMs: clock.now(), stepMs }).length
      return { points, ms: performance.now() - began }
    }
    let points = 0
    for (const { id } of all) for (const { stepMs, keepMs } of LEVELS) points += ask(id, stepMs, 2 * keepMs).points
    const timed = (stepMs: number, spanMs: number) =>
      Array.from({ length: 5 }, () => median(all.map(({ id }) => ask(id, stepMs, spanMs).ms)))
    const queryMs = timed(60_000, 8 * DAY_MS)
    const rawQueryMs = timed(10_000, DAY_MS / 4)
    const { bytes } = history.status()
    await history.close()
    return { bytesPerPoint: bytes / points, points, queryMs, rawQueryMs }
  })
}

/** Processor time of each pass of the recording loop, ms, over a state and observations of full size. */
async function recordingPass(): Promise<readonly number[]> {
  const clock = virtualClock(START_MS)
  const state = await openState(memoryStore(), clock)
  const observed = testObserved()
  const byNode = new Map<string, InstanceRecord[]>()
  for (let app = 0; app < 100; app += 1) {
    const services = Array.from({ length: 10 }, (_, i) => aServiceSpec({ name: `s${i}` }))
    const change = state
      .change()
      .put('app', `app-${app}`, anAppRecord({ name: `app-${app}`, spec: anAppSpec({ name: `app-${app}`, services }) }))
    for (const { name } of services) {
      change.put('service', `app-${app}/${name}`, aServiceRecord({ id: `app-${app}/${name}`, desired: 30 }))
      for (let slot = 1; slot <= 30; slot += 1) {
        const id = `app-${app}/${name}/${slot}/1`
        const nodeId = `n-${(app * 7 + slot) % 200}`
        byNode.set(nodeId, [...(byNode.get(nodeId) ?? []), anInstanceRecord({ id, nodeId })])
      }
    }
    await state.commit(change)
  }
  for (const [nodeId, instances] of byNode) {
    await state.commit(
      state
        .change()
        .put('node', nodeId, aNodeRecord({ id: nodeId }))
        .put('assignments', nodeId, someAssignments(nodeId, instances)),
    )
    observed.setNode(aNodeObservation({ nodeId, use: aNodeUse({ cpuMillis: 1000 }) }))
    for (const { id } of instances)
      observed.setInstance(
        anInstanceObservation({
          instance: id,
          nodeId,
          use: anInstanceUse({ instance: id, loadPercent: 50 }),
          useAtMs: START_MS + 1_000_000,
        }),
      )
  }
  const view = createNodeView({ state, observed })
  const history = createMemoryHistory(clock)
  const loop = createRecordingLoop({ history, state, observed, nodes: () => view.nodes(), clock, logger: silentLogger() })
  loop.start()
  await clock.advance(4000)
  const times: number[] = []
  for (let pass = 0; pass < 15; pass += 1) {
    const began = process.cpuUsage()
    await clock.advance(2000)
    const { user, system } = process.cpuUsage(began)
    times.push((user + system) / 1000)
  }
  await loop.stop()
  if (history.status().series < 6 * 1000) throw new Error('the recording loop recorded too little')
  return times
}
