/**
 * Which image to look for, pull or give up next, of those that shall be here before an instance needs them. Pure; times are monotonic
 * ms. Instances come first: while one of them pulls another image nothing is pulled ahead.
 */
import { backoffCeilingMs } from '../../shared/backoff.ts'
import { earliest } from '../../shared/plan.ts'
import type { ImageToPull, PulledAhead } from '../../shared/protocol/frames.ts'

/** What is known of one wanted image. Nothing yet: it is looked for. */
export type AheadMemory =
  | { readonly kind: 'absent' }
  | { readonly kind: 'here' }
  /** The last of so many attempts failed; not again before that time. */
  | { readonly kind: 'failing'; readonly failures: number; readonly notBeforeMs: number }

export interface AheadState {
  /** Most urgent first. */
  readonly wanted: readonly ImageToPull[]
  readonly memory: ReadonlyMap<string, AheadMemory>
  /** Images that instances pull now. */
  readonly instancePulls: ReadonlySet<string>
  /** The image that is being pulled ahead. */
  readonly underWay: string | null
}

export type AheadAction =
  | { readonly kind: 'look'; readonly image: string }
  | { readonly kind: 'pull'; readonly want: ImageToPull }
  | { readonly kind: 'abort'; readonly reason: string }

export interface AheadPlan {
  readonly actions: readonly AheadAction[]
  readonly wakeAtMs: number | null
}

/** A registry that does not answer, or a disk that is full, is left alone for longer and longer. */
const BACKOFF = { baseMs: 30_000, capMs: 15 * 60_000 }

export function planPullAhead({ wanted, memory, instancePulls, underWay }: AheadState, nowMs: number): AheadPlan {
  const actions: AheadAction[] = []
  // The engine shares what two pulls of one image have in common: one that an instance has joined is not cut short.
  const mayPull = [...instancePulls].every((image) => image === underWay)
  if (underWay !== null && !wanted.some(({ image }) => image === underWay))
    actions.push({ kind: 'abort', reason: 'no longer wanted' })
  else if (underWay !== null && !mayPull) actions.push({ kind: 'abort', reason: 'an instance pulls' })
  for (const { image, refresh } of wanted) if (!memory.has(image) && refresh !== true) actions.push({ kind: 'look', image })
  let wakeAtMs: number | null = null
  let isFree = underWay === null && instancePulls.size === 0
  for (const want of wanted) {
    const known = memory.get(want.image)
    if (known?.kind === 'here' || (known === undefined && want.refresh !== true)) continue
    if (known?.kind === 'failing' && nowMs < known.notBeforeMs) wakeAtMs = earliest(wakeAtMs, known.notBeforeMs)
    else if (isFree) {
      actions.push({ kind: 'pull', want })
      isFree = false
    }
  }
  return { actions, wakeAtMs }
}

/** What follows an attempt that failed. */
export function afterFailure(before: AheadMemory | undefined, nowMs: number): AheadMemory {
  const failures = before?.kind === 'failing' ? before.failures : 0
  return { kind: 'failing', failures: failures + 1, notBeforeMs: nowMs + backoffCeilingMs(failures, BACKOFF) }
}

/** As the coordinator is told. */
export function answerOf({ wanted, memory }: Pick<AheadState, 'wanted' | 'memory'>): PulledAhead {
  const named = (kinds: readonly (AheadMemory['kind'] | undefined)[]) =>
    wanted.flatMap(({ image }) => (kinds.includes(memory.get(image)?.kind) ? [image] : []))
  return { here: named(['here']), pending: named(['absent', undefined]), failing: named(['failing']) }
}
