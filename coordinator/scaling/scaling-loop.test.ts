import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import { aNodeObservation, anInstanceObservation, anInstanceUse, testObserved } from '../../test/builders/observed.ts'
import { anAppRecord, aNodeRecord, anInstanceRecord, aServiceRecord, someAssignments } from '../../test/builders/records.ts'
import { anAppSpec, aScale, aServiceSpec } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openState } from '../state/state.ts'
import { createScalingLoop } from './scaling-loop.ts'

async function running() {
  const clock = virtualClock()
  const state = await openState(memoryStore(), clock)
  const observed = testObserved()
  const change = state.change()
  change.put('app', 'shop', anAppRecord({ spec: anAppSpec({ services: [aServiceSpec({ scale: aScale() })] }) }))
  change.put('service', 'shop/web', aServiceRecord())
  change.put('node', 'n-1', aNodeRecord())
  change.put('assignments', 'n-1', someAssignments('n-1', [anInstanceRecord({ nodeId: 'n-1' })]))
  await state.commit(change)
  observed.setNode(aNodeObservation())
  observed.setInstance(anInstanceObservation())
  const loop = createScalingLoop({ state, observed, clock, logger: silentLogger() })
  loop.start()
  const desired = () => state.snapshot.get('service', 'shop/web')?.desired
  return { clock, state, observed, loop, desired }
}

describe('scaling loop', () => {
  it('moves the wanted count, with the numbers in the event, and keeps the decision', async () => {
    const { clock, state, observed, loop, desired } = await running()
    observed.setUse(anInstanceUse({ loadPercent: 90 }), clock.now())
    await clock.advance(20_000)
    expect(desired()).toBe(2)
    const [event] = await state.events({ type: 'service.scaled' })
    expect(event?.message).toMatch(/1 → 2: demand 90 % over 1 = 90 %, threshold 60 %/)
    expect(loop.decision('shop/web')?.demandPercent).toBe(90)
    await loop.stop()
    expect(clock.pendingTimers).toBe(0)
  })
  it('row 12: holds without data, and keeps the count when the node falls silent', async () => {
    const { clock, observed, loop, desired } = await running()
    await clock.advance(200_000)
    expect(loop.decision('shop/web')?.code).toBe('no-data')
    observed.setNode(aNodeObservation({ liveness: 'suspect', connected: false }))
    observed.setUse(anInstanceUse({ loadPercent: 0 }), clock.now())
    await clock.advance(300_000)
    expect(desired()).toBe(1)
    await loop.stop()
  })
})
