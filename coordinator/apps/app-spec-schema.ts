/**
 * AppSpec as it comes in through the API: strict (no unknown field, all bounded) because a client may send anything, not only
 * what readApp made. What a shape cannot say is in check-app-spec.ts.
 */
import { z } from 'zod'
import { nextMatch } from '../../shared/calendar.ts'
import { parseCron } from '../../shared/cron.ts'
import { MAX_SPREAD } from '../../shared/model/app.ts'
import { isTimeZone, zoneOfAbbreviation } from '../../shared/time-zone.ts'
import { NAME_PATTERN, SERVICE_NAME_PATTERN } from '../../shared/model/identity.ts'
import { MAX_COMPLETIONS } from './read-job.ts'

const count = z.int().min(0).max(1_000_000)
const timeMs = z
  .int()
  .min(0)
  .max(20 * 24 * 3_600_000)
const percent = z.number().min(0).max(100)
const cron = z
  .string()
  .max(200)
  .refine((text) => {
    const read = parseCron(text)
    return read.ok && nextMatch(read.cron, 'UTC', 0) !== null
  }, 'is no cron expression of five fields that ever matches')
const timeZone = z
  .string()
  .max(64)
  .refine(isTimeZone, {
    error: ({ input }) => {
      const meant = zoneOfAbbreviation(String(input))
      return `is no time zone of the IANA database${meant === null ? '' : `; did you mean "${meant}"?`}`
    },
  })
const port = z.int().min(1).max(65_535)
const bytes = z.int().min(0)
const line = z
  .string()
  .max(4096)
  .regex(/^[^\0\n\r]*$/)
const textValue = z
  .string()
  .max(128 * 1024)
  .refine((value) => !value.includes('\0'), 'contains a NUL')
const textMap = z.record(z.string().min(1).max(512), textValue)
const lines = z.array(line).max(500)
const words = z.array(textValue).max(2000)
const protocol = z.enum(['http', 'tcp', 'udp'])
const serviceName = z.string().regex(SERVICE_NAME_PATTERN)
const resources = { cpuMillis: z.int().min(0).max(10_000_000), memoryBytes: bytes }
const some = z.strictObject({ cpuMillis: resources.cpuMillis.optional(), memoryBytes: resources.memoryBytes.optional() })

const probe = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('http'), port, path: line }),
  z.strictObject({ kind: z.literal('tcp'), port }),
  z.strictObject({ kind: z.literal('exec'), argv: z.array(textValue).min(1).max(1000) }),
])

const restart = z.strictObject({
  condition: z.enum(['any', 'on-failure', 'none']),
  delayMs: timeMs,
  maxAttempts: count.min(1).nullable(),
  windowMs: timeMs,
})

const container = z.strictObject({
  name: serviceName,
  image: z.string().max(512),
  pullPolicy: z.enum(['missing', 'always', 'never']),
  platform: z.string().max(64).optional(),
  entrypoint: words.optional(),
  command: words.optional(),
  environment: textMap,
  labels: textMap,
  user: line.optional(),
  workingDir: line.optional(),
  hostname: z.string().max(253).optional(),
  mounts: z
    .array(
      z.strictObject({
        kind: z.enum(['volume', 'bind', 'tmpfs']),
        source: line,
        target: line.startsWith('/'),
        readOnly: z.boolean(),
        sizeBytes: bytes.optional(),
      }),
    )
    .max(200),
  files: z
    .array(
      z.strictObject({
        target: line.startsWith('/'),
        mode: z.int().min(0).max(0o7777),
        contentBase64: z.base64().max(200 * 1024),
        secret: z.boolean(),
      }),
    )
    .max(200),
  limits: z.strictObject({ ...some.shape, pids: count.optional() }),
  reservations: some,
  capAdd: lines,
  capDrop: lines,
  readOnlyRootfs: z.boolean(),
  init: z.boolean(),
  stopSignal: z.string().max(32).optional(),
  extraHosts: lines,
  dns: lines,
  sysctls: textMap,
  ulimits: z.record(z.string().min(1).max(64), z.strictObject({ soft: z.int(), hard: z.int() })),
  shmSizeBytes: bytes.optional(),
  tty: z.boolean(),
  stdinOpen: z.boolean(),
  health: z
    .strictObject({
      probe,
      intervalMs: timeMs.min(1),
      timeoutMs: timeMs.min(1),
      retries: z.int().min(1).max(10_000),
      startPeriodMs: timeMs,
      startIntervalMs: timeMs.min(1),
    })
    .optional(),
  restart,
  privileged: z.boolean().optional(),
  hostNetwork: z.boolean().optional(),
})

