/** Providers and pools as they are written in the settings, and what becomes of them: which machines may be bought, where, for how much. */
import { z } from 'zod'
import type { Fault } from '../shared/errors.ts'
import type { Pool } from '../shared/model/node.ts'
import type { Capacity } from '../shared/model/resources.ts'
import { bytesSchema, cpusSchema, durationSchema } from '../shared/setting-kinds.ts'

const labelsSchema = z.record(z.string().regex(/^[a-zA-Z0-9][a-zA-Z0-9._/-]{0,127}$/, 'This is no label'), z.coerce.string())
const nameSchema = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'A name is lower-case letters, digits and dashes')

const capacityShape = { cpus: cpusSchema, memory: bytesSchema, disk: bytesSchema, slots: z.number().int().min(1).max(10_000) }
const capacitySchema = z.strictObject({
  ...capacityShape,
  disk: bytesSchema.default(20 * 2 ** 30),
  slots: capacityShape.slots.default(50),
})

/** A machine type as a provider's settings describe it. */
const offeringSchema = z.strictObject({
  cpus: cpusSchema,
  memory: bytesSchema,
  disk: bytesSchema.default(20 * 2 ** 30),
  slots: capacityShape.slots.default(50),
  /** null: not known; machines of this host cost nothing. */
  priceUsdPerHour: z.number().min(0).nullable().default(null),
})
export type OfferingSettings = z.output<typeof offeringSchema>

const localProviderSchema = z.strictObject({
  kind: z.literal('local'),
  /** Command that starts an agent; null: the agent beside this program. */
  agentCommand: z.array(z.string().min(1)).min(1).nullable().default(null),
  engine: z.enum(['docker', 'process', 'auto']).default('auto'),
  dockerSocket: z.string().nullable().default(null),
  offerings: z.record(nameSchema, offeringSchema).default({}),
})

const execProviderSchema = z.strictObject({
  kind: z.literal('exec'),
  command: z.array(z.string().min(1)).min(1),
  createTimeout: durationSchema.default(300_000),
  deleteTimeout: durationSchema.default(120_000),
  listTimeout: durationSchema.default(60_000),
  offerings: z.record(nameSchema, offeringSchema).default({}),
})

export const providersSchema = z.preprocess(
  (raw) =>
    raw !== null && typeof raw === 'object' && !Array.isArray(raw)
      ? Object.fromEntries(
          Object.entries(raw).map(([name, value]) => [
            name,
            value !== null && typeof value === 'object' && !('kind' in value) ? { kind: name, ...value } : value,
          ]),
        )
      : raw,
  z.record(nameSchema, z.discriminatedUnion('kind', [localProviderSchema, execProviderSchema])),
)
export type ProviderSettings = z.output<typeof localProviderSchema> | z.output<typeof execProviderSchema>

/** One pool as it is written; the simulator reads pools of files of their own with it. */
export const poolSchema = z.strictObject({
  name: nameSchema,
  provider: nameSchema,
  offering: z.string().min(1).default('default'),
  image: z.string().default(''),
  zone: z.string().nullable().default(null),
  capacity: capacitySchema.nullable().default(null),
  priceUsdPerHour: z.number().min(0).nullable().default(null),
  min: z.number().int().min(0).max(100_000).default(0),
  max: z.number().int().min(0).max(100_000).default(10),
  labels: labelsSchema.default({}),
  taints: z.array(z.string().min(1).max(128)).default([]),
  static: z.boolean().default(false),
  userData: z.enum(['script', 'cloud-config']).default('script'),
  billing: z.enum(['second', 'hour']).default('second'),
  budgetUsdPerMonth: z.number().min(0).nullable().default(null),
  spareSlots: z.number().int().min(0).max(10_000).default(0),
  settings: z.record(z.string(), z.unknown()).default({}),
})
export type PoolSettings = z.output<typeof poolSchema>

/** Pools with what their providers know of the offering; every fault is added to `faults`. `locate`: where in the file a path below `pools` is. */
export function resolvePools(
  pools: readonly PoolSettings[],
  providers: Readonly<Record<string, ProviderSettings>>,
  locate: (path: readonly (string | number)[]) => Pick<Fault, 'path' | 'file' | 'line'>,
  faults: Fault[],
): Pool[] {
  const seen = new Set<string>()
  return pools.map((pool, index): Pool => {
    const at = (key: string) => locate([index, key])
    if (seen.has(pool.name)) faults.push({ ...at('name'), message: `Two pools are named ${pool.name}.` })
    seen.add(pool.name)
    if (pool.min > pool.max) faults.push({ ...at('min'), message: `min (${pool.min}) is larger than max (${pool.max}).` })
    const provider = providers[pool.provider]
    const known = Object.keys(providers)
    if (!provider)
      faults.push({
        ...at('provider'),
        message: `There is no provider ${pool.provider}; there ${known.length === 0 ? 'are none' : `is ${known.join(', ')}`}.`,
      })
    const offering = provider?.offerings[pool.offering]
    if (provider?.kind === 'local' && !offering)
      faults.push({ ...at('offering'), message: `The provider ${pool.provider} has no offering ${pool.offering}.` })
    const given = pool.capacity ?? offering
    if (!given && provider?.kind === 'exec')
      faults.push({
        ...at('capacity'),
        message: `The pool ${pool.name} needs a capacity, or an offering that its provider describes.`,
      })
    const price = pool.priceUsdPerHour ?? offeredPrice(providers, pool.provider, pool.offering) ?? (pool.static ? 0 : null)
    if (provider && price === null)
      faults.push({
        ...at('priceUsdPerHour'),
        message: `The pool ${pool.name} needs a priceUsdPerHour, or an offering that has one; 0 if its machines cost nothing and count for no budget.`,
      })
    return {
      ...pool,
      capacity: given ? capacityOf(given) : { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, slots: 0 },
      priceUsdPerHour: price ?? 0,
    }
  })
}

/** USD per hour of a provider's offering; null when nobody says. What runs on this very host costs nothing unless it says so. */
export function offeredPrice(
  providers: Readonly<Record<string, ProviderSettings>>,
  provider: string,
  offering: string,
): number | null {
  const settings = Object.hasOwn(providers, provider) ? providers[provider] : undefined
  const offered = settings && Object.hasOwn(settings.offerings, offering) ? settings.offerings[offering]?.priceUsdPerHour : null
  return offered ?? (settings?.kind === 'local' ? 0 : null)
}

/** The capacity that settings describe. */
export function capacityOf(settings: z.output<typeof capacitySchema>): Capacity {
  return { cpuMillis: settings.cpus, memoryBytes: settings.memory, diskBytes: settings.disk, slots: settings.slots }
}
