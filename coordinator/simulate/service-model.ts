/**
 * What a number of instances makes of a demand: an M/M/c queue, c = instances × workers, that is, an ideal balancer in front of
 * instances that serve `workers` requests at once. Above capacity requests queue in a fluid backlog and fail when they would
 * wait longer than their caller does. Pure.
 *
 * Erlang C and the distribution of the answer time in M/M/c are textbook (e.g. Gross et al., Fundamentals of Queueing Theory, 2.3).
 */
import { LATENCY_BUCKETS_MS } from '../../shared/model/observation.ts'
import { ANSWER_TIME_BUCKETS } from '../history/answer-times.ts'

export interface ServiceModel {
  /** Requests that one instance serves at once. */
  readonly workers: number
  /** Mean time of service without waiting, ms; exponentially distributed. */
  readonly serviceMs: number
  /** The objective: `quantile` of the requests is answered within `latencyMs`. */
  readonly latencyMs: number
  readonly quantile: number
  /** A caller gives up after this, and the request has failed. */
  readonly patienceMs: number
}

export const DEFAULT_SERVICE_MODEL: ServiceModel = {
  workers: 8,
  serviceMs: 100,
  latencyMs: 500,
  quantile: 0.95,
  patienceMs: 10_000,
}

/** Requests per second that one full instance serves. */
export function ratePerInstance(model: ServiceModel): number {
  return (1000 * model.workers) / model.serviceMs
}

/** Share of the requests (0–1) that take longer than `latencyMs` with `instances` instances and a demand of `offered` of them. */
export function lateShare(model: ServiceModel, offered: number, instances: number): number {
  return slowerShare(model, model.latencyMs, offered, instances)
}

/** The same of those that take longer than `ms`. */
function slowerShare(model: ServiceModel, ms: number, offered: number, instances: number): number {
  const servers = instances * model.workers
  const load = offered * model.workers
  if (instances <= 0 || load >= servers) return 1
  const t = ms / model.serviceMs
  const waits = erlangC(servers, load)
  const spare = servers - 1 - load
  const extra = Math.abs(spare) < 1e-9 ? t : (1 - Math.exp(-t * spare)) / spare
  return Math.min(1, Math.exp(-t) * (1 + waits * extra))
}

/** Probability that a request has to wait, by the recursion of Erlang B. */
function erlangC(servers: number, load: number): number {
  let blocking = 1
  for (let k = 1; k <= servers; k += 1) blocking = (load * blocking) / (k + load * blocking)
  return blocking / (1 - (load / servers) * (1 - blocking))
}

/** The model with its costly parts in tables, for one run. */
export interface ServiceTables {
  readonly model: ServiceModel
  /** Fewest instances that meet the objective under that demand; at least 1. */
  needed(offered: number): number
  /** `lateShare`, from a table over 256 steps of utilization (each up to 0.4 percentage points too late). */
  late(offered: number, instances: number): number
  /**
   * `requests` answers by time, one count per bucket of gateways' counts, by the same steps of utilization. Where a backlog makes them
   * wait `queuedMs` that is what they wait, and what remains is the time of service.
   */
  answerTimes(offered: number, instances: number, queuedMs: number, requests: number): Float64Array
}

const STEPS = 256

export function serviceTables(model: ServiceModel): ServiceTables {
  /** Largest demand that n instances serve within the objective, at index n. */
  const most: number[] = [0]
  const rows: Float64Array[] = []
  /** Shares that fall into each bucket, by instances and step of utilization. */
  const times: Float64Array[][] = []
  const mostOf = (instances: number): number => {
    for (let n = most.length; n <= instances; n += 1) {
      let low = most[n - 1] ?? 0
      let high = n
      for (let round = 0; round < 30; round += 1) {
        const middle = (low + high) / 2
        if (lateShare(model, middle, n) <= 1 - model.quantile) low = middle
        else high = middle
      }
      most.push(low)
    }
    return most[instances] ?? 0
  }
  return {
    model,
    needed(offered) {
      let n = Math.max(1, Math.floor(offered))
      while (mostOf(n) < offered) n += 1
      return n
    },
    late(offered, instances) {
      if (instances <= 0 || offered >= instances) return 1
      let row = rows[instances]
      if (row === undefined) {
        row = Float64Array.from({ length: STEPS }, (_, step) => lateShare(model, (instances * (step + 1)) / STEPS, instances))
        rows[instances] = row
      }
      return row[Math.floor((offered / instances) * STEPS)] ?? 1
    },
    answerTimes(offered, instances, queuedMs, requests) {
      if (instances <= 0 || queuedMs > 0 || offered >= instances)
        return bucketsOf((ms) => (instances <= 0 || ms <= queuedMs ? 1 : Math.exp((queuedMs - ms) / model.serviceMs)), requests)
      const step = Math.floor((offered / instances) * STEPS)
      times[instances] ??= []
      const row = times[instances]
      const middle = (instances * (step + 0.5)) / STEPS
      row[step] ??= bucketsOf((ms) => slowerShare(model, ms, middle, instances), 1)
      return row[step].map((share) => share * requests)
    },
  }
}

/** `total` answers over the buckets, by the share that takes longer than a time. */
function bucketsOf(slower: (ms: number) => number, total: number): Float64Array {
  const counts = new Float64Array(ANSWER_TIME_BUCKETS)
  let above = 1
  LATENCY_BUCKETS_MS.forEach((ms, bucket) => {
    const share = slower(ms)
    counts[bucket] = total * (above - share)
    above = share
  })
  counts[ANSWER_TIME_BUCKETS - 1] = total * above
  return counts
}
