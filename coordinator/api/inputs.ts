/** What the API takes that several routes share, or that is a schema of its own: names, ids, queries, pools. What it answers is in schemas.ts. */
import { z } from '@hono/zod-openapi'
import { NAME_PATTERN, SERVICE_NAME_PATTERN } from '../../shared/model/identity.ts'

export const nameSchema = z.string().regex(NAME_PATTERN, 'must be 1 to 63 of a-z, 0-9 and "-", beginning with a letter or digit')
export const serviceNameSchema = z.string().regex(SERVICE_NAME_PATTERN, 'is no service name')
/** Node, machine, key and token ids. */
export const idSchema = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9.-]{0,127}$/, 'is no id')

/** A number in a query, as text. */
export function queryInt(minimum: number, maximum: number) {
  return z
    .string()
    .regex(/^\d{1,12}$/, 'must be a whole number')
    .transform(Number)
    .refine((value) => value >= minimum && value <= maximum, `must be from ${minimum} to ${maximum}`)
}

/** `?flag`, `?flag=true` and `?flag=1` are true. */
export const queryFlag = z.enum(['', 'true', '1', 'false', '0']).transform((value) => value !== 'false' && value !== '0')

export const pageQuery = { limit: queryInt(1, 1000).optional(), after: z.string().max(400).optional() }

export const poolInput = z
  .strictObject({
    provider: nameSchema,
    offering: z.string().max(200).default(''),
    image: z.string().max(400).default(''),
    zone: z.string().max(200).nullable().default(null),
    capacity: z.strictObject({
      cpuMillis: z.number().int().positive(),
      memoryBytes: z.number().int().positive(),
      diskBytes: z.number().int().nonnegative().default(0),
      slots: z.number().int().positive().max(10_000).default(110),
    }),
    /** Absent: what its provider says of the offering; 0 for static pools. A machine without a known price would be outside the budget. */
    priceUsdPerHour: z.number().nonnegative().optional(),
    min: z.number().int().nonnegative().max(10_000).default(0),
    max: z.number().int().nonnegative().max(10_000),
    labels: z.record(z.string().max(200), z.string().max(1000)).default({}),
    taints: z.array(z.string().max(200)).max(100).default([]),
    static: z.boolean().default(false),
    userData: z.enum(['script', 'cloud-config']).default('script'),
    billing: z.enum(['second', 'hour']).default('second'),
    budgetUsdPerMonth: z.number().nonnegative().nullable().default(null),
    spareSlots: z.number().int().nonnegative().max(10_000).default(0),
    settings: z.record(z.string(), z.unknown()).default({}),
  })
  .refine((pool) => pool.min <= pool.max, { path: ['min'], message: 'must not exceed max' })
  .openapi('PoolInput')
