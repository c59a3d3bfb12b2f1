/**
 * Brings one service to what its app wants: as many instances as wanted, of the present spec, on nodes that stay. Pure and
 * level-triggered: run again after any prefix of its actions was carried out, it goes on from there; when all is as wanted
 * it decides nothing. Silence of a node is no news (fault row 18).
 */
import { compare } from '../../shared/compare.ts'
import type { Plan } from '../../shared/plan.ts'
import type { RolloutState } from '../state/objects.ts'
import { chooseVictims } from './choose-victims.ts'
import { mostWaiting } from '../state/commit-room.ts'
import { create, type Draft, isBlocking, members, retire, startDraft } from './draft.ts'
import { planJob } from './plan-job.ts'
import { planDrains, planFailed, planLost, planPairs, planRemovals } from './plan-replace.ts'
import { isAccepted, planRolloutFailure, planRolloutStart, planUpdates, provenHash, roomForUnproven } from './plan-rollout.ts'
import { reason, revisionWithHash, type ServiceAction, type ServiceInput, unmetDependency, wantedCount } from './service-plan.ts'

/** The next moves of one service. `now` is epoch ms. */
export function planService(input: ServiceInput, now: number): Plan<ServiceAction> {
  const { spec } = input
  if (spec === null || input.app.removing) return planEnd(input)
  if (spec.job !== undefined) return planJob(input, spec, spec.job, now)
  const wanted = spec.mode === 'global' ? input.globalNodes.length : wantedCount(spec, input.service)
  const draft = startDraft(input, spec, wanted, now)
  planRemovals(draft)
  planCompletions(draft)
  const started = planRolloutStart(draft)
  const { rollout, rolledBack } = planRolloutFailure(draft, started)
  if (!rolledBack) {
    planLost(draft)
    planFailed(draft, rollout)
    planSurplus(draft)
    planPairs(draft, (member) => isAccepted(draft, member))
    planDrains(draft)
    planUpdates(draft, rollout)
    planMissing(draft, rollout)
  }
  return { actions: draft.actions, reasons: draft.reasons, wakeAtMs: draft.wakeAtMs }
}

/** The service or its app shall not be any more: everything stops, then the record goes. */
function planEnd(input: ServiceInput): Plan<ServiceAction> {
  const why = input.app.removing ? `app ${input.app.name} is taken down` : `revision ${input.app.revision} has no such service`
  const actions: ServiceAction[] = []
  let left = 0
  for (const record of [...input.instances].sort((a, b) => compare(a.id, b.id))) {
    const seen = input.observe(record.id)
    const isOver =
      record.nodeId === null ||
      input.node(record.nodeId) === undefined ||
      (seen?.nodeId === record.nodeId && (seen.phase === 'stopped' || seen.phase === 'failed'))
    if (isOver) actions.push({ kind: 'remove', id: record.id, reason: why })
    else {
      left += 1
      if (record.goal === 'run') actions.push({ kind: 'stop', id: record.id, reason: why })
    }
  }
  if (left === 0) actions.push({ kind: 'delete-service' })
  return { actions, reasons: [reason(input.service.id, 'ending', `${why}; ${left} instances to stop`)], wakeAtMs: null }
}

/** Remembers which slots of a job are done, so that a restart or a drain does not run it again. */
function planCompletions(draft: Draft): void {
  for (const member of members(draft))
    if (member.standing === 'completed' && draft.input.service.completed?.[member.slot] !== member.record.specHash)
      draft.actions.push({ kind: 'set-completed', slot: member.slot, specHash: member.record.specHash })
}

function isDone(draft: Draft, slot: number): boolean {
  return draft.input.service.completed?.[slot] === draft.spec.specHash
}

/** More than wanted: chooses who stops. */
function planSurplus(draft: Draft): void {
  if (draft.spec.mode === 'global') {
    planGlobalSurplus(draft)
    return
  }
  const surplus = draft.running.size - draft.wanted
  for (const slot of chooseVictims(draft, surplus))
    for (const member of [...(draft.running.get(slot) ?? [])]) {
      retire(draft, member, `${draft.wanted} instances are wanted, ${draft.wanted + surplus} there`)
      draft.vacated.delete(slot)
    }
}

function planGlobalSurplus(draft: Draft): void {
  const nodes = new Set(draft.input.globalNodes)
  const covered = new Set<string>()
  for (const member of members(draft)) {
    const { nodeId } = member.record
    if (nodeId === null) continue
    if (!nodes.has(nodeId) && member.standing !== 'unknown') retire(draft, member, `node ${nodeId} shall have none`)
    else if (covered.has(nodeId) && member.standing !== 'unknown') retire(draft, member, `node ${nodeId} has one already`)
    covered.add(nodeId)
  }
  const open = draft.input.globalNodes.filter((nodeId) => !covered.has(nodeId)).length
  const waiting = members(draft).filter((member) => member.standing === 'waiting')
  for (const member of waiting.slice(open)) retire(draft, member, 'every node has one already')
}

