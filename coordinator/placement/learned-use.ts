/**
 * What a service that reserves nothing is charged for: the 95th percentile of what its instances were measured to use, recent
 * samples counting more. A pure estimator: time comes with each sample. Kept per service and pool (machines differ), and per
 * service over all pools for where it has not run yet. In memory only: after a restart the default holds until enough was seen.
 *
 * Reports are untrusted (fault row 13), and one agent's must not decide what every instance of a service is charged everywhere: where a
 * service was measured on three nodes or more, what one of them reports counts for no more than the peak of another.
 *
 * Histogram with exponential buckets and exponentially decaying weights, as the vertical autoscaler of Autopilot (Rzadca et al.,
 * EuroSys 2020) and its descendants have it: O(1) per sample, constant memory, no sample kept.
 */
import type { NodeId, ServiceId } from '../../shared/model/identity.ts'
import type { Resources } from '../../shared/model/resources.ts'
import { type ChargeOf, reservedCharge } from './requests.ts'

export interface LearnedUse {
  /**
   * One measurement of one instance on that node. Values that are no finite numbers ≥ 0 are ignored, and what exceeds `most`, which the
   * instance cannot have used (its node's capacity, its limits), counts as that; no charge exceeds the largest `most` either.
   */
  sample(
    service: ServiceId,
    at: { readonly node: NodeId; readonly pool: string | null; readonly most: Resources },
    use: Resources,
    nowMs: number,
  ): void
  /**
   * What is charged at present in a pool, or over all pools (null); null until enough was seen. It moves only when the estimate is a fifth
   * away from it, so that a node's books do not swing with every load.
   */
  learned(service: ServiceId, pool: string | null): Resources | null
  /** Reservations where there are any, learned use where there is some, else the default. */
  readonly chargeOf: ChargeOf
  /** Called when the charge of a service changes; returns the unsubscriber. */
  onChange(listener: (service: ServiceId) => void): () => void
}

/** A day-old sample counts half as much as one of now. */
const HALF_LIFE_MS = 24 * 3_600_000
/** Start-up is not use: nothing is charged by measurement before so much was seen. */
const MIN_SAMPLES = 30
const MIN_SPAN_MS = 600_000
/** How often an estimate may move what is charged. */
const SETTLE_MS = 600_000
const QUANTILE = 0.95
/** Estimates within this factor of what is charged leave it as it is. */
const HYSTERESIS = 1.2
/** Services × pools remembered; beyond, the one seen longest ago is forgotten. About 1 KiB each. */
const MAX_KEPT = 20_000
/** So little is charged at least: idle services must not fill a node by the hundred. */
const LEAST = { cpuMillis: 10, memoryBytes: 16 * 2 ** 20 }

const BUCKETS = 80
/** Each bucket ends 15 % above the one before: the error of an estimate. */
const GROWTH = 1.15
const FIRST_CPU_MILLIS = 1
const FIRST_MEMORY_BYTES = 2 ** 20
/** Weights are scaled down when they reach this, long before they overflow. */
const MAX_WEIGHT = 2 ** 40

/** Nodes whose word is held against each other: the two highest vouch for nothing alone, a third shows that there are more. */
const PEAKS = 3

interface Peak {
  readonly node: NodeId
  /** Largest measurement, weighted as of its time: a day-old one of twice the size counts as much. */
  height: number
}

interface Kept {
  readonly cpuPeaks: Peak[]
  readonly memoryPeaks: Peak[]
  /** The most that any instance could have used. */
  mostCpuMillis: number
  mostMemoryBytes: number
  readonly cpu: Float64Array
  readonly memory: Float64Array
  total: number
  samples: number
  readonly firstMs: number
  /** Time at which a sample weighs 1. */
  originMs: number
  settledMs: number
  charged: Resources | null
}

