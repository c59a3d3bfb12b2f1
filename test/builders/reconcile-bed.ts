/** The agent’s reconciler on a model engine, without link and gateway. */
import { expect } from 'vitest'
import { UnavailableError } from '../../shared/errors.ts'
import { silentLogger } from '../../shared/logger.ts'
import { INSTANCE_PHASES, type InstanceStatus } from '../../shared/model/observation.ts'
import type { UnitSpec } from '../../shared/model/unit.ts'
import type { Assignment } from '../../shared/protocol/frames.ts'
import { aUnitSpec } from '../builders/specs.ts'
import { fakeEngine, type FakeEngineOptions } from '../fakes/fake-runtime.ts'
import { virtualClock } from '../fakes/virtual-clock.ts'
import { createProber } from '../../agent/health/prober.ts'
import type { ProbeResult } from '../../agent/health/plan-health.ts'
import type { Runtime } from '../../agent/runtime/runtime.ts'
import { createReconciler, type ReconcilerDeps } from '../../agent/reconcile/reconcile-loop.ts'

/** The instance that tests are about. */
export const WEB = 'shop/web/1/1'

/** Of `WEB`, to run, unless told otherwise. */
export function assignment(fields: Partial<Assignment> & { unit?: UnitSpec } = {}): Assignment {
  return { instance: WEB, specHash: 'hash-1', goal: 'run', unit: aUnitSpec(), ...fields }
}

/**
 * One machine whose engine outlives its agents. `agent()` begins a life of the reconciler on it, which logs what it says and
 * does, and fails the test when a phase goes back; `world` is what its probes and gateway tell.
 */
export function machine(options: Partial<FakeEngineOptions> = {}) {
  const clock = virtualClock()
  const engine = fakeEngine({ clock, ...options })
  const world = { health: { healthy: true, text: '' } as ProbeResult, inFlight: 0, refuseStart: false }
  const agent = (extraDeps: Partial<ReconcilerDeps> = {}, wrap: (runtime: Runtime) => Runtime = (runtime) => runtime) => {
    const log: string[] = []
    const statuses = new Map<string, InstanceStatus>()
    const gone: string[] = []
    const runtime = wrap(engine.runtime({ clusterId: 'c', nodeId: 'n-1' }))
    const reconciler = createReconciler({
      runtimes: [runtime],
      prober: createProber({
        clock,
        logger: silentLogger(),
        network: { http: async () => world.health, tcp: async () => world.health },
      }),
      clock,
      logger: silentLogger(),
      hooks: {
        async onStart() {
          if (world.refuseStart) throw new UnavailableError('no watchdog')
        },
        async onReady(instance, target) {
          log.push(`open ${target.address}`)
          void instance
          return [{ containerPort: 80, protocol: 'http', gatewayPort: 20_000 }]
        },
        async onWithdraw() {
          log.push('withdraw')
        },
        inFlight: () => world.inFlight,
        async onGone() {
          log.push('gone')
        },
      },
      extra: () => ({ environment: {}, hosts: [] }),
      emit(changed, left) {
        for (const status of changed) {
          const before = statuses.get(status.instance)
          if (before?.phase !== status.phase) log.push(status.phase)
          if (before && before.phase !== 'failed')
            expect(INSTANCE_PHASES.indexOf(status.phase)).toBeGreaterThanOrEqual(INSTANCE_PHASES.indexOf(before.phase))
          if (before && before.healthy !== status.healthy) log.push(status.healthy ? 'healthy' : 'unhealthy')
          statuses.set(status.instance, status)
        }
        gone.push(...left)
        for (const instance of left) statuses.delete(instance)
      },
      ...extraDeps,
    })
    return { reconciler, log, statuses, gone, runtime, status: () => statuses.get(WEB) }
  }
  return { clock, engine, world, agent }
}
