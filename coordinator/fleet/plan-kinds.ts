/**
 * What will a new machine of a pool be? What the pool promises, less what the machines that joined turned out to lack: a promise that
 * did not come true is not repeated. What a node says is its own word, so most of them decide and no single one does. Pure.
 */
import type { NodeId } from '../../shared/model/identity.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import type { Capacity } from '../../shared/model/resources.ts'
import type { PlacementNode } from '../placement/model.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import type { Kind } from './plan-packing.ts'

/** Of fewer nodes one that lies, or is broken, could be the middle one. */
const WITNESSES = 3
/** What fewer than that may talk a pool down to: its machines are still bought for what is small, and soon there are more to ask. */
const DOUBTED_SHARE = 0.8

export function kindsOf(
  pools: readonly Pool[],
  nodes: readonly PlacementNode[],
  machines: readonly MachineRecord[],
): ReadonlyMap<string, Kind> {
  const ordered = new Map<NodeId, Capacity>()
  for (const { nodeId, capacity } of machines) if (nodeId !== null) ordered.set(nodeId, capacity)
  const byPool = new Map<string, PlacementNode[]>()
  for (const node of nodes) {
    const here = node.pool === null ? undefined : byPool.get(node.pool)
    if (here) here.push(node)
    else if (node.pool !== null) byPool.set(node.pool, [node])
  }
  return new Map(pools.map((pool) => [pool.name, kindOf(pool, byPool.get(pool.name) ?? [], ordered)]))
}

/** What part of its promise a machine keeps: of the order, or of what its pool says by now if that is less. At most 1. */
export function offeredShare(offered: Capacity, ordered: Capacity, pool: Pool, key: keyof Capacity): number {
  const promised = Math.min(ordered[key], pool.capacity[key])
  return promised > 0 ? Math.min(1, offered[key] / promised) : 1
}

function kindOf(pool: Pool, joined: readonly PlacementNode[], ordered: ReadonlyMap<NodeId, Capacity>): Kind {
  const kept = (key: keyof Capacity) => {
    const shares = joined.map(({ id, capacity }) => offeredShare(capacity, ordered.get(id) ?? pool.capacity, pool, key))
    return pool.capacity[key] * middleOf(shares)
  }
  const platform = pool.settings.platform
  // A node that can run nothing says nothing of the next one.
  const able = joined.filter(({ runtimes }) => runtimes.length > 0)
  const assumed = assumedNode(
    `~${pool.name}`,
    {
      cpuMillis: kept('cpuMillis'),
      memoryBytes: kept('memoryBytes'),
      diskBytes: kept('diskBytes'),
      slots: Math.floor(kept('slots')),
    },
    {
      labels: pool.labels,
      taints: pool.taints,
      pool: pool.name,
      provider: pool.provider,
      zone: pool.zone,
      ...(typeof platform === 'string' ? { platform } : {}),
    },
  )
  const node = {
    ...assumed,
    platform: mostOf(able, (each) => each.platform, assumed.platform),
    runtimes: mostOf(able, (each) => each.runtimes, assumed.runtimes),
    engineLabels: labelsOfMost(able),
  }
  return { pool, node }
}

/** The middle share, of two middle ones the larger; 1 when there is none. */
function middleOf(shares: readonly number[]): number {
  if (shares.length === 0) return 1
  const middle = [...shares].sort((a, b) => a - b)[Math.floor(shares.length / 2)] ?? 1
  return shares.length < WITNESSES ? Math.max(DOUBTED_SHARE, middle) : middle
}

/** What most nodes have; of equally many what is assumed, else the first in the order of its text. */
function mostOf<T>(nodes: readonly PlacementNode[], of: (node: PlacementNode) => T, assumed: T): T {
  const votes = new Map<string, { readonly value: T; count: number }>()
  for (const node of nodes) {
    const value = of(node)
    const key = JSON.stringify(value)
    const vote = votes.get(key)
    if (vote) vote.count += 1
    else votes.set(key, { value, count: 1 })
  }
  const own = JSON.stringify(assumed)
  const [first] = [...votes].sort(
    ([a, { count: x }], [b, { count: y }]) => y - x || Number(b === own) - Number(a === own) || (a < b ? -1 : 1),
  )
  return first?.[1].value ?? assumed
}

/** Labels that more than half of the nodes have alike. */
function labelsOfMost(nodes: readonly PlacementNode[]): Readonly<Record<string, string>> {
  const counts = new Map<string, { readonly label: readonly [string, string]; count: number }>()
  for (const { engineLabels } of nodes)
    for (const [key, value] of Object.entries(engineLabels)) {
      const text = JSON.stringify([key, value])
      const seen = counts.get(text)
      if (seen) seen.count += 1
      else counts.set(text, { label: [key, value], count: 1 })
    }
  return Object.fromEntries([...counts.values()].flatMap(({ label, count }) => (2 * count > nodes.length ? [label] : [])))
}
