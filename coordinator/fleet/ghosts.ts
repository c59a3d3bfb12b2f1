/**
 * Room that is wanted for what is not there yet, as requests that are planned but never placed: forecast instances, spare
 * slots, and instances on machines that the cloud is about to take away. Reads the state, writes nothing.
 */
import { compare } from '../../shared/compare.ts'
import type { Pool } from '../../shared/model/node.ts'
import { parseInstanceId } from '../../shared/model/identity.ts'
import { requestOfRecord } from '../placement/node-view.ts'
import type { PlacementRequest } from '../placement/model.ts'
import { type ChargeOf, requestOf } from '../placement/requests.ts'
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
  return [...predictedGhosts(input), ...interruptedGhosts(input), ...spareGhosts(input)]
}

function predictedGhosts({ snapshot, predicted, chargeOf }: Parameters<typeof ghostsOf>[0]): Ghost[] {
  const ghosts: Ghost[] = []
  for (const { service, count } of [...predicted].sort((a, b) => compare(a.service, b.service))) {
    const [appName = '', name = ''] = service.split('/')
    const app = snapshot.get('app', appName)
    const spec = app?.spec.services.find((candidate) => candidate.name === name)
    if (!app || app.removing || !spec || spec.mode !== 'replicated') continue
    // By slot: an instance and its replacement beside it are one, and one that has taken a place keeps the name of whose it was.
    const present = new Set<number>()
    for (const { goal, id } of snapshot.instancesOf(service)) if (goal === 'run') present.add(parseInstanceId(id)?.slot ?? 0)
    const missing = Math.min(MOST_AHEAD, (Number.isFinite(count) ? Math.ceil(count) : 0) - present.size)
    for (let number = 1; number <= missing; number += 1) {
      const request = requestOf(`${service}/ahead-${number}`, {
        app: appName,
        spec,
        revision: app.revision,
        home: null,
        ...(chargeOf ? { chargeOf } : {}),
      })
      if (request.volumes.length > 0) break
      ghosts.push({ request: asGhost(request), why: `${service}, as forecast` })
    }
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

function spareGhosts({ snapshot, pools, config }: Parameters<typeof ghostsOf>[0]): Ghost[] {
  const slots = (count: number, pool: Pool | null): Ghost[] =>
    Array.from({ length: count }, (_, index) => ({
      request: { ...spareRequest(pool, index + 1, config), runtime: runtimeOf(snapshot, pool) },
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
