/**
 * What a custom scheduler is asked and how it answers, version `rubato.scheduler/1`: JSON, the same for HTTP endpoints and modules.
 * These schemas are also published (docs/scheduler.schema.json, held equal to them by a test). One question is about all waiting
 * instances of a service that have equal requirements.
 */
import { z } from 'zod'

export const API_VERSION = 'rubato.scheduler/1'

/** A question about more nodes than this is asked in pages, so that its size is bounded in any cluster. */
export const MAX_CANDIDATES = 5_000
/** Enough for a verdict on each of the most nodes that a question can name, with long reasons. */
export const MAX_ANSWER_BYTES = 2 ** 20

const amounts = {
  cpuMillis: z.number().describe('Thousandths of a CPU.'),
  memoryBytes: z.number(),
  diskBytes: z.number(),
}
const capacity = z.strictObject({ ...amounts, slots: z.number().describe('Instances.') })
const labels = z.record(z.string(), z.string())

const candidate = z
  .strictObject({
    id: z.string(),
    hostname: z.string(),
    labels,
    engineLabels: labels,
    taints: z.array(z.string()).describe('All of them tolerated by the service.'),
    platform: z.string().describe('Such as linux/amd64.'),
    pool: z.string().nullable(),
    provider: z.string().nullable(),
    zone: z.string().nullable(),
    capacity: capacity.describe('What the node offers in all.'),
    free: capacity.describe('What is not reserved there.'),
    usePercent: z
      .number()
      .nullable()
      .describe(
        'Measured use of its scarcer resource, or its reservations weighted by the load of who made them; null: not reported.',
      ),
    instances: z.int().describe('Instances of all services there.'),
    ofService: z.int().describe('Instances of this service there.'),
    hasImages: z.boolean().describe('Whether the images of the service are there already.'),
  })
  .describe('A node that passes every filter of the built-in scheduler for one instance.')

export const questionSchema = z
  .strictObject({
    apiVersion: z.literal(API_VERSION),
    scheduler: z.string().describe('The name under which the configuration knows you.'),
    dryRun: z.boolean().describe('Nothing will be placed by this answer.'),
    service: z.strictObject({
      id: z.string().describe('app/service.'),
      app: z.string(),
      name: z.string(),
      labels: labels.describe('deploy.labels of the app file: the place for parameters of your own.'),
      priority: z.number(),
      charge: z.strictObject(amounts).describe('What one instance takes: its reservations, else its learned use.'),
      images: z.array(z.string()),
      volumes: z.array(z.string()).describe('Local volumes, app/volume.'),
      near: z.array(z.string()).describe('Services that it wants to share a node with.'),
      avoid: z.array(z.string()),
    }),
    count: z.int().describe('Instances that wait for a place.'),
    nodes: z.array(candidate).max(MAX_CANDIDATES).describe('Best first by the built-in scheduler.'),
    leftOut: z
      .int()
      .describe(
        'Nodes that pass the filters too and are worse by the built-in scheduler; asked about next if you take none of these.',
      ),
  })
  .describe('What Rubato sends.')

export type Question = z.infer<typeof questionSchema>
export type Candidate = z.infer<typeof candidate>

export const verdictSchema = z.union([
  z.strictObject({
    id: z.string(),
    score: z.number().min(0).max(100).describe('Larger is better. Among equal scores the built-in scheduler chooses.'),
    max: z
      .int()
      .min(1)
      .max(1_000_000)
      .describe('At most so many of the waiting instances here. Default: as many as fit.')
      .optional(),
  }),
  z.strictObject({
    id: z.string(),
    reject: z.string().min(1).max(1_000).describe('Why not, for people; equal reasons are counted together.'),
  }),
])

export const answerSchema = z
  .strictObject({
    apiVersion: z.literal(API_VERSION),
    nodes: z.array(verdictSchema).max(MAX_CANDIDATES).describe('Exactly one verdict on each node of the question, in any order.'),
  })
  .describe('What Rubato wants back, with status 200 and content type application/json.')

/** The published JSON Schema of both. */
export function schedulerJsonSchema(): unknown {
  const convert = (schema: z.ZodType) => {
    const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { target: 'draft-2020-12' })
    return rest
  }
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: API_VERSION,
    $defs: { question: convert(questionSchema), answer: convert(answerSchema) },
  }
}
