/** The service, machines and model that the elasticity bench uses for every trace and policy; printed with its report. */
import type { ServiceSpec } from '../../shared/model/app.ts'
import { demandOf, unitFor } from '../../coordinator/simulate/demand.ts'
import { simPool } from '../../coordinator/simulate/pools.ts'
import type { RunSetup } from '../../coordinator/simulate/run.ts'
import { DEFAULT_SERVICE_MODEL, serviceTables } from '../../coordinator/simulate/service-model.ts'
import type { Trace } from '../../coordinator/simulate/trace.ts'
import { aPool } from '../builders/records.ts'
import { aScale, aServiceSpec, aUnitSpec } from '../builders/specs.ts'

/** Demand's 99th percentile, in instances' worth. */
export const P99_INSTANCES = 20
const DAY_MS = 86_400_000
/** Measured at most; what lies before is history. */
export const MEASURED_DAYS = 28

export const SPEC: ServiceSpec = aServiceSpec({
  unit: aUnitSpec({ reservations: { cpuMillis: 500, memoryBytes: 512 * 2 ** 20 }, load: [{ kind: 'cpu' }] }),
  scale: aScale({ max: 200, predict: 'auto' }),
})
/** Four instances to a machine. */
const POOL = aPool({
  capacity: { cpuMillis: 2_000, memoryBytes: 4 * 2 ** 30, diskBytes: 20 * 2 ** 30, slots: 50 },
  max: 60,
})

export function setupFor(trace: Trace, bootMs: number): RunSetup {
  const demand = demandOf(trace, unitFor(trace, P99_INSTANCES))
  const lengthMs = demand.endMs - demand.startMs
  const fromMs = Math.max(demand.startMs + lengthMs / 3, demand.endMs - MEASURED_DAYS * DAY_MS)
  return {
    demand,
    fromMs: Math.ceil(fromMs / 60_000) * 60_000,
    toMs: demand.endMs,
    app: 'shop',
    spec: SPEC,
    rules: SPEC.scale ?? aScale(),
    tables: serviceTables(DEFAULT_SERVICE_MODEL),
    pools: [simPool(POOL, 'shop/web', SPEC, bootMs)],
    startTimeMs: 10_000,
    seed: 7,
  }
}
