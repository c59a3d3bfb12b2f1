/** Pools for a run: how many instances of the service one machine holds follows from what the service asks for. Pure. */
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { Pool } from '../../shared/model/node.ts'
import { assumedNode, eligibleNodeIds } from '../placement/plan-offline.ts'
import { requestOf } from '../placement/requests.ts'
import type { SimPool } from './world.ts'

export function simPool(pool: Pool, service: string, spec: ServiceSpec, bootMs: number): SimPool {
  const [app = ''] = service.split('/')
  const { charge, avoid, affinityRequired } = requestOf(`${service}/1/1`, { app, spec, revision: 1, home: null })
  const { capacity, labels, taints, provider, zone } = pool
  const node = assumedNode(pool.name, capacity, { labels, taints, pool: pool.name, provider, zone })
  if (eligibleNodeIds(app, spec, [node]).length === 0) return { ...pool, holds: 0, bootMs }
  const fits = (total: number, each: number) => (each > 0 ? Math.floor(total / each) : Number.POSITIVE_INFINITY)
  const holds = Math.min(
    fits(capacity.cpuMillis, charge.cpuMillis),
    fits(capacity.memoryBytes, charge.memoryBytes),
    fits(capacity.diskBytes, charge.diskBytes),
    capacity.slots,
    spec.placement.maxPerNode ?? Number.POSITIVE_INFINITY,
    affinityRequired && avoid.includes(service) ? 1 : Number.POSITIVE_INFINITY,
  )
  return { ...pool, holds, bootMs }
}
