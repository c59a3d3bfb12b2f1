import { describe, expect, it } from 'vitest'
import { RetryableError } from '../../shared/errors.ts'
import { silentLogger } from '../../shared/logger.ts'
import { aNodeRecord } from '../../test/builders/records.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openState } from '../state/state.ts'
import { createApart } from './apart.ts'

async function world() {
  const clock = virtualClock()
  const state = await openState(memoryStore(), clock)
  await state.commit(state.change().put('node', 'n-1', aNodeRecord()))
  return { clock, state, apart: createApart({ state, clock, logger: silentLogger() }) }
}
const broken = async () => {
  throw new TypeError('not a function')
}

describe('work for one node or machine', () => {
  it('what failed is due again after a while, longer each time; what is done is forgotten', async () => {
    const { clock, apart } = await world()
    expect(await apart.attempt('n-1', async () => 7)).toBe(7)
    const waits: (number | null)[] = []
    for (let round = 0; round < 9; round += 1) {
      expect(await apart.attempt('n-1', broken)).toBeNull()
      expect(await apart.attempt('n-1', async () => 7)).toBeNull()
      expect(await apart.attempt('n-2', async () => 8)).toBe(8)
      waits.push(apart.nextInMs())
      await clock.advance(apart.nextInMs() ?? 0)
      expect(apart.nextInMs()).toBeNull()
    }
    expect(waits).toEqual([250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000])
    expect(apart.isFailing('n-1')).toBe(true)
    expect(await apart.attempt('n-1', async () => 7)).toBe(7)
    expect(apart.isFailing('n-1')).toBe(false)
  })

  it('one who is overtaken, or whose store is away for a while, is not told of; what fails for minutes is, by what it is', async () => {
    const { clock, state, apart } = await world()
    for (let minute = 0; minute <= 8; minute += 1) {
      for (const subject of ['n-1', 'buying'])
        await apart.attempt(subject, async () => {
          throw new RetryableError('somebody was faster')
        })
      expect(apart.isFailing('n-1')).toBe(minute >= 2)
      await clock.advance(60_000)
      expect(await state.events({ type: 'node.isolated' })).toHaveLength(minute >= 5 ? 1 : 0)
    }
    expect(await state.events({ type: 'fleet.isolated' })).toMatchObject([{ subject: 'buying', severity: 'error' }])
  })

  it('a fault of ours is told at once', async () => {
    const { clock, state, apart } = await world()
    await apart.attempt('n-1', broken)
    await clock.advance(1_000)
    expect(await state.events({ type: 'node.isolated' })).toHaveLength(1)
  })
})
