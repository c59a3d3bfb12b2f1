import { expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import { aNodeObservation, anInstanceObservation, testObserved } from '../../test/builders/observed.ts'
import { aCapacity, anAppRecord, anInstanceRecord, aNodeRecord, aServiceRecord } from '../../test/builders/records.ts'
import { anAppSpec, aPlacement, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openState } from '../state/state.ts'
import { createNodeView } from './node-view.ts'
import { createPreemption } from './preemption.ts'
import { requestOf } from './requests.ts'

const HOUR_MS = 3_600_000
const unit = aUnitSpec({ reservations: { cpuMillis: 1_000, memoryBytes: 2 ** 30 } })
const spec = (priority: number) => aServiceSpec({ unit, placement: aPlacement({ priority }) })

/** Five full nodes with twenty apps of one instance each, all of which were updated once: whom they replaced is long gone. */
async function full(options: { evictedPercentPerHour?: number } = {}) {
  const clock = virtualClock()
  const state = await openState(memoryStore(), clock)
  const observed = testObserved()
  for (let n = 0; n < 5; n += 1) {
    const change = state.change().put('node', `n-${n}`, aNodeRecord({ id: `n-${n}`, capacity: aCapacity({ cpuMillis: 4_000 }) }))
    const instances = [0, 1, 2, 3].map((k) => {
      const app = `team-${n}-${k}`
      const service = spec(50)
      change.put('app', app, anAppRecord({ name: app, spec: anAppSpec({ name: app, services: [service] }) }))
      change.put('service', `${app}/web`, aServiceRecord({ id: `${app}/web`, desired: 1 }))
      return anInstanceRecord({ id: `${app}/web/1/2`, replaces: `${app}/web/1/1`, nodeId: `n-${n}`, specHash: service.specHash })
    })
    await state.commit(change.put('assignments', `n-${n}`, { nodeId: `n-${n}`, instances }))
    observed.setNode(aNodeObservation({ nodeId: `n-${n}` }))
    for (const { id } of instances) observed.setInstance(anInstanceObservation({ instance: id, nodeId: `n-${n}` }))
  }
  const view = createNodeView({ state, observed })
  const preemption = createPreemption({ state, observed, clock, logger: silentLogger(), ...options })
  const ask = (app: string) =>
    preemption.run(
      Array.from({ length: 30 }, (_, slot) =>
        requestOf(`${app}/web/${slot + 1}/1`, { app, spec: spec(100), revision: 1, home: null }),
      ),
      view.nodes(),
    )
  const evicted = async () => (await state.events({ type: 'instance.evicted', limit: 100 })).length
  return { clock, state, ask, evicted }
}

it('one app cannot evict all others: half of what an hour allows is the most that goes for it, and the event says so once', async () => {
  const { clock, state, ask, evicted } = await full()
  for (let pass = 0; pass < 5; pass += 1) {
    await ask('evil')
    await clock.advance(5_000)
  }
  expect(await evicted()).toBe(5)
  const held = await state.events({ type: 'placement.evictions-held' })
  expect(held).toHaveLength(1)
  expect(held[0]?.message).toContain('in the last hour 5 were evicted of at most 10, half of them for one app')
  await ask('other')
  await ask('third')
  expect(await evicted()).toBe(10)
  await clock.advance(HOUR_MS)
  await ask('third')
  expect(await evicted()).toBe(15)
})

it('with a share of nothing nobody is ever evicted', async () => {
  const { ask, evicted } = await full({ evictedPercentPerHour: 0 })
  await ask('vip')
  expect(await evicted()).toBe(0)
})
