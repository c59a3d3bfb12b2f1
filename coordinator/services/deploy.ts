/**
 * What users ask for: deploy, roll back, take down, scale. Each prepares one change against the present snapshot; the
 * caller commits it, and asks again when the commit conflicts. The services loop does the rest.
 */
import { InputError, NotFoundError } from '../../shared/errors.ts'
import type { AppSpec, ServiceSpec } from '../../shared/model/app.ts'
import { serviceId } from '../../shared/model/identity.ts'
import { CLUSTER_KEY } from '../access/cluster.ts'
import type { AppRecord, ServiceRecord } from '../state/objects.ts'
import type { Change, Snapshot, State } from '../state/state.ts'
import { bytesOf, MAX_RECORD_BYTES, nextRevision, rollbackTarget, runningOf, sameSpec } from './app-record.ts'
import { firstGenerations, firstHomes } from './generations.ts'
import { hasVolumes, scaleLimits, wantedCount } from './service-plan.ts'

/** Service records written with the app in one commit; the loop makes those of larger apps. */
const MAX_SERVICES_AT_ONCE = 50
/** More instances of one service than any cluster of ours holds: a slip of the finger. */
const MAX_REPLICAS = 1_000_000

export interface DeployOutcome {
  readonly kind: 'created' | 'updated' | 'unchanged'
  readonly app: string
  /** Revision that is wanted now. */
  readonly revision: number
  /** Service names. `changed`: instances will be exchanged; `kept` run on as they are. */
  readonly services: {
    readonly added: readonly string[]
    readonly changed: readonly string[]
    readonly kept: readonly string[]
    readonly removed: readonly string[]
  }
}

export interface Prepared<T> {
  readonly change: Change
  readonly outcome: T
}

/** Makes `spec` what the app wants. The same spec again changes nothing (and takes back a `down` under way). Throws InputError when it is too large. */
export function deployApp(
  state: Pick<State, 'snapshot' | 'change'>,
  request: { readonly spec: AppSpec; readonly source: string; readonly by: string; readonly name?: string },
  now: number,
): Prepared<DeployOutcome> {
  const { snapshot } = state
  const name = request.name ?? request.spec.name
  const spec = request.spec.name === name ? request.spec : { ...request.spec, name }
  const before = snapshot.get('app', name)
  const change = state.change()
  const services = comparison(before?.spec, spec)
  if (before !== undefined && !before.removing && sameSpec(before.spec, spec))
    return { change, outcome: { kind: 'unchanged', app: name, revision: before.revision, services } }
  const app = nextRevision(before, { spec, source: request.source, by: request.by }, now, runningOf(snapshot, name))
  if (bytesOf(app) > MAX_RECORD_BYTES) throw tooLarge(app)
  change.put('app', name, app)
  putServices(change, snapshot, app, before?.spec)
  const what = `revision ${app.revision}: ${services.added.length} services added, ${services.changed.length} changed, ${services.removed.length} removed`
  change.event({
    actor: request.by,
    type: 'app.deployed',
    subject: name,
    message: what,
    severity: 'info',
    data: { revision: app.revision },
  })
  return { change, outcome: { kind: before === undefined ? 'created' : 'updated', app: name, revision: app.revision, services } }
}

/**
 * Returns to an earlier revision, as a new one: `toRevision`, else the newest that differs and did not fail. Throws
 * NotFoundError for an unknown app, InputError when that revision is not kept.
 */
export function rollbackApp(
  state: Pick<State, 'snapshot' | 'change'>,
  request: { readonly name: string; readonly toRevision?: number; readonly by: string },
  now: number,
): Prepared<DeployOutcome> {
  const before = appNamed(state.snapshot, request.name)
  const { toRevision } = request
  const target = toRevision === undefined ? rollbackTarget(before) : before.history.find((entry) => entry.revision === toRevision)
  if (target === undefined) {
    const kept = before.history.map((entry) => entry.revision).join(', ') || 'none'
    throw new InputError(`app ${request.name} cannot go back to revision ${toRevision ?? 'before'}: kept are ${kept}`, [
      { path: '/toRevision', message: `no such revision; kept are ${kept}` },
    ])
  }
  const change = state.change()
  const app = nextRevision(
    before,
    { spec: target.spec, source: target.source, by: request.by },
    now,
    runningOf(state.snapshot, before.name),
  )
  change.put('app', app.name, app)
  putServices(change, state.snapshot, app, before.spec)
  const message = `revision ${app.revision} is revision ${target.revision} again`
  change.event({ actor: request.by, type: 'app.rolled-back', subject: app.name, message, severity: 'info' })
  return {
    change,
    outcome: { kind: 'updated', app: app.name, revision: app.revision, services: comparison(before.spec, target.spec) },
  }
}

/** Takes the app down: its instances stop, then its records go. Asking again changes nothing. */
export function removeApp(
  state: Pick<State, 'snapshot' | 'change'>,
  request: { readonly name: string; readonly by: string },
): Prepared<{ readonly app: string }> {
  const app = appNamed(state.snapshot, request.name)
  const change = state.change()
  if (!app.removing) {
    change.put('app', app.name, { ...app, removing: true })
    change.event({ actor: request.by, type: 'app.removing', subject: app.name, message: 'is taken down', severity: 'info' })
  }
  return { change, outcome: { app: app.name } }
}

