import { describe, expect, it } from 'vitest'
import { aNodeRecord, anInstanceRecord, aServiceRecord, someAssignments } from '../../test/builders/records.ts'
import { emptyDisk, memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openState } from './state.ts'

const ID = 'shop/web/1/1'

describe('state', () => {
  it('shows nothing that is not durable', async () => {
    const store = memoryStore()
    const state = await openState(store, virtualClock())
    store.failNext({ kind: 'unavailable', detail: 'disk full' })
    const outcome = await state.commit(state.change().put('node', 'n', aNodeRecord({ id: 'n' })))
    expect(outcome.kind).toBe('unavailable')
    expect(state.snapshot.get('node', 'n')).toBeUndefined()
  })
  it('refuses the slower of two changes of one object, and writes nothing of it', async () => {
    const state = await openState(memoryStore(), virtualClock())
    await state.commit(state.change().put('node', 'n', aNodeRecord({ id: 'n', hostname: 'a' })))
    const first = state.change().put('node', 'n', aNodeRecord({ id: 'n', hostname: 'b' }))
    const second = state
      .change()
      .put('node', 'n', aNodeRecord({ id: 'n', hostname: 'c' }))
      .put('node', 'm', aNodeRecord({ id: 'm' }))
    expect((await state.commit(first)).kind).toBe('committed')
    expect((await state.commit(second)).kind).toBe('conflict')
    expect(state.snapshot.get('node', 'n')?.hostname).toBe('b')
    expect(state.snapshot.get('node', 'm')).toBeUndefined()
  })
  it('finds an instance by id and by service while it waits, when it is placed, and no more when it is gone', async () => {
    const state = await openState(memoryStore(), virtualClock())
    const waiting = anInstanceRecord({ id: ID, nodeId: null })
    await state.commit(state.change().put('service', 'shop/web', aServiceRecord({ id: 'shop/web', pending: [waiting] })))
    expect(state.snapshot.instancesOf('shop/web').map((record) => record.nodeId)).toEqual([null])
    const move = state.change().put('assignments', 'n', someAssignments('n', [{ ...waiting, nodeId: 'n' }]))
    await state.commit(move.put('service', 'shop/web', aServiceRecord({ id: 'shop/web', pending: [] })))
    expect(state.snapshot.instances().get(ID)?.nodeId).toBe('n')
    await state.commit(state.change().delete('assignments', 'n'))
    expect(state.snapshot.instances().size).toBe(0)
    expect(state.snapshot.instancesOf('shop/web')).toEqual([])
  })
  it('I5: everything committed is there again after a restart, under a higher epoch', async () => {
    const disk = emptyDisk()
    const before = await openState(memoryStore(disk), virtualClock())
    await before.commit(
      before.change().put('assignments', 'n', someAssignments('n', [anInstanceRecord({ id: ID, nodeId: 'n' })])),
    )
    const after = await openState(memoryStore(disk), virtualClock())
    expect(after.epoch).toBeGreaterThan(before.epoch)
    expect(after.snapshot.instances().get(ID)?.nodeId).toBe('n')
    const late = await before.commit(before.change().put('node', 'x', aNodeRecord({ id: 'x' })))
    expect(late.kind).toBe('notLeader')
  })
  it('tells listeners of commits, in order, with what changed', async () => {
    const state = await openState(memoryStore(), virtualClock())
    const seen: string[] = []
    const end = state.onChange((change) => seen.push(change.keys.map(({ kind, key }) => `${kind}/${key}`).join()))
    await state.commit(state.change().put('node', 'a', aNodeRecord({ id: 'a' })))
    await state.commit(state.change())
    await state.commit(state.change().delete('node', 'a'))
    end()
    await state.commit(state.change().put('node', 'b', aNodeRecord({ id: 'b' })))
    expect(seen).toEqual(['node/a', 'node/a'])
  })
})
