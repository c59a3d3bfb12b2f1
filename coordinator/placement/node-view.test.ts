import { describe, expect, it } from 'vitest'
import { aNodeObservation, testObserved } from '../../test/builders/observed.ts'
import { anAppRecord, anInstanceRecord, aNodeRecord, aServiceRecord, someAssignments } from '../../test/builders/records.ts'
import { anAppSpec, aServiceSpec } from '../../test/builders/specs.ts'
import { emptyDisk, memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import type { Availability } from '../../shared/model/node.ts'
import { openState } from '../state/state.ts'
import { createNodeView, requestOfRecord } from './node-view.ts'

/** One instance on `n-1`, with a replacement waiting beside its service. */
async function countOn(availability: Availability, instanceHash: string): Promise<number> {
  const state = await openState(memoryStore(emptyDisk()), virtualClock())
  const old = anInstanceRecord({ id: 'shop/web/1/1', nodeId: 'n-1', specHash: instanceHash })
  const pending = [anInstanceRecord({ id: 'shop/web/1/2', nodeId: null, specHash: 'h1', replaces: old.id })]
  const spec = anAppSpec({ services: [aServiceSpec({ specHash: 'h1' })] })
  await state.commit(
    state
      .change()
      .put('app', 'shop', anAppRecord({ spec }))
      .put('service', 'shop/web', aServiceRecord({ id: 'shop/web', pending }))
      .put('node', 'n-1', aNodeRecord({ id: 'n-1', availability }))
      .put('assignments', 'n-1', someAssignments('n-1', [old])),
  )
  const observed = testObserved()
  observed.setNode(aNodeObservation({ nodeId: 'n-1' }))
  const view = createNodeView({ state, observed })
  const [node] = view.nodes()
  view.stop()
  return node?.services.get('shop/web') ?? 0
}

describe('the cluster as placement sees it', () => {
  it('an instance that is being replaced counts no more: its update or its drain takes it away', async () => {
    expect(await countOn('active', 'h0')).toBe(0)
    expect(await countOn('draining', 'h1')).toBe(0)
  })

  it('it counts again once its drain was taken back, so that no rule per node is broken beside it', async () => {
    expect(await countOn('active', 'h1')).toBe(1)
  })

  it('an image that was pulled ahead is there, and is remembered when the node is no longer asked for it', async () => {
    const state = await openState(memoryStore(emptyDisk()), virtualClock())
    await state.commit(state.change().put('node', 'n-1', aNodeRecord()))
    const observed = testObserved()
    const view = createNodeView({ state, observed })
    const images = (ahead: { here: string[]; pending: string[]; failing: string[] }) => {
      observed.setNode(aNodeObservation({ ahead }))
      return [...(view.nodes()[0]?.images ?? [])]
    }
    expect(images({ here: ['web:2'], pending: ['other:1'], failing: ['bad:1'] })).toEqual(['web:2'])
    expect(images({ here: [], pending: [], failing: [] })).toEqual(['web:2'])
    view.stop()
  })

  it('a part of a global job is for its node alone, and two runs may share it', async () => {
    const state = await openState(memoryStore(emptyDisk()), virtualClock())
    const job = { completions: 1, parallelism: 9, retries: 0, deadlineMs: null }
    const spec = anAppSpec({ services: [aServiceSpec({ specHash: 'h1', mode: 'global', job })] })
    await state.commit(state.change().put('app', 'shop', anAppRecord({ spec })))
    const part = (node: string) =>
      requestOfRecord(
        { ...anInstanceRecord({ id: 'shop/web/1/1', nodeId: null, specHash: 'h1' }), job: { run: 'r1', key: node, attempt: 1 } },
        state.snapshot,
      )
    expect(part('n-2')?.rules.constraints).toContainEqual({ attribute: 'node.id', operator: '==', value: 'n-2' })
    expect(part('n-2')?.rules.maxPerNode).toBeNull()
    // Requests of one group are placed alike.
    expect(part('n-2')?.group).not.toBe(part('n-3')?.group)
  })
})
