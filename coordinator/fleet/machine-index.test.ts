import { describe, expect, it } from 'vitest'
import { aMachineRecord } from '../../test/builders/records.ts'
import { emptyDisk, memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import type { MachinePhase } from '../../shared/model/node.ts'
import { openState } from '../state/state.ts'
import { createMachineIndex } from './machine-index.ts'

describe('machines that may exist and that ended', () => {
  it('are what the state says, in its order, from the start and after each change', async () => {
    const state = await openState(memoryStore(emptyDisk()), virtualClock())
    const put = (id: string, phase: MachinePhase) =>
      state.commit(state.change().put('machine', id, aMachineRecord({ id, phase })))
    await put('m-1', 'gone')
    await put('m-2', 'joined')
    const index = createMachineIndex(state)
    const seen = () => [index.existing(), index.ended()].map((machines) => machines.map(({ id, phase }) => `${id} ${phase}`))
    expect(seen()).toEqual([['m-2 joined'], ['m-1 gone']])
    await put('m-3', 'requested')
    await put('m-2', 'terminating')
    expect(seen()).toEqual([['m-2 terminating', 'm-3 requested'], ['m-1 gone']])
    await put('m-2', 'gone')
    await put('m-3', 'lost')
    expect(seen()).toEqual([[], ['m-1 gone', 'm-2 gone', 'm-3 lost']])
    await state.commit(state.change().delete('machine', 'm-1'))
    expect(seen()).toEqual([[], ['m-2 gone', 'm-3 lost']])
    index.stop()
    await put('m-4', 'joined')
    expect(seen()).toEqual([[], ['m-2 gone', 'm-3 lost']])
  })
})
