/** The shapes of the API's answers. The CLI takes its types from here. Times are epoch ms, sizes bytes, CPU thousandths. */
import { z } from '@hono/zod-openapi'
import { MACHINE_PHASES } from '../../shared/model/node.ts'

export function pageOf<T extends z.ZodType>(item: T) {
  return z.object({ items: z.array(item), next: z.string().nullable() })
}

const capacity = z.object({ cpuMillis: z.number(), memoryBytes: z.number(), diskBytes: z.number(), slots: z.number() })
const resources = z.object({ cpuMillis: z.number(), memoryBytes: z.number() })
const reason = z.object({ subject: z.string(), code: z.string(), text: z.string() })
const texts = z.record(z.string(), z.string())

const rolloutView = z.object({
  fromRevision: z.number(),
  toRevision: z.number(),
  phase: z.enum(['progressing', 'monitoring', 'completed', 'paused', 'rolling-back', 'failed']),
  startedAtMs: z.number(),
  message: z.string(),
})

const forecastView = z
  .object({
    /** `persistence` (as it is now) while nothing beats it. */
    method: z.string(),
    trusted: z.boolean(),
    /** A day of demand has been scored. */
    judged: z.boolean(),
    horizonMs: z.number(),
    /** Highest demand to be expected within the horizon: nine values in ten lie below. Percent of one instance. */
    peakPercent: z.number(),
    /** Mean absolute error over the last days ÷ that of persistence, which is 1 while nothing else is judged; null before any error is known. */
    errorVsPersistence: z.number().nullable(),
  })
  .openapi('Forecast')
export type ForecastView = z.infer<typeof forecastView>

const jobView = z.object({
  completions: z.number(),
  parallelism: z.number(),
  retries: z.number(),
  deadlineMs: z.number().nullable(),
  cron: z.string().nullable(),
  timeZone: z.string().nullable(),
  /** The first scheduled time not yet decided; null without cron. */
  nextRunAtMs: z.number().nullable(),
  /** Newest first. */
  runs: z.array(
    z.object({
      id: z.string(),
      scheduledAtMs: z.number().nullable(),
      startedAtMs: z.number(),
      endedAtMs: z.number().nullable(),
      outcome: z.enum(['running', 'succeeded', 'failed', 'cancelled', 'skipped', 'missed']),
      message: z.string(),
      completions: z.number(),
      succeeded: z.number(),
    }),
  ),
})
export type JobView = z.infer<typeof jobView>

const objectiveView = z
  .object({
    latencyP95Ms: z.number(),
    /** Of the last full minute with enough answers; null when there was none. */
    p95Ms: z.number().nullable(),
    kept: z.boolean().nullable(),
    /** Shares (0–1) of the last hour. */
    shareOfTime: z.number().nullable(),
    shareOfRequests: z.number().nullable(),
    /** Percentage points by which the objective has moved the thresholds. */
    shiftPercent: z.number(),
  })
  .openapi('Objective')

const decisionView = z
  .object({
    atMs: z.number(),
    code: z.string(),
    reason: z.string(),
    wanted: z.number(),
    wish: z.number(),
    n: z.number(),
    ready: z.number(),
    excluded: z.number(),
    demandPercent: z.number().nullable(),
    thresholdPercent: z.number().nullable(),
    /** What the load window knew. */
    load: z.object({
      demandPercent: z.number().nullable(),
      meanPercent: z.number().nullable(),
      peakDemandPercent: z.number().nullable(),
      sustainedPercent: z.number().nullable(),
      arrivalPercent: z.number().nullable(),
      /** Load of an idle instance, and ms of an instance that one request takes; null while not told apart. */
      parts: z.object({ idlePercent: z.number(), requestMs: z.number() }).nullable(),
      growthPercentPerS: z.number(),
      settledMs: z.number(),
      coveredMs: z.number(),
      completeMs: z.number(),
      backlogKnown: z.boolean(),
    }),
  })
  .openapi('ScalingDecision')

export const decisionsView = z
  .object({
    service: z.string(),
    /** Steps of the last hour that went the other way than the step before. */
    directionChangesPerHour: z.number(),
    /** Changes only, newest first, at most 50 since the coordinator started. */
    decisions: z.array(decisionView),
  })
  .openapi('ScalingDecisions')

