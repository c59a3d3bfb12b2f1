/**
 * Keeps registrations equal to what runs: level-triggered, so that whatever was missed (an agent killed, a Consul restarted or
 * wiped, fault row 48) is mended by the next pass. At start the backend is asked what an earlier life left there.
 *
 * Registration follows readiness. `withdraw` is awaited before an instance is stopped: readers lose it before it stops answering.
 */
import { backoffCeilingMs } from '../../shared/backoff.ts'
import { type Clock, sleep } from '../../shared/clock.ts'
import { messageOf, NotFoundError, UnavailableError } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop, type Loop } from '../../shared/loop.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import type { ForeignService } from '../../shared/model/observation.ts'
import type { ForeignContainer } from '../runtime/runtime.ts'
import type { CatalogBackend } from './catalog-backend.ts'
import {
  foreignRegistrations,
  type ManagedInstance,
  managedRegistrations,
  type NodeFacts,
  planRegistrations,
  registrationKey,
  toForeignService,
  TTL_MS,
  type WantedRegistration,
} from './plan-registrations.ts'

export interface RegistrarDeps {
  /** null: only the embedded catalog, fed through the link. */
  readonly backend: CatalogBackend | null
  readonly node: NodeFacts
  readonly clock: Clock
  readonly logger: Logger
  managed(): readonly ManagedInstance[]
  /** Containers of others on this engine; rejects when the engine does not answer. */
  foreign(): Promise<readonly ForeignContainer[]>
  /** The whole set of services of containers of others, when it was first known and when it changed. */
  onForeign(services: readonly ForeignService[]): void
  /** How often everything is compared again without a poke. Default 10 s: a third of the TTL. */
  readonly intervalMs?: number
}

export interface Registrar {
  start(): void
  stop(): Promise<void>
  /** Something changed: compare soon. */
  poke(): void
  /** Takes the instance out of the backend and keeps it out; resolves when done or after `limitMs` (the stop must go on). */
  withdraw(instance: InstanceId, limitMs?: number): Promise<void>
  /** The instance is gone for good: forget that it was withdrawn. */
  forget(instance: InstanceId): void
  foreignServices(): readonly ForeignService[]
}

/** How often the backend is asked what it holds: native checks have no heartbeat that would notice a wiped Consul. */
const LIST_EVERY_MS = 10_000
/** Below the loop's interval, so that each pass that comes by itself beats. */
const HEARTBEAT_MS = TTL_MS / 3 - 1_000
/** A hung engine must not keep heartbeats from going out in time. */
const ENGINE_LIMIT_MS = 5_000
const BACKEND_BACKOFF = { baseMs: 500, capMs: 10_000 }
const UNKNOWN = 'unknown'

