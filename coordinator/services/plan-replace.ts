/** Instances whose place is lost, failed or leaving: who goes, who is replaced, and when. Pure. */
import { backoffCeilingMs } from '../../shared/backoff.ts'
import { create, type Draft, isBackingOff, MAX_BACKOFF_MS, type Member, members, retire, single, wake } from './draft.ts'
import type { RolloutState } from '../state/objects.ts'
import { hasVolumes, isActive, isLeaving, isMisplaced, isNodeLost, mainRestart, reason, strictWaitMs } from './service-plan.ts'

/** Between attempts of what fails: 10 s, then twice as long each time, at most 5 min. */
export const FAILURE_BACKOFF = { baseMs: 10_000, capMs: MAX_BACKOFF_MS }
/** Everything ready for this long makes earlier failures forgotten. */
const BACKOFF_RESET_MS = 60_000

/** Records that are on their way out and have arrived: reported stopped, never placed, or their node has left the cluster. */
export function planRemovals(draft: Draft): void {
  for (const [slot, records] of draft.stopping) {
    const left = records.filter((record) => {
      const seen = draft.input.observe(record.id)
      const over =
        record.nodeId === null
          ? 'it never had a place'
          : draft.input.node(record.nodeId) === undefined
            ? `node ${record.nodeId} has left the cluster`
            : seen?.nodeId === record.nodeId && (seen.phase === 'stopped' || seen.phase === 'failed')
              ? `its node reported it ${seen.phase}`
              : null
      if (over !== null) draft.actions.push({ kind: 'remove', id: record.id, reason: over })
      return over === null
    })
    if (left.length > 0) draft.stopping.set(slot, left)
    else draft.stopping.delete(slot)
  }
}

/**
 * Instances on nodes that are lost or have left. Beside one on a lost node a replacement is started, as on a drain: a node that
 * comes back before it is ready just goes on (fault row 25). A strict singleton must have been stopped by its agent first, and
 * stays so; what has its data on the node can run nowhere else, so it waits for the node, however long.
 */
export function planLost(draft: Draft): void {
  awaitEnds(draft)
  for (const member of members(draft)) {
    const { nodeId, id } = member.record
    if (member.standing === 'gone') retire(draft, member, `node ${nodeId} has left the cluster`)
    else if (member.standing === 'lost') {
      const why = `node ${nodeId} is lost`
      if (draft.strict || draft.running.get(member.slot)?.[0] !== member) retire(draft, member, why)
      else if (hasVolumes(draft.spec)) draft.reasons.push(reason(id, 'data-waits', `${why}, and its data is there: it waits`))
      else if (single(draft, member.slot) !== member) continue
      else if (isBackingOff(draft)) wake(draft, draft.backoff?.notBeforeMs ?? draft.now)
      else create(draft, member.slot, member.record, member.record.specHash, `${why}, it may come back`)
    }
  }
}

/** Wakes when a strict singleton on a lost node, wanted or on its way out there, has ended for certain. */
export function awaitEnds(draft: Draft): void {
  const { input, spec, now } = draft
  if (!draft.strict || input.frozen || spec.mode === 'global') return
  for (const record of input.instances) {
    const { nodeId, id } = record
    if (nodeId === null || input.node(nodeId)?.liveness !== 'lost') continue
    const waitMs = strictWaitMs(input, record)
    if (waitMs === null || isNodeLost(input, spec, record)) continue
    wake(draft, now + waitMs - input.elapsed.lostMs(nodeId))
    draft.reasons.push(reason(id, 'singleton-waits', `strict singleton: node ${nodeId} must be lost for ${waitMs} ms first`))
  }
}

/** Instances that their agents gave up: replaced at once the first time, then ever more slowly (fault rows 9 and 22). */
export function planFailed(draft: Draft, rollout: RolloutState | null): void {
  // Outdated ones are left to an update under way.
  const isOurs = (member: Member) => !isActive(rollout) || member.record.specHash === draft.spec.specHash
  const failed = members(draft).filter(
    (member) => member.standing === 'failed' && mainRestart(draft.spec) !== 'none' && isOurs(member),
  )
  if (failed.length === 0) {
    forgetFailures(draft)
    return
  }
  if (isBackingOff(draft)) {
    const atMs = draft.backoff?.notBeforeMs ?? draft.now
    wake(draft, atMs)
    for (const member of failed)
      draft.reasons.push(
        reason(member.record.id, 'backing-off', `failed ${draft.backoff?.failures} times, next attempt at ${atMs}`),
      )
    return
  }
  const failures = draft.backoff?.failures ?? 0
  const notBeforeMs = draft.now + backoffCeilingMs(failures, FAILURE_BACKOFF)
  draft.actions.push({ kind: 'set-backoff', backoff: { failures: Math.min(failures + 1, 1_000_000), notBeforeMs } })
  for (const member of failed) {
    const message = draft.input.observe(member.record.id)?.message
    retire(draft, member, message ? `failed: ${message}` : 'failed')
  }
}

