/** "Why?": what placement, scaling, services and fleet last reasoned, gathered into sentences. Reads only. */
import { compare } from '../../shared/compare.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import { type NodeId, type ServiceId, serviceId } from '../../shared/model/identity.ts'
import type { Reason } from '../../shared/plan.ts'
import type { Standing } from '../forecast/contest.ts'
import { checkForeignPorts } from '../apps/check-foreign-ports.ts'
import { stopsFirst } from '../services/draft.ts'
import { imagesAt } from '../services/images-first.ts'
import { isActive } from '../services/service-plan.ts'
import type { AppRecord, InstanceRecord } from '../state/objects.ts'
import type { ApiDeps } from './deps.ts'
import type { ExplanationView, ForecastView, JobView, ServiceView } from './schemas.ts'
import { servicesBefore, viewInstance, viewService } from './views.ts'
import { worldOf } from './world.ts'

type ExplainDeps = Pick<ApiDeps, 'state' | 'observed' | 'explain'>

/** How many waiting or failing instances one service's explanation names. */
const NAMED_INSTANCES = 10
/** How many decisions before the present one it names. */
const EARLIER_DECISIONS = 5

export function explainService(deps: ExplainDeps, app: AppRecord, spec: ServiceSpec): ExplanationView {
  const { state, observed, explain } = deps
  const id = serviceId(app.name, spec.name)
  const world = worldOf(deps)
  const view = viewService(world, app, spec)
  const reasons: Reason[] = []
  const say = (code: string, text: string, subject = id) => reasons.push({ subject, code, text })

  if (app.removing) say('removing', `The app ${app.name} is being removed.`)
  if (view.pinned !== null) say('pinned', `Pinned at ${view.pinned} by hand: "rubato scale ${id}=auto" hands it back to scaling.`)
  else if (view.job !== null) sayJob(view.job, say)
  else if (spec.mode === 'global') say('global', 'Runs once on each node that suits it (mode: global).')
  else if (view.scale === null) say('fixed', `The app file asks for ${spec.replicas}; there is no x-rubato.scale.`)
  const scaling = explain.scaling(id)
  if (scaling) reasons.push(...scaling.reasons)
  else if (view.scale && view.pinned === null) say('not-decided', 'Scaling has not looked at it since the coordinator started.')
  if (view.forecast) {
    say('forecast', describeForecast(view.forecast))
    if (view.forecast.judged) say('forecasters', describeContest(explain.forecasters(id)))
  }
  if (view.objective) say('objective', describeObjective(view.objective))
  const parts = explain.decisions(id)[0]?.load.parts
  if (parts)
    say(
      'use',
      `An instance uses ${parts.idlePercent.toFixed(1)} % when idle, and a request takes ${parts.requestMs.toPrecision(2)} ms of it.`,
    )
  const turns = explain.turnsPerHour(id)
  if (turns > 0) say('direction-changes', `It changed direction ${turns} ${turns === 1 ? 'time' : 'times'} within the last hour.`)
  for (const { atMs, code, wanted, wish, reason } of explain.decisions(id).slice(1, 1 + EARLIER_DECISIONS))
    say('earlier', `${new Date(atMs).toISOString()} ${code}${wish === wanted ? '' : ` ${wanted} → ${wish}`}: ${reason}`)
  if (view.lastScale) say('last-scale', `Last step: ${view.lastScale.from} to ${view.lastScale.to}, ${view.lastScale.reason}`)
  const rollout = view.rollout
  if (rollout && rollout.phase !== 'completed') {
    say(
      'rollout',
      `Update from revision ${rollout.fromRevision} to ${rollout.toRevision} is ${rollout.phase}. ${rollout.message}`.trim(),
    )
  }
  const pulling = pullingFirst(deps, spec, id)
  if (pulling.length > 0)
    say('waits-for-images', `Instances on ${pulling.join(', ')} run on until the images of the update are there, or for 5 min.`)
  for (const { path, message, hint } of checkForeignPorts(app.spec, state.snapshot.all('app').values()))
    if (app.spec.services[Number(path.split('/')[3])] === spec) say('port-taken', `Its ${message}: ${hint}.`)
  for (const name of servicesBefore(world, app, spec))
    say('depends-on', `It starts after ${serviceId(app.name, name)}, which is not ready.`)
  if (spec.placement.scheduler !== undefined) say('scheduler', describeScheduler(deps, spec.placement.scheduler, id))
  const frozen = observed.frozen
  if (frozen) say('frozen', `Replacement is frozen: ${frozen.reason}`)
  const troubled = state.snapshot
    .instancesOf(id)
    .filter((record) => record.goal === 'run')
    .map((record) => ({ record, seen: viewInstance({ observed }, record) }))
    .filter(({ seen }) => !seen.routable)
    .sort((a, b) => compare(a.record.id, b.record.id))
  for (const { record } of troubled.slice(0, NAMED_INSTANCES)) reasons.push(...explainInstance(deps, record).reasons)
  if (troubled.length > NAMED_INSTANCES) say('more', `${troubled.length - NAMED_INSTANCES} more instances are not ready.`)
  const load = scaling?.loadPercent ?? view.loadPercent
  const threshold = scaling?.thresholdPercent ?? null
  return {
    subject: id,
    summary: `${view.ready} of ${view.desired} ready${view.pending > 0 ? `, ${view.pending} waiting for a place` : ''}${
      load === null
        ? ''
        : `, load ${Math.round(load)} %${threshold === null ? '' : ` (scales up above ${Math.round(threshold)} %)`}`
    }`,
    reasons,
  }
}

