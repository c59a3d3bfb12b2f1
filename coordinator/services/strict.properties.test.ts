import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { specHashOf } from '../../shared/canonical.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import { modelCluster } from '../../test/builders/model-cluster.ts'
import { anAppSpec, anUpdate, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { removeApp } from './deploy.ts'
import { CLOCK_RATE_BOUND, STRICT_MARGIN_MS, strictWaitMs } from './service-plan.ts'

const WEB = 'shop/web'

interface Rules {
  readonly singletonStrictMs: number | null
  readonly stopGraceMs: number
  readonly order: 'start-first' | 'stop-first'
  readonly drainMs: number
}

const specOf = ({ singletonStrictMs, stopGraceMs, order, drainMs }: Rules): AppSpec => {
  const unit = aUnitSpec({ singletonStrictMs, stopGraceMs, drainMs })
  return anAppSpec({ services: [aServiceSpec({ unit, specHash: specHashOf(unit), update: anUpdate({ order, monitorMs: 0 }) })] })
}
const promisedMs = ({ singletonStrictMs, stopGraceMs }: Rules) =>
  Math.ceil(((singletonStrictMs ?? 0) + stopGraceMs) * CLOCK_RATE_BOUND) + STRICT_MARGIN_MS

const rules: fc.Arbitrary<Rules> = fc.record({
  singletonStrictMs: fc.constantFrom(null, 15_000, 40_000, 90_000),
  stopGraceMs: fc.constantFrom(0, 10_000),
  order: fc.constantFrom('start-first' as const, 'stop-first' as const),
  // Makes more revisions that differ than an app keeps.
  drainMs: fc.nat(20),
})
const strictRules = rules.map((each) => ({ ...each, singletonStrictMs: each.singletonStrictMs ?? 60_000 }))
const step = fc.oneof({ weight: 5, arbitrary: rules }, { weight: 1, arbitrary: fc.constant('down' as const) })

describe('strict singletons', () => {
  it('row 24: whatever is deployed in a cut, the wait of what runs there never sinks and nothing runs beside it', async () => {
    await fc.assert(
      fc.asyncProperty(strictRules, fc.array(step, { maxLength: 9 }), fc.nat(5), async (first, steps, pauseS) => {
        const cluster = await modelCluster(2)
        await cluster.deploy(specOf(first))
        await cluster.run(4)
        const [given] = cluster.runs(WEB)
        await cluster.setNode(given?.nodeId ?? '', { up: false })
        const cutAtMs = cluster.clock.monotonicMs()
        const waitMs = promisedMs(first)
        cluster.watch = () => {
          const record = cluster.state.snapshot.instances().get(given?.id ?? '')
          const app = cluster.state.snapshot.get('app', 'shop')
          if (record !== undefined && app !== undefined)
            expect(strictWaitMs({ app, spec: app.spec.services[0] ?? null }, record)).toBe(waitMs)
          if (cluster.clock.monotonicMs() - cutAtMs < waitMs)
            expect(cluster.ready(WEB).filter((id) => id !== given?.id)).toEqual([])
        }
        for (const move of steps) {
          if (move === 'down') {
            const app = cluster.state.snapshot.get('app', 'shop')
            if (app && !app.removing)
              await cluster.state.commit(removeApp(cluster.state, { name: 'shop', by: 'operator:test' }).change)
          } else await cluster.deploy(specOf(move))
          await cluster.run(pauseS)
        }
        await cluster.deploy(specOf(first))
        await cluster.run(waitMs / 1_000 + 80)
        expect(cluster.ready(WEB)).toHaveLength(1)
        await cluster.stop()
      }),
      { numRuns: 40 },
    )
  }, 60_000)
})
