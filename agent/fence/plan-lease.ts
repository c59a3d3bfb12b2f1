/**
 * Which strict singletons of this node the watchdog must know, and what of them may run. Pure; times are steady ms. Nothing is
 * forgotten at once: what was told to stop, or is being started while its assignment goes, may run for a moment yet.
 */
import type { InstanceId } from '../../shared/model/identity.ts'
import type { LeasedInstance } from './lease.ts'

/** A strict singleton that this node shall have. */
export interface StrictAssignment {
  readonly instance: InstanceId
  readonly runtime: LeasedInstance['runtime']
  readonly afterMs: number
  readonly stopGraceMs: number
}

/** A leased instance, and when each of its ids was last needed. */
export interface KeptInstance extends Omit<LeasedInstance, 'ids'> {
  readonly neededMs: number
  readonly ids: ReadonlyMap<string, number>
}

export interface LeaseInput {
  readonly assigned: readonly StrictAssignment[]
  /** Containers that exist; null: the engine does not answer, so every one that was there may be there still. */
  readonly present: readonly { readonly instance: InstanceId; readonly id: string }[] | null
  readonly kept: ReadonlyMap<InstanceId, KeptInstance>
}

/** Longer than any step takes that was under way when the need was over. */
export const LINGER_MS = 120_000

/** A strict singleton that was found running by an agent without any contact is stopped after this. */
export const START_GRACE_MS = 5_000

/** From this instant on a strict singleton must not run, unless a coordinator is heard before. */
export function deadlineMsOf(
  { contactMs, startedMs }: { readonly contactMs: number | null; readonly startedMs: number },
  afterMs: number,
): number {
  return contactMs === null ? startedMs + Math.min(afterMs, START_GRACE_MS) : contactMs + afterMs
}

export function planLease({ assigned, present, kept }: LeaseInput, nowMs: number): ReadonlyMap<InstanceId, KeptInstance> {
  const next = new Map<InstanceId, KeptInstance>()
  for (const [instance, before] of kept) {
    const seen = present === null ? [...before.ids.keys()] : present.filter((it) => it.instance === instance).map(({ id }) => id)
    const ids = new Map([...before.ids].filter(([, neededMs]) => nowMs - neededMs < LINGER_MS))
    for (const id of seen) ids.set(id, nowMs)
    const neededMs = seen.length > 0 ? nowMs : before.neededMs
    if (nowMs - neededMs < LINGER_MS) next.set(instance, { ...before, neededMs, ids })
  }
  for (const strict of assigned) {
    const ids = new Map(next.get(strict.instance)?.ids)
    for (const { instance, id } of present ?? []) if (instance === strict.instance) ids.set(id, nowMs)
    next.set(strict.instance, { ...strict, neededMs: nowMs, ids })
  }
  return next
}