/** Nodes that still pull the images of an update that stops first. */
function pullingFirst({ state, observed }: ExplainDeps, spec: ServiceSpec, id: ServiceId): readonly NodeId[] {
  if (!isActive(state.snapshot.get('service', id)?.rollout ?? null) || !stopsFirst(spec)) return []
  const outdated = state.snapshot.instancesOf(id).filter(({ goal, specHash }) => goal === 'run' && specHash !== spec.specHash)
  const places = new Set(outdated.flatMap(({ nodeId }) => nodeId ?? []))
  return [...places].filter((nodeId) => imagesAt(observed.node(nodeId), spec.unit) === 'pending').sort(compare)
}

function describeForecast({ method, trusted, judged, horizonMs, peakPercent, errorVsPersistence }: ForecastView): string {
  const minutes = Math.round(horizonMs / 60_000)
  if (trusted)
    return `Forecast by ${method}: up to ${Math.round(peakPercent)} % of one instance within ${minutes} min; it errs ${(errorVsPersistence ?? 1).toFixed(2)} times as much as "as it is now" would.`
  return !judged
    ? 'No forecast yet: a day of demand must be seen first.'
    : `No forecast is used: nothing told its demand of the next ${minutes} min better than "as it is now" lately.`
}

function describeContest(standings: readonly Standing[]): string {
  const errors = standings.flatMap(({ method, errorVsPersistence: error }) => (error === null ? [] : [{ method, error }]))
  const sorted = errors.sort((a, b) => a.error - b.error)
  return `Errors of the forecasters over the last days: ${sorted.map(({ method, error }) => `${method} ${error.toFixed(2)}`).join(', ')}.`
}

/** Who chose the nodes of the instances that have one. */
function describeScheduler({ state }: ExplainDeps, name: string, id: ServiceId): string {
  const placed = state.snapshot.instancesOf(id).filter((record) => record.goal === 'run' && record.nodeId !== null)
  if (placed.length === 0) return `Scheduler ${name} chooses its nodes.`
  const own = placed.filter((record) => record.placedBy?.startsWith(`chosen by scheduler ${name} `)).length
  const others = placed.filter((record) => record.placedBy === undefined || record.placedBy.startsWith('chosen by the built-in'))
  const last = others.at(-1)?.placedBy
  const rest = others.length === 0 ? '' : `, of ${others.length} by the built-in one${last === undefined ? '' : ` (${last})`}`
  return `Scheduler ${name} chooses its nodes: those of ${own} of ${placed.length} instances were chosen by it${rest}.`
}

