/** The service, machines and model that the elasticity bench uses for every trace and policy; printed with its report. */
import type { ServiceSpec } from '../../shared/model/app.ts'
import { demandOf, unitFor } from '../../coordinator/simulate/demand.ts'
import { simPool } from '../../coordinator/simulate/pools.ts'
import type { RunSetup } from '../../coordinator/simulate/run.ts'
import { DEFAULT_SERVICE_MODEL, serviceTables } from '../../coordinator/simulate/service-model.ts'
import type { Trace } from '../../coordinator/simulate/trace.ts'
import { aPool } from '../builders/records.ts'
import { aScale, aServiceSpec, aUnitSpec } from '../builders/specs.ts'

/** How large the service is. */
export interface Scale {
  /** Demand's 99th percentile, in instances' worth. */
  readonly peak: number
  /** Instances that one machine holds. */
  readonly perMachine: number
}

export const DEFAULT_SCALE: Scale = { peak: 20, perMachine: 4 }
export const START_MS = 10_000

const DAY_MS = 86_400_000
/** Measured at most; what lies before is history. */
export const MEASURED_DAYS = 28
/** Demand may rise to so many times its 99th percentile before a limit stops every policy. */
const MOST_OVER_PEAK = 10

export function setupFor(trace: Trace, run: { readonly bootMs: number; readonly seed: number; readonly scale: Scale }): RunSetup {
  const { peak, perMachine } = run.scale
  const max = Math.max(10, Math.ceil(MOST_OVER_PEAK * peak))
  const spec: ServiceSpec = aServiceSpec({
    unit: aUnitSpec({ reservations: { cpuMillis: 500, memoryBytes: 512 * 2 ** 20 }, load: [{ kind: 'cpu' }] }),
    scale: aScale({ max, predict: 'auto' }),
  })
  const pool = aPool({
    capacity: { cpuMillis: 500 * perMachine, memoryBytes: perMachine * 2 ** 30, diskBytes: 20 * 2 ** 30, slots: 50 + perMachine },
    max: Math.ceil((1.2 * max) / perMachine),
  })
  const demand = demandOf(trace, unitFor(trace, peak))
  const lengthMs = demand.endMs - demand.startMs
  const fromMs = Math.max(demand.startMs + lengthMs / 3, demand.endMs - MEASURED_DAYS * DAY_MS)
  return {
    demand,
    fromMs: Math.ceil(fromMs / 60_000) * 60_000,
    toMs: demand.endMs,
    app: 'shop',
    spec,
    rules: spec.scale ?? aScale(),
    tables: serviceTables(DEFAULT_SERVICE_MODEL),
    pools: [simPool(pool, 'shop/web', spec, run.bootMs)],
    startTimeMs: START_MS,
    seed: run.seed,
  }
}