export const serviceView = z
  .object({
    id: z.string(),
    app: z.string(),
    name: z.string(),
    image: z.string(),
    mode: z.enum(['replicated', 'global']),
    desired: z.number(),
    pinned: z.number().nullable(),
    ready: z.number(),
    /** Of the ready ones, those that run the present spec. */
    updated: z.number(),
    /** Ran to their end, as one-shot services do. */
    completed: z.number(),
    running: z.number(),
    pending: z.number(),
    loadPercent: z.number().nullable(),
    /** Load above which scaling adds instances now; null: it does not scale, or was not looked at yet. */
    thresholdPercent: z.number().nullable(),
    /** What holds up its first instance that has no place, or all of them; null: nothing does. */
    waitsFor: z.string().nullable(),
    scale: z.object({ min: z.number(), max: z.number(), lowPercent: z.number(), highPercent: z.number() }).nullable(),
    ports: z.array(z.object({ port: z.number(), containerPort: z.number(), protocol: z.string(), mode: z.string() })),
    rollout: rolloutView.nullable(),
    /** What its demand is expected to be within its lead time; null: it is not forecast. */
    forecast: forecastView.nullable(),
    /** How its objective is kept; null without one, or before anything was measured. */
    objective: objectiveView.nullable(),
    lastScale: z.object({ atMs: z.number(), from: z.number(), to: z.number(), reason: z.string() }).nullable(),
    /** null: it goes on running. Of a job `desired` and `completed` are those of its run. */
    job: jobView.nullable(),
  })
  .openapi('Service')
export type ServiceView = z.infer<typeof serviceView>

export const appView = z
  .object({
    name: z.string(),
    revision: z.number(),
    state: z.enum(['ready', 'progressing', 'degraded', 'removing']),
    deployedAtMs: z.number(),
    deployedBy: z.string(),
    services: z.array(serviceView),
  })
  .openapi('App')
export type AppView = z.infer<typeof appView>

export const appDetail = appView
  .extend({
    /** The file as it was deployed; null for viewers, since it may hold environment values. */
    source: z.string().nullable(),
    history: z.array(z.object({ revision: z.number(), deployedAtMs: z.number() })),
  })
  .openapi('AppDetail')
export type AppDetail = z.infer<typeof appDetail>

export const instanceView = z
  .object({
    id: z.string(),
    app: z.string(),
    service: z.string(),
    slot: z.number(),
    generation: z.number(),
    node: z.string().nullable(),
    goal: z.enum(['run', 'stop']),
    phase: z.string(),
    healthy: z.boolean(),
    routable: z.boolean(),
    observed: z.boolean(),
    restarts: z.number(),
    crashLooping: z.boolean(),
    /** What it says of itself, why it stops, or, without a node, why it waits. */
    message: z.string(),
    revision: z.number(),
    replaces: z.string().nullable(),
    loadPercent: z.number().nullable(),
    use: resources.nullable(),
    inFlight: z.number().nullable(),
    ports: z.array(z.object({ containerPort: z.number(), protocol: z.string(), gatewayPort: z.number() })),
    containerId: z.string(),
    createdAtMs: z.number(),
    startedAtMs: z.number().nullable(),
    readyAtMs: z.number().nullable(),
  })
  .openapi('Instance')
export type InstanceView = z.infer<typeof instanceView>

export const nodeView = z
  .object({
    id: z.string(),
    hostname: z.string(),
    address: z.string(),
    platform: z.string(),
    runtimes: z.array(z.string()),
    pool: z.string().nullable(),
    provider: z.string().nullable(),
    zone: z.string().nullable(),
    machine: z.string().nullable(),
    labels: texts,
    taints: z.array(z.string()),
    availability: z.enum(['active', 'cordoned', 'draining', 'drained']),
    liveness: z.enum(['unknown', 'live', 'suspect', 'lost']),
    drain: z
      .object({
        reason: z.string(),
        by: z.string(),
        startedAtMs: z.number(),
        deadlineAtMs: z.number(),
        /** What cannot be moved, and stays until the deadline. */
        waits: z.array(z.object({ instance: z.string(), why: z.string() })),
      })
      .nullable(),
    capacity,
    reserved: resources,
    use: resources.nullable(),
    imagesAhead: z
      .object({ here: z.array(z.string()), pending: z.array(z.string()), failing: z.array(z.string()) })
      .nullable()
      .openapi({ description: 'Images that it was asked to pull before an instance needs them; null: it pulls none ahead.' }),
    instances: z.number(),
    joinedAtMs: z.number(),
    agentVersion: z.string(),
  })
  .openapi('Node')
export type NodeView = z.infer<typeof nodeView>

export const machineView = z
  .object({
    id: z.string(),
    name: z.string(),
    pool: z.string(),
    provider: z.string(),
    phase: z.string(),
    providerId: z.string().nullable(),
    node: z.string().nullable(),
    priceUsdPerHour: z.number(),
    reason: z.string(),
    requestedAtMs: z.number(),
    joinedAtMs: z.number().nullable(),
    goneAtMs: z.number().nullable(),
    attempts: z.number(),
    lastError: z.string().nullable(),
  })
  .openapi('Machine')