/** Fewer than wanted: vacated slots first, then the lowest free ones. */
function planMissing(draft: Draft, rollout: RolloutState | null): void {
  const { input, spec } = draft
  const blocked = new Set(
    [...draft.stopping].filter(([, records]) => records.some((record) => isBlocking(draft, record))).map(([slot]) => slot),
  )
  const taken = (slot: number) => draft.running.has(slot) || draft.created.has(slot)
  const held = [...blocked].filter((slot) => !taken(slot)).length
  let missing = missingCount(draft, held)
  if (missing <= 0) return
  const unmet = draft.running.size === 0 ? unmetDependency(input, spec) : undefined
  if (unmet !== undefined) {
    draft.reasons.push(reason(input.service.id, 'waiting-for-dependency', `waits until ${unmet.service} is ${unmet.condition}`))
    return
  }
  const waiting =
    members(draft).filter((member) => member.standing === 'waiting').length +
    draft.actions.filter((action) => action.kind === 'create').length
  missing = Math.min(missing, Math.max(0, mostWaiting(input.service.id) - waiting))
  const fresh = hashForNew(draft, rollout)
  const refill = [...draft.vacated.keys()]
    .sort((a, b) => a - b)
    .filter((slot) => !taken(slot) && !blocked.has(slot) && !isDone(draft, slot))
  for (const slot of refill.slice(0, missing)) {
    const old = draft.vacated.get(slot)
    if (old === undefined) continue
    const hash = keepsSpec(rollout) ? old.record.specHash : spec.specHash
    create(draft, slot, old.record, hash, `takes the place of ${old.record.id} (${whyVacated(draft, old.record.id)})`)
    missing -= 1
  }
  const proven = provenHash(draft, rollout)
  let room = proven === null ? missing : roomForUnproven(draft)
  for (let slot = 1; missing > 0; slot += 1) {
    if (taken(slot) || blocked.has(slot) || isDone(draft, slot)) continue
    const leaving = draft.stopping.get(slot)?.at(-1)
    create(draft, slot, leaving ?? null, room > 0 || proven === null ? fresh : proven, `${draft.wanted} instances are wanted`)
    missing -= 1
    room -= 1
  }
}

function missingCount(draft: Draft, held: number): number {
  if (draft.spec.mode === 'global') return missingGlobal(draft)
  const done = Object.keys(draft.input.service.completed ?? {})
    .map(Number)
    .filter((slot) => isDone(draft, slot) && !draft.running.has(slot) && !draft.created.has(slot)).length
  return draft.wanted - draft.running.size - draft.created.size - held - done
}

/** Nodes that shall have an instance and have neither one nor one that still stops. */
function missingGlobal(draft: Draft): number {
  const busy = new Set<string>()
  let waiting = 0
  for (const member of members(draft)) {
    if (member.record.nodeId === null) waiting += 1
    else busy.add(member.record.nodeId)
  }
  for (const records of draft.stopping.values()) for (const record of records) if (record.nodeId !== null) busy.add(record.nodeId)
  const open = draft.input.globalNodes.filter((id) => !busy.has(id) && draft.input.node(id)?.availability === 'active').length
  return open - waiting - draft.created.size
}

/** While a rollout is unfinished only the rollout itself changes what a slot runs. */
function keepsSpec(rollout: RolloutState | null): boolean {
  return rollout !== null && rollout.phase !== 'completed'
}

/** What an instance without a predecessor runs: the present spec, unless that has just proved bad. */
function hashForNew(draft: Draft, rollout: RolloutState | null): string {
  const isBad = rollout !== null && (rollout.phase === 'paused' || rollout.phase === 'failed')
  if (!isBad) return draft.spec.specHash
  const before = draft.input.app.history.find((entry) => entry.revision === rollout.fromRevision)
  const hash = before?.spec.services.find((service) => service.name === draft.spec.name)?.specHash
  return hash !== undefined && revisionWithHash(draft.input.app, draft.spec.name, hash) !== null ? hash : draft.spec.specHash
}

function whyVacated(draft: Draft, id: string): string {
  const action = draft.actions.find(
    (candidate) => (candidate.kind === 'stop' || candidate.kind === 'remove') && candidate.id === id,
  )
  return action !== undefined && 'reason' in action ? action.reason : ''
}
