import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { aContainerSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { RetryableError } from '../../shared/errors.ts'
import { assignment, machine, WEB } from '../../test/builders/reconcile-bed.ts'

describe('the reconciler when things fail', () => {
  it('row 15: a new life of the agent adopts what runs: same id, same start, nothing done to it', async () => {
    const { clock, engine, agent } = machine()
    const first = agent()
    first.reconciler.start()
    first.reconciler.setDesired([assignment()])
    await clock.until(() => first.status()?.phase === 'ready', 'ready')
    const [before] = engine.running(WEB)
    const { id, startedAtMs } = before ?? {}
    await first.reconciler.stop()
    await clock.advance(60_000)
    engine.journal.length = 0
    const second = agent()
    second.reconciler.start()
    second.reconciler.setDesired([assignment()], false)
    await clock.until(() => second.status()?.phase === 'ready', 'ready again')
    await clock.advance(60_000)
    expect(engine.running(WEB)[0]).toMatchObject({ id, startedAtMs, starts: 1 })
    expect(engine.journal).toEqual([])
    await second.reconciler.stop()
  })

  it('row 19: a silent engine makes things unknown, not stopped; nothing is done until it answers', async () => {
    const { clock, engine, agent } = machine()
    const { reconciler, status, gone } = agent()
    reconciler.start()
    reconciler.setDesired([assignment()])
    await clock.until(() => status()?.phase === 'ready', 'ready')
    engine.down = true
    await clock.advance(120_000)
    expect(status()).toMatchObject({
      phase: 'ready',
      healthy: true,
      message: 'the container engine does not answer; last known state',
    })
    expect(gone).toEqual([])
    engine.down = false
    await clock.advance(11_000)
    expect(status()?.message).toBe('')
    expect([...engine.containers.values()][0]?.starts).toBe(1)
    await reconciler.stop()
  })

  it('row 20: containers that a restart of the engine killed are started once more', async () => {
    const { clock, engine, agent } = machine()
    const { reconciler, status } = agent()
    reconciler.start()
    reconciler.setDesired([assignment()])
    await clock.until(() => status()?.phase === 'ready', 'ready')
    engine.restart()
    await clock.until(() => status()?.restarts === 1 && status()?.healthy === true, 'restarted', 20_000)
    await clock.advance(60_000)
    expect([...engine.containers.values()].map((container) => container.starts)).toEqual([2])
    await reconciler.stop()
  })

  it('row 22: a pull that fails is repeated with growing waits and says why; the rest of the node goes on', async () => {
    const { clock, engine, agent } = machine()
    const { reconciler, status, statuses } = agent()
    engine.failNext('pull', new RetryableError('registry does not answer'), 4)
    engine.images.add('other:1')
    reconciler.start()
    reconciler.setDesired([
      assignment(),
      assignment({ instance: 'shop/other/1/1', unit: aUnitSpec({ containers: [aContainerSpec({ image: 'other:1' })] }) }),
    ])
    await clock.advance(1_000)
    expect(status()).toMatchObject({ phase: 'pulling', message: 'pulling the image failed: registry does not answer' })
    expect(statuses.get('shop/other/1/1')?.phase).toBe('ready')
    expect(engine.journal.filter((line) => line.includes('failed')).length).toBeLessThanOrEqual(2)
    await clock.until(() => status()?.phase === 'ready', 'ready', 60_000)
    await reconciler.stop()
  })

  it('row 37: a jump of the wall clock neither ends nor prolongs a wait', async () => {
    const { clock, engine, world, agent } = machine()
    const { reconciler, status } = agent()
    reconciler.start()
    reconciler.setDesired([assignment({ unit: aUnitSpec({ warmUpMs: 5_000 }) })])
    await clock.until(() => status()?.phase === 'warming', 'warming')
    clock.jumpWall(-3_600_000)
    await clock.advance(6_000)
    expect(status()?.phase).toBe('ready')
    world.inFlight = 1
    clock.jumpWall(7_200_000)
    reconciler.setDesired([assignment({ unit: aUnitSpec({ warmUpMs: 5_000 }), goal: 'stop' })])
    await clock.advance(4_000)
    expect(engine.running(WEB)).toHaveLength(1)
    await reconciler.stop()
  })

  it('rows 16 and 21, I2: whatever step the agent dies after, the next one converges with one container per instance', async () => {
    for (const scenario of ['run', 'replace', 'stop', 'orphan'] as const) {
      for (let effects = 0; effects < 12; effects += 1) {
        const { clock, engine, agent } = machine()
        const unit = aUnitSpec({ containers: [aContainerSpec(), aContainerSpec({ name: 'proxy', image: 'proxy:1' })] })
        const first = agent()
        if (scenario !== 'run') {
          first.reconciler.start()
          first.reconciler.setDesired([assignment({ unit })])
          await clock.until(() => first.status()?.phase === 'ready', 'ready')
        } else first.reconciler.start()
        let left = effects
        const check = () => {
          const names = [...engine.containers.values()].map((container) => container.name)
          expect(new Set(names).size).toBe(names.length)
        }
        engine.onEffect = () => {
          check()
          left -= 1
          if (left <= 0) void first.reconciler.stop()
        }
        const target = {
          run: [assignment({ unit })],
          replace: [assignment({ unit, specHash: 'hash-2' })],
          stop: [assignment({ unit, goal: 'stop' as const })],
          orphan: [],
        }[scenario]
        if (effects === 0) await first.reconciler.stop()
        first.reconciler.setDesired(target)
        await clock.advance(20_000)
        await first.reconciler.stop()
        engine.onEffect = check
        const second = agent()
        second.reconciler.start()
        second.reconciler.setDesired(target)
        await clock.advance(30_000)
        const all = [...engine.containers.values()]
        if (scenario === 'run' || scenario === 'replace') {
          expect(all.map((container) => [container.name, container.state, container.request.specHash]).sort()).toEqual([
            ['shop.web.1.1', 'running', target[0]?.specHash],
            ['shop.web.1.1.proxy', 'running', target[0]?.specHash],
          ])
          expect(second.status()).toMatchObject({ phase: 'ready', healthy: true })
        } else expect(all).toEqual([])
        if (scenario === 'stop') expect(second.status()?.phase).toBe('stopped')
        await second.reconciler.stop()
      }
    }
  })

  it('property: after any faults the node converges to its set, and phases never go back', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            waitMs: fc.integer({ min: 0, max: 3_000 }),
            act: fc.constantFrom(
              'crash',
              'down',
              'up',
              'restart',
              'agent',
              'failCreate',
              'failStart',
              'respec',
              'stop2',
              'drop2',
              'add2',
            ),
          }),
          { maxLength: 12 },
        ),
        async (script) => {
          const { clock, engine, agent } = machine()
          let life = agent()
          let hash = 1
          let second: 'run' | 'stop' | 'none' = 'run'
          let generation = 1
          const set = () => [
            assignment({ specHash: `hash-${hash}` }),
            ...(second === 'none' ? [] : [assignment({ instance: `shop/web/2/${generation}`, goal: second })]),
          ]
          life.reconciler.start()
          life.reconciler.setDesired(set())
          for (const { waitMs, act } of script) {
            await clock.advance(waitMs)
            if (act === 'crash') engine.crash(WEB, 1)
            if (act === 'down') engine.down = true
            if (act === 'up') engine.down = false
            if (act === 'restart') engine.restart()
            if (act === 'failCreate') engine.failNext('create', new RetryableError('no'))
            if (act === 'failStart') engine.failNext('start', new RetryableError('no'))
            if (act === 'respec') hash += 1
            if (act === 'stop2' && second === 'run') second = 'stop'
            if (act === 'drop2') second = 'none'
            if (act === 'add2' && second === 'none') {
              second = 'run'
              generation += 1 // an identity that was told to stop is never wanted again
            }
            if (act === 'agent') {
              await life.reconciler.stop()
              life = agent()
              life.reconciler.start()
            }
            life.reconciler.setDesired(set())
            const names = [...engine.containers.values()].map((container) => container.name)
            expect(new Set(names).size).toBe(names.length)
          }
          engine.down = false
          // Every queued failure costs up to a minute of backoff.
          await clock.advance(900_000)
          expect(engine.running(WEB)).toHaveLength(1)
          expect(engine.running(WEB)[0]?.request.specHash).toBe(`hash-${hash}`)
          expect(life.status()).toMatchObject({ phase: 'ready', healthy: true })
          expect(engine.containers.size).toBe(second === 'run' ? 2 : 1)
          await life.reconciler.stop()
        },
      ),
      { numRuns: 60 },
    )
  })
})
