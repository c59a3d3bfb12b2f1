/**
 * From text to frames, at the two ends of the link. A frame of an unknown type is `unknown` (a newer minor version may send it):
 * the receiver counts and ignores it. Anything else that does not fit is `bad`. Pure.
 */
import { z } from 'zod'
import { type AgentFrame, agentFrameSchema, type CoordinatorFrame, MAX_AHEAD, PROTOCOL_MAJOR } from './frames.ts'

export type ParsedFrame<F> =
  | { readonly kind: 'frame'; readonly frame: F }
  | { readonly kind: 'unknown'; readonly type: string }
  /** Hello of another protocol major: its other fields may mean anything. */
  | { readonly kind: 'otherMajor'; readonly major: number }
  | { readonly kind: 'bad'; readonly detail: string }

const AGENT_TYPES: ReadonlySet<string> = new Set(['hello', 'status', 'report', 'ack', 'resync', 'pulledAhead', 'log'])

/** Reads what an agent sent. */
export function parseAgentFrame(text: string): ParsedFrame<AgentFrame> {
  const raw = readObject(text)
  if (raw === null) return { kind: 'bad', detail: 'not a JSON object with a type' }
  if (!AGENT_TYPES.has(raw.type)) return { kind: 'unknown', type: raw.type.slice(0, 64) }
  if (raw.type === 'hello' && raw.major !== PROTOCOL_MAJOR && typeof raw.major === 'number')
    return { kind: 'otherMajor', major: raw.major }
  const parsed = agentFrameSchema.safeParse(raw)
  return parsed.success ? { kind: 'frame', frame: parsed.data } : { kind: 'bad', detail: firstIssue(raw.type, parsed.error) }
}

const count = z.number().int().min(0)
const revisioned = { epoch: count, revision: count, baseRevision: count.nullable(), more: z.boolean().optional() }
const object = z.custom<Readonly<Record<string, unknown>>>((value) => value !== null && typeof value === 'object')

/** Only what the link itself relies on is checked: an agent has authenticated its coordinator, and units are the reconciler's. */
const coordinatorFrameSchemas: Readonly<Record<CoordinatorFrame['type'], z.ZodType>> = {
  welcome: z.object({
    type: z.literal('welcome'),
    epoch: count,
    reportIntervalMs: z.number().min(100),
    heartbeatMs: z.number().min(100),
    staleAfterMs: z.number().min(1000),
  }),
  desired: z.object({
    type: z.literal('desired'),
    ...revisioned,
    put: z.array(
      z.object({
        instance: z.string(),
        specHash: z.string(),
        goal: z.enum(['run', 'stop']),
        unit: object,
        registryAuth: z.object({ username: z.string(), password: z.string(), server: z.string() }).optional(),
      }),
    ),
    remove: z.array(z.string()),
  }),
  keys: z.object({
    type: z.literal('keys'),
    ...revisioned,
    putKeys: z.array(
      z.object({
        id: z.string(),
        name: z.string(),
        roles: z.array(z.string()),
        secretHash: z.string(),
        expiresAtMs: z.number().nullable(),
      }),
    ),
    removeKeys: z.array(z.string()),
    putPolicies: z.array(z.object({ service: z.string(), access: object })),
    removePolicies: z.array(z.string()),
    meshSecret: z.string().optional(),
  }),
  routes: z.object({
    type: z.literal('routes'),
    ...revisioned,
    put: z.array(z.looseObject({ service: z.string(), containerPort: count, endpoints: z.array(object) })),
    remove: z.array(z.string()),
  }),
  loads: z.object({ type: z.literal('loads'), loads: z.record(z.string(), z.number()) }),
  pullAhead: z.object({
    type: z.literal('pullAhead'),
    images: z
      .array(z.object({ image: z.string().max(500), platform: z.string().optional(), refresh: z.literal(true).optional() }))
      .max(MAX_AHEAD),
  }),
  logs: z.object({
    type: z.literal('logs'),
    request: z.string(),
    instance: z.string(),
    follow: z.boolean(),
    tail: count,
    cancel: z.boolean(),
  }),
  leave: z.object({ type: z.literal('leave'), reason: z.string() }),
}

/** Reads what a coordinator sent. */
export function parseCoordinatorFrame(text: string): ParsedFrame<CoordinatorFrame> {
  const raw = readObject(text)
  if (raw === null) return { kind: 'bad', detail: 'not a JSON object with a type' }
  if (!Object.hasOwn(coordinatorFrameSchemas, raw.type)) return { kind: 'unknown', type: raw.type.slice(0, 64) }
  const parsed = coordinatorFrameSchemas[raw.type as CoordinatorFrame['type']].safeParse(raw)
  return parsed.success
    ? { kind: 'frame', frame: parsed.data as CoordinatorFrame }
    : { kind: 'bad', detail: firstIssue(raw.type, parsed.error) }
}

function readObject(text: string): (Record<string, unknown> & { type: string }) | null {
  try {
    const value: unknown = JSON.parse(text)
    return value !== null && typeof value === 'object' && 'type' in value && typeof value.type === 'string'
      ? (value as Record<string, unknown> & { type: string })
      : null
  } catch {
    return null // Bad JSON is an expected outcome of hostile input; the caller answers it.
  }
}

function firstIssue(type: string, error: z.ZodError): string {
  const [issue] = error.issues
  return `${type}: ${issue ? `${issue.path.join('.')} ${issue.message}` : 'invalid'}`.slice(0, 200)
}