export function createRegistrar(deps: RegistrarDeps): Registrar {
  const { backend, clock, logger, node } = deps
  const withdrawn = new Set<InstanceId>()
  /** What the backend holds of ours, as far as we know: id → key, or UNKNOWN when an earlier life or someone else put it there. */
  const present = new Map<string, string>()
  /** Ids under which an instance was registered; what it is now may say less. */
  const idsOf = new Map<InstanceId, Set<string>>()
  const heartbeatAt = new Map<string, { readonly text: string; readonly atMs: number }>()
  let listedAtMs: number | null = null
  let failures = 0
  /** null: the engine has not said yet. */
  let foreign: readonly ForeignService[] | null = null
  let lastForeign: readonly WantedRegistration[] = []

  const readForeign = async () => {
    try {
      const containers = await within(clock, ENGINE_LIMIT_MS, deps.foreign())
      lastForeign = uniqueIds(containers.flatMap((container) => foreignRegistrations(container, node)))
    } catch (error) {
      // Unknown, not gone: what was registered stays until the engine answers again.
      logger.warn('the engine does not answer, keeping registrations of containers of others', { error: messageOf(error) })
      return lastForeign
    }
    const services = lastForeign.map(toForeignService)
    if (JSON.stringify(services) !== JSON.stringify(foreign)) {
      foreign = services
      deps.onForeign(services)
    }
    return lastForeign
  }

  const pass = async () => {
    const fromOthers = await readForeign()
    if (backend === null) return null
    try {
      await converge(backend, fromOthers)
      if (failures > 0) logger.info('the catalog backend answers again', {})
      failures = 0
      return null
    } catch (error) {
      // Not the loop's own backoff: what else this pass does must not wait for a backend that is away.
      if (failures === 0) logger.warn('the catalog backend failed, will repeat', { error: messageOf(error) })
      return clock.now() + backoffCeilingMs(failures++, BACKEND_BACKOFF)
    }
  }

  const converge = async (to: CatalogBackend, fromOthers: readonly WantedRegistration[]) => {
    if (listedAtMs === null || failures > 0 || clock.monotonicMs() - listedAtMs >= LIST_EVERY_MS) {
      const held = new Set((await to.list()).map((registration) => registration.id))
      for (const id of present.keys()) if (!held.has(id)) present.delete(id)
      for (const id of held) if (!present.has(id)) present.set(id, UNKNOWN)
      listedAtMs = clock.monotonicMs()
    }
    const ours = deps.managed().filter((managed) => !withdrawn.has(managed.status.instance))
    const wanted = uniqueIds([...ours.flatMap((managed) => managedRegistrations(managed, node)), ...fromOthers])
    const changes = planRegistrations(wanted, present)
    for (const id of changes.deregister) {
      // Left by an earlier life, and perhaps of a container that the engine has not told us of yet.
      if (foreign === null && present.get(id) === UNKNOWN) continue
      await to.deregister(id)
      present.delete(id)
      logger.info('deregistered', { id })
    }
    for (const registration of changes.register) {
      const { id, instance } = registration
      if (instance !== null && withdrawn.has(instance)) continue
      if (instance !== null) idsOf.set(instance, (idsOf.get(instance) ?? new Set()).add(id))
      await to.register(registration)
      heartbeatAt.delete(id)
      // Withdrawn while the call was under way: the withdrawal must win.
      if (instance !== null && withdrawn.has(instance)) {
        await to.deregister(id)
        continue
      }
      present.set(id, registrationKey(registration))
      logger.info('registered', { id, service: registration.name, port: registration.port })
    }
    await heartbeats(to, wanted)
  }

  const heartbeats = async (to: CatalogBackend, wanted: readonly WantedRegistration[]) => {
    for (const id of heartbeatAt.keys()) if (!present.has(id)) heartbeatAt.delete(id)
    for (const { id, check, passing, note, instance } of wanted) {
      if (check?.kind !== 'ttl' || !present.has(id) || (instance !== null && withdrawn.has(instance))) continue
      const text = `${passing} ${note}`
      const last = heartbeatAt.get(id)
      // A burst of changes elsewhere is no reason to say the same again.
      if (last?.text === text && clock.monotonicMs() - last.atMs < HEARTBEAT_MS) continue
      try {
        await to.heartbeat(id, passing ? 'passing' : 'critical', note)
        heartbeatAt.set(id, { text, atMs: clock.monotonicMs() })
      } catch (error) {
        if (!(error instanceof NotFoundError)) throw error
        // Wiped or restarted without its data: register it again in the next pass (row 48).
        present.delete(id)
        loop.poke()
      }
    }
  }

  const loop: Loop = createLoop({
    name: 'registrar',
    clock,
    logger,
    debounceMs: 5,
    maxSleepMs: Math.min(deps.intervalMs ?? TTL_MS / 3, TTL_MS / 3),
    run: pass,
  })

  return {
    start: () => loop.start(),
    stop: () => loop.stop(),
    poke: () => loop.poke(),
    async withdraw(instance, limitMs = 3_000) {
      withdrawn.add(instance)
      if (backend === null) return
      const managed = deps.managed().find((candidate) => candidate.status.instance === instance)
      const ids = new Set(idsOf.get(instance))
      // Also what an earlier life registered, of which nothing was read yet.
      if (managed)
        for (const { id } of managedRegistrations({ ...managed, status: { ...managed.status, phase: 'ready' } }, node))
          ids.add(id)
      const work = async () => {
        for (const id of ids) {
          await backend.deregister(id)
          present.delete(id)
          logger.info('deregistered', { id, reason: 'its instance is about to stop' })
        }
      }
      try {
        await within(clock, limitMs, work())
      } catch (error) {
        logger.warn('deregistration failed, the next pass repeats it', { instance, error: messageOf(error) })
      }
      loop.poke()
    },
    forget(instance) {
      withdrawn.delete(instance)
      idsOf.delete(instance)
    },
    foreignServices: () => foreign ?? [],
  }
}

/** Rejects when `work` takes longer; `work` itself goes on. */
async function within<T>(clock: Clock, limitMs: number, work: Promise<T>): Promise<T> {
  const late = new AbortController()
  const timeout = sleep(clock, limitMs, late.signal).then(() => {
    throw new UnavailableError(`no answer within ${limitMs} ms`)
  })
  try {
    return await Promise.race([work, timeout])
  } finally {
    late.abort()
    timeout.catch(() => {}) // ended by us, or reported by the race
  }
}

/** Two containers may claim one id (`SERVICE_ID`): the first keeps it, or they would replace each other for ever. */
function uniqueIds(registrations: readonly WantedRegistration[]): readonly WantedRegistration[] {
  const seen = new Set<string>()
  return registrations.filter(({ id }) => !seen.has(id) && seen.add(id))
}
