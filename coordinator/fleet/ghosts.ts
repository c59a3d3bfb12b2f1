/**
 * Room that is wanted for what is not there yet, as requests that are planned but never placed: forecast instances, spare
 * slots, and instances on machines that the cloud is about to take away. Reads the state, writes nothing.
 */
import { compare } from '../../shared/compare.ts'
import type { Pool } from '../../shared/model/node.ts'
import { type InstanceId, parseInstanceId } from '../../shared/model/identity.ts'
import { requestOfRecord } from '../placement/node-view.ts'
import type { PlacementRequest } from '../placement/model.ts'
import { type ChargeOf, type RequestContext, requestOf } from '../placement/requests.ts'
import type { InstanceRecord } from '../state/objects.ts'
import type { Snapshot } from '../state/state.ts'
import type { FleetConfig } from './config.ts'
import { INTERRUPTED_BY } from './drain-reasons.ts'
import { type Ghost, GHOST_PRIORITY } from './plan-capacity.ts'

/** Instances that a service will want within the machine lead time, those that it has included. */
export interface Predicted {
  readonly service: string
  readonly count: number
}

/** More than this of one service are not planned ahead at once: a wrong forecast must not buy the cloud. */
const MOST_AHEAD = 500

/** In a stable order. Services that are gone, global or keep data are left out: nothing can be kept free for them. */
export function ghostsOf(input: {
  readonly snapshot: Snapshot
  readonly predicted: readonly Predicted[]
  readonly pools: readonly Pool[]
  readonly config: FleetConfig
  readonly chargeOf?: ChargeOf
}): readonly Ghost[] {
  const { snapshot, pools, config } = input
  return [
    ...predictedGhosts(input),
    ...interruptedGhosts(input),
    ...spareGhosts(pools, config, (pool) => runtimeOf(snapshot, pool)),
  ]
}

function predictedGhosts({ snapshot, predicted, chargeOf }: Parameters<typeof ghostsOf>[0]): Ghost[] {
  const ghosts: Ghost[] = []
  for (const { service, count } of [...predicted].sort((a, b) => compare(a.service, b.service))) {
    const [appName = '', name = ''] = service.split('/')
    const app = snapshot.get('app', appName)
    const spec = app?.spec.services.find((candidate) => candidate.name === name)
    if (!app || app.removing || !spec || spec.mode !== 'replicated') continue
    const present = providedFor(snapshot, snapshot.instancesOf(service))
    const of = { app: appName, spec, revision: app.revision, home: null, ...(chargeOf ? { chargeOf } : {}) }
    ghosts.push(...ghostsAhead(of, count, present))
  }
  return ghosts
}

/**
 * How many instances have a place or look for one. One that is being replaced and its replacement are one (which goes on saying what it
 * replaced when that is long gone); but the place of whoever leaves a node that stays is free in a moment, so that a move buys nothing.
 */
function providedFor(snapshot: Snapshot, records: readonly InstanceRecord[]): number {
  const slots = new Set<number>()
  const replaced = new Set<InstanceId>()
  for (const { id, goal, replaces } of records) {
    if (goal !== 'run') continue
    slots.add(parseInstanceId(id)?.slot ?? 0)
    if (replaces !== null) replaced.add(replaces)
  }
  const leaves = ({ id, goal, nodeId }: InstanceRecord) =>
    (goal !== 'run' || replaced.has(id)) && nodeId !== null && snapshot.get('node', nodeId)?.availability === 'active'
  return slots.size + records.filter(leaves).length
}

/** Those that one service lacks of `count` when `present` of them are provided for. None of one that keeps data. */
export function ghostsAhead(of: RequestContext, count: number, present: number): Ghost[] {
  const service = `${of.app}/${of.spec.name}`
  const missing = Math.min(MOST_AHEAD, (Number.isFinite(count) ? Math.ceil(count) : 0) - present)
  const ghosts: Ghost[] = []
  for (let number = 1; number <= missing; number += 1) {
    const request = requestOf(`${service}/ahead-${number}`, of)
    if (request.volumes.length > 0) break
    ghosts.push({ request: asGhost(request), why: `${service}, as forecast` })
  }
  return ghosts
}

function interruptedGhosts({ snapshot, chargeOf }: Parameters<typeof ghostsOf>[0]): Ghost[] {
  const ghosts: Ghost[] = []
  for (const node of snapshot.all('node').values()) {
    if (node.availability !== 'draining' || node.drain?.by !== INTERRUPTED_BY) continue
    for (const record of snapshot.get('assignments', node.id)?.instances ?? []) {
      if (record.goal !== 'run') continue
      const { service, app } = parseInstanceId(record.id) ?? { service: '', app: '' }
      const siblings = snapshot.instancesOf(`${app}/${service}`)
      if (siblings.some((other) => other.replaces === record.id && other.goal === 'run')) continue
      const request = requestOfRecord(record, snapshot, chargeOf)
      if (request && !request.global && request.home === null)
        ghosts.push({ request: asGhost(request), why: `${record.id}, whose machine is taken away` })
    }
  }
  return ghosts
}

/** Spare slots, of the cluster and of each pool. `runtimeOf`: what the nodes of a pool can run, or those of all. */
export function spareGhosts(
  pools: readonly Pool[],
  config: FleetConfig,
  runtimeOf: (pool: Pool | null) => PlacementRequest['runtime'],
): Ghost[] {
  const slots = (count: number, pool: Pool | null): Ghost[] =>
    Array.from({ length: count }, (_, index) => ({
      request: { ...spareRequest(pool, index + 1, config), runtime: runtimeOf(pool) },
      why: `${count} spare slot${count === 1 ? '' : 's'}${pool ? ` of pool ${pool.name}` : ''}`,
    }))
  return [...slots(config.spareSlots, null), ...pools.flatMap((pool) => slots(pool.spareSlots ?? 0, pool))]
}

/** What the nodes there can run: one without an engine takes no containers, one with an engine may take nothing else. */
function runtimeOf(snapshot: Snapshot, pool: Pool | null): 'docker' | 'process' {
  for (const node of snapshot.all('node').values())
    if ((pool === null || node.pool === pool.name) && !node.runtimes.includes('process')) return 'docker'
  return 'process'
}

/** An instance of the size that the configuration names; for a pool, one that its taints do not keep away. */
function spareRequest(pool: Pool | null, number: number, config: FleetConfig): PlacementRequest {
  const service = pool ? `~spare/${pool.name}` : '~spare'
  return {
    id: `${service}/${number}`,
    service,
    group: service,
    charge: { cpuMillis: config.spareSlotCpuMillis, memoryBytes: config.spareSlotMemoryBytes, diskBytes: 0 },
    rules: {
      constraints: [],
      spreadOver: [],
      maxPerNode: null,
      affinity: null,
      tolerates: pool?.taints ?? [],
      pools: pool ? [pool.name] : [],
      strategy: null,
      platform: null,
      priority: GHOST_PRIORITY,
    },
    hostPorts: [],
    runtime: 'process',
    images: [],
    volumes: [],
    home: null,
    near: [],
    avoid: [],
    affinityRequired: false,
    global: false,
  }
}

function asGhost(request: PlacementRequest): PlacementRequest {
  return {
    ...request,
    id: `~${request.id}`,
    group: `~${request.group}`,
    rules: { ...request.rules, priority: GHOST_PRIORITY },
  }
}
