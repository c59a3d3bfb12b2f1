import { expect, it } from 'vitest'
import type { Resources } from '../../shared/model/resources.ts'
import { aNodeObservation, anInstanceObservation, anInstanceUse, testObserved } from '../../test/builders/observed.ts'
import { aCapacity, anAppRecord, anInstanceRecord, aNodeRecord, someAssignments } from '../../test/builders/records.ts'
import { anAppSpec, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openState } from '../state/state.ts'
import { feedLearnedUse } from './feed-learned-use.ts'

async function feeding(limits: Partial<Resources>) {
  const clock = virtualClock()
  const state = await openState(memoryStore(), clock)
  const observed = testObserved()
  const plain = aUnitSpec()
  const unit = { ...plain, containers: plain.containers.map((container) => ({ ...container, limits })) }
  const spec = aServiceSpec({ unit })
  const capacity = aCapacity({ cpuMillis: 4_000, memoryBytes: 2 ** 33 })
  await state.commit(
    state
      .change()
      .put('app', 'shop', anAppRecord({ spec: anAppSpec({ services: [spec] }) }))
      .put('node', 'n-1', aNodeRecord({ capacity }))
      .put('assignments', 'n-1', someAssignments('n-1', [anInstanceRecord({ nodeId: 'n-1', specHash: spec.specHash })])),
  )
  observed.setNode(aNodeObservation())
  observed.setInstance(anInstanceObservation())
  const samples: Resources[] = []
  const stop = feedLearnedUse({ sample: (_service, { most }) => void samples.push(most) }, { state, observed, clock })
  const report = () => observed.setUse(anInstanceUse({ cpuMillis: 1e12, memoryBytes: 1e15 }), clock.now())
  return { clock, samples, report, stop }
}

it('takes one sample of an instance in ten seconds, however often its agent reports', async () => {
  const { clock, samples, report, stop } = await feeding({})
  for (let tenth = 0; tenth < 300; tenth += 1) {
    report()
    await clock.advance(100)
  }
  expect(samples).toHaveLength(3)
  stop()
})

it('an instance can have used its node at most, or the limits of its containers', async () => {
  for (const [limits, most] of [
    [{}, { cpuMillis: 4_000, memoryBytes: 2 ** 33 }],
    [{ cpuMillis: 500 }, { cpuMillis: 500, memoryBytes: 2 ** 33 }],
    [
      { cpuMillis: 64_000, memoryBytes: 2 ** 28 },
      { cpuMillis: 4_000, memoryBytes: 2 ** 28 },
    ],
  ] as const) {
    const { samples, report, stop } = await feeding(limits)
    report()
    expect(samples).toEqual([most])
    stop()
  }
})