function forgetFailures(draft: Draft): void {
  if (draft.backoff === null) return
  let shortestMs = Number.POSITIVE_INFINITY
  for (const member of members(draft)) {
    if (member.standing === 'completed') continue
    const readyMs = draft.input.elapsed.readyMs(member.record.id)
    if (member.standing !== 'ready' || readyMs === null) return
    shortestMs = Math.min(shortestMs, readyMs)
  }
  if (shortestMs >= BACKOFF_RESET_MS) draft.actions.push({ kind: 'set-backoff', backoff: null })
  else wake(draft, draft.now + BACKOFF_RESET_MS - shortestMs)
}

/**
 * Slots in which two instances run: an old one and its replacement. Ends the pair when the new one can take over, or when
 * the cause has gone (rolled back, drain taken back).
 */
export function planPairs(draft: Draft, isAccepted: (member: Member) => boolean): void {
  for (const slot of [...draft.running.keys()].sort((a, b) => a - b)) {
    let here = draft.running.get(slot) ?? []
    // More than two, or two that do not belong together, come from no plan of ours: keep the best.
    while (here.length > 2 || (here.length === 2 && here[1]?.record.replaces !== here[0]?.record.id)) {
      const worst = [...here].sort((a, b) => value(draft, a) - value(draft, b) || a.generation - b.generation)[0]
      if (worst === undefined) break
      retire(draft, worst, 'another instance holds its slot')
      here = draft.running.get(slot) ?? []
    }
    const [old, replacement] = here
    if (old !== undefined && replacement !== undefined) planPair(draft, old, replacement, isAccepted)
  }
}

function planPair(draft: Draft, old: Member, replacement: Member, isAccepted: (member: Member) => boolean): void {
  const current = draft.spec.specHash
  const isUpdate = old.record.specHash !== current && replacement.record.specHash === current
  const isDrain = mustMove(draft, old) && !mustMove(draft, replacement)
  const isLost = old.standing === 'lost'
  const isMove = replacement.record.moves === true && replacement.record.specHash === old.record.specHash
  const isReady = replacement.standing === 'ready' || replacement.standing === 'completed'
  const isHeir = isReady && (replacement.record.specHash === current || old.standing !== 'ready') && !mustMove(draft, replacement)
  if (isUpdate ? isAccepted(replacement) : (isDrain || isLost || isMove) && isReady) {
    retire(draft, old, `replaced by ${replacement.record.id}, which is ready`)
  } else if (isDrain && isPastDeadline(draft, old)) {
    retire(draft, old, `drain deadline of node ${old.record.nodeId} is over`)
  } else if (!isUpdate && !isDrain && !isLost && !isMove) {
    // The cause has gone. One that is ready already completes the move, unless it runs what was rolled back.
    if (isHeir) retire(draft, old, `${replacement.record.id} has taken its place`)
    else retire(draft, replacement, `not needed any more: ${old.record.id} stays`)
  }
}

/** Its node drains, or is of a pool that the service no longer allows; what has its data there stays in the latter case. */
function mustMove(draft: Draft, { record }: Member): boolean {
  if (isLeaving(draft.input, record.nodeId)) return true
  return draft.spec.mode !== 'global' && !hasVolumes(draft.spec) && isMisplaced(draft.input, draft.spec, record.nodeId)
}

/**
 * Moves instances off nodes that drain or that their service no longer allows: a replacement beside each, at most a quarter of
 * the service at once (fault row 42).
 */
export function planDrains(draft: Draft): void {
  const budget = Math.max(1, Math.ceil(draft.wanted / 4))
  let moving = members(draft).filter((member) => mustMove(draft, member) && single(draft, member.slot) === undefined).length
  for (const member of members(draft)) {
    if (!mustMove(draft, member) || single(draft, member.slot) !== member) continue
    const node = member.record.nodeId
    const why = isLeaving(draft.input, node) ? `node ${node} drains` : `node ${node} is of a pool that it may no longer be on`
    if (member.standing === 'completed') retire(draft, member, `finished; ${why}`)
    else if (draft.spec.mode === 'global' || draft.strict) retire(draft, member, why)
    else if (isPastDeadline(draft, member)) retire(draft, member, `drain deadline of node ${node} is over`)
    else if (isBackingOff(draft)) wake(draft, draft.backoff?.notBeforeMs ?? draft.now)
    else if (moving < budget) {
      moving += 1
      create(draft, member.slot, member.record, member.record.specHash, `moves: ${why}`)
    } else
      draft.reasons.push(
        reason(member.record.id, 'drain-budget', `waits: ${moving} of at most ${budget} instances of its service are moving`),
      )
  }
}

/** Whether the drain of its node may stop it now; else a wake-up is set for when it may. */
export function isPastDeadline(draft: Draft, member: Member): boolean {
  const { nodeId } = member.record
  const deadlineAtMs = nodeId === null ? null : (draft.input.node(nodeId)?.drainDeadlineAtMs ?? null)
  if (deadlineAtMs === null) return false
  if (deadlineAtMs <= draft.now) return true
  wake(draft, deadlineAtMs)
  return false
}

/** Larger is worth more. */
function value(draft: Draft, member: Member): number {
  return (member.standing === 'ready' ? 2 : 0) + (member.record.specHash === draft.spec.specHash ? 1 : 0)
}