const pull = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('json'), port, path: line, pointer: line, intervalMs: timeMs.min(100) }),
  z.strictObject({
    kind: z.literal('prometheus'),
    port,
    path: line,
    metric: line,
    full: z.number().gt(0),
    intervalMs: timeMs.min(100),
  }),
])

const load = z.discriminatedUnion('kind', [
  z.strictObject({ kind: z.literal('cpu') }),
  z.strictObject({ kind: z.literal('memory') }),
  z.strictObject({ kind: z.literal('custom'), pull: pull.optional() }),
  z.strictObject({ kind: z.literal('requests'), capacity: z.number().gt(0).max(1_000_000) }),
])

const published = z.array(z.strictObject({ port, containerPort: port, protocol, mode: z.enum(['ingress', 'host']) })).max(500)

const unit = z.strictObject({
  runtime: z.enum(['docker', 'process']),
  containers: z.array(container).min(1).max(50),
  ports: z.array(z.strictObject({ containerPort: port, protocol, name: z.string().max(64).optional() })).max(500),
  published,
  reservations: z.strictObject(resources),
  stopGraceMs: timeMs,
  drainMs: timeMs,
  warmUpMs: timeMs,
  load: z.array(load).max(4),
  access: z.strictObject({
    public: z.boolean(),
    sameApp: z.boolean(),
    allow: lines,
    roles: lines,
    anyKey: z.boolean(),
    methods: lines,
    pathPrefixes: lines,
  }),
  balance: z.enum(['least-load', 'least-conn', 'round-robin', 'hash']),
  singletonStrictMs: timeMs.nullable(),
})

const service = z.strictObject({
  name: serviceName,
  unit,
  specHash: z.string().regex(/^[0-9a-f]{16}$/),
  mode: z.enum(['replicated', 'global']),
  replicas: z.int().min(0).max(100_000),
  scale: z
    .strictObject({
      min: z.int().min(1).max(100_000),
      max: z.int().min(1).max(100_000),
      lowPercent: percent,
      highPercent: percent,
      steps: z.array(z.strictObject({ replicas: z.int().min(1).max(100_000), percent })).max(50),
      windowMs: timeMs.min(1),
      downWindowMs: timeMs,
      warmUpMs: timeMs,
      coolDownMs: timeMs,
      predict: z.enum(['auto', 'off']),
      schedules: z
        .array(z.strictObject({ at: cron, timeZone, min: z.int().min(1).max(100_000), max: z.int().min(1).max(100_000) }))
        .max(50)
        .optional(),
      objective: z.strictObject({ latencyP95Ms: timeMs.min(1) }).optional(),
    })
    .nullable(),
  job: z
    .strictObject({
      completions: z.int().min(0).max(MAX_COMPLETIONS),
      parallelism: z.int().min(1).max(MAX_COMPLETIONS),
      cron: z.strictObject({ at: cron, timeZone, overlap: z.enum(['skip', 'replace', 'allow']) }).optional(),
      retries: z.int().min(0).max(1_000),
      deadlineMs: timeMs.min(1).nullable(),
    })
    .optional(),
  placement: z.strictObject({
    constraints: z.array(z.strictObject({ attribute: line, operator: z.enum(['==', '!=']), value: line })).max(100),
    spreadOver: lines.max(MAX_SPREAD),
    maxPerNode: z.int().min(1).max(100_000).nullable(),
    affinity: z.strictObject({ near: lines, avoid: lines, required: z.boolean() }).nullable(),
    tolerates: lines,
    pools: lines,
    strategy: z.enum(['spread', 'binpack', 'random']).nullable(),
    platform: z.string().max(64).nullable(),
    priority: z.int().min(0).max(100),
    diskBytes: bytes.optional(),
    scheduler: z.string().regex(NAME_PATTERN).optional(),
  }),
  update: z.strictObject({
    parallelism: z.int().min(1).max(100_000),
    order: z.enum(['start-first', 'stop-first']),
    delayMs: timeMs,
    monitorMs: timeMs,
    progressDeadlineMs: timeMs.min(1),
    failureAction: z.enum(['rollback', 'pause', 'continue']),
  }),
  dependsOn: z
    .array(
      z.strictObject({ service: serviceName, condition: z.enum(['started', 'healthy', 'completed']), required: z.boolean() }),
    )
    .max(500),
  published,
  labels: textMap,
})

/** An app as `POST /v1/apps` takes it. Strict and bounded; follow it with checkAppSpec. */
export const appSpecSchema = z.strictObject({
  name: z.string().regex(NAME_PATTERN),
  services: z.array(service).min(1).max(500),
})
