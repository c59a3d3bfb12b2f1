import { describe, expect, it } from 'vitest'
import { anAppRecord, anInstanceRecord, aServiceRecord, someAssignments } from '../../test/builders/records.ts'
import { emptyDisk, memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import type { InstanceRecord } from '../state/objects.ts'
import { openState } from '../state/state.ts'
import { DEFAULT_FLEET_CONFIG } from './config.ts'
import { ghostsOf } from './ghosts.ts'

/** How many instances are planned ahead when the forecast wants five and these are there. */
async function ahead(instances: readonly InstanceRecord[]): Promise<number> {
  const state = await openState(memoryStore(emptyDisk()), virtualClock())
  await state.commit(
    state
      .change()
      .put('app', 'shop', anAppRecord())
      .put('service', 'shop/web', aServiceRecord())
      .put('assignments', 'n-1', someAssignments('n-1', instances)),
  )
  const predicted = [{ service: 'shop/web', count: 5 }]
  return ghostsOf({ snapshot: state.snapshot, predicted, pools: [], config: DEFAULT_FLEET_CONFIG }).length
}
const instance = (id: string, fields: Partial<InstanceRecord> = {}) => anInstanceRecord({ id, nodeId: 'n-1', ...fields })

describe('room for what the forecast wants', () => {
  it('is planned for what is not there, not for what stops', async () => {
    expect(await ahead([instance('shop/web/1/1'), instance('shop/web/2/1'), instance('shop/web/3/1', { goal: 'stop' })])).toBe(3)
  })

  it('an instance that took the place of another counts as there, long after its update: nothing is bought twice', async () => {
    const updated = [1, 2, 3].map((slot) => instance(`shop/web/${slot}/2`, { replaces: `shop/web/${slot}/1` }))
    expect(await ahead(updated)).toBe(2)
  })

  it('one and its replacement beside it count once', async () => {
    expect(await ahead([instance('shop/web/1/1'), instance('shop/web/1/2', { replaces: 'shop/web/1/1' })])).toBe(4)
  })
})
