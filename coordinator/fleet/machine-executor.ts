/**
 * Creates and deletes machines at the clouds, many at a time, never blocking the loop that asked. The intent is in the store
 * before the cloud hears of it: a machine in phase `requested` is created (again: its name is the idempotency token) and one
 * in phase `terminating` is deleted until the cloud says "not found", by whichever coordinator runs.
 */
import { compare } from '../../shared/compare.ts'
import { fullJitterMs } from '../../shared/backoff.ts'
import type { Clock } from '../../shared/clock.ts'
import { messageOf, RetryableError, RubatoError } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { MachineId } from '../../shared/model/identity.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { earliest } from '../../shared/plan.ts'
import type { Random } from '../../shared/random.ts'
import { type CloudMachine, CLUSTER_TAG, MACHINE_TAG, type Provider } from '../providers/provider.ts'
import type { State } from '../state/state.ts'
import type { FleetConfig } from './config.ts'
import { changeMachine, removeNodeOf, terminateMachine } from './machine-updates.ts'
import { madeOf } from './plan-in-vain.ts'
import type { PoolRests } from './pool-rests.ts'
import type { CloudList } from './plan-reap.ts'

export interface ExecutorDeps {
  readonly state: State
  readonly providers: ReadonlyMap<string, Provider>
  readonly rests: Pick<PoolRests, 'rest'>
  /** Those that may exist. */
  machines(): readonly MachineRecord[]
  clusterId(): string
  userDataFor(machine: MachineRecord, pool: Pool): Promise<string>
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly config: FleetConfig
  /** The fleet's steady time, epoch ms. */
  nowMs(): number
  /** Called whenever a call ended, well or badly. */
  onSettled(): void
}

export interface MachineExecutor {
  /** Starts whatever stored intents ask for and is due; returns when something becomes due later (fleet time), or null. */
  sync(): number | null
  deleteOrphan(provider: string, cloud: CloudMachine): void
  /** Asks every provider what exists; lists come by `takeLists`. Does nothing while an earlier question is open. */
  requestLists(): void
  /** Lists that came since the last call, the newest per provider. */
  takeLists(): readonly CloudList[]
  /** Aborts every call and waits until all have ended. */
  stop(): Promise<void>
}

const RETRY = { baseMs: 2_000, capMs: 60_000 }
/** Errors of no known kind in a row, after which a machine is given up and its pool rests. */
const FATAL_ATTEMPTS = 3
const MAX_PARALLEL_DELETES = 20

