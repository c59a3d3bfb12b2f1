/**
 * Updates: outdated instances are exchanged a few at a time, each new one proves itself first, and a new one that does not
 * leads back to the revision that ran before (fault row 44). Pure.
 */
import { compare } from '../../shared/compare.ts'
import type { AppRecord, RolloutState } from '../state/objects.ts'
import {
  create,
  type Draft,
  isBackingOff,
  isBlocking,
  type Member,
  members,
  retire,
  single,
  updatesStopFirst,
  wake,
} from './draft.ts'
import { waitsForImages } from './images-first.ts'
import { isActive, reason, revisionWithHash } from './service-plan.ts'

/** Ready and healthy for as long as the update wants to see it, or done with its work. */
export function isAccepted(draft: Draft, member: Member): boolean {
  if (member.standing === 'completed') return true
  const readyMs = member.standing === 'ready' ? draft.input.elapsed.readyMs(member.record.id) : null
  if (readyMs === null || member.crashLooping) return false
  const leftMs = draft.spec.update.monitorMs - readyMs
  if (leftMs > 0) wake(draft, draft.now + leftMs)
  return leftMs <= 0
}

/** The rollout under way now: goes on with the present one or begins one for the present revision. null: nothing to update. */
export function planRolloutStart(draft: Draft): RolloutState | null {
  const { app, service } = draft.input
  const outdated = members(draft).filter((member) => member.record.specHash !== draft.spec.specHash)
  const rollout = service.rollout
  if (rollout !== null && rollout.toRevision === app.revision) return rollout
  if (outdated.length === 0) {
    if (rollout === null || rollout.phase === 'completed') return rollout
    return setRollout(
      draft,
      { ...rollout, toRevision: app.revision, phase: 'completed', message: 'every instance runs it already' },
      'rollout.completed',
    )
  }
  if (draft.backoff !== null) {
    draft.backoff = null
    draft.actions.push({ kind: 'set-backoff', backoff: null })
  }
  const back = wasRolledBack(app)
  return setRollout(
    draft,
    {
      fromRevision: revisionBefore(draft, outdated, rollout),
      toRevision: app.revision,
      phase: back ? 'rolling-back' : 'progressing',
      startedAtMs: draft.now,
      message: `${outdated.length} instances to exchange`,
    },
    back ? 'rollout.rolling-back' : 'rollout.started',
  )
}

/** Decides about new instances that do not prove themselves. True: the whole app goes back, nothing else may happen now. */
export function planRolloutFailure(
  draft: Draft,
  rollout: RolloutState | null,
): { rollout: RolloutState | null; rolledBack: boolean } {
  if (!isActive(rollout) || draft.spec.update.failureAction === 'continue') return { rollout, rolledBack: false }
  const culprit = members(draft).find((member) => faultOf(draft, member) !== null)
  if (culprit === undefined) return { rollout, rolledBack: false }
  const why = `${culprit.record.id} ${faultOf(draft, culprit)}`
  const halt = (phase: 'paused' | 'failed', message: string) => ({
    rollout: setRollout(draft, { ...rollout, phase, message }, `rollout.${phase}`, 'error'),
    rolledBack: false,
  })
  if (rollout.phase === 'rolling-back') return halt('failed', `the revision gone back to does not run either: ${why}`)
  if (draft.spec.update.failureAction === 'pause') return halt('paused', why)
  const target = draft.input.app.history.find((entry) => entry.revision === rollout.fromRevision && differs(draft, entry))
  if (target === undefined) return halt('paused', `${why}; no earlier revision is kept to go back to`)
  draft.actions.push({ kind: 'rollback-app', toRevision: target.revision, reason: why })
  draft.reasons.push(reason(draft.input.service.id, 'rolled-back', why))
  return { rollout, rolledBack: true }
}

/**
 * The spec that additions run while no instance of the new one has proved itself: the one that most ready instances run (a service
 * that must grow in the middle of an update grows by what works). null: the new one has proved itself, or nothing else works.
 */
