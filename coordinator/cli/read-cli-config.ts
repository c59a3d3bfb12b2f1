/** `~/.config/rubato/config.yaml`, read only where there is one: other runs do not load what it is read with. */
import { parse } from 'yaml'
import { z } from 'zod'
import { messageOf } from '../../shared/errors.ts'
import { CliError, EXIT } from './io.ts'

const configSchema = z.strictObject({
  url: z.string().optional(),
  token: z.string().optional(),
  tokenFile: z.string().optional(),
  ca: z.string().optional(),
})

export type CliConfig = z.infer<typeof configSchema>

/** Throws `CliError` (2) with the file's name and every fault. */
export function parseCliConfig(text: string, path: string): CliConfig {
  let parsed: unknown
  try {
    parsed = parse(text)
  } catch (error) {
    throw new CliError(EXIT.refused, `${path}: ${messageOf(error)}`)
  }
  const checked = configSchema.safeParse(parsed ?? {})
  if (checked.success) return checked.data
  const faults = checked.error.issues.map((issue) => `${issue.path.join('.')} ${issue.message}`).join('; ')
  throw new CliError(EXIT.refused, `${path}: ${faults}`)
}