export function createLearnedUse(): LearnedUse {
  /** By `service\npool`, and `service\n` for all pools; seen longest ago first. */
  const kept = new Map<string, Kept>()
  const listeners = new Set<(service: ServiceId) => void>()

  const open = (key: string, nowMs: number): Kept => {
    const known = kept.get(key)
    if (known) {
      kept.delete(key)
      kept.set(key, known)
      return known
    }
    const made: Kept = {
      cpuPeaks: [],
      memoryPeaks: [],
      mostCpuMillis: 0,
      mostMemoryBytes: 0,
      cpu: new Float64Array(BUCKETS),
      memory: new Float64Array(BUCKETS),
      total: 0,
      samples: 0,
      firstMs: nowMs,
      originMs: nowMs,
      settledMs: nowMs,
      charged: null,
    }
    kept.set(key, made)
    const [oldest] = kept.keys()
    if (kept.size > MAX_KEPT && oldest !== undefined) kept.delete(oldest)
    return made
  }
  const learned = (service: ServiceId, pool: string | null): Resources | null =>
    (pool === null ? null : kept.get(`${service}\n${pool}`)?.charged) ?? kept.get(`${service}\n`)?.charged ?? null

  return {
    sample(service, { node, pool, most }, use, nowMs) {
      if (!isAmount(use.cpuMillis) || !isAmount(use.memoryBytes)) return
      let changed = false
      for (const key of pool === null ? [`${service}\n`] : [`${service}\n`, `${service}\n${pool}`]) {
        const entry = open(key, nowMs)
        const weight = weightAt(entry, nowMs)
        entry.mostCpuMillis = Math.max(entry.mostCpuMillis, most.cpuMillis)
        entry.mostMemoryBytes = Math.max(entry.mostMemoryBytes, most.memoryBytes)
        const cpuMillis = vouched(entry.cpuPeaks, node, Math.min(use.cpuMillis, most.cpuMillis), weight)
        const memoryBytes = vouched(entry.memoryPeaks, node, Math.min(use.memoryBytes, most.memoryBytes), weight)
        add(entry.cpu, bucketOf(cpuMillis, FIRST_CPU_MILLIS), weight)
        add(entry.memory, bucketOf(memoryBytes, FIRST_MEMORY_BYTES), weight)
        entry.total += weight
        entry.samples += 1
        changed = settle(entry, nowMs) || changed
      }
      if (changed) for (const listener of [...listeners]) listener(service)
    },
    learned,
    chargeOf(service, unit, pool = null) {
      const base = reservedCharge(service, unit)
      const { cpuMillis, memoryBytes } = unit.reservations
      if (cpuMillis > 0 && memoryBytes > 0) return base
      const measured = learned(service, pool)
      if (measured === null) return base
      return {
        ...base,
        cpuMillis: cpuMillis > 0 ? cpuMillis : measured.cpuMillis,
        memoryBytes: memoryBytes > 0 ? memoryBytes : measured.memoryBytes,
        learned: true,
      }
    },
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

/** Moves what is charged if the estimate has left its band. Answers whether it did. */
function settle(entry: Kept, nowMs: number): boolean {
  if (entry.samples < MIN_SAMPLES || nowMs - entry.firstMs < MIN_SPAN_MS) return false
  if (entry.charged !== null && nowMs - entry.settledMs < SETTLE_MS) return false
  entry.settledMs = nowMs
  const estimate = {
    cpuMillis: within(quantileOf(entry.cpu, entry.total, FIRST_CPU_MILLIS), LEAST.cpuMillis, entry.mostCpuMillis),
    memoryBytes: within(quantileOf(entry.memory, entry.total, FIRST_MEMORY_BYTES), LEAST.memoryBytes, entry.mostMemoryBytes),
  }
  const { charged } = entry
  if (charged && isNear(estimate.cpuMillis, charged.cpuMillis) && isNear(estimate.memoryBytes, charged.memoryBytes)) return false
  entry.charged = estimate
  return true
}

function isNear(a: number, b: number): boolean {
  return a <= b * HYSTERESIS && b <= a * HYSTERESIS
}

/** Newer samples weigh more instead of older ones less: equal in effect, and O(1). */
function weightAt(entry: Kept, nowMs: number): number {
  let weight = 2 ** Math.max(0, (nowMs - entry.originMs) / HALF_LIFE_MS)
  if (weight < MAX_WEIGHT) return weight
  for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
    entry.cpu[bucket] = (entry.cpu[bucket] ?? 0) / weight
    entry.memory[bucket] = (entry.memory[bucket] ?? 0) / weight
  }
  entry.total /= weight
  for (const peaks of [entry.cpuPeaks, entry.memoryPeaks]) for (const peak of peaks) peak.height /= weight
  entry.originMs = nowMs
  weight = 1
  return weight
}

/** The upper edge of a bucket may lie above what a node has: nothing would ever fit. */
function within(estimate: number, least: number, most: number): number {
  return Math.max(least, Math.min(Math.ceil(estimate), Math.floor(most)))
}

/**
 * The value, or the present height of the highest peak of another node if that is less and at least three nodes have reported.
 * Remembers the value as a peak. Heights only grow, so that the three highest are known without the others.
 */
function vouched(peaks: Peak[], node: NodeId, value: number, weight: number): number {
  const height = value * weight
  const own = peaks.find((peak) => peak.node === node)
  if (own) own.height = Math.max(own.height, height)
  else if (peaks.length < PEAKS) peaks.push({ node, height })
  else if (height > (peaks[PEAKS - 1]?.height ?? 0)) peaks[PEAKS - 1] = { node, height }
  peaks.sort((a, b) => b.height - a.height)
  if (peaks.length < PEAKS) return value
  const other = peaks[0]?.node === node ? peaks[1] : peaks[0]
  return Math.min(value, (other?.height ?? 0) / weight)
}

function bucketOf(value: number, first: number): number {
  return value <= first ? 0 : Math.min(BUCKETS - 1, Math.ceil(Math.log(value / first) / Math.log(GROWTH)))
}

function quantileOf(buckets: Float64Array, total: number, first: number): number {
  let seen = 0
  for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
    seen += buckets[bucket] ?? 0
    if (seen >= QUANTILE * total) return first * GROWTH ** bucket
  }
  return first * GROWTH ** (BUCKETS - 1)
}

function add(buckets: Float64Array, bucket: number, weight: number): void {
  buckets[bucket] = (buckets[bucket] ?? 0) + weight
}

function isAmount(value: number): boolean {
  return Number.isFinite(value) && value >= 0
}