export function provenHash(draft: Draft, rollout: RolloutState | null): string | null {
  if (rollout?.phase !== 'progressing') return null
  const counts = new Map<string, number>()
  for (const member of members(draft)) {
    const { specHash } = member.record
    if (specHash === draft.spec.specHash) {
      if (isAccepted(draft, member)) return null
    } else if (member.standing === 'ready') counts.set(specHash, (counts.get(specHash) ?? 0) + 1)
  }
  const [hash] = [...counts].sort((a, b) => b[1] - a[1] || compare(a[0], b[0]))[0] ?? []
  return hash !== undefined && revisionWithHash(draft.input.app, draft.spec.name, hash) !== null ? hash : null
}

/**
 * How many empty slots may be filled with the new spec while it is unproven. An update stop-first empties them to fill them so; what
 * is empty beside an update start-first is there because more are wanted.
 */
export function roomForUnproven(draft: Draft): number {
  if (!updatesStopFirst(draft)) return 0
  const here = members(draft).filter((member) => member.record.specHash === draft.spec.specHash).length
  return Math.max(0, parallelismOf(draft) - here)
}

/** Exchanges the next outdated instances as far as parallelism and delay allow, and notices when all is done. */
export function planUpdates(draft: Draft, rollout: RolloutState | null): void {
  if (!isActive(rollout)) return
  const { spec } = draft
  const all = members(draft)
  const outdated = all.filter((member) => member.record.specHash !== spec.specHash)
  const unproven = all.filter((member) => isUnproven(draft, member))
  if (outdated.length === 0) {
    const accepted = all.length - unproven.length
    const watched = unproven.filter((member) => !waitsAlone(draft, member)).length
    if (watched === 0 && isFull(draft) && (accepted > 0 || draft.wanted === 0))
      setRollout(draft, { ...rollout, phase: 'completed', message: 'every instance is exchanged' }, 'rollout.completed')
    else if (rollout.phase === 'progressing')
      setRollout(
        draft,
        { ...rollout, phase: 'monitoring', message: `${unproven.length} instances to prove themselves` },
        'rollout.monitoring',
      )
    return
  }
  const isUnprovenYet = provenHash(draft, rollout) !== null
  // An addition that waits for its place is exchanged once the new spec is known to work, or gone.
  const candidates = outdated.filter(
    (member) => single(draft, member.slot) === member && !(isUnprovenYet && member.standing === 'waiting'),
  )
  const idle = candidates.filter(
    (member) => member.standing === 'waiting' || member.standing === 'completed' || member.standing === 'failed',
  )
  for (const member of idle) {
    retire(draft, member, `outdated by revision ${draft.input.app.revision}`)
    create(draft, member.slot, null, spec.specHash, `update to revision ${draft.input.app.revision}`)
  }
  if (isBackingOff(draft)) {
    wake(draft, draft.backoff?.notBeforeMs ?? draft.now)
    return
  }
  if (!isDelayOver(draft, all)) return
  const blocked = [...draft.stopping].filter(
    ([slot, records]) => !draft.running.has(slot) && records.some((record) => isBlocking(draft, record)),
  ).length
  // Where the old one stops first, one that waits for its place is out of service: no further one may follow it unproven.
  const counts = (member: Member) => (isUnprovenYet && updatesStopFirst(draft)) || !waitsAlone(draft, member)
  // A slot whose old one has just gone is filled later in this very plan: it is out of service as well.
  const vacant = updatesStopFirst(draft) ? Math.max(0, draft.wanted - filledCount(draft) - draft.created.size - blocked) : 0
  const room = parallelismOf(draft) - blocked - vacant - unproven.filter(counts).length
  const next = candidates
    .filter((member) => !idle.includes(member))
    .sort((a, b) => rank(a) - rank(b) || a.slot - b.slot)
    .slice(0, Math.max(0, room))
  for (const member of next)
    if (updatesStopFirst(draft)) {
      if (!waitsForImages(draft, member, rollout)) retire(draft, member, `update to revision ${draft.input.app.revision}`)
    } else create(draft, member.slot, member.record, spec.specHash, `update to revision ${draft.input.app.revision}`)
}

function parallelismOf({ spec }: Draft): number {
  return spec.update.parallelism <= 0 ? Number.POSITIVE_INFINITY : spec.update.parallelism
}

