/**
 * The plan of one service while it is being made: which instances would run after the actions so far. Local to one call of
 * `planService`; the input is never changed.
 */
import type { ServiceSpec } from '../../shared/model/app.ts'
import { parseInstanceId } from '../../shared/model/identity.ts'
import { earliest, type Reason } from '../../shared/plan.ts'
import type { InstanceRecord, JobTask, ServiceRecord } from '../state/objects.ts'
import {
  hasVolumes,
  isNodeLost,
  type ServiceAction,
  type ServiceInput,
  type Standing,
  standingOf,
  revisionWithHash,
  strictWaitMs,
} from './service-plan.ts'

export interface Member {
  readonly record: InstanceRecord
  readonly slot: number
  readonly generation: number
  readonly standing: Standing
  readonly crashLooping: boolean
}

export interface Draft {
  readonly input: ServiceInput
  readonly spec: ServiceSpec
  readonly now: number
  readonly wanted: number
  /** Nothing of it runs beside another of its slot: by its present rules, or by those that some instance of it was given. */
  readonly strict: boolean
  /** Members that shall go on running, by slot, older generations first. */
  readonly running: Map<number, Member[]>
  /** Slots filled by instances created in this plan, without those that stand beside a running one. */
  readonly created: Set<number>
  /** Slots whose running instance got a replacement beside it in this plan. */
  readonly replacing: Set<number>
  /** Who was taken out of a slot in this plan: its successor takes its place and its spec. */
  readonly vacated: Map<number, Member>
  /** Records that are on their way out, by slot, this plan's included. */
  readonly stopping: Map<number, InstanceRecord[]>
  readonly actions: ServiceAction[]
  readonly reasons: Reason[]
  /** Pause after failures; forgotten when a new revision begins. */
  backoff: ServiceRecord['backoff']
  wakeAtMs: number | null
}

export function startDraft(input: ServiceInput, spec: ServiceSpec, wanted: number, now: number): Draft {
  const draft: Draft = {
    input,
    spec,
    now,
    wanted,
    strict: spec.unit.singletonStrictMs !== null || input.instances.some((record) => strictWaitMs(input, record) !== null),
    running: new Map(),
    created: new Set(),
    replacing: new Set(),
    vacated: new Map(),
    stopping: new Map(),
    actions: [],
    reasons: [],
    backoff: input.service.backoff,
    wakeAtMs: null,
  }
  for (const record of input.instances) {
    const identity = parseInstanceId(record.id)
    if (identity === null) continue
    if (record.goal === 'stop') push(draft.stopping, identity.slot, record)
    else
      push(draft.running, identity.slot, {
        record,
        slot: identity.slot,
        generation: identity.generation,
        standing: standingOf(input, spec, record),
        crashLooping: input.observe(record.id)?.crashLooping ?? false,
      })
  }
  for (const members of draft.running.values()) members.sort((a, b) => a.generation - b.generation)
  return draft
}

/** Every member that shall go on running, by slot and generation. */
export function members(draft: Draft): Member[] {
  return [...draft.running.keys()].sort((a, b) => a - b).flatMap((slot) => draft.running.get(slot) ?? [])
}

/** The one instance of a slot that has no replacement beside it; undefined for an empty slot and for a pair. */
export function single(draft: Draft, slot: number): Member | undefined {
  const here = draft.running.get(slot)
  return here?.length === 1 && !draft.replacing.has(slot) ? here[0] : undefined
}

/** Takes a member out: stops it, or forgets it where nothing can run any more. */
export function retire(draft: Draft, member: Member, why: string): void {
  const rest = (draft.running.get(member.slot) ?? []).filter((other) => other !== member)
  if (rest.length > 0) draft.running.set(member.slot, rest)
  else {
    draft.running.delete(member.slot)
    draft.vacated.set(member.slot, member)
  }
  const over =
    member.standing === 'waiting' || member.standing === 'gone' || member.standing === 'failed' || member.standing === 'completed'
  if (over) draft.actions.push({ kind: 'remove', id: member.record.id, reason: why })
  else {
    draft.actions.push({ kind: 'stop', id: member.record.id, reason: why })
    push(draft.stopping, member.slot, member.record)
  }
  draft.reasons.push({ subject: member.record.id, code: over ? 'removed' : 'stopped', text: why })
}

/** A new instance in `slot`, in the place of `old` if given, running the spec of `hash` if that is still kept. */
export function create(draft: Draft, slot: number, old: InstanceRecord | null, hash: string, why: string, job?: JobTask): void {
  const kept = revisionWithHash(draft.input.app, draft.spec.name, hash)
  if (draft.running.has(slot)) draft.replacing.add(slot)
  else draft.created.add(slot)
  draft.actions.push({
    kind: 'create',
    slot,
    revision: kept ?? draft.input.app.revision,
    specHash: kept === null ? draft.spec.specHash : hash,
    replaces: old?.id ?? null,
    reason: why,
    ...(job === undefined ? {} : { job }),
  })
  draft.reasons.push({ subject: `${draft.input.service.id}/${slot}`, code: 'created', text: why })
}

/**
 * A record on its way out that nothing may run beside yet: a strict singleton, one with data (two on one volume would spoil it,
 * also when its node is silent), or an instance updated stop-first.
 */
export function isBlocking(draft: Draft, record: InstanceRecord): boolean {
  const { input, spec } = draft
  if (record.nodeId === null || input.node(record.nodeId) === undefined) return false
  if (hasVolumes(spec)) return true
  if (isNodeLost(input, spec, record)) return false
  return draft.strict || (updatesStopFirst(draft) && record.specHash !== spec.specHash)
}

/** Two of a kind must or shall not run beside each other during an update. */
export function updatesStopFirst({ spec, strict }: Draft): boolean {
  return strict || stopsFirst(spec)
}

/** The same by the present rules alone. */
export function stopsFirst({ update, mode, unit }: ServiceSpec): boolean {
  return update.order === 'stop-first' || mode === 'global' || unit.singletonStrictMs !== null
}

export function wake(draft: Draft, atMs: number): void {
  draft.wakeAtMs = earliest(draft.wakeAtMs, Math.max(draft.now + 1, atMs))
}

/** New attempts wait after failures; a wall clock that jumped back cannot make them wait longer than the longest pause. */
export function isBackingOff(draft: Draft): boolean {
  const until = draft.backoff?.notBeforeMs ?? 0
  return until > draft.now && until - draft.now <= MAX_BACKOFF_MS
}

export const MAX_BACKOFF_MS = 300_000

function push<T>(map: Map<number, T[]>, slot: number, value: T): void {
  const list = map.get(slot)
  if (list) list.push(value)
  else map.set(slot, [value])
}
