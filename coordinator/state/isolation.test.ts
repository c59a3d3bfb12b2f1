import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { createIsolation } from './isolation.ts'
import { openState } from './state.ts'

const broken = () => {
  throw new RangeError('not a valid zone')
}

async function isolated() {
  const clock = virtualClock()
  const store = memoryStore()
  const state = await openState(store, clock)
  const isolation = createIsolation({ state, clock, logger: silentLogger(), part: 'scaling' })
  const faults = () => state.events({ type: 'service.isolated' })
  return { clock, store, state, isolation, faults }
}

describe('isolation', () => {
  it('answers null for what throws, and tells it with the subject once an hour while it lasts', async () => {
    const { clock, isolation, faults } = await isolated()
    expect(isolation.attempt('good/web', () => 7)).toBe(7)
    for (let second = 0; second < 5_400; second += 60) {
      expect(isolation.attempt('bad/web', broken)).toBeNull()
      await clock.advance(60_000)
    }
    const events = await faults()
    expect(events.map(({ subject, severity }) => [subject, severity])).toEqual([
      ['bad/web', 'error'],
      ['bad/web', 'error'],
    ])
    expect(events[0]?.message).toMatch(/scaling .* not a valid zone/)
  })

  it('tells of each subject, and of a whole app as such', async () => {
    const { clock, state, isolation, faults } = await isolated()
    for (let i = 0; i < 60; i += 1) isolation.attempt(`bad/s${i}`, broken)
    isolation.failed('worse', new Error('all of it'))
    await clock.advance(1_000)
    isolation.attempt('bad/s0', broken)
    await clock.advance(1_000)
    isolation.attempt('bad/s0', broken)
    await clock.advance(1_000)
    expect(new Set((await faults()).map(({ subject }) => subject)).size).toBe(60)
    expect((await state.events({ type: 'app.isolated' })).map(({ subject }) => subject)).toEqual(['worse'])
  })

  it('a fault that the store did not take is told with the next failure', async () => {
    const { clock, store, isolation, faults } = await isolated()
    store.failNext({ kind: 'unavailable', detail: 'a full disk' })
    isolation.attempt('bad/web', broken)
    await clock.advance(1_000)
    expect(await faults()).toHaveLength(0)
    isolation.attempt('bad/web', broken)
    await clock.advance(1_000)
    expect(await faults()).toHaveLength(1)
  })
})
