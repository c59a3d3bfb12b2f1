/**
 * What an instance uses when idle and what one request costs it, learned apart (V20) while there is room, so that arrivals tell the
 * demand that full instances hide (utilization law: utilization = idle part + arrival rate × service demand; Denning and Buzen, The
 * Operational Analysis of Queueing Network Models, ACM Computing Surveys 10(3), 1978). O(1) per sample.
 */
export interface RequestCost {
  /** One sample: the sum of loads of `reporting` instances, and the requests that arrived since the sample before. */
  observe(atMs: number, sumPercent: number, reporting: number, requests: number): void
  /** Demand that the present arrivals make, in percent of one instance; null while the cost or the rate is not known well. */
  demandPercent(atMs: number): number | null
  /** The two parts; null while the rate has not varied enough to tell them apart. */
  parts(): UseParts | null
}

export interface UseParts {
  /** Load of an instance without requests, 0–100. */
  readonly idlePercent: number
  /** How long one request takes all of an instance, ms. */
  readonly requestMs: number
}

/** Learned only at loads between: below, what an idle instance uses anyway would be charged to few requests; above, some wait. */
const LEARN_FROM_PERCENT = 15
const LEARN_TO_PERCENT = 90
/** Arrivals are averaged over this time: a few reports. Loads that are held against them likewise, or they would lag behind. */
const RATE_MS = 8_000
/** The cost follows changes of what requests do within minutes; the idle part changes with versions. */
const COST_MS = 120_000
const IDLE_MS = 1_800_000
/** Fewer requests say nothing. */
const LEAST_REQUESTS = 100
/** Rates must have varied by this part of their mean, and explain this much of how loads varied (r²), for a line to be drawn. */
const LEAST_VARIATION = 0.2
const LEAST_EXPLAINED = 0.7
/** A line is drawn only from this many seconds of samples on. */
const LEAST_S = 60

export function createRequestCost(): RequestCost {
  let lastMs: number | null = null
  let instances = 0
  // Exponentially decayed sums; a quotient of two of them needs no correction for how long they have run.
  let rateRequests = 0
  let rateMs = 0
  let rateLoadMs = 0
  let load = 0
  let instanceS = 0
  let requests = 0
  const line = createLine(IDLE_MS)
  const cost = () => {
    const idle = line.intercept() ?? 0
    return Math.max(0, load - idle * instanceS) / requests
  }
  return {
    observe(atMs, sumPercent, reporting, arrived) {
      const tookMs = lastMs === null ? 0 : atMs - lastMs
      lastMs = atMs
      if (tookMs <= 0) return
      const keepRate = Math.exp(-tookMs / RATE_MS)
      rateRequests = rateRequests * keepRate + arrived
      rateMs = rateMs * keepRate + tookMs
      rateLoadMs = rateLoadMs * keepRate + sumPercent * tookMs
      if (reporting !== instances) {
        // Averages of before say nothing of one of so many.
        instances = reporting
        line.pause(RATE_MS * 3)
      }
      if (reporting === 0) return
      const mean = sumPercent / reporting
      if (mean > LEARN_TO_PERCENT) return line.pause(RATE_MS * 3)
      line.add(rateRequests / (rateMs / 1000) / reporting, rateLoadMs / rateMs / reporting, tookMs)
      if (mean < LEARN_FROM_PERCENT) return
      const keepCost = Math.exp(-tookMs / COST_MS)
      load = load * keepCost + sumPercent * (tookMs / 1000)
      instanceS = instanceS * keepCost + reporting * (tookMs / 1000)
      requests = requests * keepCost + arrived
    },
    demandPercent(atMs) {
      if (lastMs === null || atMs - lastMs > RATE_MS || requests < LEAST_REQUESTS || rateMs < RATE_MS / 2) return null
      return (line.intercept() ?? 0) * instances + (rateRequests / (rateMs / 1000)) * cost()
    },
    parts() {
      const idlePercent = line.intercept()
      return idlePercent === null || requests < LEAST_REQUESTS ? null : { idlePercent, requestMs: cost() * 10 }
    },
  }
}

/** Least squares over pairs of rate and load, older ones counting less. */
function createLine(decayMs: number) {
  let seconds = 0
  let x = 0
  let y = 0
  let xx = 0
  let xy = 0
  let yy = 0
  let pausedMs = 0
  return {
    /** Pairs of the next so many ms are left out. */
    pause(ms: number) {
      pausedMs = ms
    },
    add(rate: number, percent: number, tookMs: number) {
      pausedMs -= tookMs
      if (pausedMs > 0) return
      const keep = Math.exp(-tookMs / decayMs)
      const weight = tookMs / 1000
      seconds = seconds * keep + weight
      x = x * keep + weight * rate
      y = y * keep + weight * percent
      xx = xx * keep + weight * rate * rate
      xy = xy * keep + weight * rate * percent
      yy = yy * keep + weight * percent * percent
    },
    /** Load at no requests, percent; null where the pairs do not tell. */
    intercept(): number | null {
      if (seconds < LEAST_S || x <= 0) return null
      const rateMean = x / seconds
      const variance = xx / seconds - rateMean ** 2
      const covariance = xy / seconds - rateMean * (y / seconds)
      const loadVariance = yy / seconds - (y / seconds) ** 2
      if (variance < (LEAST_VARIATION * rateMean) ** 2 || covariance <= 0 || loadVariance <= 0) return null
      if (covariance ** 2 < LEAST_EXPLAINED * variance * loadVariance) return null
      return Math.max(0, y / seconds - (covariance / variance) * rateMean)
    },
  }
}
