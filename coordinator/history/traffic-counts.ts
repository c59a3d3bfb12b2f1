/**
 * Requests per service between two samples of the history. Agents report counts since their last report: each report is added once,
 * when it is published, and what was added is taken out when a sample is due.
 */
import type { InstanceId, ServiceId } from '../../shared/model/identity.ts'
import type { Observed } from '../state/observed.ts'
import { ANSWER_TIME_BUCKETS } from './answer-times.ts'

export interface Traffic {
  requests: number
  errors: number
  denied: number
  rxBytes: number
  txBytes: number
  /** Requests by answer time, as `LATENCY_BUCKETS_MS` counts them. */
  readonly answerTimes: Float64Array
}

export interface TrafficCounts {
  /** What came for the service since its last `reset`; undefined when it never had any: "none" is then not worth a series. */
  of(service: ServiceId): Traffic | undefined
  /** Begins anew for one service. */
  resetOne(service: ServiceId): void
  /** Begins anew for all, and forgets services that are no more. */
  reset(): void
  /** Forgets services that are no more. */
  forgetGone(): void
  stop(): void
}

export function countTraffic(observed: Observed, exists: (service: ServiceId) => boolean): TrafficCounts {
  const services = new Map<ServiceId, Traffic>()

  const add = (id: InstanceId) => {
    const use = observed.instance(id)?.use
    if (!use || (use.requests === 0 && use.denied === 0 && use.rxBytes === 0 && use.txBytes === 0 && !use.latency)) return
    const service = id.slice(0, id.indexOf('/', id.indexOf('/') + 1))
    let traffic = services.get(service)
    if (traffic === undefined) {
      traffic = { requests: 0, errors: 0, denied: 0, rxBytes: 0, txBytes: 0, answerTimes: new Float64Array(ANSWER_TIME_BUCKETS) }
      services.set(service, traffic)
    }
    traffic.requests += use.requests
    traffic.errors += use.errors
    traffic.denied += use.denied
    traffic.rxBytes += use.rxBytes
    traffic.txBytes += use.txBytes
    const times = use.latency
    if (times !== undefined)
      for (let i = 0; i < ANSWER_TIME_BUCKETS; i += 1) traffic.answerTimes[i] = (traffic.answerTimes[i] ?? 0) + (times[i] ?? 0)
  }

  const unsubscribe = observed.onChange((change) => {
    if (change.useOnly) for (const id of change.instances) add(id)
  })

  const clear = (traffic: Traffic) => {
    traffic.requests = 0
    traffic.errors = 0
    traffic.denied = 0
    traffic.rxBytes = 0
    traffic.txBytes = 0
    traffic.answerTimes.fill(0)
  }
  const forgetGone = () => {
    for (const service of services.keys()) if (!exists(service)) services.delete(service)
  }

  return {
    of: (service) => services.get(service),
    resetOne(service) {
      const traffic = services.get(service)
      if (traffic !== undefined) clear(traffic)
    },
    reset() {
      forgetGone()
      for (const traffic of services.values()) clear(traffic)
    },
    forgetGone,
    stop: unsubscribe,
  }
}
