/** `least-load` in a model of instances that queue, seen by gateways that do not know each other: requirement M2, ADR 11. */
import { describe, expect, it } from 'vitest'
import { seededRandom } from '../../../shared/random.ts'
import { chooseEndpoint } from './balance.ts'

interface World {
  readonly instances: number
  readonly callers: number
  /** Places of the first instance that work from elsewhere takes. */
  readonly takenElsewhere?: number
  /** How many times longer the first instance takes. */
  readonly slowness?: number
  /** A tenth of the requests takes eleven times as long. */
  readonly unequal?: boolean
}

const PLACES = 4
const WORK_MS = 100
const GATEWAYS = 2
const RUN_MS = 30_000

/** Requests answered per second, in virtual time: closed loop, reports once a second that arrive 0.5 to 1.5 s late. */
function throughput(world: World, strategy: 'least-load' | 'least-conn'): number {
  const random = seededRandom(7)
  const timers: { at: number; order: number; fn: () => void }[] = []
  let order = 0
  let now = 0
  const at = (time: number, fn: () => void) => {
    timers.push({ at: time, order: order++, fn })
  }
  const servers = Array.from({ length: world.instances }, (_, index) => ({
    places: PLACES - (index === 0 ? (world.takenElsewhere ?? 0) : 0),
    slowness: index === 0 ? (world.slowness ?? 1) : 1,
    busy: 0,
    busyMs: 0,
    changedAt: 0,
    queue: [] as (() => void)[],
  }))
  const gateways = Array.from({ length: GATEWAYS }, () =>
    servers.map((_, index) => ({ instance: `i${index}`, loadPercent: null as number | null, inFlight: 0 })),
  )
  let answered = 0
  const account = (server: (typeof servers)[number]) => {
    server.busyMs += server.busy * (now - server.changedAt)
    server.changedAt = now
  }
  const enter = (server: (typeof servers)[number], done: () => void) => {
    if (server.busy >= server.places) {
      server.queue.push(done)
      return
    }
    account(server)
    server.busy += 1
    const work = (world.unequal ? (random.next() < 0.9 ? 0.5 : 5.5) : 1) * WORK_MS * server.slowness
    at(now + work, () => {
      account(server)
      server.busy -= 1
      done()
      const next = server.queue.shift()
      if (next) enter(server, next)
    })
  }
  const call = () => {
    const gateway = gateways[Math.floor(random.next() * GATEWAYS)] ?? []
    const chosen = chooseEndpoint(strategy, gateway, { random: [random.next(), random.next()], turn: 0, hashKey: '' })
    const endpoint = gateway[chosen]
    const server = servers[chosen]
    if (!endpoint || !server) throw new Error('nothing was chosen')
    endpoint.inFlight += 1
    enter(server, () => {
      endpoint.inFlight -= 1
      answered += 1
      at(now + 1, call)
    })
  }
  for (let caller = 0; caller < world.callers; caller += 1) at(caller, call)
  servers.forEach((server, index) => {
    const report = () => {
      account(server)
      const load = Math.min(100, (server.busyMs / 1000 / PLACES + (PLACES - server.places) / PLACES) * 100)
      server.busyMs = 0
      at(now + 500 + random.next() * 1000, () => {
        for (const gateway of gateways) if (gateway[index]) gateway[index].loadPercent = load
      })
      at(now + 1000, report)
    }
    at(random.next() * 1000, report)
  })
  for (;;) {
    timers.sort((a, b) => b.at - a.at || b.order - a.order)
    const next = timers.pop()
    if (!next || next.at > RUN_MS) return (answered / RUN_MS) * 1000
    now = next.at
    next.fn()
  }
}

describe('least-load with late reports (M2)', () => {
  it('leaves no instance idle beside full ones while all are alike', () => {
    // What fits at most: callers, or places, per round of work.
    expect(throughput({ instances: 5, callers: 14 }, 'least-load')).toBeGreaterThan(0.93 * (14 / 0.101))
    expect(throughput({ instances: 12, callers: 36 }, 'least-load')).toBeGreaterThan(0.93 * (36 / 0.101))
    expect(throughput({ instances: 5, callers: 36 }, 'least-load')).toBeGreaterThan(0.95 * ((5 * PLACES) / 0.1))
  })
  it('is no worse than counting connections when requests are unequal', () => {
    const world: World = { instances: 5, callers: 18, unequal: true }
    expect(throughput(world, 'least-load')).toBeGreaterThan(0.95 * throughput(world, 'least-conn'))
  })
  it('turns away from an instance that is full with work from elsewhere, which counting connections cannot see', () => {
    const world: World = { instances: 5, callers: 12, takenElsewhere: 3 }
    expect(throughput(world, 'least-load')).toBeGreaterThan(1.05 * throughput(world, 'least-conn'))
  })
  it('is no worse than counting connections when one instance is slow', () => {
    const world: World = { instances: 5, callers: 14, slowness: 4 }
    expect(throughput(world, 'least-load')).toBeGreaterThan(0.95 * throughput(world, 'least-conn'))
  })
})
