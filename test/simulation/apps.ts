/** The apps that scenarios deploy. */
import type { AppSpec, UpdateRules } from '../../shared/model/app.ts'
import { aContainerSpec, anAppSpec, anUpdate, aRestartPolicy, aScale, aServiceSpec, aUnitSpec } from '../builders/specs.ts'

export interface AppOptions {
  readonly name: string
  readonly image: string
  readonly replicas?: number
  /** Scaled by load between these. */
  readonly scale?: readonly [number, number]
  readonly update?: Partial<UpdateRules>
  readonly cpuMillis?: number
  /** Strict singleton: its agent stops it so long after the last contact. */
  readonly strictMs?: number
}

/** One service `web` with a health check, quick to start, to drain and to stop. */
export function anApp(options: AppOptions): AppSpec {
  const { name, image, scale } = options
  const health = {
    probe: { kind: 'http' as const, port: 80, path: '/' },
    intervalMs: 3_000,
    timeoutMs: 1_000,
    retries: 2,
    startPeriodMs: 0,
    startIntervalMs: 1_000,
  }
  return anAppSpec({
    name,
    services: [
      aServiceSpec({
        replicas: options.replicas ?? 2,
        scale: scale ? aScale({ min: scale[0], max: scale[1], windowMs: 10_000, downWindowMs: 15_000, coolDownMs: 1_000 }) : null,
        update: anUpdate({ monitorMs: 2_000, progressDeadlineMs: 20_000, ...options.update }),
        unit: aUnitSpec({
          drainMs: 500,
          stopGraceMs: 1_000,
          reservations: { cpuMillis: options.cpuMillis ?? 250, memoryBytes: 2 ** 26 },
          singletonStrictMs: options.strictMs ?? null,
          containers: [aContainerSpec({ image, health, restart: aRestartPolicy({ delayMs: 500 }) })],
        }),
      }),
    ],
  })
}
