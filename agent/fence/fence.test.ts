/** The fence's decisions, its lease, and the agent's and the watchdog's loops under virtual time. */
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { UnavailableError } from '../../shared/errors.ts'
import { silentLogger } from '../../shared/logger.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { runFence } from './fence-loop.ts'
import { decodeLease, encodeLease, type Lease } from './lease.ts'
import { leaseFile } from './lease-file.ts'
import { createLeaseKeeper } from './lease-keeper.ts'
import { planFence } from './plan-fence.ts'
import { deadlineMsOf, LINGER_MS, planLease, START_GRACE_MS } from './plan-lease.ts'

const WEB = 'lock/web/1/1'
const STRICT = { instance: WEB, runtime: 'docker' as const, afterMs: 30_000, stopGraceMs: 2_000 }

function aLease(fields: Partial<Lease> = {}): Lease {
  return { bootId: 'b', startedMs: 0, contactMs: 1_000, instances: [{ ...STRICT, ids: ['c1'] }], ...fields }
}

describe('a lease', () => {
  it('comes back as it was, fills whole blocks, and is nothing when a byte of it changed', () => {
    const text = encodeLease(aLease())
    expect(text.length % 4_096).toBe(0)
    expect(decodeLease(text)).toEqual(aLease())
    expect(decodeLease(text.replace('30000', '30001'))).toBeNull()
    expect(decodeLease('')).toBeNull()
    // A longer one of before shows behind a shorter one.
    expect(decodeLease(text + text)).toEqual(aLease())
  })

  it('runs T from the last contact; without any it ends soon after the agent began, however often one begins', () => {
    expect(deadlineMsOf(aLease(), 30_000)).toBe(31_000)
    expect(deadlineMsOf(aLease({ contactMs: null, startedMs: 500 }), 30_000)).toBe(500 + START_GRACE_MS)
    expect(deadlineMsOf(aLease({ contactMs: null, startedMs: 500 }), 1_000)).toBe(1_500)
  })

  it('is written in place, 0600, and stands when it cannot grow', () => {
    const directory = mkdtempSync(join(tmpdir(), 'rubato-lease-'))
    const path = join(directory, 'fence', 'lease')
    const file = leaseFile(path)
    expect(file.read()).toBeNull()
    file.write(encodeLease(aLease()))
    const { ino, mode } = statSync(path)
    expect(mode & 0o777).toBe(0o600)
    file.write(encodeLease(aLease({ contactMs: 9_000 })))
    expect(statSync(path).ino).toBe(ino)
    expect(decodeLease(file.read() ?? '')?.contactMs).toBe(9_000)
    writeFileSync(path, readFileSync(path, 'utf8').slice(0, 50))
    expect(decodeLease(file.read() ?? '')).toBeNull()
    file.remove()
    file.remove()
    expect(file.read()).toBeNull()
    rmSync(directory, { recursive: true })
  })
})

describe('planLease', () => {
  it('keeps what is assigned and what exists; what is not needed any more lingers and goes', () => {
    const first = planLease({ assigned: [STRICT], present: [{ instance: WEB, id: 'c1' }], kept: new Map() }, 0)
    expect([...(first.get(WEB)?.ids.keys() ?? [])]).toEqual(['c1'])
    // Told to go, still there.
    const leaving = planLease({ assigned: [], present: [{ instance: WEB, id: 'c1' }], kept: first }, LINGER_MS * 3)
    expect(leaving.has(WEB)).toBe(true)
    const gone = planLease({ assigned: [], present: [], kept: leaving }, LINGER_MS * 4 - 1)
    expect(gone.has(WEB)).toBe(true)
    expect(planLease({ assigned: [], present: [], kept: gone }, LINGER_MS * 4).size).toBe(0)
  })

  it('forgets nothing while an engine does not answer', () => {
    const kept = planLease({ assigned: [STRICT], present: [{ instance: WEB, id: 'c1' }], kept: new Map() }, 0)
    const later = planLease({ assigned: [], present: null, kept }, LINGER_MS * 9)
    expect([...(later.get(WEB)?.ids.keys() ?? [])]).toEqual(['c1'])
  })
})

