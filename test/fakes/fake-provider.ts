/**
 * A model cloud under virtual time: machines boot after a delay, replies get lost, lists are late, partial or empty, quotas
 * and shortages strike, deletions take their time. Every lever changes behaviour from the moment it is set.
 */
import { type Clock, sleep } from '../../shared/clock.ts'
import type { Random } from '../../shared/random.ts'
import { CapacityError, NotFoundError, QuotaError, RetryableError } from '../../shared/errors.ts'
import type { CloudMachine, CreateMachine, Offering, Provider } from '../../coordinator/providers/provider.ts'

export interface FakeMachine {
  readonly id: string
  readonly name: string
  readonly tags: Readonly<Record<string, string>>
  readonly request: CreateMachine
  readonly createdAtMs: number
  state: 'starting' | 'running' | 'stopping'
  /** When the cloud takes it away, once it has announced so: epoch ms. */
  interruptionAtMs: number | null
}

export interface FakeProviderLevers {
  /** Until `create` answers. */
  createDelayMs: number
  /** From creation to running. */
  bootDelayMs: number
  /** The same for single offerings; others take `bootDelayMs`. */
  readonly bootDelayOf: Map<string, number>
  /** From the order to absence. */
  deleteDelayMs: number
  /** A machine shows in lists only this long after its creation. */
  listLagMs: number
  listMode: 'normal' | 'empty' | 'partial' | 'fails'
  /** More than this many machines at once: QuotaError. */
  quota: number
  /** Offerings that cannot be had: CapacityError. */
  readonly soldOut: Set<string>
  /** The next creations succeed, but the reply is a RetryableError. */
  loseCreateReplies: number
  /** The next creations never answer (they succeed). */
  hangCreates: number
  /** The next calls of any kind answer RetryableError and do nothing. */
  failCalls: number
  /** Booted machines never report to `onRunning`. */
  neverJoins: boolean
  /** Machines report to `onRunning` so much later than they run. */
  joinLagMs: number
  /** Every answer takes up to so much longer. */
  jitterMs: number
}

export interface FakeProvider extends Provider {
  readonly levers: FakeProviderLevers
  /** Every VM that exists, and is paid for, now. */
  readonly live: () => readonly FakeMachine[]
  /** Names given to `create`, in order, repeats included. */
  readonly createCalls: readonly string[]
  /** Removes a VM as a person at the console would. */
  destroy(name: string): void
  /** Announces that the VM goes after `inMs`, and takes it away then, unless told not to. */
  interrupt(name: string, inMs: number, isTaken?: boolean): void
  /** Puts up a VM that nobody ordered through `create`. */
  plant(machine: { readonly name: string; readonly tags: Readonly<Record<string, string>> }): FakeMachine
}

