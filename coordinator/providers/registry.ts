/** The clouds of a configuration. */
import type { Clock } from '../../shared/clock.ts'
import type { Files } from '../../shared/files.ts'
import type { Logger } from '../../shared/logger.ts'
import { capacityOf, type OfferingSettings, type ProviderSettings } from '../pool-settings.ts'
import { createExecProvider } from './exec/exec-provider.ts'
import { createLocalProvider } from './local/local-provider.ts'
import type { Processes } from './processes.ts'
import type { Offering, Provider } from './provider.ts'

export interface ProviderRegistryDeps {
  /** Absolute. */
  readonly stateDir: string
  /** Starts an agent of this installation: for local providers that name no command of their own. */
  readonly agentCommand: readonly string[]
  readonly processes: Processes
  readonly files: Files
  readonly removeTree: (path: string) => Promise<void>
  readonly clock: Clock
  readonly logger: Logger
}

/** Every configured provider by its name. */
export function createProviders(
  settings: Readonly<Record<string, ProviderSettings>>,
  deps: ProviderRegistryDeps,
): ReadonlyMap<string, Provider> {
  return new Map(Object.entries(settings).map(([name, provider]) => [name, createProvider(name, provider, deps)]))
}

function createProvider(name: string, settings: ProviderSettings, deps: ProviderRegistryDeps): Provider {
  const offerings = offeringsOf(settings.offerings)
  const logger = deps.logger.with({ provider: name })
  switch (settings.kind) {
    case 'local':
      return createLocalProvider({
        ...deps,
        name,
        offerings,
        logger,
        agentCommand: settings.agentCommand ?? deps.agentCommand,
        engine: settings.engine,
        dockerSocket: settings.dockerSocket,
      })
    case 'exec':
      return createExecProvider({
        name,
        offerings,
        logger,
        command: settings.command,
        processes: deps.processes,
        timeoutsMs: { create: settings.createTimeout, delete: settings.deleteTimeout, list: settings.listTimeout },
      })
  }
}

function offeringsOf(settings: Readonly<Record<string, OfferingSettings>>): readonly Offering[] {
  return Object.entries(settings).map(([name, offering]) => ({
    name,
    capacity: capacityOf(offering),
    priceUsdPerHour: offering.priceUsdPerHour ?? 0,
  }))
}
