/**
 * Brings a job on: begins its runs when they are due, starts what a run still needs, tries again what failed, and ends it.
 * Pure and level-triggered like `planService`. What a run has done is stored in the same commit as, and before, the instance
 * that did it goes, so a crash between any two steps neither loses a completion nor counts a failure twice.
 *
 * Work may be done twice (an instance on a lost node may still end its work there); a scheduled time is never begun twice.
 */
import { backoffCeilingMs } from '../../shared/backoff.ts'
import type { JobRules, ServiceSpec } from '../../shared/model/app.ts'
import type { Plan } from '../../shared/plan.ts'
import type { InstanceRecord, JobRun } from '../state/objects.ts'
import { create, type Draft, MAX_BACKOFF_MS, type Member, members, retire, startDraft, wake } from './draft.ts'
import { beginRuns, ended, isRunning, kept } from './job-runs.ts'
import { awaitEnds, FAILURE_BACKOFF, isPastDeadline, planRemovals } from './plan-replace.ts'
import {
  hasVolumes,
  isActive,
  isLeaving,
  isNodeLost,
  type JobEvent,
  reason,
  type ServiceAction,
  type ServiceInput,
} from './service-plan.ts'

/** Most instances of one job that wait for a place at once: keeps its record, with what it knows of its tasks, within one commit. */
const MAX_WAITING = 100
/** Failed attempts are told at once, then together: after a minute, two, four … Else one job's retries push all else out of the audit trail. */
const RETRIES_TOLD_MS = 60_000
const MAX_RETRIES_TOLD_MS = 3_600_000

/** The next moves of one job. `now` is epoch ms. */
export function planJob(input: ServiceInput, spec: ServiceSpec, rules: JobRules, now: number): Plan<ServiceAction> {
  const draft = startDraft(input, spec, 0, now)
  planRemovals(draft)
  awaitEnds(draft)
  const before = input.service.job
  const events: JobEvent[] = []
  const begun = beginRuns(draft, rules, before ?? { runs: [], decidedAtMs: now, schedule: '' }, events)
  // The record is written first: an instance never begins, or goes, without it.
  const place = draft.actions.length
  // Before anything begins: what an ended run leaves behind may stand in its way.
  retireOver(draft, begun.runs)
  const runs = begun.runs.map((run) => (isRunning(run) ? planRun(draft, rules, run, events) : run))
  const job = kept({ ...begun, runs })
  retireOver(draft, job.runs)
  if (before === undefined || JSON.stringify(before) !== JSON.stringify(job))
    draft.actions.splice(place, 0, { kind: 'set-job', job, events })
  if (isActive(input.service.rollout))
    draft.actions.push({
      kind: 'set-rollout',
      rollout: { ...input.service.rollout, phase: 'completed', message: 'it is a job now' },
      event: 'rollout.completed',
      severity: 'info',
    })
  return { actions: draft.actions, reasons: draft.reasons, wakeAtMs: draft.wakeAtMs }
}

/** Takes out the instances of runs that are over, and those of no run. */
function retireOver(draft: Draft, runs: readonly JobRun[]): void {
  const going = new Set(runs.filter(isRunning).map((run) => run.id))
  for (const member of members(draft)) if (!going.has(member.record.job?.run ?? '')) retire(draft, member, 'its run is over')
}

/** One run under way: takes in what its instances did, ends it or starts what is missing. Answers the run afterwards. */
function planRun(draft: Draft, rules: JobRules, before: JobRun, events: JobEvent[]): JobRun {
  const { input, spec, now } = draft
  const { run, live } = takeIn(draft, before, events)
  const done = new Set(run.done)
  const keys = keysOf(draft, rules)
  const succeeded = keys.filter((key) => done.has(key)).length
  const next = { ...run, completions: keys.length, succeeded }
  if (succeeded === keys.length && (spec.mode !== 'global' || keys.length > 0))
    return ended(next, 'succeeded', `${succeeded} of ${keys.length} completed`, now, events)
  const exhausted = Object.entries(run.failures).find(([, { attempts }]) => attempts > rules.retries)
  if (exhausted !== undefined)
    return ended(next, 'failed', `${nameOf(draft, exhausted[0])} failed ${exhausted[1].attempts} times`, now, events)
  if (rules.deadlineMs !== null) {
    const leftMs = rules.deadlineMs - input.elapsed.runMs(run)
    if (leftMs <= 0) return ended(next, 'failed', `not done within its deadline of ${rules.deadlineMs} ms`, now, events)
    wake(draft, now + leftMs)
  }
  start(draft, rules, next, keys, live)
  return next
}

/** What the instances of a run did since the last plan; those that go on, by task. */
function takeIn(draft: Draft, before: JobRun, events: JobEvent[]): { run: JobRun; live: ReadonlySet<string> } {
  const done = new Set(before.done)
  const failures = { ...before.failures }
  const live = new Set<string>()
  const failed: string[] = []
  for (const member of members(draft)) {
    const task = member.record.job
    if (task?.run !== before.id) continue
    if (done.has(task.key)) retire(draft, member, 'its work is done')
    else if (member.standing === 'completed') {
      done.add(task.key)
      delete failures[task.key]
      retire(draft, member, 'ran to its end')
    } else if (member.standing === 'failed') {
      const known = failures[task.key]
      if (known === undefined || known.attempts < task.attempt) {
        const notBeforeMs = draft.now + backoffCeilingMs(task.attempt - 1, FAILURE_BACKOFF)
        failures[task.key] = { attempts: task.attempt, notBeforeMs }
        const detail = draft.input.observe(member.record.id)?.message
        failed.push(`${member.record.id} failed${detail ? `: ${detail}` : ''} (attempt ${task.attempt})`)
      }
      retire(draft, member, `attempt ${task.attempt} failed`)
    } else if (live.has(task.key)) retire(draft, member, 'another instance does its work')
    else if (goesOn(draft, member)) live.add(task.key)
  }
  const retried = tellRetries(draft, before, failed, events)
  const isSame =
    done.size === before.done.length && retried === before.retried && JSON.stringify(failures) === JSON.stringify(before.failures)
  return { run: isSame ? before : { ...before, done: [...done], failures, ...(retried && { retried }) }, live }
}

