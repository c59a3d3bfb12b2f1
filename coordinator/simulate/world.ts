/**
 * Model of machines and of one service's instances: machines boot, instances start, drains start the replacement before the old
 * instance stops. It decides nothing; policies do, through the functions of `World`. Times are epoch ms.
 */
import type { Pool } from '../../shared/model/node.ts'

/** A pool with what the model needs to know of it. */
export interface SimPool extends Pool {
  /** Instances of the service that one machine holds. */
  readonly holds: number
  /** From the order to the node's joining, ms. */
  readonly bootMs: number
}

export interface SimMachine {
  readonly id: string
  readonly pool: SimPool
  readonly requestedAtMs: number
  readonly joinsAtMs: number
  state: 'coming' | 'joined' | 'draining' | 'gone'
  goneAtMs: number | null
  /** Why it drains, and when what is left there is stopped, replaced or not; null when it does not. */
  drain: { readonly reason: string; readonly deadlineAtMs: number } | null
  /** Instances bound to it, starting, ready or leaving. */
  readonly instances: Set<SimInstance>
}

export interface SimInstance {
  readonly id: string
  /** 1, 2, …; a replacement keeps the slot and raises the generation. */
  readonly slot: number
  readonly generation: number
  state: 'pending' | 'starting' | 'ready' | 'gone'
  machine: SimMachine | null
  readyAtMs: number
  /** The one that it takes the place of, which serves until then. */
  replaces: SimInstance | null
  /** Its replacement is on its way. */
  isLeaving: boolean
}

/** One line of the report: what was decided, by which part, and why. */
export interface Decision {
  readonly atMs: number
  readonly kind: 'scale' | 'buy' | 'drain' | 'reclaim' | 'terminate'
  readonly what: string
  readonly reason: string
}

export interface World {
  readonly nowMs: number
  /** Those that exist or are coming, oldest first. */
  readonly machines: readonly SimMachine[]
  readonly pools: readonly SimPool[]
  /** Those not gone, by slot and generation. */
  readonly instances: readonly SimInstance[]
  /** Wanted by the last decision. */
  readonly wanted: number
  readonly ready: number
  /** Changes whenever an instance or machine changes its state: what was computed before still holds while it is equal. */
  readonly revision: number
  /** Ended machines of this month and the one before, for what a policy learns of them. */
  readonly ended: readonly SimMachine[]
  pending(): readonly SimInstance[]
  scaleTo(wanted: number, reason: string): void
  bind(instance: SimInstance, machine: SimMachine): void
  /** `afterMs`: it is ordered so long after this moment, within the tick; default at once. */
  buy(pool: SimPool, reason: string, afterMs?: number): SimMachine
  /** Replacements start elsewhere; the machine is terminated when it is empty, which it is after `deadlineMs` at the latest; default never. */
  drain(machine: SimMachine, reason: string, deadlineMs?: number): void
  undrain(machine: SimMachine, reason: string): void
  /** A machine on its way is ordered no more; it costs until this moment. */
  cancel(machine: SimMachine, reason: string): void
}

export interface WorldSetup {
  readonly startMs: number
  readonly service: string
  readonly pools: readonly SimPool[]
  /** From placement to readiness, ms. */
  readonly startTimeMs: number
  /** Ready at the start, on as many machines of the first pool as they need. */
  readonly initial: number
  /** Absent: decisions are only counted. */
  readonly log?: Decision[]
}

export interface RunningWorld extends World {
  /** Moves to `nowMs`: machines join, instances become ready, empty draining machines go. */
  advance(nowMs: number): void
  /** Steps of `wanted` so far. */
  readonly actions: number
  /** Hours and money of all machines since `sinceMs`, those that still run counted up to now. */
  totals(sinceMs: number): { readonly machineHours: number; readonly costUsd: number }
}

const HOUR_MS = 3_600_000
/** What a month's budget has to remember, and how long machines lived. */
const ENDED_KEPT_MS = 46 * 24 * HOUR_MS