/** Why a new instance counts as failed, or null. One that waits for a place, or whose node is silent, is not to blame. */
function faultOf(draft: Draft, member: Member): string | null {
  // One of an earlier revision ran before this rollout: its faults are not this rollout's.
  if (member.record.specHash !== draft.spec.specHash || member.record.revision !== draft.input.app.revision) return null
  const message = draft.input.observe(member.record.id)?.message
  const detail = message ? `: ${message}` : ''
  if (member.standing === 'failed') return `failed${detail}`
  if (member.crashLooping) return `keeps crashing${detail}`
  if (member.standing !== 'starting' && member.standing !== 'unhealthy') return null
  const { progressDeadlineMs } = draft.spec.update
  const leftMs = progressDeadlineMs - draft.input.elapsed.placedMs(member.record)
  if (leftMs > 0) {
    wake(draft, draft.now + leftMs)
    return null
  }
  return `was not ready within ${progressDeadlineMs} ms${detail}`
}

function isUnproven(draft: Draft, member: Member): boolean {
  if (member.record.specHash !== draft.spec.specHash) return false
  if (draft.spec.update.failureAction === 'continue' && (member.standing === 'failed' || member.crashLooping)) return false
  return !isAccepted(draft, member)
}

/** Every wanted slot is filled, or was and its job is done. */
function isFull(draft: Draft): boolean {
  return filledCount(draft) >= draft.wanted
}

function filledCount(draft: Draft): number {
  const done = Object.entries(draft.input.service.completed ?? {}).filter(
    ([slot, hash]) => hash === draft.spec.specHash && !draft.running.has(Number(slot)),
  ).length
  return draft.running.size + done
}

/** Takes nobody's place and has none yet: capacity is missing, the update is not to blame. */
function waitsAlone(draft: Draft, member: Member): boolean {
  return member.standing === 'waiting' && single(draft, member.slot) === member
}

function isDelayOver(draft: Draft, all: readonly Member[]): boolean {
  const { delayMs, monitorMs } = draft.spec.update
  if (delayMs <= 0) return true
  let leftMs = 0
  for (const member of all) {
    if (member.record.specHash !== draft.spec.specHash) continue
    const readyMs = draft.input.elapsed.readyMs(member.record.id)
    if (readyMs !== null) leftMs = Math.max(leftMs, monitorMs + delayMs - readyMs)
  }
  if (leftMs > 0) wake(draft, draft.now + leftMs)
  return leftMs <= 0
}

/** Those that serve nothing first. */
function rank(member: Member): number {
  return member.standing === 'ready' ? 1 : 0
}

/** The revision that what is ready now came from; when nothing is, the one an unfinished rollout came from. 0: not kept. */
function revisionBefore(draft: Draft, outdated: readonly Member[], unfinished: RolloutState | null): number {
  const ready = outdated.filter((member) => member.standing === 'ready')
  if (ready.length === 0 && unfinished !== null && unfinished.phase !== 'completed') return unfinished.fromRevision
  const counts = new Map<string, number>()
  for (const member of ready.length > 0 ? ready : outdated)
    counts.set(member.record.specHash, (counts.get(member.record.specHash) ?? 0) + 1)
  const [hash] = [...counts].sort((a, b) => b[1] - a[1] || compare(a[0], b[0]))[0] ?? ['']
  return revisionWithHash(draft.input.app, draft.spec.name, hash) ?? 0
}

/** Whether going back to it would change what this service runs, to something that has not failed. */
function differs(draft: Draft, entry: AppRecord['history'][number]): boolean {
  const before = entry.spec.services.find((service) => service.name === draft.spec.name)
  return entry.failedReason === undefined && before !== undefined && before.specHash !== draft.spec.specHash
}

function wasRolledBack(app: AppRecord): boolean {
  return app.history.find((entry) => entry.revision === app.revision - 1)?.failedReason !== undefined
}

function setRollout(draft: Draft, rollout: RolloutState, event: string, severity: 'info' | 'error' = 'info'): RolloutState {
  draft.actions.push({ kind: 'set-rollout', rollout, event, severity })
  draft.reasons.push(reason(draft.input.service.id, event, rollout.message))
  return rollout
}
