import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import type { EventDraft } from '../../shared/model/event.ts'
import type { HelloFrame } from '../../shared/protocol/frames.ts'
import { aCapacity, aMachineRecord, aNodeRecord, aPool } from '../../test/builders/records.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openState } from '../state/state.ts'
import { createFactsKeeper } from './facts-keeper.ts'

const ORDERED = aCapacity({ cpuMillis: 4_000 })

async function keeper() {
  const clock = virtualClock()
  const store = memoryStore()
  const state = await openState(store, clock)
  await state.commit(
    state
      .change()
      .put('pool', 'small', aPool({ name: 'small', capacity: ORDERED }))
      .put('machine', 'm-1', aMachineRecord({ phase: 'joined', nodeId: 'n-1', capacity: ORDERED }))
      .put('node', 'n-1', aNodeRecord({ pool: 'small', machineId: 'm-1', capacity: ORDERED })),
  )
  const events: EventDraft[] = []
  const facts = createFactsKeeper({ state, clock, logger: silentLogger(), audit: { add: (draft) => void events.push(draft) } })
  const says = (cpuMillis: number) =>
    facts.keep('n-1', { ...aNodeRecord(), engineLabels: {}, capacity: { ...ORDERED, cpuMillis } } as unknown as HelloFrame)
  const kept = () => state.snapshot.get('node', 'n-1')?.capacity.cpuMillis
  return { clock, state, facts, events, says, kept }
}

describe('facts that are kept of a node', () => {
  it('an agent that tells another story with each hello fills no audit trail: one event an hour', async () => {
    const { clock, facts, events, says } = await keeper()
    for (let minute = 0; minute < 150; minute += 1) {
      says(minute % 3 === 2 ? 4_000 : 1_000 + minute)
      await facts.idle()
      await clock.advance(60_000)
    }
    expect(events.map(({ type }) => type)).toEqual(Array.from({ length: 3 }, () => 'node.capacity-differs'))
  })

  it('the same story is told once, and again when it came back after an hour', async () => {
    const { clock, facts, events, says } = await keeper()
    for (const cpuMillis of [1_000, 1_000, 4_000, 1_000]) {
      says(cpuMillis)
      await facts.idle()
    }
    expect(events).toHaveLength(1)
    await clock.advance(3_600_000)
    says(1_000)
    await facts.idle()
    expect(events).toHaveLength(2)
  })

  it('of a flood of hellos the last one is kept, and those that were overtaken cost no write', async () => {
    const { state, facts, says, kept } = await keeper()
    const before = state.snapshot.revision
    for (let round = 1; round <= 500; round += 1) says(3_000 + round)
    await facts.idle()
    expect(kept()).toBe(3_500)
    expect(state.snapshot.revision - before).toBeLessThanOrEqual(2)
  })
})