export function createWorld(setup: WorldSetup): RunningWorld {
  const { pools, service, startTimeMs, log } = setup
  let nowMs = setup.startMs
  let machines: SimMachine[] = []
  let instances: SimInstance[] = []
  let wanted = 0
  let ready = 0
  let actions = 0
  let machineCount = 0
  let nextEventMs = Number.POSITIVE_INFINITY
  let ended: SimMachine[] = []
  const bills: { fromMs: number; toMs: number; pool: SimPool }[] = []

  const note = (kind: Decision['kind'], what: string, reason: string) => log?.push({ atMs: nowMs, kind, what, reason })
  const expect = (atMs: number) => {
    nextEventMs = Math.min(nextEventMs, atMs)
  }
  const addInstance = (slot: number, generation: number, replaces: SimInstance | null): SimInstance => {
    const id = `${service}/${slot}/${generation}`
    const instance: SimInstance = {
      id,
      slot,
      generation,
      state: 'pending',
      machine: null,
      readyAtMs: Number.POSITIVE_INFINITY,
      replaces,
      isLeaving: false,
    }
    instances.push(instance)
    return instance
  }
  const remove = (instance: SimInstance) => {
    if (instance.state === 'ready') ready -= 1
    instance.state = 'gone'
    instance.machine?.instances.delete(instance)
    instances = instances.filter((other) => other !== instance)
    const old = instance.replaces
    if (old !== null && old.state !== 'gone') old.isLeaving = false
  }
  const terminate = (machine: SimMachine, reason: string) => {
    machine.state = 'gone'
    machine.goneAtMs = nowMs
    machines = machines.filter((other) => other !== machine)
    ended = [...ended.filter(({ goneAtMs }) => (goneAtMs ?? 0) > nowMs - ENDED_KEPT_MS), machine]
    bills.push({ fromMs: machine.requestedAtMs, toMs: nowMs, pool: machine.pool })
    note('terminate', machine.id, reason)
  }
  const replacementOf = (old: SimInstance) => instances.find((other) => other.replaces === old)

  const world: RunningWorld = {
    get nowMs() {
      return nowMs
    },
    get machines() {
      return machines
    },
    pools,
    get instances() {
      return instances
    },
    get wanted() {
      return wanted
    },
    get ready() {
      return ready
    },
    get actions() {
      return actions
    },
    get ended() {
      return ended
    },
    revision: 0,
    pending: () => instances.filter((instance) => instance.state === 'pending'),
    scaleTo(count, reason) {
      const to = Math.max(0, Math.round(count))
      if (to === wanted) return
      note('scale', `${wanted} → ${to}`, reason)
      actions += 1
      touch()
      if (to > wanted) {
        const used = new Set(instances.map((instance) => instance.slot))
        for (let slot = 1, missing = to - wanted; missing > 0; slot += 1) {
          if (used.has(slot)) continue
          addInstance(slot, 1, null)
          missing -= 1
        }
      } else {
        const lasting = instances.filter((instance) => !instance.isLeaving).sort(byWorth)
        for (const victim of lasting.slice(0, lasting.length - to)) {
          // With a replacement goes what it would have replaced.
          const old = victim.replaces
          remove(victim)
          if (old !== null && old.state !== 'gone') remove(old)
        }
      }
      wanted = to
    },
    bind(instance, machine) {
      if (instance.state !== 'pending' || machine.state !== 'joined') throw new Error(`${instance.id} cannot go to ${machine.id}`)
      if (machine.instances.size >= machine.pool.holds) throw new Error(`${machine.id} is full`)
      instance.state = 'starting'
      instance.machine = machine
      instance.readyAtMs = nowMs + startTimeMs
      machine.instances.add(instance)
      expect(instance.readyAtMs)
      touch()
    },
    buy(pool, reason, afterMs = 0) {
      machineCount += 1
      const machine: SimMachine = {
        id: `m-${machineCount}`,
        pool,
        requestedAtMs: nowMs + afterMs,
        joinsAtMs: nowMs + afterMs + pool.bootMs,
        state: 'coming',
        goneAtMs: null,
        drain: null,
        instances: new Set(),
      }
      machines = [...machines, machine]
      expect(machine.joinsAtMs)
      note('buy', `${machine.id} of ${pool.name}`, reason)
      touch()
      return machine
    },
    drain(machine, reason, deadlineMs = Number.POSITIVE_INFINITY) {
      if (machine.state !== 'joined') return
      note('drain', machine.id, reason)
      machine.state = 'draining'
      machine.drain = { reason, deadlineAtMs: nowMs + deadlineMs }
      expect(machine.drain.deadlineAtMs)
      for (const instance of [...machine.instances]) {
        if (instance.isLeaving) continue
        if (instance.state === 'ready') {
          instance.isLeaving = true
          addInstance(instance.slot, instance.generation + 1, instance)
        } else {
          machine.instances.delete(instance)
          instance.machine = null
          instance.state = 'pending'
          instance.readyAtMs = Number.POSITIVE_INFINITY
        }
      }
      expect(nowMs)
      touch()
    },
    undrain(machine, reason) {
      if (machine.state !== 'draining') return
      note('reclaim', machine.id, reason)
      machine.state = 'joined'
      machine.drain = null
      for (const instance of machine.instances) {
        const replacement = instance.isLeaving ? replacementOf(instance) : undefined
        if (replacement !== undefined) remove(replacement)
      }
      touch()
    },
    cancel(machine, reason) {
      if (machine.state !== 'coming') return
      terminate(machine, reason)
      touch()
    },
    advance(toMs) {
      nowMs = toMs
      while (nextEventMs <= toMs) {
        nextEventMs = Number.POSITIVE_INFINITY
        for (const machine of machines) {
          if (machine.state !== 'coming') continue
          if (machine.joinsAtMs <= toMs) machine.state = 'joined'
          else expect(machine.joinsAtMs)
        }
        for (const instance of [...instances]) {
          if (instance.state !== 'starting') continue
          if (instance.readyAtMs > toMs) {
            expect(instance.readyAtMs)
            continue
          }
          instance.state = 'ready'
          ready += 1
          const old = instance.replaces
          instance.replaces = null
          if (old !== null && old.state !== 'gone') remove(old)
        }
        for (const machine of machines) {
          if (machine.drain === null) continue
          if (machine.drain.deadlineAtMs <= toMs) for (const instance of [...machine.instances]) remove(instance)
          if (machine.instances.size === 0) terminate(machine, 'is empty')
          else expect(machine.drain.deadlineAtMs)
        }
        touch()
      }
    },
    totals(sinceMs) {
      const running = machines.map((machine) => ({ fromMs: machine.requestedAtMs, toMs: nowMs, pool: machine.pool }))
      let machineHours = 0
      let costUsd = 0
      for (const { fromMs, toMs, pool } of [...bills, ...running]) {
        const hours = (toMs - Math.max(fromMs, sinceMs)) / HOUR_MS
        if (hours <= 0) continue
        machineHours += hours
        costUsd += pool.priceUsdPerHour * (pool.billing === 'hour' ? Math.ceil(hours - 1e-9) : hours)
      }
      return { machineHours, costUsd }
    },
  }
  const touch = () => {
    ;(world as { revision: number }).revision += 1
  }

  const [first] = pools
  if (first !== undefined && setup.initial > 0) {
    wanted = setup.initial
    for (let slot = 1; slot <= setup.initial; slot += 1) {
      let machine = machines.find((each) => each.instances.size < first.holds)
      if (machine === undefined) {
        machine = world.buy({ ...first, bootMs: 0 }, 'there at the start')
        machine.state = 'joined'
      }
      const instance = addInstance(slot, 1, null)
      instance.state = 'ready'
      instance.machine = machine
      machine.instances.add(instance)
      ready += 1
    }
  }
  return world
}

/** What is taken away first: not placed, not ready, on a draining or the emptiest machine, the highest slot. */
function byWorth(a: SimInstance, b: SimInstance): number {
  return (
    STATE_RANK[a.state] - STATE_RANK[b.state] ||
    Number(b.machine?.state === 'draining') - Number(a.machine?.state === 'draining') ||
    (a.machine?.instances.size ?? 0) - (b.machine?.instances.size ?? 0) ||
    b.slot - a.slot
  )
}

const STATE_RANK = { gone: 0, pending: 1, starting: 2, ready: 3 } as const
