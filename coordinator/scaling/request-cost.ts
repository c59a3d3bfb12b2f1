/**
 * What one request costs an instance, learned while there is room, so that arrivals tell the demand that full instances hide
 * (utilization law: utilization = arrival rate × service demand; Denning and Buzen, The Operational Analysis of Queueing Network
 * Models, ACM Computing Surveys 10(3), 1978). O(1) per sample.
 */
export interface RequestCost {
  /** One sample: the sum of loads of `reporting` instances, and the requests that arrived since the sample before. */
  observe(atMs: number, sumPercent: number, reporting: number, requests: number): void
  /** Demand that the present arrivals make, in percent of one instance; null while the cost or the rate is not known well. */
  demandPercent(atMs: number): number | null
}

/** Learned only at loads between: below, what an idle instance uses anyway would be charged to few requests; above, some wait. */
const LEARN_FROM_PERCENT = 15
const LEARN_TO_PERCENT = 90
/** Arrivals are averaged over this time: a few reports. */
const RATE_MS = 8_000
/** The cost follows changes of what requests do within minutes. */
const COST_MS = 120_000
/** Fewer requests say nothing. */
const LEAST_REQUESTS = 100

export function createRequestCost(): RequestCost {
  let lastMs: number | null = null
  // Exponentially decayed sums; a quotient of two of them needs no correction for how long they have run.
  let rateRequests = 0
  let rateMs = 0
  let load = 0
  let requests = 0
  return {
    observe(atMs, sumPercent, reporting, arrived) {
      const tookMs = lastMs === null ? 0 : atMs - lastMs
      lastMs = atMs
      if (tookMs <= 0) return
      const keepRate = Math.exp(-tookMs / RATE_MS)
      rateRequests = rateRequests * keepRate + arrived
      rateMs = rateMs * keepRate + tookMs
      if (reporting === 0) return
      const mean = sumPercent / reporting
      if (mean < LEARN_FROM_PERCENT || mean > LEARN_TO_PERCENT) return
      const keepCost = Math.exp(-tookMs / COST_MS)
      load = load * keepCost + sumPercent * (tookMs / 1000)
      requests = requests * keepCost + arrived
    },
    demandPercent(atMs) {
      if (lastMs === null || atMs - lastMs > RATE_MS || requests < LEAST_REQUESTS || rateMs < RATE_MS / 2) return null
      return (rateRequests / (rateMs / 1000)) * (load / requests)
    },
  }
}