/** An event about what failed now and since the last one, when it is time for one. */
function tellRetries(draft: Draft, run: JobRun, failed: readonly string[], events: JobEvent[]): JobRun['retried'] {
  const { now } = draft
  const { retried } = run
  const untold = (retried?.untold ?? 0) + failed.length
  if (untold === 0) return retried
  // A clock that was set back must not silence it.
  if (retried !== undefined && retried.toldAtMs <= now && now < retried.toldAtMs + retried.pauseMs) {
    wake(draft, retried.toldAtMs + retried.pauseMs)
    return failed.length === 0 ? retried : { ...retried, untold }
  }
  const last = failed.at(-1)
  const message =
    untold === 1 && last !== undefined
      ? last
      : `run ${run.id}: ${untold} attempts failed${last === undefined ? '' : `, the last of them: ${last}`}`
  events.push({ type: 'job.retried', message, severity: 'warning' })
  const pauseMs = retried === undefined ? RETRIES_TOLD_MS : Math.min(2 * retried.pauseMs, MAX_RETRIES_TOLD_MS)
  return { untold: 0, toldAtMs: now, pauseMs }
}

/** Whether an instance that has not ended may go on; where not it is taken out here. */
function goesOn(draft: Draft, member: Member): boolean {
  const { nodeId, id } = member.record
  if (member.standing === 'gone') {
    retire(draft, member, `node ${nodeId} has left the cluster`)
    return false
  }
  if (member.standing === 'lost') {
    if (hasVolumes(draft.spec)) {
      draft.reasons.push(reason(id, 'data-waits', `node ${nodeId} is lost, and its data is there: it waits`))
      return true
    }
    retire(draft, member, `node ${nodeId} is lost`)
    return false
  }
  if (!isLeaving(draft.input, nodeId)) return true
  // Moving it would begin its work again: it may end it where it is.
  if (isPastDeadline(draft, member)) {
    retire(draft, member, `drain deadline of node ${nodeId} is over`)
    return false
  }
  draft.reasons.push(reason(id, 'drain-waits', `node ${nodeId} drains: the job may finish until the drain's deadline`))
  return true
}

/** Starts tasks that are neither done nor under way, as many as may run at once, each when its pause is over. */
function start(draft: Draft, rules: JobRules, run: JobRun, keys: readonly string[], live: ReadonlySet<string>): void {
  const { input, now } = draft
  const stopping = new Set<string>()
  for (const records of draft.stopping.values())
    for (const record of records) {
      if (!mayRun(draft, record)) continue
      // Not beside those of an earlier run either.
      if (draft.strict || hasVolumes(draft.spec)) {
        draft.reasons.push(reason(record.id, 'job-waits', 'may not run beside the next instance, and has not stopped yet'))
        return
      }
      if (record.job?.run === run.id) stopping.add(record.job.key)
    }
  const waiting =
    members(draft).filter((member) => member.standing === 'waiting').length +
    draft.actions.filter((action) => action.kind === 'create').length
  let room = Math.min(rules.parallelism - live.size - stopping.size, MAX_WAITING - waiting)
  const done = new Set(run.done)
  let slot = 1
  for (const key of keys) {
    if (room <= 0) return
    if (done.has(key) || live.has(key) || stopping.has(key)) continue
    const failure = run.failures[key]
    // A clock set back makes no pause longer than the longest.
    if (failure !== undefined && failure.notBeforeMs > now && failure.notBeforeMs - now <= MAX_BACKOFF_MS) {
      wake(draft, failure.notBeforeMs)
      continue
    }
    const own = Number(key)
    const isFree = (candidate: number) =>
      !draft.running.has(candidate) && !draft.created.has(candidate) && !draft.stopping.has(candidate)
    let chosen = own
    if (!Number.isSafeInteger(own) || !isFree(own)) {
      while (!isFree(slot)) slot += 1
      chosen = slot
    }
    const attempt = (failure?.attempts ?? 0) + 1
    const why = `${nameOf(draft, key)} of run ${run.id}${attempt > 1 ? `, attempt ${attempt}` : ''}`
    create(draft, chosen, null, run.specHash, why, { run: run.id, key, attempt })
    room -= 1
  }
  if (keys.length === 0) draft.reasons.push(reason(input.service.id, 'job-waits', 'no node suits it'))
}

/** A task that is being stopped may not be started beside itself, except where nobody can tell any more. */
function mayRun(draft: Draft, record: InstanceRecord): boolean {
  const { input, spec } = draft
  if (record.nodeId === null || input.node(record.nodeId) === undefined) return false
  return hasVolumes(spec) || !isNodeLost(input, spec, record)
}

function keysOf(draft: Draft, rules: JobRules): readonly string[] {
  if (draft.spec.mode === 'global') return draft.input.globalNodes
  return Array.from({ length: rules.completions }, (_, index) => String(index + 1))
}

function nameOf(draft: Draft, key: string): string {
  return draft.spec.mode === 'global' ? `node ${key}` : `completion ${key}`
}