describe('planFence', () => {
  const running = new Set(['c1'])

  it('does nothing before the deadline, asks at it, kills after the grace', () => {
    const lease = aLease()
    const at = (nowMs: number, askedMs = new Map<string, number>()) => planFence({ lease, running, askedMs }, nowMs)
    expect(at(30_999)).toMatchObject({ actions: [], wakeAtMs: 31_000 })
    expect(at(31_000).actions).toEqual([{ kind: 'stop', instance: WEB, runtime: 'docker', id: 'c1', graceMs: 2_000 }])
    const asked = new Map([['c1', 31_000]])
    expect(at(37_999, asked)).toMatchObject({ actions: [], wakeAtMs: 38_000 })
    expect(at(38_000, asked).actions).toEqual([{ kind: 'kill', instance: WEB, runtime: 'docker', id: 'c1' }])
  })

  it('ends without a lease, and with one that names nothing', () => {
    const none = { running, askedMs: new Map<string, number>() }
    expect(planFence({ lease: null, ...none }, 0).actions).toEqual([{ kind: 'exit' }])
    expect(planFence({ lease: aLease({ instances: [] }), ...none }, 0).actions).toEqual([{ kind: 'exit' }])
  })

  it('property: nothing is touched before its deadline, and what runs after deadline, grace and a moment is killed', () => {
    const instance = fc.record({
      instance: fc.constantFrom('a/b/1/1', 'a/b/2/1'),
      runtime: fc.constantFrom('docker' as const, 'process' as const),
      afterMs: fc.integer({ min: 0, max: 100_000 }),
      stopGraceMs: fc.integer({ min: 0, max: 60_000 }),
      ids: fc.uniqueArray(fc.constantFrom('x', 'y', 'z')),
    })
    fc.assert(
      fc.property(
        fc.array(instance, { maxLength: 1 }),
        fc.option(fc.integer({ min: 0, max: 100_000 })),
        fc.integer({ min: 0, max: 300_000 }),
        fc.integer({ min: 0, max: 300_000 }),
        (instances, contactMs, askedAtMs, nowMs) => {
          const lease = aLease({ contactMs, instances })
          const plan = planFence({ lease, running: new Set(['x', 'y']), askedMs: new Map([['x', askedAtMs]]) }, nowMs)
          for (const leased of instances) {
            const isDue = nowMs >= deadlineMsOf(lease, leased.afterMs)
            const of = (id: string) => plan.actions.filter((action) => action.kind !== 'exit' && action.id === id)
            expect(of('z')).toEqual([])
            if (!isDue) expect([...of('x'), ...of('y')]).toEqual([])
            if (isDue && leased.ids.includes('y')) expect(of('y').map(({ kind }) => kind)).toEqual(['stop'])
            if (isDue && leased.ids.includes('x') && nowMs >= askedAtMs + leased.stopGraceMs + 5_000)
              expect(of('x').map(({ kind }) => kind)).toEqual(['kill'])
          }
        },
      ),
    )
  })
})

/** A host: its lease, one container, and a watchdog that runs the real loop while it is alive. */
function aHost() {
  const clock = virtualClock()
  const host = {
    text: null as string | null,
    full: false,
    readOnly: false,
    /** How long it was suspended: no timer and no clock of a process ran. */
    asleepMs: 0,
    running: true,
    engine: 'answers' as 'answers' | 'hangs',
    watchdogs: 0,
    alive: 0,
    startFails: false,
    log: [] as string[],
  }
  const lease = {
    read: () => host.text,
    write(text: string) {
      if (host.readOnly) throw new Error('EROFS')
      if (host.full && text.length > (host.text ?? '').length) throw new Error('ENOSPC')
      host.text = text
    },
    remove() {
      host.text = null
    },
  }
  const watchdog = {
    isAlive: () => host.alive !== 0,
    async start() {
      if (host.startFails) throw new Error('cannot fork')
      host.watchdogs += 1
      const mine = host.watchdogs
      host.alive = mine
      void runFence({
        lease,
        bootId: 'b',
        steadyMs: () => clock.monotonicMs() + host.asleepMs,
        clock,
        logger: silentLogger(),
        isOver: () => host.alive !== mine,
        hands: {
          docker: {
            runs: async () => host.running,
            async stop() {
              host.log.push(`stop ${clock.monotonicMs()}`)
              if (host.engine === 'answers') host.running = false
            },
            kill() {
              host.log.push(`kill ${clock.monotonicMs()}`)
              host.running = false
            },
          },
        },
      }).then(() => {
        if (host.alive === mine) host.alive = 0
      })
    },
  }
  const agent = (contactMs: () => number | null) => {
    const world = { assigned: [STRICT] as readonly (typeof STRICT)[], contactMs }
    const keeper = createLeaseKeeper({
      host: { lease, watchdog, bootId: 'b', steadyMs: () => clock.monotonicMs() + host.asleepMs },
      clock,
      logger: {
        ...silentLogger(),
        error: (message) => void host.log.push(message),
        info: (message) => void host.log.push(message),
      },
      assigned: () => world.assigned,
      present: () => (host.running ? [{ instance: WEB, id: 'c1' }] : []),
      contactMs: () => world.contactMs(),
    })
    return { keeper, world }
  }
  return { clock, host, agent }
}

