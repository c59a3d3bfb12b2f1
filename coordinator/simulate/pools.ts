/** Pools for a run: how many instances of the service one machine holds follows from what the service is charged. Pure. */
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { Pool } from '../../shared/model/node.ts'
import { reservedCharge } from '../placement/requests.ts'
import type { SimPool } from './world.ts'

export function simPool(pool: Pool, service: string, spec: ServiceSpec, bootMs: number): SimPool {
  const charge = reservedCharge(service, spec.unit)
  const { capacity } = pool
  const fits = (total: number, each: number) => (each > 0 ? Math.floor(total / each) : Number.POSITIVE_INFINITY)
  const holds = Math.min(
    fits(capacity.cpuMillis, charge.cpuMillis),
    fits(capacity.memoryBytes, charge.memoryBytes),
    fits(capacity.diskBytes, charge.diskBytes),
    capacity.slots,
    spec.placement.maxPerNode ?? Number.POSITIVE_INFINITY,
  )
  return { ...pool, holds, bootMs }
}
