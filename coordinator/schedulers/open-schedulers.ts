/** Makes the schedulers of the configuration; modules are loaded here, once, so that a broken one is known at the start. */
import type { Clock } from '../../shared/clock.ts'
import { type Fault, messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { configError } from '../../shared/settings.ts'
import type { SchedulerConfig } from './config.ts'
import { createHttpScheduler } from './http-scheduler.ts'
import { createModuleScheduler } from './module-scheduler.ts'
import type { Scheduler } from './scheduler.ts'

/** Throws ConfigError that names each module which cannot be used, and why; the others are closed then. */
export async function openSchedulers(
  configs: readonly SchedulerConfig[],
  deps: { readonly clock: Clock; readonly logger: Logger },
): Promise<readonly Scheduler[]> {
  const opened: Scheduler[] = []
  const faults: Fault[] = []
  for (const config of configs) {
    try {
      opened.push(config.kind === 'http' ? createHttpScheduler(config) : await createModuleScheduler({ ...config, ...deps }))
    } catch (error) {
      const what =
        config.kind === 'http'
          ? `It cannot be set up: ${messageOf(error)}.`
          : `${config.path} cannot be used: ${messageOf(error)}.`
      const hint = 'A module exports a function named schedule; see docs/placement.md.'
      faults.push({ path: `schedulers.${config.name}`, message: what, ...(config.kind === 'module' ? { hint } : {}) })
    }
  }
  if (faults.length === 0) return opened
  await Promise.all(opened.map((scheduler) => scheduler.close()))
  throw configError(faults)
}