export function createMachineExecutor(deps: ExecutorDeps): MachineExecutor {
  const { state, providers, clock, config } = deps
  const creating = new Map<MachineId, Promise<void>>()
  const deleting = new Map<string, Promise<void>>()
  const listing = new Map<string, Promise<void>>()
  const lists = new Map<string, CloudList>()
  const dueAt = new Map<MachineId, number>()
  const failures = new Map<MachineId, number>()
  const abort = new AbortController()

  /** Bounds one call: the answer, or a RetryableError when none came in time. The cloud may still act on it later. */
  const call = async <T>(what: string, fn: (signal: AbortSignal) => Promise<T>): Promise<T> => {
    const own = new AbortController()
    let giveUp: (error: Error) => void = () => {}
    const limit = new Promise<never>((_, reject) => {
      giveUp = (error) => {
        own.abort(error)
        reject(error)
      }
    })
    const timer = clock.setTimer(config.callTimeoutMs, () =>
      giveUp(new RetryableError(`${what} did not answer in ${config.callTimeoutMs / 1000} s`)),
    )
    const onStop = () => giveUp(new RetryableError(`${what} was interrupted`))
    abort.signal.addEventListener('abort', onStop)
    try {
      if (abort.signal.aborted) throw new RetryableError(`${what} was interrupted`)
      return await Promise.race([fn(own.signal), limit])
    } finally {
      timer.cancel()
      abort.signal.removeEventListener('abort', onStop)
    }
  }

  const start = <K>(running: Map<K, Promise<void>>, key: K, task: () => Promise<void>) => {
    const done = task()
      .catch((error: unknown) => {
        if (!abort.signal.aborted) deps.logger.warn('fleet call failed', { key: String(key), error: messageOf(error) })
      })
      .then(() => {
        running.delete(key)
        if (!abort.signal.aborted) deps.onSettled()
      })
    running.set(key, done)
  }

  const later = (id: MachineId, error?: unknown) => {
    const attempt = failures.get(id) ?? 0
    failures.set(id, attempt + 1)
    const asked = error instanceof RetryableError ? (error.retryAfterMs ?? 0) : 0
    // Never sooner than half the ceiling: full jitter alone could hammer a cloud that asked for rest (fault row 9).
    const backoffMs = RETRY.baseMs / 2 + fullJitterMs(attempt, RETRY, deps.random)
    dueAt.set(id, deps.nowMs() + Math.max(asked, backoffMs))
  }

  const create = async (machine: MachineRecord) => {
    const provider = providers.get(machine.provider)
    const pool = state.snapshot.get('pool', machine.pool)
    if (!provider || !pool) {
      await giveUp(machine, pool ? `provider ${machine.provider} is not configured` : `pool ${machine.pool} is no more`)
      return
    }
    try {
      const userData = await deps.userDataFor(machine, pool)
      const cloud = await call(`create at ${machine.provider}`, (signal) =>
        provider.create(
          {
            name: machine.name,
            pool: pool.name,
            offering: pool.offering,
            image: pool.image,
            zone: pool.zone,
            userData,
            tags: { [CLUSTER_TAG]: deps.clusterId(), [MACHINE_TAG]: machine.id },
            settings: pool.settings,
          },
          signal,
        ),
      )
      await confirm(machine.id, cloud, pool)
    } catch (error) {
      if (abort.signal.aborted) return
      await createFailed(machine, error)
    }
  }

  const confirm = (id: MachineId, cloud: CloudMachine, pool: Pool) =>
    changeMachine(deps, id, (machine) => {
      const booting = machine.phase === 'requested' ? { phase: 'booting' as const } : {}
      return { ...machine, ...booting, providerId: cloud.id, madeOf: madeOf(pool), lastError: null }
    })

  const createFailed = async (machine: MachineRecord, error: unknown) => {
    const message = messageOf(error)
    const code = error instanceof RubatoError ? error.code : null
    deps.logger.warn('machine could not be created', { machineId: machine.id, pool: machine.pool, code, error: message })
    if (code === 'no-capacity' || code === 'quota-exceeded') {
      deps.rests.rest(machine.pool, message, code === 'no-capacity' ? config.capacityCoolDownMs : config.quotaCoolDownMs)
      await giveUp(machine, message)
      return
    }
    const attempts = machine.attempts + 1
    const fatal = code !== 'retryable' && (code === 'not-found' || attempts >= FATAL_ATTEMPTS)
    if (fatal) {
      deps.rests.rest(machine.pool, message, config.capacityCoolDownMs)
      await giveUp(machine, message)
      return
    }
    later(machine.id, error)
    await changeMachine(deps, machine.id, (current) =>
      current.phase === 'requested' ? { ...current, attempts, lastError: message.slice(0, 500) } : null,
    )
  }

  /** By way of a deletion, so that a cloud that created it in spite of its answer keeps nothing. */
  const giveUp = async (machine: MachineRecord, reason: string) => {
    await changeMachine(deps, machine.id, (current) => ({ ...current, lastError: reason.slice(0, 500) }))
    await terminateMachine(deps, machine.id, { reason: `could not be created: ${reason}`, by: 'fleet', nowMs: deps.nowMs() })
  }

  const remove = async (machine: MachineRecord) => {
    const provider = providers.get(machine.provider)
    try {
      if (!provider) throw new RetryableError(`provider ${machine.provider} is not configured`)
      await call(`delete at ${machine.provider}`, (signal) =>
        provider.delete({ id: machine.providerId, name: machine.name }, signal),
      )
      later(machine.id) // accepted; asked again until it is confirmed absent
    } catch (error) {
      if (abort.signal.aborted) return
      if (!(error instanceof RubatoError && error.code === 'not-found')) {
        deps.logger.warn('machine could not be deleted, will repeat', { machineId: machine.id, error: messageOf(error) })
        later(machine.id, error)
        // Once, since each failure may be worded anew.
        if (failures.get(machine.id) === FATAL_ATTEMPTS)
          await changeMachine(deps, machine.id, (current) => ({ ...current, lastError: messageOf(error).slice(0, 500) }))
        return
      }
      await changeMachine(
        deps,
        machine.id,
        (current) => ({ ...current, phase: 'gone', goneAtMs: deps.nowMs() }),
        (change, gone) => {
          removeNodeOf(change, state.snapshot, gone)
          change.event({
            actor: 'fleet',
            type: 'machine.gone',
            subject: gone.id,
            message: `machine ${gone.id} of pool ${gone.pool} is confirmed absent`,
            severity: 'info',
            data: { pool: gone.pool, ...(gone.nodeId ? { node: gone.nodeId } : {}) },
          })
        },
      )
    }
  }

  return {
    sync() {
      let wakeAtMs: number | null = null
      const nowMs = deps.nowMs()
      for (const map of [dueAt, failures])
        for (const id of map.keys()) if (!isUnderWay(state.snapshot.get('machine', id))) map.delete(id)
      const underWay = deps
        .machines()
        .filter(isUnderWay)
        .sort((a, b) => a.requestedAtMs - b.requestedAtMs || compare(a.id, b.id))
      for (const machine of underWay) {
        // A create under way ends first: deleting beside it could miss what it makes.
        if (creating.has(machine.id) || deleting.has(machine.id)) continue
        const due = dueAt.get(machine.id) ?? 0
        if (machine.phase === 'requested' && due <= nowMs && creating.size < config.maxParallelCreates)
          start(creating, machine.id, () => create(machine))
        else if (machine.phase === 'terminating' && due <= nowMs && deleting.size < MAX_PARALLEL_DELETES)
          start(deleting, machine.id, () => remove(machine))
        else if (due > nowMs) wakeAtMs = earliest(wakeAtMs, due)
      }
      return wakeAtMs
    },
    deleteOrphan(providerName, cloud) {
      const provider = providers.get(providerName)
      const key = `orphan ${providerName} ${cloud.id}`
      if (!provider || deleting.has(key)) return
      start(deleting, key, async () => {
        try {
          await call(`delete at ${providerName}`, (signal) => provider.delete({ id: cloud.id, name: cloud.name }, signal))
        } catch (error) {
          if (!(error instanceof RubatoError && error.code === 'not-found')) throw error
        }
      })
    },
    requestLists() {
      for (const [name, provider] of providers) {
        if (listing.has(name)) continue
        start(listing, name, async () => {
          const list = await call(`list at ${name}`, (signal) => provider.list({ [CLUSTER_TAG]: deps.clusterId() }, signal))
          lists.set(name, { provider: name, complete: list.complete, machines: list.machines })
        })
      }
    },
    takeLists() {
      const taken = [...lists.values()]
      lists.clear()
      return taken
    },
    async stop() {
      abort.abort(new Error('fleet stopped'))
      await Promise.all([...creating.values(), ...deleting.values(), ...listing.values()])
    },
  }
}

/** Whether something is left to be asked of its cloud. */
function isUnderWay(machine: MachineRecord | undefined): boolean {
  return machine?.phase === 'requested' || machine?.phase === 'terminating'
}
