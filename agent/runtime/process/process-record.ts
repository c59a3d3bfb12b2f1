/** What is kept on disk of each process, so that the agent's next life knows it again. */
import { z } from 'zod'

const recordSchema = z.object({
  version: z.literal(1),
  id: z.string(),
  name: z.string(),
  cluster: z.string(),
  node: z.string(),
  instance: z.string(),
  container: z.string(),
  specHash: z.string(),
  argv: z.array(z.string()).min(1),
  environment: z.record(z.string(), z.string()),
  workingDir: z.string(),
  stopSignal: z.string(),
  portMap: z.record(z.string(), z.number()),
  files: z.array(z.object({ path: z.string(), mode: z.number() })),
  /** The run that was begun last; null before the first start. */
  run: z
    .object({
      pid: z.number(),
      startTicks: z.number(),
      bootId: z.string(),
      startedAtMs: z.number(),
      exitedAtMs: z.number().nullable(),
      exitCode: z.number().nullable(),
      /** We saw it end, or found it gone. */
      ended: z.boolean(),
    })
    .nullable(),
})

export type ProcessRecord = z.infer<typeof recordSchema>

/** The record in that text, or null when it is none of ours (cut off, other version). */
export function parseRecord(text: string): ProcessRecord | null {
  try {
    const found = recordSchema.safeParse(JSON.parse(text))
    return found.success ? found.data : null
  } catch {
    return null
  }
}
