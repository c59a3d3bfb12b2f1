/**
 * The coordinator's figures for Prometheus, computed from state at each scrape: nothing is counted twice, nothing goes stale.
 * Label values are bounded (phases, livenesses), never ids of instances. What the history records of services, nodes and pools is
 * published by history/prometheus/published-figures.ts.
 */
import { Counter, Gauge, Registry } from 'prom-client'
import { createCalendar } from '../shared/calendar.ts'
import { MACHINE_PHASES } from '../shared/model/node.ts'
import { INSTANCE_PHASES } from '../shared/model/observation.ts'
import type { FleetFigures } from './api/deps.ts'
import { viewInstance } from './api/views.ts'
import type { Observed } from './state/observed.ts'
import type { State } from './state/state.ts'

export interface Metrics {
  readonly contentType: string
  /** All figures in Prometheus text form. */
  text(): Promise<string>
}

export interface MetricsDeps {
  readonly state: State
  readonly observed: Observed
  readonly fleet: { figures(): FleetFigures }
  readonly version: string
  /** Figures of other parts (link, catalog), already in text form with names of their own. */
  extra?(): string
}

const LIVENESSES = ['unknown', 'live', 'suspect', 'lost'] as const

export function createMetrics(deps: MetricsDeps): Metrics {
  const { state, observed, fleet } = deps
  const registry = new Registry()
  const registers = [registry]
  const gauge = (name: string, help: string, labelNames: readonly string[] = []) =>
    new Gauge({ name: `rubato_${name}`, help, labelNames: [...labelNames], registers })
  const commits = new Counter({ name: 'rubato_commits_total', help: 'Commits to the store since the start.', registers })
  const events = new Counter({ name: 'rubato_events_total', help: 'Events recorded since the start.', registers })
  state.onChange((change) => {
    commits.inc()
    events.inc(change.events.length)
  })
  const info = gauge('build_info', 'Always 1; the version is a label.', ['version'])
  const epoch = gauge('epoch', 'Epoch of this coordinator.')
  const frozen = gauge('frozen', '1 while replacement and deletion are frozen.')
  const nodes = gauge('nodes', 'Nodes by liveness.', ['liveness'])
  const capacityCpu = gauge('nodes_cpu_capacity_cores', 'CPU that all nodes offer.')
  const capacityMemory = gauge('nodes_memory_capacity_bytes', 'Memory that all nodes offer.')
  const instances = gauge('instances', 'Instances by phase.', ['phase'])
  const machines = gauge('machines', 'Machines by phase, without those that are gone.', ['phase'])
  const price = gauge('machines_price_usd_per_hour', 'What the present machines cost.')
  const spent = gauge('spent_usd_this_month', 'Spent on machines since the month began.')
  const budget = gauge('budget_usd_per_month', 'Spending limit; absent when there is none.')

  const calendar = createCalendar()
  const collect = () => {
    for (const metric of [nodes, instances, machines, budget]) metric.reset()
    info.set({ version: deps.version }, 1)
    epoch.set(state.epoch)
    frozen.set(observed.frozen ? 1 : 0)
    for (const liveness of LIVENESSES) nodes.set({ liveness }, 0)
    let cpuMillis = 0
    let memoryBytes = 0
    for (const node of state.snapshot.all('node').values()) {
      nodes.inc({ liveness: observed.node(node.id)?.liveness ?? 'unknown' })
      cpuMillis += node.capacity.cpuMillis
      memoryBytes += node.capacity.memoryBytes
    }
    capacityCpu.set(cpuMillis / 1000)
    capacityMemory.set(memoryBytes)
    const world = { snapshot: state.snapshot, observed, calendar }
    const byPhase = new Map<string, number>(INSTANCE_PHASES.map((phase) => [phase, 0]))
    for (const record of state.snapshot.instances().values()) {
      const { phase } = viewInstance(world, record)
      byPhase.set(phase, (byPhase.get(phase) ?? 0) + 1)
    }
    for (const [phase, count] of byPhase) instances.set({ phase }, count)
    let priceUsdPerHour = 0
    for (const phase of MACHINE_PHASES) if (phase !== 'gone') machines.set({ phase }, 0)
    for (const machine of state.snapshot.all('machine').values()) {
      if (machine.phase === 'gone') continue
      machines.inc({ phase: machine.phase })
      priceUsdPerHour += machine.priceUsdPerHour
    }
    price.set(priceUsdPerHour)
    const { spentUsdThisMonth, limitUsdPerMonth } = fleet.figures()
    spent.set(spentUsdThisMonth)
    if (limitUsdPerMonth !== null) budget.set(limitUsdPerMonth)
  }

  return {
    contentType: registry.contentType,
    async text() {
      collect()
      const extra = deps.extra?.() ?? ''
      return `${await registry.metrics()}${extra}`
    },
  }
}