describe('the fence', () => {
  const stops: (() => Promise<void>)[] = []
  afterEach(async () => {
    for (const stop of stops.splice(0)) await stop()
  })
  const begin = (bed: ReturnType<typeof aHost>, contactMs: () => number | null) => {
    const made = bed.agent(contactMs)
    made.keeper.start()
    stops.push(() => made.keeper.stop())
    return made
  }

  it('row 24: while there is contact it runs; T after the last one it is stopped, whether the agent lives or not', async () => {
    const bed = aHost()
    const { clock, host } = bed
    const { keeper } = begin(bed, () => Math.min(clock.monotonicMs(), 100_000))
    await clock.advance(120_000)
    expect(host.running).toBe(true)
    await keeper.stop()
    await clock.advance(9_900)
    expect(host.running).toBe(true)
    await clock.advance(1_500)
    expect(host.running).toBe(false)
  })

  it('row 19: an engine that hangs is asked, and what runs on after the grace is killed past it', async () => {
    const bed = aHost()
    bed.host.engine = 'hangs'
    begin(bed, () => 0)
    await bed.clock.advance(40_000)
    expect(bed.host.log).toEqual(['stop 30000', 'kill 37000'])
  })

  it('row 15: the next life of the agent goes on from the contact of the one before, and replaces the watchdog', async () => {
    const bed = aHost()
    const { keeper } = begin(bed, () => 5_000)
    await bed.clock.advance(10_000)
    await keeper.stop()
    const next = begin(bed, () => null)
    expect(next.keeper.contactMs()).toBe(5_000)
    await bed.clock.advance(2_000)
    expect(bed.host.watchdogs).toBe(2)
    await bed.clock.advance(22_500)
    expect(bed.host.running).toBe(true)
    await bed.clock.advance(2_000)
    expect(bed.host.running).toBe(false)
  })

  it('row 24: a suspended host has ended it within a second of going on, and contact of before counts as long ago', async () => {
    const bed = aHost()
    let contactMs = 0
    const { keeper } = begin(bed, () => contactMs)
    await bed.clock.advance(5_000)
    contactMs = 5_000
    await bed.clock.advance(5_000)
    expect(keeper.contactMs()).toBe(5_000)
    bed.host.asleepMs += 600_000
    expect(keeper.contactMs()).toBe(-595_000)
    // The answer to what was sent before it fell asleep says nothing of now.
    contactMs = 9_000
    expect(keeper.contactMs()).toBe(-591_000)
    await bed.clock.advance(1_100)
    expect(bed.host.running).toBe(false)
    bed.host.running = true
    contactMs = bed.clock.monotonicMs()
    await bed.clock.advance(25_000)
    expect(keeper.contactMs()).toBe(contactMs)
    expect(bed.host.running).toBe(true)
  })

  it('a lease that cannot be written is told of once, and once when it is over', async () => {
    const bed = aHost()
    begin(bed, bed.clock.monotonicMs)
    await bed.clock.advance(5_000)
    bed.host.readOnly = true
    await bed.clock.advance(10_000)
    bed.host.readOnly = false
    await bed.clock.advance(10_000)
    expect(bed.host.log.filter((line) => line.includes('renewed'))).toEqual([
      'the lease of strict singletons cannot be renewed: they will be stopped',
      'the lease of strict singletons is renewed again',
    ])
  })

  it('a watchdog that died is replaced within seconds', async () => {
    const bed = aHost()
    begin(bed, bed.clock.monotonicMs)
    await bed.clock.advance(3_000)
    bed.host.alive = 0
    await bed.clock.advance(3_000)
    expect([bed.host.watchdogs, bed.host.alive]).toEqual([2, 2])
  })

  it('nothing is started that the lease cannot name or no watchdog watches', async () => {
    const bed = aHost()
    bed.host.full = true
    const { keeper } = bed.agent(bed.clock.monotonicMs)
    await expect(keeper.hold(STRICT, 'c1')).rejects.toBeInstanceOf(UnavailableError)
    bed.host.full = false
    bed.host.startFails = true
    await expect(keeper.hold(STRICT, 'c1')).rejects.toThrow('cannot fork')
    bed.host.startFails = false
    await keeper.hold(STRICT, 'c1')
    expect(decodeLease(bed.host.text ?? '')?.instances[0]?.ids).toEqual(['c1'])
    expect(bed.host.alive).toBe(1)
  })

  it('row 36: a full disk does not end a lease that needs no more room', async () => {
    const bed = aHost()
    begin(bed, bed.clock.monotonicMs)
    await bed.clock.advance(5_000)
    bed.host.full = true
    await bed.clock.advance(120_000)
    expect(bed.host.running).toBe(true)
  })

  it('lease and watchdog go when no strict singleton is left', async () => {
    const bed = aHost()
    const { world } = begin(bed, bed.clock.monotonicMs)
    await bed.clock.advance(5_000)
    world.assigned = []
    bed.host.running = false
    await bed.clock.advance(LINGER_MS + 5_000)
    expect([bed.host.text, bed.host.alive]).toEqual([null, 0])
  })
})