/** Pins a service to `count` instances, within the bounds of its scaling; null gives it back to scaling or its replicas. */
export function scaleService(
  state: Pick<State, 'snapshot' | 'change'>,
  request: { readonly app: string; readonly service: string; readonly count: number | null; readonly by: string },
): Prepared<{ readonly service: string; readonly from: number; readonly to: number; readonly pinned: boolean }> {
  const app = appNamed(state.snapshot, request.app)
  const spec = app.spec.services.find((candidate) => candidate.name === request.service)
  if (spec === undefined || app.removing) throw new NotFoundError(`app ${request.app} has no service ${request.service}`)
  const { count } = request
  if (spec.mode === 'global') throw refused('a global service has one instance per node')
  if (count !== null && !(Number.isInteger(count) && count >= 0 && count <= MAX_REPLICAS))
    throw refused(`count must be a whole number between 0 and ${MAX_REPLICAS}`)
  const limits = spec.scale === null ? null : scaleLimits(spec.scale)
  if (count !== null && limits !== null && (count < limits.min || count > limits.max))
    throw refused(`count must be between ${limits.min} and ${limits.max}, the bounds of its scaling`)
  const id = serviceId(app.name, spec.name)
  const before = state.snapshot.get('service', id) ?? newService(state.snapshot, spec, id, ordinalAfter(state.snapshot, app.name))
  // Scaling goes on from what runs: what it wanted before the pin is long past.
  const scaled = count === null && before.pinned !== null ? before.pinned : before.desired
  const after: ServiceRecord = { ...before, pinned: count, desired: spec.scale === null ? spec.replicas : scaled }
  const change = state.change()
  const outcome = { service: id, from: wantedCount(spec, before), to: wantedCount(spec, after), pinned: count !== null }
  if (before.pinned !== count) {
    change.put('service', id, after)
    const message = count === null ? `is no longer pinned (${outcome.to} wanted)` : `is pinned to ${count} (was ${outcome.from})`
    change.event({ actor: request.by, type: 'service.scaled', subject: id, message, severity: 'info' })
  }
  return { change, outcome }
}

/** The record of a service that is new to its app. */
export function newService(snapshot: Snapshot, spec: ServiceSpec, id: string, ordinal: number): ServiceRecord {
  const cluster = snapshot.get('cluster', CLUSTER_KEY)
  return {
    id,
    desired: startCount(spec),
    pinned: null,
    rollout: null,
    generations: firstGenerations(cluster, id),
    ...(hasVolumes(spec) ? firstHomes(cluster, id) : {}),
    pending: [],
    ordinal,
    lastScale: null,
    backoff: null,
  }
}

/** The first number that no service of the app has. */
export function ordinalAfter(snapshot: Snapshot, app: string): number {
  let last = 0
  for (const record of snapshot.all('service').values())
    if (record.id.startsWith(`${app}/`)) last = Math.max(last, record.ordinal)
  return last + 1
}

function putServices(change: Change, snapshot: Snapshot, app: AppRecord, before: AppSpec | undefined): void {
  let ordinal = ordinalAfter(snapshot, app.name)
  let room = MAX_SERVICES_AT_ONCE
  for (const spec of app.spec.services) {
    if (room === 0) return
    const id = serviceId(app.name, spec.name)
    const record = snapshot.get('service', id)
    const old = before?.services.find((candidate) => candidate.name === spec.name)
    const next = record === undefined ? newService(snapshot, spec, id, ordinal++) : rewanted(record, spec, old)
    if (next === record) continue
    change.put('service', id, next)
    room -= 1
  }
}

/** The wanted count after a deploy: scaling keeps its own within the new bounds; a pin goes when the file changes the count. */
function rewanted(record: ServiceRecord, spec: ServiceSpec, old: ServiceSpec | undefined): ServiceRecord {
  const limits = spec.scale === null ? null : scaleLimits(spec.scale)
  const desired = limits === null ? startCount(spec) : Math.min(Math.max(record.desired, limits.min), limits.max)
  const isRecounted =
    old === undefined ||
    old.replicas !== spec.replicas ||
    old.scale?.min !== spec.scale?.min ||
    old.scale?.max !== spec.scale?.max ||
    spec.mode === 'global'
  const pinned = isRecounted ? null : record.pinned
  return desired === record.desired && pinned === record.pinned ? record : { ...record, desired, pinned }
}

function startCount(spec: ServiceSpec): number {
  return spec.scale === null ? spec.replicas : Math.min(Math.max(spec.replicas, spec.scale.min), spec.scale.max)
}

function comparison(before: AppSpec | undefined, after: AppSpec): DeployOutcome['services'] {
  const old = new Map((before?.services ?? []).map((service) => [service.name, service.specHash]))
  const names = new Set(after.services.map((service) => service.name))
  return {
    added: after.services.filter((service) => !old.has(service.name)).map((service) => service.name),
    changed: after.services
      .filter((service) => old.has(service.name) && old.get(service.name) !== service.specHash)
      .map((service) => service.name),
    kept: after.services.filter((service) => old.get(service.name) === service.specHash).map((service) => service.name),
    removed: [...old.keys()].filter((name) => !names.has(name)),
  }
}

function appNamed(snapshot: Snapshot, name: string): AppRecord {
  const app = snapshot.get('app', name)
  if (app === undefined) throw new NotFoundError(`there is no app ${name}`)
  return app
}

function tooLarge(app: AppRecord): InputError {
  const what = app.history.length === 0 ? 'the app takes' : 'the app and its revision before take'
  const message = `${what} ${Math.ceil(bytesOf(app) / 1024)} KiB; at most ${Math.floor(MAX_RECORD_BYTES / 1024)} KiB can be kept`
  return new InputError(message, [{ path: '/spec', message, hint: 'put large files into images or volumes' }])
}

function refused(message: string): InputError {
  return new InputError(message, [{ path: '/count', message }])
}
