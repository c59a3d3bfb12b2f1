import { afterEach, describe, expect, it } from 'vitest'
import { assignment, machine, WEB } from '../../test/builders/reconcile-bed.ts'
import { aContainerSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { RetryableError } from '../../shared/errors.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { PulledAhead } from '../../shared/protocol/frames.ts'
import { createPullAhead, type PullAhead } from './pull-ahead-loop.ts'
import type { Reconciler } from './reconcile-loop.ts'

const ends: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0)) await end()
})

/** An agent's reconciler and its pulls ahead on one engine, as agent.ts joins them. */
function node(options: Parameters<typeof machine>[0] = {}) {
  const bed = machine(options)
  const told: PulledAhead[] = []
  const here: { reconciler?: Reconciler; ahead?: PullAhead } = {}
  const { reconciler, runtime, status } = bed.agent({ onPulls: () => here.ahead?.poke() })
  const ahead = createPullAhead({
    runtime,
    clock: bed.clock,
    logger: silentLogger(),
    instancePulls: () => reconciler.pulls(),
    tell: (answer) => told.push(answer),
  })
  Object.assign(here, { reconciler, ahead })
  reconciler.start()
  reconciler.setDesired([])
  ahead.start()
  const stop = async () => {
    await ahead.stop()
    await reconciler.stop()
  }
  ends.push(stop)
  const pulls = () => bed.engine.journal.filter((line) => line.startsWith('pull '))
  return { ...bed, reconciler, ahead, told, pulls, status, stop }
}
const images = (...names: string[]) => names.map((image) => ({ image }))
const running = (image: string, instance = WEB) =>
  assignment({ instance, unit: aUnitSpec({ containers: [aContainerSpec({ image })] }) })