export type MachineView = z.infer<typeof machineView>

export const fleetView = z
  .object({
    pools: z.array(
      z.object({
        name: z.string(),
        provider: z.string(),
        priceUsdPerHour: z.number(),
        min: z.number(),
        max: z.number(),
        static: z.boolean(),
        /** Machines by phase, without those that ended. */
        counts: z.partialRecord(z.enum(MACHINE_PHASES), z.number()),
        /** It rests after failures until then (epoch ms); null when it does not. */
        cooling: z.object({ untilMs: z.number(), reason: z.string() }).nullable(),
        /** Learned p90 of order → joined, and of a machine's life, ms. */
        joinP90Ms: z.number().nullable(),
        lifeP90Ms: z.number().nullable(),
      }),
    ),
    /** USD this calendar month (UTC): spent so far, and with what is committed. */
    spentUsd: z.number(),
    projectedUsd: z.number(),
    budgetUsdPerMonth: z.number().nullable(),
    /** Why the last passes acted, waited or refused. */
    reasons: z.array(z.object({ subject: z.string(), code: z.string(), text: z.string() })),
  })
  .openapi('Fleet')
export type FleetStatus = z.infer<typeof fleetView>

export const poolView = z
  .object({
    name: z.string(),
    provider: z.string(),
    offering: z.string(),
    image: z.string(),
    zone: z.string().nullable(),
    capacity,
    priceUsdPerHour: z.number(),
    min: z.number(),
    max: z.number(),
    labels: texts,
    taints: z.array(z.string()),
    static: z.boolean(),
    userData: z.string(),
    billing: z.string(),
    budgetUsdPerMonth: z.number().nullable(),
    settings: z.record(z.string(), z.unknown()),
    machines: z.object({ booting: z.number(), joined: z.number() }),
  })
  .openapi('Pool')
export type PoolView = z.infer<typeof poolView>

export const keyView = z
  .object({
    id: z.string(),
    name: z.string(),
    roles: z.array(z.string()),
    createdAtMs: z.number(),
    expiresAtMs: z.number().nullable(),
    revokedAtMs: z.number().nullable(),
  })
  .openapi('Key')
export type KeyView = z.infer<typeof keyView>

export const operatorTokenView = z
  .object({
    id: z.string(),
    name: z.string(),
    role: z.enum(['viewer', 'operator', 'admin']),
    createdAtMs: z.number(),
    expiresAtMs: z.number().nullable(),
  })
  .openapi('OperatorToken')

export const eventView = z
  .object({
    seq: z.number(),
    atMs: z.number(),
    actor: z.string(),
    type: z.string(),
    subject: z.string(),
    message: z.string(),
    severity: z.enum(['info', 'warning', 'error']),
    data: z.record(z.string(), z.unknown()).optional(),
  })
  .openapi('Event')
export type EventView = z.infer<typeof eventView>

export const operationView = z
  .object({
    id: z.string(),
    kind: z.string(),
    subject: z.string(),
    startedAtMs: z.number(),
    endedAtMs: z.number().nullable(),
    outcome: z.string(),
    message: z.string(),
    by: z.string(),
  })
  .openapi('Operation')

export const statusView = z
  .object({
    clusterId: z.string().nullable(),
    epoch: z.number(),
    version: z.string(),
    nowMs: z.number(),
    operator: z.object({ name: z.string(), role: z.string() }).nullable(),
    frozen: z.object({ reason: z.string(), untilMs: z.number() }).nullable(),
    counts: z.object({
      apps: z.number(),
      services: z.number(),
      instances: z.number(),
      ready: z.number(),
      pending: z.number(),
      nodes: z.number(),
      liveNodes: z.number(),
      machines: z.number(),
    }),
    spentUsdThisMonth: z.number(),
    budgetUsdPerMonth: z.number().nullable(),
  })
  .openapi('Status')
export type StatusView = z.infer<typeof statusView>

export const changeView = z.object({ name: z.string(), revision: z.number(), changed: z.boolean() }).openapi('AppChange')
export type ChangeView = z.infer<typeof changeView>

export const previewView = z
  .object({ changes: z.array(z.string()), placement: z.array(z.string()), warnings: z.array(z.string()) })
  .openapi('AppPreview')
export type PreviewView = z.infer<typeof previewView>

export const explanationView = z
  .object({
    subject: z.string(),
    summary: z.string(),
    reasons: z.array(reason),
  })
  .openapi('Explanation')
export type ExplanationView = z.infer<typeof explanationView>
