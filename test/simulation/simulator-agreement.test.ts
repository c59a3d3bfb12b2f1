/**
 * The policy simulator calls the coordinator's plans over a model of its own. Here the whole coordinator with real agents lives
 * through the same demand on the same kind of machines, and both must come to the same counts.
 */
import { describe, expect, it } from 'vitest'
import { rubatoReactive } from '../../coordinator/simulate/policies/rubato.ts'
import { simPool } from '../../coordinator/simulate/pools.ts'
import { runPolicy } from '../../coordinator/simulate/run.ts'
import { DEFAULT_SERVICE_MODEL, serviceTables } from '../../coordinator/simulate/service-model.ts'
import { aPool } from '../builders/records.ts'
import { aContainerSpec, anAppSpec, aScale, aServiceSpec, aUnitSpec } from '../builders/specs.ts'
import { simCluster } from './cluster.ts'

const MINUTE = 60_000
const BOOT_MS = 60_000
const MINUTES = 45
/** Two instances' worth, up to eight within ten minutes, there for ten, and down again. */
const demandAt = (minute: number) => 2 + 6 * Math.max(0, Math.min(1, (minute - 5) / 10, (35 - minute) / 10))

const spec = aServiceSpec({
  replicas: 3,
  scale: aScale({ min: 1, max: 30 }),
  unit: aUnitSpec({
    drainMs: 500,
    reservations: { cpuMillis: 500, memoryBytes: 2 ** 29 },
    containers: [aContainerSpec({ image: 'shop/web:1' })],
  }),
})
const pool = aPool({
  provider: 'fake',
  capacity: { cpuMillis: 2_000, memoryBytes: 2 ** 32, diskBytes: 2 ** 36, slots: 50 },
  max: 20,
})

interface Moment {
  readonly wanted: number
  readonly ready: number
  readonly machines: number
}

/** The whole coordinator, minute by minute. */
async function lived(): Promise<readonly Moment[]> {
  const cluster = await simCluster({ seed: 5, hosts: 0, pools: [pool] })
  try {
    cluster.provider.levers.bootDelayMs = BOOT_MS
    cluster.demand.set('shop/web', 100 * demandAt(0))
    await cluster.deploy(anAppSpec({ services: [spec] }))
    await cluster.until(() => cluster.running().size >= 3, 'the first instances run', 10 * MINUTE)
    const moments: Moment[] = []
    for (let minute = 0; minute < MINUTES; minute += 1) {
      for (let part = 0; part < 12; part += 1) {
        cluster.demand.set('shop/web', 100 * demandAt(minute + part / 12))
        await cluster.advance(5_000)
      }
      const { state } = cluster.lead()
      moments.push({
        wanted: state.snapshot.get('service', 'shop/web')?.desired ?? 0,
        ready: cluster.running().size,
        machines: cluster.provider.live().length,
      })
    }
    return moments
  } finally {
    await cluster.stop()
  }
}

/** The simulator's policy. */
function simulated(): readonly Moment[] {
  const { timeline } = runPolicy(rubatoReactive, {
    demand: { startMs: 0, endMs: MINUTES * MINUTE, at: (atMs) => demandAt(atMs / MINUTE) },
    fromMs: 0,
    toMs: MINUTES * MINUTE,
    app: 'shop',
    spec,
    rules: spec.scale ?? aScale(),
    tables: serviceTables(DEFAULT_SERVICE_MODEL),
    pools: [simPool(pool, 'shop/web', spec, BOOT_MS)],
    startTimeMs: 2_000,
    seed: 5,
    record: true,
  })
  const moments: Moment[] = []
  for (let minute = 0; minute < MINUTES; minute += 1) {
    const point = timeline.findLast(({ atMs }) => atMs < (minute + 1) * MINUTE)
    if (point !== undefined) moments.push({ wanted: point.wanted, ready: point.ready, machines: point.machines })
  }
  return moments
}

describe('the simulator and the whole coordinator', () => {
  it('come to the same counts under the same demand', async () => {
    const real = await lived()
    const model = simulated()
    expect(model).toHaveLength(real.length)
    const off = (of: (moment: Moment) => number) => real.map((moment, index) => Math.abs(of(moment) - of(model[index] ?? moment)))
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
    const both = real.map((moment, index) => `${index}: ${JSON.stringify(moment)} ${JSON.stringify(model[index])}`).join('\n')
    expect(Math.max(...real.map(({ wanted }) => wanted)), both).toBeGreaterThanOrEqual(10)
    expect(mean(off(({ wanted }) => wanted)), both).toBeLessThan(0.7)
    expect(mean(off(({ ready }) => ready)), both).toBeLessThan(0.7)
    expect(mean(off(({ machines }) => machines)), both).toBeLessThan(0.7)
    const [last, lastModel] = [real.at(-1), model.at(-1)]
    expect(Math.abs((last?.machines ?? 0) - (lastModel?.machines ?? 9)), both).toBeLessThanOrEqual(1)
  })
})
