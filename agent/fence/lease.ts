/**
 * The lease of a node's strict singletons (ADR 0022): until when each may run, as told to the watchdog that stops them when the
 * agent cannot. Times are steady ms of the host (watchdog-process.ts): one clock for all processes of one boot, so a lease of another
 * boot is void. Pure.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'

const leasedInstanceSchema = z.strictObject({
  instance: z.string(),
  runtime: z.enum(['docker', 'process']),
  /** It may run so long after the last contact with a coordinator. */
  afterMs: z.number(),
  stopGraceMs: z.number(),
  /** Everything of it that runs or may be started; known here before it is. */
  ids: z.array(z.string()),
})

const leaseSchema = z.strictObject({
  bootId: z.string(),
  /** When the agent began that had no contact yet. */
  startedMs: z.number(),
  /** The last contact of this boot; null: none yet. */
  contactMs: z.number().nullable(),
  instances: z.array(leasedInstanceSchema),
})

export type LeasedInstance = Readonly<z.infer<typeof leasedInstanceSchema>>
export type Lease = Readonly<z.infer<typeof leaseSchema>>

/** Rewritten in place by whole blocks, a lease needs no room that it does not have: a full disk cannot end it. */
const BLOCK_BYTES = 4_096

/** Checksum, then the lease, filled up to whole blocks. */
export function encodeLease(lease: Lease): string {
  const body = JSON.stringify(lease)
  const text = `${checksumOf(body)}\n${body}\n`
  return text.padEnd(Math.ceil(Buffer.byteLength(text) / BLOCK_BYTES) * BLOCK_BYTES, ' ')
}

/** The lease in that text; null when it was cut, changed, or read while it was written. What follows its line does not count. */
export function decodeLease(text: string): Lease | null {
  const [sum, body] = text.split('\n', 2)
  if (body === undefined || checksumOf(body) !== sum) return null
  const found = leaseSchema.safeParse(JSON.parse(body))
  return found.success ? found.data : null
}

function checksumOf(body: string): string {
  return createHash('sha256').update(body).digest('hex')
}