function describeObjective(objective: NonNullable<ServiceView['objective']>): string {
  const { latencyP95Ms, p95Ms, kept, shareOfTime, shareOfRequests, shiftPercent } = objective
  const wanted = `Objective: 95 % of answers within ${latencyP95Ms} ms`
  if (kept === null || p95Ms === null) return `${wanted}; too few answers to tell.`
  const percent = (share: number | null) => (share === null ? '–' : `${(100 * share).toFixed(1)} %`)
  const moved = shiftPercent === 0 ? '' : `; thresholds moved by ${Math.round(shiftPercent)} points`
  return `${wanted}: ${kept ? 'kept' : 'missed'} (p95 ${Math.round(p95Ms)} ms; last hour ${percent(shareOfTime)} of the time, ${percent(shareOfRequests)} of the answers)${moved}.`
}

export function explainInstance(deps: ExplainDeps, record: InstanceRecord): ExplanationView {
  const { observed, explain } = deps
  const view = viewInstance({ observed }, record)
  const reasons: Reason[] = []
  const say = (code: string, text: string) => reasons.push({ subject: record.id, code, text })
  if (record.goal === 'stop') say('stopping', `It stops: ${record.stopReason || 'it is no longer wanted'}.`)
  if (record.replaces !== null) say('replaces', `It takes the place of ${record.replaces}.`)
  const refusal = record.nodeId === null ? explain.placement(record.id) : null
  if (refusal !== null) say('fits-nowhere', refusal)
  const asking = refusal === null && record.nodeId === null ? explain.asking(record.id) : null
  if (asking !== null) say('asks-scheduler', `Scheduler ${asking} is being asked where it shall go.`)
  const machine = explain.waitingFor(record.id)
  if (machine !== null) say('waiting-for-machine', `It waits for machine ${machine}.`)
  if (record.nodeId !== null) {
    const node = observed.node(record.nodeId)
    if (record.placedBy !== undefined) say('placed-by', `Its node was ${record.placedBy}.`)
    if (!view.observed) say('not-observed', `Node ${record.nodeId} has not reported it yet.`)
    else if (view.crashLooping) say('crash-looping', `It keeps failing (${view.restarts} restarts): ${view.message}`)
    else if (view.message !== '' && record.goal === 'run') say('status', view.message)
    if (node?.liveness !== 'live') say('node-silent', `Node ${record.nodeId} is ${node?.liveness ?? 'unknown'}.`)
    else if (view.phase === 'ready' && !view.healthy) say('unhealthy', 'It runs, but its health check fails.')
  } else if (reasons.length === 0) say('not-placed-yet', 'It waits for placement to look at it.')
  return {
    subject: record.id,
    summary:
      record.nodeId === null
        ? 'waiting for a place'
        : `${view.phase} on ${record.nodeId}${view.healthy || view.phase !== 'ready' ? '' : ', unhealthy'}`,
    reasons,
  }
}

function sayJob(job: JobView, say: (code: string, text: string) => void): void {
  const [latest] = job.runs
  if (latest === undefined) say('job', 'It is a job that has not run yet.')
  else {
    const why = latest.message === '' ? '' : `: ${latest.message}`
    say('job', `Run ${latest.id} is ${latest.outcome}, ${latest.succeeded} of ${latest.completions} completed${why}.`)
  }
  if (job.nextRunAtMs !== null)
    say('job-next', `Next run at ${new Date(job.nextRunAtMs).toISOString()} (${job.cron}, ${job.timeZone}).`)
}
