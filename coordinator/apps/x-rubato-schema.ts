/**
 * `x-rubato` of a service: what Compose cannot say. This schema is also published for editors (x-rubato.schema.json, held equal
 * to it by a test), so it uses nothing that JSON Schema has no word for; what needs more is checked in read-x-rubato.ts.
 */
import { z } from 'zod'

const duration = z
  .string('must be a duration such as "30s"')
  .regex(/^(0|(\d+(\.\d+)?(us|ms|s|m|h|d))+)$/, 'must be a duration such as "30s"')
  .describe('A duration such as 30s or 1m30s.')
const size = z
  .string('must be a size such as "10G"')
  .regex(/^\d+(\.\d+)?\s*([bB]|[kKmMgGtT]([iI]?[bB])?)$/, 'must be a size such as "10G"')
  .describe('A size such as 10G or 500M.')
const percent = z.number().min(1).max(100)
const name = z.string().min(1).max(128)
const names = z.array(name).max(100)
const port = z.int().min(1).max(65_535)
const cron = z
  .string()
  .min(1)
  .max(200)
  .describe('Cron expression: minute hour day-of-month month day-of-week, such as "0 8 * * mon-fri", or @daily.')
const timeZone = z.string().min(1).max(64).describe('Time zone, such as Europe/Berlin. Default UTC.').optional()
const loadKind = z.enum(['cpu', 'memory', 'custom', 'requests'])

const scale = z
  .strictObject({
    min: z.int().min(1).max(100_000).describe('Never fewer instances than this. Default 1.').optional(),
    max: z.int().min(1).max(100_000).describe('Never more instances than this.'),
    load: z
      .union([loadKind, z.array(loadKind).min(1).max(4)])
      .describe('Where the load of an instance comes from; of several the largest counts. Default cpu.')
      .optional(),
    capacity: z
      .int()
      .min(1)
      .max(1_000_000)
      .describe('Requests that one instance can hold at once; needed for load: requests.')
      .optional(),
    low: percent.describe('Upper load threshold in percent with one instance. Default 60.').optional(),
    high: percent.describe('Upper load threshold in percent with very many instances. Default 80.').optional(),
    steps: z
      .array(z.strictObject({ replicas: z.int().min(1).max(100_000), percent }))
      .max(50)
      .describe('Explicit thresholds instead of low and high: from so many replicas on, so many percent.')
      .optional(),
    window: duration.describe('Load is averaged over this. Default 30s.').optional(),
    downWindow: duration.describe('Load must be low for this long before instances are stopped. Default 120s.').optional(),
    warmUp: duration
      .describe('A new instance gets no requests and gives no load for this long after it is healthy. Default 0s.')
      .optional(),
    coolDown: duration.describe('A stopping instance may finish its requests for this long. Default 20s.').optional(),
    schedules: z
      .array(
        z.strictObject({
          at: cron,
          timeZone,
          min: z.int().min(1).max(100_000).describe("Lower bound from then on. Default the service's min.").optional(),
          max: z.int().min(1).max(100_000).describe("Upper bound from then on. Default the service's max.").optional(),
        }),
      )
      .max(50)
      .describe('Bounds by the clock: each holds from its time until the next one of the list.')
      .optional(),
    objective: z
      .strictObject({ latencyP95: duration.describe('95 of 100 requests shall be answered within this.') })
      .describe('What users shall see; the load threshold follows from what the gateway measures.')
      .optional(),
    predict: z.enum(['auto', 'off']).describe('Whether a forecast may start instances early. Default auto.').optional(),
  })
  .describe('How many instances run: between min and max, by their load.')

const job = z
  .strictObject({
    cron: cron.optional(),
    timeZone,
    overlap: z
      .enum(['skip', 'replace', 'allow'])
      .describe('When a run is due while one is under way: leave it out, end the earlier one, or run both. Default skip.')
      .optional(),
    parallelism: z.int().min(1).max(1_000).describe('Most instances of a run at once. Default all of its replicas.').optional(),
    retries: z
      .int()
      .min(0)
      .max(1_000)
      .describe('Attempts of each completion after the first. Default that of restart, else 3.')
      .optional(),
    deadline: duration.describe('A run that takes longer is stopped and has failed.').optional(),
  })
  .describe('Work that runs to its end: once, or again at each time of cron. Replicas are the completions it needs.')

