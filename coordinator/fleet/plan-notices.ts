/**
 * Which notices of a cloud that it takes machines away are believed? Those that can be true: in ms, not long past, not far ahead. A bad
 * one is told and left alone, since acting on it ends everything that runs there; the machine that is taken all the same is noticed by
 * its silence. Pure. Epoch ms.
 */
import type { MachineId, NodeId } from '../../shared/model/identity.ts'
import type { NodeRecord } from '../../shared/model/node.ts'
import type { Reason } from '../../shared/plan.ts'
import { INTERRUPTED_BY } from './drain-reasons.ts'

export interface Announcement {
  readonly machineId: MachineId
  readonly node: NodeRecord
  readonly endsAtMs: number
}

export interface Interruption {
  readonly kind: 'interrupt'
  readonly nodeId: NodeId
  readonly deadlineAtMs: number
  /** When what is left there is stopped by force, if that is not the deadline. */
  readonly forceAtMs?: number
}

/** 1973 in ms, the year 5138 in seconds. */
const LEAST_EPOCH_MS = 1e11
/** Lists are minutes old at worst. A machine that is listed as there this long after its end was not taken. */
const PAST_MS = 300_000
/** Clouds announce maintenance weeks ahead: what moves now would have run there for longer than most instances live. */
const AHEAD_MS = 7 * 86_400_000
/** Time to move at least, from when we hear of it: a deadline that has just passed must not stop everything this instant. */
const GRACE_MS = 30_000
/** A deadline that comes sooner than the one known by less is the same one, by a clock that is being set. */
const SAME_MS = 5_000
/**
 * More than this share of a provider's machines at once, if true, is more than can be replaced in time; if not, it must not end them. So
 * everything moves, but what has found no other place when its time is over is left for the cloud to take.
 */
const MASS_SHARE = 1 / 3
/** Of fewer machines any number is a large share. */
const LEAST_MASS = 3

/** `joined`: machines of the provider that have nodes. */
export function noticesOf(provider: string, announced: readonly Announcement[], joined: number, nowMs: number) {
  const reasons: Reason[] = []
  const believed: Announcement[] = []
  for (const announcement of announced) {
    const doubt = doubtOf(announcement.endsAtMs, nowMs)
    if (doubt === null) {
      believed.push(announcement)
      continue
    }
    const text = `${provider} announces the end of ${announcement.machineId} ${doubt}: it is not believed`
    reasons.push({ subject: announcement.machineId, code: 'notice-implausible', text })
  }
  const isMass = believed.length >= LEAST_MASS && believed.length > joined * MASS_SHARE
  if (isMass)
    reasons.push({
      subject: provider,
      code: 'mass-interruption',
      text: `${provider} announces the end of more than a third of its machines at once: they drain, and what has no other place stays until they are taken`,
    })
  const actions = believed.flatMap(({ node: { id, drain }, endsAtMs }): Interruption[] => {
    const deadlineAtMs = Math.max(endsAtMs, nowMs + GRACE_MS)
    const forceAtMs = isMass ? nowMs + AHEAD_MS : deadlineAtMs
    if (drain?.by === INTERRUPTED_BY && forceAtMs >= drain.deadlineAtMs - SAME_MS) return []
    return [{ kind: 'interrupt', nodeId: id, deadlineAtMs, ...(isMass ? { forceAtMs } : {}) }]
  })
  return { actions, reasons }
}

function doubtOf(endsAtMs: number, nowMs: number): string | null {
  if (endsAtMs < LEAST_EPOCH_MS) return `with a time that is no epoch in ms (${endsAtMs}; seconds?)`
  if (endsAtMs < nowMs - PAST_MS) return 'for a time that is long past'
  if (endsAtMs > nowMs + AHEAD_MS) return `for a time more than ${AHEAD_MS / 86_400_000} days ahead`
  return null
}
