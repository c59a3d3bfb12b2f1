/** What stands in for the parts of an agent that touch sockets and kernels: its gateway, its meter, its probes. */
import type { AgentGateway, AgentView } from '../../agent/agent.ts'
import type { ProbeNetwork } from '../../agent/health/probes.ts'
import type { Meter } from '../../agent/metering/meter.ts'
import type { Clock } from '../../shared/clock.ts'
import { sleep } from '../../shared/clock.ts'
import type { Route } from '../../shared/protocol/frames.ts'

export interface ModelGateway extends AgentGateway {
  readonly routes: readonly Route[]
  /** `instance:containerPort` → port. */
  readonly open: ReadonlyMap<string, number>
}

export function modelGateway(): ModelGateway {
  const open = new Map<string, number>()
  let routes: readonly Route[] = []
  let nextPort = 20_000
  return {
    name: 'builtin',
    open,
    get routes() {
      return routes
    },
    async openIngress({ instance, containerPort }) {
      const key = `${instance}:${containerPort}`
      const port = open.get(key) ?? nextPort++
      open.set(key, port)
      return port
    },
    async closeIngress(instance) {
      for (const key of [...open.keys()]) if (key.startsWith(`${instance}:`)) open.delete(key)
    },
    inFlight: () => 0,
    async setRoutes(next) {
      routes = next
    },
    setLoads() {},
    takeFlows: () => [],
    hostsFor: () => [],
    async stop() {
      open.clear()
    },
  }
}

/** Loads come from the scenario; null: the instance gives no value. */
export function modelMeter(view: AgentView, loadOf: (instance: string) => number | null): Meter {
  return {
    async sample() {
      const instances = view.metered().map(({ instance }) => ({
        instance,
        loadPercent: loadOf(instance),
        demand: null,
        cpuMillis: 20,
        memoryBytes: 16 * 2 ** 20,
        rxBytes: 0,
        txBytes: 0,
        inFlight: 0,
        requests: 0,
        errors: 0,
        denied: 0,
      }))
      return {
        node: {
          cpuMillis: 20 * instances.length,
          memoryBytes: 2 ** 28,
          diskBytes: 2 ** 30,
          rxBytesPerS: 0,
          txBytesPerS: 0,
        },
        instances,
      }
    },
    // Nothing is pushed here.
    moved: () => [],
  }
}

/** A probe succeeds where the program behind the address is up. */
export function modelProbes(clock: Clock, isUp: (address: string) => boolean): ProbeNetwork {
  const probe = async (address: string, signal: AbortSignal) => {
    await sleep(clock, 2, signal).catch(() => undefined)
    return isUp(address) ? { healthy: true, text: '' } : { healthy: false, text: 'connection refused' }
  }
  return {
    http: ({ address }, _timeoutMs, signal) => probe(address, signal),
    tcp: ({ address }, _timeoutMs, signal) => probe(address, signal),
  }
}
