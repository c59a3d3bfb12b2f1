import { describe, expect, it } from 'vitest'
import { ConflictError } from '../../shared/errors.ts'
import { aNodeRecord } from '../../test/builders/records.ts'
import { emptyDisk, memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openState, type State } from '../state/state.ts'
import { ChangedMeanwhileError, drainNode, evenIfChanged, uncordonNode } from './node-actions.ts'

const DRAIN = { by: 'operator:me', reason: 'test', deleteMachine: false }

describe('what is asked of a node while somebody else changes it', () => {
  it('is done all the same when a person asked (simulation seed 3000014)', async () => {
    const { deps, state, outrunNext } = await aDrainingNode()
    outrunNext(1)
    await evenIfChanged(() => uncordonNode(deps, 'n-1', 'operator:me'))
    expect(state.snapshot.get('node', 'n-1')).toMatchObject({ availability: 'active', drain: null })
    expect((await state.events({ type: 'node.activated' })).length).toBe(1)
  })

  it('is refused when the fleet decided it, and when others keep winning', async () => {
    const { deps, state, outrunNext } = await aDrainingNode()
    outrunNext(1)
    await expect(uncordonNode(deps, 'n-1', 'fleet')).rejects.toBeInstanceOf(ChangedMeanwhileError)
    outrunNext(8)
    await expect(evenIfChanged(() => uncordonNode(deps, 'n-1', 'operator:me'))).rejects.toBeInstanceOf(ConflictError)
    expect(state.snapshot.get('node', 'n-1')?.availability).not.toBe('active')
  })
})

/** A node that drains; of the next commits that are asked for, somebody else is faster with so many. */
async function aDrainingNode() {
  const clock = virtualClock()
  const state = await openState(memoryStore(emptyDisk()), clock)
  await state.commit(state.change().put('node', 'n-1', aNodeRecord({ id: 'n-1' })))
  await drainNode({ state, clock }, 'n-1', DRAIN)
  let faster = 0
  const raced: State = {
    ...state,
    get snapshot() {
      return state.snapshot
    },
    async commit(change) {
      if (faster > 0) {
        faster -= 1
        const node = state.snapshot.get('node', 'n-1')
        if (!node) throw new Error('there is no node')
        await state.commit(state.change().put('node', 'n-1', { ...node, availability: 'drained' }))
      }
      return state.commit(change)
    },
  }
  return {
    deps: { state: raced, clock },
    state,
    outrunNext(times: number) {
      faster = times
    },
  }
}
