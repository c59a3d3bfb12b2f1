/** What of the cluster itself is amiss, for `doctor`: a line each, with its next step. Pure. */
import type { FleetStatus, InstanceView, NodeView, ServiceView } from '../api/schemas.ts'
import { counted } from './session.ts'

export interface Check {
  readonly name: string
  readonly outcome: 'ok' | 'warning' | 'failed'
  readonly text: string
  readonly next?: string
}

export interface ClusterState {
  readonly services: readonly ServiceView[]
  readonly instances: readonly InstanceView[]
  readonly nodes: readonly NodeView[]
  readonly fleet: FleetStatus
  readonly nowMs: number
}

/** Of one kind of trouble so many are named; the others are counted. */
const NAMED = 5
/** A month that is projected above this share of its budget is told. */
const NEAR_BUDGET = 0.9

/** The troubles, or one line that there are none. All are warnings: each may be on its way to mend itself. */
export function checkCluster({ services, instances, nodes, fleet, nowMs }: ClusterState): readonly Check[] {
  const troubles = [
    ...named('waits', services.filter(({ waitsFor }) => waitsFor !== null).map(waits)),
    ...named('crash loop', instances.filter(({ crashLooping }) => crashLooping).map(loops)),
    ...named('job', services.flatMap(failedJob)),
    ...named('update', services.flatMap(stuckUpdate)),
    ...named('port', sharedPorts(services)),
    ...named('node', nodes.flatMap(silentNode)),
    ...named(
      'pool',
      fleet.pools.flatMap((pool) => restingPool(pool, nowMs)),
    ),
    ...nearBudget(fleet),
  ]
  if (troubles.length > 0) return troubles
  return [{ name: 'cluster', outcome: 'ok', text: `${counted(services.length, 'service')}; nothing waits, loops or has failed` }]
}

type Trouble = Pick<Check, 'text' | 'next'>

function named(name: string, troubles: readonly Trouble[]): readonly Check[] {
  const shown = troubles.slice(0, NAMED).map((trouble): Check => ({ name, outcome: 'warning', ...trouble }))
  const more = troubles.length - shown.length
  return more === 0 ? shown : [...shown, { name, outcome: 'warning', text: `${more} more of this kind` }]
}

function waits({ id, waitsFor, pending }: ServiceView): Trouble {
  const what = pending > 1 ? `${id} (${counted(pending, 'instance')})` : id
  return { text: `${what}: ${waitsFor ?? ''}`, next: `rubato explain ${id}` }
}

function loops({ id, restarts, message }: InstanceView): Trouble {
  return { text: `${id}, ${counted(restarts, 'restart')}: ${message}`, next: `rubato logs ${id}; rubato explain ${id}` }
}

function failedJob({ id, job }: ServiceView): readonly Trouble[] {
  const latest = job?.runs.find(({ outcome }) => outcome === 'succeeded' || outcome === 'failed' || outcome === 'running')
  if (latest?.outcome !== 'failed') return []
  return [{ text: `${id} has failed: ${latest.message}`, next: `rubato events --subject ${id}` }]
}

function stuckUpdate({ id, rollout }: ServiceView): readonly Trouble[] {
  if (rollout?.phase !== 'failed' && rollout?.phase !== 'paused' && rollout?.phase !== 'rolling-back') return []
  return [{ text: `the update of ${id} is ${rollout.phase}. ${rollout.message}`.trim(), next: `rubato explain ${id}` }]
}

/** Refused at a deploy; two that were deployed in the same moment, or by an older coordinator, may still be there. */
function sharedPorts(services: readonly ServiceView[]): readonly Trouble[] {
  const holders = new Map<string, string[]>()
  for (const { id, ports } of services)
    for (const { port, protocol, mode } of ports) {
      if (mode === 'host') continue
      const key = `${port}/${protocol === 'udp' ? 'udp' : 'tcp'}`
      holders.set(key, [...(holders.get(key) ?? []), id])
    }
  return [...holders].flatMap(([key, ids]) =>
    ids.length < 2
      ? []
      : [{ text: `${key} is published by ${ids.join(' and by ')}`, next: 'publish another port of one of them' }],
  )
}

function silentNode({ id, liveness, instances }: NodeView): readonly Trouble[] {
  if (liveness !== 'lost' && liveness !== 'suspect') return []
  return [{ text: `${id} is ${liveness}, ${counted(instances, 'instance')} on it`, next: `rubato events --subject ${id}` }]
}

function restingPool({ name, cooling }: FleetStatus['pools'][number], nowMs: number): readonly Trouble[] {
  if (cooling === null || cooling.untilMs <= nowMs) return []
  const seconds = Math.ceil((cooling.untilMs - nowMs) / 1000)
  return [{ text: `${name} rests for ${seconds} s: ${cooling.reason}`, next: 'rubato fleet status' }]
}

function nearBudget({ projectedUsd, budgetUsdPerMonth }: FleetStatus): readonly Check[] {
  if (budgetUsdPerMonth === null || projectedUsd < NEAR_BUDGET * budgetUsdPerMonth) return []
  const text = `$${projectedUsd.toFixed(2)} of this month's $${budgetUsdPerMonth.toFixed(2)} are spent or committed`
  return [
    { name: 'budget', outcome: 'warning', text, next: 'raise budgetUsdPerMonth, or let less run; nothing is bought beyond it' },
  ]
}