describe('images pulled ahead', () => {
  it('B9: come one at a time in the order given, those that are there are not pulled, and the coordinator is told', async () => {
    const { clock, engine, ahead, told, pulls } = node({ pullMs: 1_000 })
    engine.images.add('b')
    ahead.want(images('a', 'b', 'c'))
    await clock.advance(500)
    expect(told.at(-1)).toEqual({ here: ['b'], pending: ['a', 'c'], failing: [] })
    await clock.advance(1_000)
    expect(pulls()).toEqual(['pull a'])
    await clock.advance(1_500)
    expect(told.at(-1)).toEqual({ here: ['a', 'b', 'c'], pending: [], failing: [] })
    expect(pulls()).toEqual(['pull a', 'pull c'])
    await clock.advance(3_600_000)
    expect(pulls()).toHaveLength(2)
  })

  it('B9: an instance then starts without a pull of its own', async () => {
    const { clock, ahead, reconciler, status, pulls } = node({ pullMs: 30_000 })
    ahead.want(images('web:2'))
    await clock.until(() => ahead.answer().here.length === 1, 'pulled ahead', 60_000)
    const beganMs = clock.monotonicMs()
    reconciler.setDesired([running('web:2')])
    await clock.until(() => status()?.phase === 'ready', 'ready')
    expect(clock.monotonicMs() - beganMs).toBeLessThan(5_000)
    expect(pulls()).toEqual(['pull web:2'])
  })

  it('B9: an instance that must pull another image goes first: the pull ahead ends at once and begins again after it', async () => {
    const { clock, ahead, reconciler, pulls, status } = node({ pullMs: 10_000 })
    ahead.want(images('big'))
    await clock.advance(5_000)
    reconciler.setDesired([running('web:1')])
    await clock.advance(2_000)
    expect(ahead.counters.aborted).toBe(1)
    expect(ahead.answer()).toEqual({ here: [], pending: ['big'], failing: [] })
    await clock.until(() => status()?.phase === 'ready', 'ready', 30_000)
    await clock.until(() => ahead.answer().here.length === 1, 'pulled after all', 30_000)
    expect(pulls()).toEqual(['pull web:1', 'pull big'])
    expect(ahead.counters).toEqual({ pulled: 1, failed: 0, aborted: 1 })
  })

  it('an instance that wants the very image joins its pull: the engine does the work once, and nothing is lost', async () => {
    const { clock, ahead, reconciler, status } = node({ pullMs: 10_000 })
    ahead.want(images('web:2'))
    await clock.advance(5_000)
    reconciler.setDesired([running('web:2')])
    await clock.until(() => status()?.phase === 'ready', 'ready', 30_000)
    expect(ahead.counters).toEqual({ pulled: 1, failed: 0, aborted: 0 })
  })

  it('what is no longer wanted is given up, and nothing that came is deleted', async () => {
    const { clock, engine, ahead, told, pulls } = node({ pullMs: 10_000 })
    engine.images.add('kept')
    ahead.want(images('kept', 'big'))
    await clock.advance(5_000)
    ahead.want([])
    await clock.advance(60_000)
    expect(told.at(-1)).toEqual({ here: [], pending: [], failing: [] })
    expect(pulls()).toEqual([])
    expect([...engine.images]).toEqual(['kept'])
  })

  it('a failure is told and tried again later and later, while others go on', async () => {
    const { clock, engine, ahead, told, pulls } = node()
    engine.registry = new Set(['b'])
    ahead.want(images('a', 'b'))
    await clock.advance(5_000)
    expect(told.at(-1)).toEqual({ here: ['b'], pending: [], failing: ['a'] })
    await clock.advance(3_600_000)
    // 30 s, 1, 2, 4, 8 and then every 15 minutes: a few tries in an hour.
    expect(ahead.counters.failed).toBeGreaterThan(4)
    expect(ahead.counters.failed).toBeLessThan(10)
    engine.registry.add('a')
    await clock.until(() => ahead.answer().here.includes('a'), 'it came after all', 1_000_000)
    expect(pulls()).toEqual(['pull b', 'pull a'])
  })

  it('row 19: an engine that does not answer harms nothing, and its images come when it does', async () => {
    const { clock, engine, ahead, reconciler, status } = node()
    engine.down = true
    ahead.want(images('a'))
    reconciler.setDesired([running('web:1')])
    await clock.advance(20_000)
    expect(ahead.answer().failing).toEqual(['a'])
    engine.down = false
    await clock.until(() => status()?.phase === 'ready', 'the instance', 60_000)
    await clock.until(() => ahead.answer().here.includes('a'), 'the image', 600_000)
  })

  it('row 36: a full disk fails the pull ahead, not the instance', async () => {
    const { clock, engine, ahead, reconciler, status } = node()
    engine.images.add('web:1')
    engine.failNext('pull', new RetryableError('no space left on device'), 3)
    ahead.want(images('big'))
    reconciler.setDesired([running('web:1')])
    await clock.advance(40_000)
    expect(status()?.phase).toBe('ready')
    expect(ahead.answer().failing).toEqual(['big'])
  })

  it('pull_policy always: pulled once although it is there, not over and over', async () => {
    const { clock, engine, ahead, pulls } = node()
    engine.images.add('web')
    ahead.want([{ image: 'web', refresh: true }])
    await clock.advance(3_600_000)
    expect(pulls()).toEqual(['pull web'])
    // Asked again for other reasons, it is known to be fresh.
    ahead.want([{ image: 'web', refresh: true }, { image: 'other' }])
    await clock.advance(60_000)
    expect(pulls()).toEqual(['pull web', 'pull other'])
  })

  it('each demand is answered, also when nothing changed: the coordinator may be another one', async () => {
    const { clock, engine, ahead, told } = node()
    engine.images.add('a')
    ahead.want(images('a'))
    await clock.advance(1_000)
    const before = told.length
    ahead.want(images('a'))
    await clock.advance(1_000)
    expect(told.length).toBe(before + 1)
    expect(told.at(-1)).toEqual({ here: ['a'], pending: [], failing: [] })
  })

  it('ends with the agent, in the middle of a pull', async () => {
    const { clock, ahead, stop } = node({ pullMs: 60_000 })
    ahead.want(images('big'))
    await clock.advance(1_000)
    const stopped = stop()
    await clock.advance(1_000)
    await stopped
    expect(ahead.counters.aborted).toBe(1)
    expect(clock.pendingTimers).toBe(0)
  })
})
