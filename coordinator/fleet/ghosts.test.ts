import { describe, expect, it } from 'vitest'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { aDrainingNode, anAppRecord, anInstanceRecord, aNodeRecord, someAssignments } from '../../test/builders/records.ts'
import { aContainerSpec, anAppSpec, aScale, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import type { InstanceRecord } from '../state/objects.ts'
import { openState } from '../state/state.ts'
import { DEFAULT_FLEET_CONFIG } from './config.ts'
import { ghostsOf } from './ghosts.ts'

const web = (id: string, fields: Partial<InstanceRecord> = {}) => anInstanceRecord({ id: `shop/web/${id}`, ...fields })

/** Ghosts of a service that shall have `count`, with what runs on node n-1 (which stays) and n-2 (which drains). */
async function ghostsWith(count: number, staying: readonly InstanceRecord[], draining: readonly InstanceRecord[] = []) {
  const state = await openState(memoryStore(), virtualClock())
  const scale = aScale({ predict: 'auto' })
  const unit = aUnitSpec({ containers: [aContainerSpec()] })
  const change = state.change()
  change.put('app', 'shop', anAppRecord({ spec: anAppSpec({ services: [aServiceSpec({ scale, unit })] }) }))
  change.put('node', 'n-1', aNodeRecord({ id: 'n-1' }))
  change.put('node', 'n-2', aDrainingNode({ id: 'n-2' }))
  const on = (nodeId: string, records: readonly InstanceRecord[]) =>
    someAssignments(
      nodeId,
      records.map((record) => ({ ...record, nodeId })),
    )
  change.put('assignments', 'n-1', on('n-1', staying))
  change.put('assignments', 'n-2', on('n-2', draining))
  expect((await state.commit(change)).kind).toBe('committed')
  const predicted = [{ service: 'shop/web', count }]
  return ghostsOf({ snapshot: state.snapshot, predicted, pools: [], config: DEFAULT_FLEET_CONFIG }).length
}

describe('room for what is forecast', () => {
  it('is for what is not there yet', async () => {
    expect(await ghostsWith(5, [web('1/1'), web('2/1')])).toBe(3)
  })

  it('is not for instances that took the place of others: after an update a second machine was bought for each', async () => {
    const after = [web('1/2', { replaces: 'shop/web/1/1' }), web('2/2', { replaces: 'shop/web/2/1' })]
    expect(await ghostsWith(2, after)).toBe(0)
    expect(await ghostsWith(5, after)).toBe(3)
  })

  it('is not for the moment in which an instance that moves has two places', async () => {
    const moving = [web('1/1'), web('1/2', { replaces: 'shop/web/1/1' }), web('2/1'), web('3/1', { goal: 'stop' })]
    expect(await ghostsWith(4, moving)).toBe(0)
    expect(await ghostsWith(5, moving)).toBe(1)
  })

  it('does not count on the places of a node that goes', async () => {
    const staying = [web('1/2', { replaces: 'shop/web/1/1' }), web('2/1')]
    expect(await ghostsWith(4, staying, [web('1/1')])).toBe(2)
  })
})