export function fakeProvider(options: {
  readonly name?: string
  readonly clock: Clock
  /** For `jitterMs`; absent: none. */
  readonly random?: Random
  readonly offerings?: readonly Offering[]
  /** The VM runs: an agent may start on it. */
  onRunning?(machine: FakeMachine): void
  /** The VM is gone. */
  onGone?(machine: FakeMachine): void
}): FakeProvider {
  const { clock } = options
  const machines = new Map<string, FakeMachine>()
  const createCalls: string[] = []
  let nextId = 1
  const levers: FakeProviderLevers = {
    createDelayMs: 500,
    bootDelayMs: 30_000,
    bootDelayOf: new Map(),
    deleteDelayMs: 5_000,
    listLagMs: 0,
    listMode: 'normal',
    quota: Number.POSITIVE_INFINITY,
    soldOut: new Set(),
    loseCreateReplies: 0,
    hangCreates: 0,
    failCalls: 0,
    neverJoins: false,
    joinLagMs: 0,
    jitterMs: 0,
  }

  const takes = (ms: number) => ms + (options.random && levers.jitterMs > 0 ? options.random.next() * levers.jitterMs : 0)
  const failIfTold = () => {
    if (levers.failCalls <= 0) return
    levers.failCalls -= 1
    throw new RetryableError('the cloud answers 503')
  }
  const remove = (machine: FakeMachine) => {
    if (machines.delete(machine.id)) options.onGone?.(machine)
  }
  const put = (request: CreateMachine): FakeMachine => {
    const machine: FakeMachine = {
      id: `vm-${nextId++}`,
      name: request.name,
      tags: request.tags,
      request,
      createdAtMs: clock.now(),
      state: 'starting',
      interruptionAtMs: null,
    }
    machines.set(machine.id, machine)
    clock.setTimer(levers.bootDelayOf.get(request.offering) ?? levers.bootDelayMs, () => {
      if (!machines.has(machine.id) || machine.state !== 'starting') return
      machine.state = 'running'
      if (levers.neverJoins) return
      if (levers.joinLagMs === 0) return options.onRunning?.(machine)
      // Late: it may be told to go meanwhile, and comes up all the same while it still exists.
      clock.setTimer(levers.joinLagMs, () => {
        if (machines.has(machine.id)) options.onRunning?.(machine)
      })
    })
    return machine
  }
  const shown = ({ id, name, state, createdAtMs, interruptionAtMs }: FakeMachine): CloudMachine => ({
    id,
    name,
    state,
    createdAtMs,
    ...(interruptionAtMs === null ? {} : { interruptionAtMs }),
  })
  const named = (name: string) => [...machines.values()].find((machine) => machine.name === name)

  return {
    name: options.name ?? 'fake',
    levers,
    live: () => [...machines.values()],
    createCalls,
    async create(request, signal) {
      createCalls.push(request.name)
      await sleep(clock, takes(levers.createDelayMs), signal)
      failIfTold()
      const existing = named(request.name)
      if (existing) return shown(existing)
      if (levers.soldOut.has(request.offering)) throw new CapacityError(`no ${request.offering} to be had`)
      if (machines.size >= levers.quota) throw new QuotaError(`the account may have ${levers.quota} machines`)
      const machine = put(request)
      if (levers.hangCreates > 0) {
        levers.hangCreates -= 1
        await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      }
      if (levers.loseCreateReplies > 0) {
        levers.loseCreateReplies -= 1
        throw new RetryableError('the connection broke')
      }
      return shown(machine)
    },
    async delete({ id, name }, signal) {
      await sleep(clock, takes(50), signal)
      failIfTold()
      const machine = id === null ? named(name) : machines.get(id)
      if (!machine) throw new NotFoundError(`there is no machine ${name}`)
      if (machine.state === 'stopping') return
      machine.state = 'stopping'
      clock.setTimer(levers.deleteDelayMs, () => remove(machine))
    },
    async list(tags, signal) {
      await sleep(clock, takes(50), signal)
      failIfTold()
      if (levers.listMode === 'fails') throw new RetryableError('the cloud answers 503')
      if (levers.listMode === 'empty') return { complete: true, machines: [] }
      const wanted = [...machines.values()].filter(
        (machine) =>
          Object.entries(tags).every(([key, value]) => machine.tags[key] === value) &&
          clock.now() - machine.createdAtMs >= levers.listLagMs,
      )
      if (levers.listMode === 'partial') return { complete: false, machines: wanted.slice(0, wanted.length >> 1).map(shown) }
      return { complete: true, machines: wanted.map(shown) }
    },
    async offerings(signal) {
      await sleep(clock, takes(50), signal)
      return (
        options.offerings ?? [
          {
            name: 'small',
            capacity: { cpuMillis: 2000, memoryBytes: 2 ** 32, diskBytes: 2 ** 35, slots: 50 },
            priceUsdPerHour: 0.05,
          },
        ]
      )
    },
    destroy(name) {
      const machine = named(name)
      if (machine) remove(machine)
    },
    interrupt(name, inMs, isTaken = true) {
      const machine = named(name)
      if (!machine) throw new Error(`there is no machine ${name}`)
      machine.interruptionAtMs = clock.now() + inMs
      if (isTaken) clock.setTimer(inMs, () => remove(machine))
    },
    plant({ name, tags }) {
      return put({ name, pool: '', offering: '', image: '', zone: null, userData: '', tags, settings: {} })
    },
  }
}