const access = z
  .strictObject({
    allow: z
      .array(z.string().min(1).max(160))
      .min(1)
      .max(200)
      .describe('Who may call: names of keys, services (name, or app/name), role:<role>. Without it any valid key may.')
      .optional(),
    public: z.boolean().describe('Anybody may call, without a key.').optional(),
    methods: z
      .array(z.string().regex(/^[A-Z]{1,20}$/, 'must be an HTTP method in capitals'))
      .min(1)
      .max(20)
      .describe('Only these HTTP methods.')
      .optional(),
    paths: z
      .array(z.string().regex(/^\/[^\s?#]*$/, 'must be a path that starts with "/"'))
      .min(1)
      .max(100)
      .describe('Only paths below these prefixes.')
      .optional(),
    signed: z.enum(['optional', 'required']).describe('Whether requests must be signed.').optional(),
  })
  .describe('Who may call this service; checked by the gateway of the node, for ports that speak http.')

const load = z
  .strictObject({
    url: z
      .string()
      .regex(/^(https?:\/\/[^/:\s]*)?(:\d{1,5})?\/[^\s#]*(#\/[^\s]*)?$/, 'must be [:port]/path[#/json/pointer]')
      .describe('Where the instance tells its load in JSON: [:port]/path, with #/json/pointer when the body is no bare number.')
      .optional(),
    pointer: z
      .string()
      .regex(/^(\/.*)?$/)
      .max(200)
      .describe('JSON Pointer of the load in the answer.')
      .optional(),
    prometheus: z
      .strictObject({
        metric: z
          .string()
          .regex(/^[a-zA-Z_:][a-zA-Z0-9_:]*$/, 'must be the name of a metric')
          .describe('Name of the metric.'),
        full: z.number().gt(0).describe('Its value when the instance is 100 % full.'),
        path: z
          .string()
          .regex(/^\/[^\s]*$/, 'must be a path that starts with "/"')
          .describe('Default /metrics.')
          .optional(),
      })
      .describe("A metric of the instance's own Prometheus page that tells its load.")
      .optional(),
    port: port.describe('Port of url or prometheus; default the first port of the service.').optional(),
    interval: duration.describe('How often it is asked. Default 2s.').optional(),
  })
  .describe('Where the agent asks the instance for its load; without it the instance pushes it.')

const health = z
  .strictObject({
    http: z
      .string()
      .regex(/^\/[^\s]*$/, 'must be a path that starts with "/"')
      .describe('Path that answers 2xx or 3xx when healthy.')
      .optional(),
    tcp: z.literal(true).describe('Healthy when the port accepts connections.').optional(),
    port: port.describe('Port of the probe; default the first port of the service.').optional(),
  })
  .describe('A probe by the agent instead of healthcheck.test; times are those of healthcheck.')

/** Everything under `x-rubato` of a service. Unknown keys are faults. */
export const xRubatoSchema = z
  .strictObject({
    scale: scale.optional(),
    job: job.optional(),
    access: access.optional(),
    load: load.optional(),
    health: health.optional(),
    balance: z
      .enum(['least-load', 'least-conn', 'round-robin', 'hash'])
      .describe('How requests are spread. Default least-load.')
      .optional(),
    affinity: z
      .strictObject({
        near: names.describe('Services (name, or app/name) whose nodes are preferred.').optional(),
        avoid: names.describe('Services whose nodes are shunned; its own name spreads it.').optional(),
        required: z.boolean().describe('Rather wait than break the rule. Default false.').optional(),
      })
      .optional(),
    tolerates: names.describe('Taints of nodes that do not keep it away.').optional(),
    pools: names.describe('Only nodes of these pools.').optional(),
    strategy: z.enum(['spread', 'binpack', 'random']).describe("Placement strategy; default the coordinator's.").optional(),
    scheduler: z
      .string()
      .regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'must be the name of a scheduler: lower-case letters, digits and dashes')
      .describe("A scheduler of the coordinator's configuration that narrows and orders the nodes for it.")
      .optional(),
    disk: size.describe('Disk that is reserved for an instance on its node, for data and logs. Default none.').optional(),
    priority: z.int().min(0).max(100).describe('Larger is more important. Default 50.').optional(),
    runtime: z.enum(['docker', 'process']).describe('What runs it. Default docker.').optional(),
    protocol: z
      .enum(['http', 'tcp', 'udp'])
      .describe('Protocol of ports that say nothing themselves. Default tcp; http where access or load: requests needs it.')
      .optional(),
    drain: duration
      .describe('How long a stopping instance may finish its requests. Default scale.coolDown, else 10s.')
      .optional(),
    progressDeadline: duration.describe('A new instance that is not ready by then counts as failed. Default 5m.').optional(),
    singleton: z
      .union([
        z.literal('strict'),
        z.strictObject({ after: duration.describe('The agent stops it after this long without a coordinator.') }),
      ])
      .describe('Never two at once, not even when a node cannot be reached.')
      .optional(),
    expose: z
      .strictObject({
        host: z.string().min(1).max(253).optional(),
        path: z
          .string()
          .regex(/^\/[^\s]*$/, 'must be a path that starts with "/"')
          .optional(),
      })
      .describe('Host and path under which edge nodes offer it.')
      .optional(),
  })
  .describe('What Rubato adds to a Compose service.')

export type XRubato = z.infer<typeof xRubatoSchema>

/** The published JSON Schema of `x-rubato`, for editors. */
export function xRubatoJsonSchema(): unknown {
  return { ...z.toJSONSchema(xRubatoSchema, { target: 'draft-2020-12' }), title: 'x-rubato' }
}
