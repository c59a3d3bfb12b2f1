/** Custom schedulers as the coordinator's configuration describes them. */
import { resolve } from 'node:path'
import { z } from 'zod'
import { type EndpointSources, resolveEndpoint } from '../../shared/endpoint-settings.ts'
import type { Fault } from '../../shared/errors.ts'
import { durationSchema } from '../../shared/setting-kinds.ts'
import { MAX_CANDIDATES } from './protocol.ts'

/** Longer, and a service that waits for its scheduler is slower than one whose scheduler is dead. */
const MAX_DEADLINE_MS = 5_000

const common = {
  deadline: durationSchema.default(250),
  maxCandidates: z.number().int().min(1).max(MAX_CANDIDATES).default(1_000),
}
const httpSchema = z.strictObject({
  kind: z.literal('http'),
  url: z.string().min(1),
  tokenFile: z.string().min(1).nullable().default(null),
  caFile: z.string().min(1).nullable().default(null),
  ...common,
})
const moduleSchema = z.strictObject({ kind: z.literal('module'), module: z.string().min(1), ...common })

const nameSchema = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'A name is lower-case letters, digits and dashes')

/** What is written under `schedulers`; the kind is that of the key which is given. */
export const schedulersSchema = z.record(
  nameSchema,
  z.preprocess(
    (raw) =>
      raw !== null && typeof raw === 'object' && !('kind' in raw) ? { kind: 'module' in raw ? 'module' : 'http', ...raw } : raw,
    z.discriminatedUnion('kind', [httpSchema, moduleSchema]),
  ),
)
export type SchedulersSettings = z.output<typeof schedulersSchema>

interface SchedulerLimits {
  readonly name: string
  readonly deadlineMs: number
  readonly maxCandidates: number
}

export type SchedulerConfig =
  | (SchedulerLimits & {
      readonly kind: 'http'
      readonly url: string
      /** Secret. */
      readonly token: string | null
      readonly caPem: string | null
    })
  | (SchedulerLimits & { readonly kind: 'module'; readonly path: string })

/** Reads the files that the settings name; adds to `faults` what cannot be. */
export async function resolveSchedulers(
  settings: SchedulersSettings,
  locate: (path: readonly string[]) => Pick<Fault, 'path' | 'file' | 'line'>,
  sources: EndpointSources,
  faults: Fault[],
): Promise<readonly SchedulerConfig[]> {
  const found: SchedulerConfig[] = []
  for (const [name, given] of Object.entries(settings)) {
    const limits = { name, deadlineMs: given.deadline, maxCandidates: given.maxCandidates }
    if (given.deadline < 1 || given.deadline > MAX_DEADLINE_MS)
      faults.push({ ...locate([name, 'deadline']), message: `A deadline is between 1ms and ${MAX_DEADLINE_MS / 1000}s.` })
    if (given.kind === 'module') {
      found.push({ kind: 'module', ...limits, path: resolve(given.module) })
      continue
    }
    const { token, caPem } = await resolveEndpoint(given, (key) => locate([name, key]), sources, faults)
    found.push({ kind: 'http', ...limits, url: given.url, token, caPem })
  }
  return found
}
