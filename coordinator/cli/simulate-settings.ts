/**
 * Pools, prices and settings of a simulation: a file as the coordinator reads it, checked by the coordinator's own rules, and what of it,
 * or of the service, has no effect in a simulation.
 */
import { resolve } from 'node:path'
import { ConfigError, type Fault } from '../../shared/errors.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { Pool } from '../../shared/model/node.ts'
import { configError, loadSettings } from '../../shared/settings.ts'
import { COORDINATOR_ENV_PREFIX, coordinatorSettings } from '../config.ts'
import { decidingConfig } from '../deciding-settings.ts'
import { type PoolSettings, type ProviderSettings, providersSchema } from '../pool-settings.ts'
import { hasVolumes } from '../services/service-plan.ts'
import type { PolicySettings } from '../simulate/policy.ts'
import { CliError, type CliIo, EXIT } from './io.ts'

export interface SimulationSettings {
  readonly pools: readonly Pool[]
  readonly policy: PolicySettings
  /** Settings that were given and have no effect. */
  readonly ineffective: readonly string[]
}

/** Two CPUs and 4 GiB for ten cents: a common small machine. */
const DEFAULT_FILE = `pools:
  - { name: machine, provider: assumed, capacity: { cpus: 2, memory: 4G, disk: 40G, slots: 50 }, priceUsdPerHour: 0.1, max: 1000 }
`
/** Of the settings that decisions are made by, those that the model lives by. All others of these parts are told when they are given. */
const EFFECTIVE: ReadonlySet<string> = new Set([
  'fleet.minNodeAge',
  'fleet.downInterval',
  'fleet.drainDeadline',
  'fleet.buyHold',
  'fleet.maxBuysPerPass',
  'fleet.headroomPercent',
  'fleet.spareSlots',
  'fleet.spareSlotCpus',
  'fleet.spareSlotMemoryMiB',
  'fleet.maxParallelDrains',
  'fleet.minSavingsRatio',
  'placement.strategy',
  'placement.weights.service',
  'placement.weights.use',
  'placement.weights.spreadOver',
])

/** `file` null: one common kind of machine, and what a coordinator does that was told nothing. Refuses with every fault. */
export async function readSettings(io: CliIo, file: string | null): Promise<SimulationSettings> {
  if (file !== null && (await io.readText(resolve(io.cwd, file))) === null)
    throw new CliError(EXIT.notFound, `There is no file ${file}.`, 'Name a YAML file with "pools:".')
  const faults: Fault[] = []
  try {
    const loaded = await loadSettings(coordinatorSettings, COORDINATOR_ENV_PREFIX, {
      argv: ['--config', file ?? 'default'],
      // What a coordinator on this host was told by its environment is none of a simulation's business.
      env: {},
      readFile: async (path) => (file === null ? DEFAULT_FILE : io.readText(resolve(io.cwd, path))),
      fileMode: (path) => io.modeOf(resolve(io.cwd, path)),
    })
    const { pools, providers } = loaded.values
    if (pools.length === 0) faults.push({ path: 'pools', file: file ?? '', message: 'There are no pools to buy machines from.' })
    const deciding = decidingConfig(loaded, { ...assumedProviders(pools), ...providers }, faults)
    if (faults.length > 0) throw configError(faults)
    const { fleet, forecast, placement } = deciding
    return {
      pools: deciding.pools,
      policy: { fleet, placement, timeZone: forecast.timeZone },
      ineffective: Object.entries(loaded.sources).flatMap(([key, source]) => {
        const isDeciding = source === 'file' && /^(fleet|placement)\./.test(key)
        return isDeciding && !EFFECTIVE.has(key) && !(key === 'fleet.enabled' && fleet.enabled) ? [key] : []
      }),
    }
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new CliError(EXIT.refused, error.message, 'docs/configuration.md shows how pools and settings are written.')
  }
}

/** A simulation calls no cloud: a provider that is not described is one of which nothing is known, neither sizes nor prices. */
function assumedProviders(pools: readonly PoolSettings[]): Readonly<Record<string, ProviderSettings>> {
  return providersSchema.parse(
    Object.fromEntries(pools.map(({ provider }) => [provider, { kind: 'exec', command: ['assumed'] }])),
  )
}

/** The service without what it asks for of others, which are not there. */
export function alone(spec: ServiceSpec): ServiceSpec {
  const { affinity } = spec.placement
  if (affinity === null) return spec
  const own = (names: readonly string[]) => names.filter((name) => name === spec.name)
  const [near, avoid] = [own(affinity.near), own(affinity.avoid)]
  if (near.length === affinity.near.length && avoid.length === affinity.avoid.length) return spec
  return { ...spec, placement: { ...spec.placement, affinity: { ...affinity, near, avoid } } }
}

/** What the service asks for and the model does not know, a sentence each. */
export function unmodelled(spec: ServiceSpec): readonly string[] {
  const { placement, unit } = spec
  const found: string[] = []
  if (placement.scheduler !== undefined)
    found.push(`the scheduler ${placement.scheduler} is not asked; the built-in one chooses the machines`)
  if (hasVolumes(spec)) found.push('local volumes are not kept in place: instances move to other machines')
  if (alone(spec) !== spec) found.push('affinity to other services has no effect: it is alone on its machines')
  if (unit.load.some(({ kind }) => kind === 'memory'))
    found.push('load by memory is replayed as if it divided among the instances')
  if (unit.singletonStrictMs !== null) found.push('singleton: strict has no effect: no agent is ever silent')
  return found
}
