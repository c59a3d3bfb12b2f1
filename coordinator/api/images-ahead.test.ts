import { describe, expect, it } from 'vitest'
import { apiBed } from '../../test/builders/api-bed.ts'
import { aNodeObservation } from '../../test/builders/observed.ts'
import { anInstanceRecord, aNodeRecord, aServiceRecord, someAssignments } from '../../test/builders/records.ts'
import { anAppSpec, anUpdate, aServiceSpec } from '../../test/builders/specs.ts'
import type { PulledAhead } from '../../shared/protocol/frames.ts'
import type { ExplanationView, NodeView } from './schemas.ts'

async function updating(ahead: PulledAhead | null) {
  const bed = await apiBed()
  await bed.seedApp(anAppSpec({ services: [aServiceSpec({ update: anUpdate({ order: 'stop-first' }) })] }))
  const rollout = { fromRevision: 1, toRevision: 2, phase: 'progressing', startedAtMs: 0, message: '' } as const
  await bed.state.commit(
    bed.state
      .change()
      .put('node', 'n-1', aNodeRecord())
      .put('service', 'shop/web', aServiceRecord({ rollout }))
      .put('assignments', 'n-1', someAssignments('n-1', [anInstanceRecord({ nodeId: 'n-1', specHash: 'old' })])),
  )
  bed.observed.setNode(aNodeObservation({ ahead }))
  const { reasons } = (await (await bed.send('GET', '/v1/services/shop/web/explain')).json()) as ExplanationView
  const node = (await (await bed.send('GET', '/v1/nodes/n-1')).json()) as NodeView
  return { waits: reasons.find(({ code }) => code === 'waits-for-images')?.text, node }
}

describe('images that are pulled ahead', () => {
  it('B9: a node shows them, and explain says which node an update waits for', async () => {
    const ahead = { here: ['side:1'], pending: ['shop/web:1'], failing: [] }
    const { waits, node } = await updating(ahead)
    expect(node.imagesAhead).toEqual(ahead)
    expect(waits).toBe('Instances on n-1 run on until the images of the update are there, or for 5 min.')
  })

  it('explain says nothing of it once they are there, or where the node pulls none ahead', async () => {
    expect((await updating({ here: ['shop/web:1'], pending: [], failing: [] })).waits).toBeUndefined()
    const older = await updating(null)
    expect(older.waits).toBeUndefined()
    expect(older.node.imagesAhead).toBeNull()
  })
})
