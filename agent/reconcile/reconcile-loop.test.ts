import { describe, expect, it } from 'vitest'
import { aContainerSpec, aRestartPolicy, aUnitSpec } from '../../test/builders/specs.ts'
import { InputError, NotFoundError } from '../../shared/errors.ts'
import { assignment, machine, WEB } from '../../test/builders/reconcile-bed.ts'

describe('the reconciler', () => {
  it('brings an instance up: pulls, creates, starts, opens its port, then says ready', async () => {
    const { clock, engine, agent } = machine()
    const { reconciler, log, status } = agent()
    reconciler.start()
    reconciler.setDesired([assignment()])
    await clock.until(() => status()?.phase === 'ready', 'ready')
    expect(engine.journal).toEqual(['pull shop/web:1', 'create shop.web.1.1', 'start shop.web.1.1'])
    expect(log).toEqual(['placed', 'pulling', 'starting', 'open 172.31.0.3', 'ready', 'healthy'])
    expect(status()).toMatchObject({ healthy: true, restarts: 0, crashLooping: false, message: '' })
    expect(status()?.ports).toEqual([{ containerPort: 80, protocol: 'http', gatewayPort: 20_000 }])
    expect(reconciler.instanceByAddress('172.31.0.3')).toBe(WEB)
    await reconciler.stop()
  })

  it('waits for health, then warms up, then says ready', async () => {
    const { clock, world, agent } = machine()
    const { reconciler, log, status } = agent()
    world.health = { healthy: false, text: 'refused' }
    const health = {
      probe: { kind: 'http', port: 80, path: '/' },
      intervalMs: 30_000,
      timeoutMs: 1_000,
      retries: 3,
      startPeriodMs: 0,
      startIntervalMs: 5_000,
    } as const
    reconciler.start()
    reconciler.setDesired([assignment({ unit: aUnitSpec({ containers: [aContainerSpec({ health })], warmUpMs: 4_000 }) })])
    await clock.advance(10_000)
    expect(status()?.phase).toBe('starting')
    world.health = { healthy: true, text: '' }
    await clock.until(() => status()?.phase === 'warming', 'warming', 10_000)
    expect(log).toContain('open 172.31.0.3')
    await clock.advance(3_900)
    expect(status()?.phase).toBe('warming')
    await clock.advance(200)
    expect(status()?.phase).toBe('ready')
    await reconciler.stop()
  })

  it('takes an instance out in order: draining is said, withdrawn, settled, finished, stopped, removed, cleared, then stopped is said', async () => {
    const { clock, engine, world, agent } = machine()
    const { reconciler, log, status } = agent()
    reconciler.start()
    reconciler.setDesired([assignment()])
    await clock.until(() => status()?.phase === 'ready', 'ready')
    log.length = 0
    engine.journal.length = 0
    world.inFlight = 2
    reconciler.setDesired([assignment({ goal: 'stop' })])
    await clock.advance(3_000)
    expect(log).toEqual(['draining', 'unhealthy', 'withdraw'])
    expect(engine.running(WEB)).toHaveLength(1)
    world.inFlight = 0
    await clock.advance(1_000)
    expect(engine.journal).toEqual(['stop shop.web.1.1', 'remove shop.web.1.1'])
    expect(log).toEqual(['draining', 'unhealthy', 'withdraw', 'gone', 'stopped'])
    reconciler.setDesired([])
    await clock.advance(30)
    expect(reconciler.inventory()).toEqual([])
    await reconciler.stop()
  })

  it('stops at the drain time-out even when requests never end, and settles even when none are under way', async () => {
    const { clock, engine, world, agent } = machine()
    const { reconciler, status } = agent()
    reconciler.start()
    reconciler.setDesired([assignment()])
    await clock.until(() => status()?.phase === 'ready', 'ready')
    world.inFlight = 1
    reconciler.setDesired([assignment({ goal: 'stop' })])
    await clock.advance(4_900)
    expect(engine.running(WEB)).toHaveLength(1)
    await clock.until(() => status()?.phase === 'stopped', 'stopped', 2_000)
    await reconciler.stop()
  })

  it('removes what is not in the desired set, but only once a set is known', async () => {
    const { clock, engine, agent } = machine()
    const first = agent()
    first.reconciler.start()
    first.reconciler.setDesired([assignment()])
    await clock.until(() => first.status()?.phase === 'ready', 'ready')
    await first.reconciler.stop()
    const second = agent()
    second.reconciler.start()
    await clock.advance(300_000)
    expect(engine.running(WEB)).toHaveLength(1)
    expect(second.reconciler.inventory()).toMatchObject([{ instance: WEB, phase: 'starting' }])
    second.reconciler.setDesired([])
    await clock.advance(5_000)
    expect(engine.containers.size).toBe(0)
    expect(second.gone).toEqual([WEB])
    expect(second.reconciler.inventory()).toEqual([])
    await second.reconciler.stop()
  })

  it('restarts a crashed container with growing waits, says crash-looping after three, and forgets after a good run', async () => {
    const { clock, engine, agent } = machine()
    const { reconciler, status } = agent()
    engine.exitAfterStart('shop/web:1', 1, 100)
    reconciler.start()
    reconciler.setDesired([assignment()])
    const starts: number[] = []
    let ready = false
    for (let i = 0; i < 1200; i += 1) {
      await clock.advance(100)
      const container = [...engine.containers.values()][0]
      if (container && container.starts > starts.length) starts.push(clock.monotonicMs())
      ready ||= status()?.crashLooping === true
    }
    expect(ready).toBe(true)
    expect(engine.containers.size).toBe(1)
    const waits = starts.slice(1).map((at, index) => at - (starts[index] ?? 0))
    expect(waits.length).toBeGreaterThanOrEqual(5)
    expect(waits.every((wait, index) => index === 0 || wait >= (waits[index - 1] ?? 0) - 200)).toBe(true)
    expect(waits[0]).toBeLessThan(2_000)
    expect(status()?.message).toMatch(/exited with code 1; restart \d+ in \d+ ms/)
    engine.mend('shop/web:1')
    await clock.advance(200_000)
    expect(status()).toMatchObject({ phase: 'ready', healthy: true, crashLooping: false })
    await reconciler.stop()
  })

  it("gives up after the policy's attempts: failed, withdrawn, container kept for its logs until the assignment goes", async () => {
    const { clock, engine, agent } = machine()
    const { reconciler, status } = agent()
    engine.exitAfterStart('shop/web:1', 3, 100)
    reconciler.start()
    const unit = aUnitSpec({ containers: [aContainerSpec({ restart: aRestartPolicy({ maxAttempts: 2, delayMs: 100 }) })] })
    reconciler.setDesired([assignment({ unit })])
    await clock.until(() => status()?.phase === 'failed', 'failed', 30_000)
    expect(status()?.message).toBe('exited with code 3; given up after 2 restarts')
    await clock.advance(60_000)
    expect([...engine.containers.values()][0]?.starts).toBe(3)
    reconciler.setDesired([assignment({ unit, goal: 'stop' })])
    await clock.until(() => status()?.phase === 'stopped', 'stopped', 10_000)
    expect(engine.containers.size).toBe(0)
    await reconciler.stop()
  })

  it('a job that ends well under on-failure is stopped and never run again, also by the next agent', async () => {
    const { clock, engine, agent } = machine()
    const unit = aUnitSpec({ containers: [aContainerSpec({ restart: aRestartPolicy({ condition: 'on-failure' }) })] })
    engine.exitAfterStart('shop/web:1', 0, 500)
    for (let life = 0; life < 2; life += 1) {
      const { reconciler, status } = agent()
      reconciler.start()
      reconciler.setDesired([assignment({ unit })])
      await clock.until(() => status()?.phase === 'stopped', 'stopped', 30_000)
      await clock.advance(60_000)
      await reconciler.stop()
    }
    expect([...engine.containers.values()][0]?.starts).toBe(1)
  })

  it('restarts an unhealthy container in place and opens its new address', async () => {
    const { clock, engine, world, agent } = machine()
    const { reconciler, status } = agent()
    const health = {
      probe: { kind: 'tcp', port: 80 },
      intervalMs: 1_000,
      timeoutMs: 500,
      retries: 2,
      startPeriodMs: 0,
      startIntervalMs: 1_000,
    } as const
    reconciler.start()
    reconciler.setDesired([assignment({ unit: aUnitSpec({ containers: [aContainerSpec({ health })] }) })])
    await clock.until(() => status()?.phase === 'ready', 'ready')
    world.health = { healthy: false, text: 'refused' }
    await clock.until(() => status()?.healthy === false, 'unhealthy', 5_000)
    world.health = { healthy: true, text: '' }
    await clock.until(() => status()?.healthy === true, 'healthy again', 10_000)
    expect(status()).toMatchObject({ phase: 'ready', restarts: 1 })
    expect([...engine.containers.values()][0]?.starts).toBe(2)
    await reconciler.stop()
  })

  it('a unit lives and dies together: the end of a sidecar restarts all, main first', async () => {
    const { clock, engine, agent } = machine()
    const { reconciler, status } = agent()
    const unit = aUnitSpec({ containers: [aContainerSpec(), aContainerSpec({ name: 'proxy', image: 'proxy:1' })] })
    reconciler.start()
    reconciler.setDesired([assignment({ unit })])
    await clock.until(() => status()?.phase === 'ready', 'ready')
    engine.journal.length = 0
    engine.crash(WEB, 1, { container: 'proxy' })
    await clock.until(() => status()?.healthy === true && status()?.restarts === 1, 'together again', 20_000)
    expect(engine.journal).toEqual(['stop shop.web.1.1', 'start shop.web.1.1', 'start shop.web.1.1.proxy'])
    reconciler.setDesired([assignment({ unit, goal: 'stop' })])
    await clock.until(() => status()?.phase === 'stopped', 'stopped', 20_000)
    expect(engine.journal.slice(3)).toEqual([
      'stop shop.web.1.1',
      'stop shop.web.1.1.proxy',
      'remove shop.web.1.1.proxy',
      'remove shop.web.1.1',
    ])
    await reconciler.stop()
  })

  it('a changed specification of the same instance is replaced in place, after its requests have finished', async () => {
    const { clock, engine, agent } = machine()
    const { reconciler, status } = agent()
    reconciler.start()
    reconciler.setDesired([assignment()])
    await clock.until(() => status()?.phase === 'ready', 'ready')
    engine.journal.length = 0
    reconciler.setDesired([assignment({ specHash: 'hash-2' })])
    await clock.until(
      () => status()?.healthy === true && status()?.specHash === 'hash-2' && engine.journal.length >= 4,
      'replaced',
      20_000,
    )
    expect(engine.journal).toEqual(['stop shop.web.1.1', 'remove shop.web.1.1', 'create shop.web.1.1', 'start shop.web.1.1'])
    expect(status()?.phase).toBe('ready')
    await reconciler.stop()
  })

  it('an instance that is wanted again while it goes ends this life first, then begins anew', async () => {
    const { clock, engine, agent } = machine()
    const { reconciler, status, gone } = agent()
    reconciler.start()
    reconciler.setDesired([assignment()])
    await clock.until(() => status()?.phase === 'ready', 'ready')
    const id = reconciler.containerIdsOf(WEB)[0]
    reconciler.setDesired([])
    await clock.advance(500)
    reconciler.setDesired([assignment()])
    await clock.until(() => gone.length === 1, 'gone', 10_000)
    await clock.until(() => status()?.phase === 'ready', 'ready again', 10_000)
    expect(reconciler.containerIdsOf(WEB)).not.toEqual([id])
    expect(engine.containers.size).toBe(1)
    await reconciler.stop()
  })

  it('a pull is given up as soon as the instance is no longer wanted', async () => {
    const { clock, engine, agent } = machine({ pullMs: 600_000 })
    const { reconciler, status } = agent()
    reconciler.start()
    reconciler.setDesired([assignment()])
    await clock.advance(1_000)
    expect(status()?.phase).toBe('pulling')
    reconciler.setDesired([assignment({ goal: 'stop' })])
    await clock.advance(1_000)
    expect(status()?.phase).toBe('stopped')
    expect(engine.journal).toEqual([])
    await reconciler.stop()
  })

  it('a specification that the runtime refuses fails at once with its reason; an image that went is pulled again', async () => {
    const { clock, engine, agent } = machine()
    const { reconciler, status } = agent()
    engine.failNext('create', new InputError('volumes need a container engine'))
    reconciler.start()
    reconciler.setDesired([assignment()])
    await clock.until(() => status()?.phase === 'failed', 'failed', 10_000)
    expect(status()?.message).toBe('creating the container failed: volumes need a container engine')
    engine.failNext('create', new NotFoundError('no such image'))
    reconciler.setDesired([assignment({ instance: 'shop/web/2/1' })])
    await clock.until(() => engine.running('shop/web/2/1').length === 1, 'up', 10_000)
    await reconciler.stop()
  })

  it('row 24: a strict singleton is stopped T after the last contact and begun again only on a confirmed set', async () => {
    const { clock, engine, agent } = machine()
    let contactMs: number | null = 0
    const { reconciler, status } = agent({ lastContactMonotonicMs: () => contactMs })
    const unit = aUnitSpec({ singletonStrictMs: 30_000 })
    reconciler.start()
    reconciler.setDesired([assignment({ unit })])
    for (let i = 0; i < 20; i += 1) {
      contactMs = clock.monotonicMs()
      await clock.advance(1_000)
    }
    expect(status()?.phase).toBe('ready')
    await clock.advance(28_500)
    expect(engine.running(WEB)).toHaveLength(1)
    await clock.advance(1_500)
    expect(engine.running(WEB)).toHaveLength(0)
    expect(status()).toMatchObject({ healthy: false, phase: 'ready' })
    contactMs = clock.monotonicMs()
    await clock.advance(20_000)
    expect(engine.running(WEB)).toHaveLength(0)
    contactMs = clock.monotonicMs()
    reconciler.setDesired([assignment({ unit })])
    await clock.advance(5_000)
    expect(engine.running(WEB)).toHaveLength(1)
    expect(status()).toMatchObject({ healthy: true, restarts: 0 })
    await reconciler.stop()
  })

  it('row 24: a strict singleton is not begun from a saved set before a coordinator was heard', async () => {
    const { clock, engine, agent } = machine()
    let contactMs: number | null = null
    const { reconciler } = agent({ lastContactMonotonicMs: () => contactMs })
    reconciler.start()
    reconciler.setDesired([assignment({ unit: aUnitSpec({ singletonStrictMs: 30_000 }) })], false)
    await clock.advance(20_000)
    expect(engine.journal).toEqual([])
    // Heard, but what it wants comes a little later: it may have begun the instance elsewhere.
    contactMs = clock.monotonicMs()
    await clock.advance(5_000)
    expect(engine.journal).toEqual([])
    reconciler.setDesired([assignment({ unit: aUnitSpec({ singletonStrictMs: 30_000 }) })])
    await clock.advance(5_000)
    expect(engine.running(WEB)).toHaveLength(1)
    await reconciler.stop()
  })

  it('row 24: what may not be started is not, is tried again, and does not count as a failure of its program', async () => {
    const { clock, engine, world, agent } = machine()
    const { reconciler, status } = agent()
    world.refuseStart = true
    reconciler.start()
    reconciler.setDesired([assignment({ unit: aUnitSpec({ singletonStrictMs: 30_000 }) })])
    await clock.advance(10_000)
    expect(engine.running(WEB)).toHaveLength(0)
    expect(status()?.message).toBe('starting the container failed: no watchdog')
    world.refuseStart = false
    await clock.until(() => engine.running(WEB).length === 1, 'it is started', 30_000)
    expect(status()?.restarts).toBe(0)
    await reconciler.stop()
  })

  it('pulls one image once for many instances and at most two images at a time', async () => {
    const { clock, engine, agent } = machine({ pullMs: 1_000 })
    const { reconciler, statuses } = agent()
    reconciler.start()
    reconciler.setDesired(
      Array.from({ length: 12 }, (_, i) =>
        assignment({
          instance: `shop/web/${i + 1}/1`,
          unit: aUnitSpec({ containers: [aContainerSpec({ image: `img:${i % 4}` })] }),
        }),
      ),
    )
    await clock.advance(1_500)
    expect(engine.journal.filter((line) => line.startsWith('pull'))).toHaveLength(2)
    await clock.until(
      () => [...statuses.values()].filter((status) => status.phase === 'ready').length === 12,
      'all ready',
      60_000,
    )
    expect(engine.journal.filter((line) => line.startsWith('pull'))).toHaveLength(4)
    await reconciler.stop()
  })
})
