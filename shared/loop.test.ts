import { describe, expect, it } from 'vitest'
import { virtualClock } from '../test/fakes/virtual-clock.ts'
import { sleep } from './clock.ts'
import { ConflictError, RetryableError } from './errors.ts'
import { silentLogger } from './logger.ts'
import { createLoop, type LoopOptions } from './loop.ts'

function bed(run: LoopOptions['run'], over: Partial<LoopOptions> = {}) {
  const clock = virtualClock()
  return { clock, loop: createLoop({ name: 'test', clock, logger: silentLogger(), run, ...over }) }
}

describe('control loop', () => {
  it('runs at its start, then when it asked to be woken', async () => {
    const runs: number[] = []
    const { clock, loop } = bed(async () => {
      runs.push(clock.monotonicMs())
      return clock.now() + 5000
    })
    loop.start()
    await clock.advance(12_000)
    expect(runs).toEqual([0, 5000, 10_000])
    await loop.stop()
    expect(clock.pendingTimers).toBe(0)
  })
  it('makes one run of many pokes, and one more of those that come while it runs', async () => {
    let runs = 0
    const { clock, loop } = bed(
      async () => {
        runs += 1
        await sleep(clock, 100)
        return null
      },
      { debounceMs: 10 },
    )
    loop.start()
    await clock.advance(50)
    for (let i = 0; i < 5; i += 1) loop.poke()
    await clock.advance(1000)
    expect(runs).toBe(2)
    for (let i = 0; i < 5; i += 1) loop.poke()
    await clock.advance(1000)
    expect(runs).toBe(3)
    await loop.stop()
  })
  it('hears a poke that a run gives itself before it waits for anything', async () => {
    let runs = 0
    const { clock, loop } = bed(async () => {
      runs += 1
      if (runs === 1) loop.poke()
      return null
    })
    loop.start()
    await clock.advance(100)
    expect(runs).toBe(2)
    await loop.stop()
  })
  it('warns of what is expected to pass, and calls everything else an error', async () => {
    const failures = [new RetryableError('the store is busy'), new ConflictError('changed meanwhile'), new Error('a bug')]
    const told: string[] = []
    const logger = {
      ...silentLogger(),
      warn: (message: string) => void told.push(`warn: ${message}`),
      error: (message: string) => void told.push(`error: ${message}`),
    }
    const { clock, loop } = bed(
      async () => {
        const failure = failures.shift()
        if (failure) throw failure
        return null
      },
      { logger },
    )
    loop.start()
    await clock.advance(60_000)
    expect(told).toEqual([
      'warn: loop run failed, will repeat',
      'warn: loop run failed, will repeat',
      'error: loop run failed, will repeat',
    ])
    await loop.stop()
  })
  it('is not starved by a stream of pokes', async () => {
    let runs = 0
    const { clock, loop } = bed(
      async () => {
        runs += 1
        return null
      },
      { debounceMs: 50 },
    )
    loop.start()
    await clock.advance(1)
    for (let i = 0; i < 100; i += 1) {
      loop.poke()
      await clock.advance(10)
    }
    expect(runs).toBeGreaterThan(10)
    await loop.stop()
  })
  it('repeats a run that threw, ever more slowly, and forgets it after a good one', async () => {
    const runs: number[] = []
    const { clock, loop } = bed(async () => {
      runs.push(clock.monotonicMs())
      if (runs.length <= 3) throw new Error('no luck')
      return null
    })
    loop.start()
    await clock.advance(2000)
    expect(runs).toEqual([0, 250, 750, 1750])
    loop.poke()
    await clock.advance(1)
    expect(runs).toHaveLength(5)
    await loop.stop()
  })
  it('aborts the run under way when it is stopped', async () => {
    let ended = ''
    const { clock, loop } = bed(async (signal) => {
      await sleep(clock, 10_000, signal).catch((error: unknown) => {
        ended = String(error)
      })
      return null
    })
    loop.start()
    await clock.advance(10)
    await loop.stop()
    expect(ended).toContain('stopped')
    expect(clock.pendingTimers).toBe(0)
  })
})
