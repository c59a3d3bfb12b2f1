import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseInstanceId } from '../../shared/model/identity.ts'
import { type ModelCluster, modelCluster } from '../../test/builders/model-cluster.ts'
import { anAppSpec, aServiceSpec, anUpdate } from '../../test/builders/specs.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import { scaleService } from './deploy.ts'

const WEB = 'shop/web'
const spec = (fields: Partial<ServiceSpec> = {}) =>
  anAppSpec({ services: [aServiceSpec({ update: anUpdate({ monitorMs: 2_000 }), ...fields })] })
const slots = (cluster: ModelCluster, service = WEB) =>
  cluster.runs(service).map((record) => parseInstanceId(record.id)?.slot ?? 0)

type Step =
  | { kind: 'deploy'; replicas: number; version: number; order: 'start-first' | 'stop-first' }
  | { kind: 'scale'; count: number }
  | { kind: 'lose' | 'return' | 'drain' | 'undrain'; node: number }
  | { kind: 'fail'; pick: number }
  | { kind: 'crash' }
  | { kind: 'wait'; seconds: number }

const node = fc.integer({ min: 1, max: 4 })
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    kind: fc.constant('deploy' as const),
    replicas: fc.integer({ min: 1, max: 5 }),
    version: fc.integer({ min: 1, max: 4 }),
    order: fc.constantFrom('start-first' as const, 'stop-first' as const),
  }),
  fc.record({ kind: fc.constant('scale' as const), count: fc.integer({ min: 0, max: 6 }) }),
  fc.record({ kind: fc.constantFrom('lose' as const, 'return' as const, 'drain' as const, 'undrain' as const), node }),
  fc.record({ kind: fc.constant('fail' as const), pick: fc.nat(10) }),
  fc.constant({ kind: 'crash' as const }),
  fc.record({ kind: fc.constant('wait' as const), seconds: fc.integer({ min: 1, max: 12 }) }),
)

describe('convergence', () => {
  it('I2, I10: whatever happened, it ends with exactly the wanted instances and no identity ran twice', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 14 }), async (steps) => {
        const cluster = await modelCluster(4)
        cluster.badHashes.add('v4')
        const homes = new Map<string, string>()
        cluster.watch = () => {
          for (const record of cluster.state.snapshot.instances().values()) {
            if (record.nodeId === null) continue
            expect(homes.get(record.id) ?? record.nodeId).toBe(record.nodeId)
            homes.set(record.id, record.nodeId)
          }
          const perSlot = new Map<number, number>()
          for (const slot of slots(cluster)) perSlot.set(slot, (perSlot.get(slot) ?? 0) + 1)
          expect(Math.max(0, ...perSlot.values())).toBeLessThanOrEqual(2)
        }
        await cluster.deploy(spec({ replicas: 2, specHash: 'v1' }))
        await cluster.run(4)
        for (const move of steps) await apply(cluster, move)
        // The faults end; the cluster must come to rest.
        for (let i = 1; i <= 4; i += 1) await cluster.setNode(`n-${i}`, { up: true, availability: 'active' })
        const present = cluster.state.snapshot.get('app', 'shop')?.spec.services[0]
        if (present?.specHash === 'v4') await cluster.deploy(spec({ replicas: 2, specHash: 'v1' }))
        await cluster.run(120)
        const wantedSpec = cluster.state.snapshot.get('app', 'shop')?.spec.services[0]
        const record = cluster.state.snapshot.get('service', WEB)
        const wanted = record?.pinned ?? record?.desired ?? -1
        expect(cluster.ready(WEB)).toHaveLength(wanted)
        expect(new Set(slots(cluster)).size).toBe(wanted)
        expect(
          [...cluster.state.snapshot.instances().values()].filter((instance) => instance.specHash !== wantedSpec?.specHash),
        ).toEqual([])
        expect(cluster.state.snapshot.instances().size).toBe(wanted)
        const revision = cluster.state.snapshot.revision
        await cluster.run(70)
        expect(cluster.state.snapshot.revision - revision).toBeLessThanOrEqual(2)
        await cluster.stop()
      }),
      { numRuns: 60 },
    )
  }, 60_000)

  it('I4: voluntary disruption never takes the ready instances below what is wanted', async () => {
    const calm = step.filter(
      (move) =>
        move.kind === 'wait' ||
        move.kind === 'drain' ||
        move.kind === 'undrain' ||
        (move.kind === 'deploy' && move.order === 'start-first'),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(calm, { maxLength: 10 }), async (steps) => {
        const cluster = await modelCluster(4)
        cluster.badHashes.add('v4')
        await cluster.deploy(spec({ replicas: 3, specHash: 'v1' }))
        await cluster.run(5)
        cluster.watch = () => expect(cluster.ready(WEB).length).toBeGreaterThanOrEqual(3)
        for (const move of steps) await apply(cluster, move.kind === 'deploy' ? { ...move, replicas: 3 } : move)
        await cluster.run(20)
        await cluster.stop()
      }),
      { numRuns: 60 },
    )
  }, 60_000)
})

async function apply(cluster: ModelCluster, move: Step): Promise<void> {
  switch (move.kind) {
    case 'deploy':
      await cluster.deploy(
        spec({
          replicas: move.replicas,
          specHash: `v${move.version}`,
          update: anUpdate({ monitorMs: 2_000, order: move.order }),
        }),
      )
      break
    case 'scale':
      await cluster.state.commit(scaleService(cluster.state, { app: 'shop', service: 'web', count: move.count, by: 't' }).change)
      break
    case 'lose':
    case 'return':
      await cluster.setNode(`n-${move.node}`, { up: move.kind === 'return' })
      break
    case 'drain':
    case 'undrain':
      await cluster.setNode(`n-${move.node}`, { availability: move.kind === 'drain' ? 'draining' : 'active' })
      break
    case 'fail': {
      const all = [...cluster.state.snapshot.instances().keys()].sort()
      cluster.fail(all[move.pick % Math.max(1, all.length)] ?? '')
      break
    }
    case 'crash':
      await cluster.crashCoordinator()
      break
    case 'wait':
      await cluster.run(move.seconds)
  }
}
