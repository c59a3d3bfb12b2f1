import { afterEach, describe, expect, it } from 'vitest'
import { endFleetBeds, type FleetBed, fleetBed, fleetPool } from '../../test/builders/fleet-bed.ts'
import { MAX_COMMIT_BYTES } from '../state/store.ts'

afterEach(endFleetBeds)

/** Makes its record so large that nothing fits a commit beside it: no drain, no deletion of its machine. */
async function fatten(bed: FleetBed, id: string): Promise<void> {
  const record = bed.state.snapshot.get('node', id)
  if (!record) throw new Error(`no node ${id}`)
  const operation = JSON.stringify({ op: 'put', kind: 'node', key: id, value: record, expect: 1_000 }).length
  const labels = { pad: 'x'.repeat(MAX_COMMIT_BYTES - operation - 50) }
  const outcome = await bed.state.commit(bed.state.change().put('node', id, { ...record, labels }))
  expect(outcome.kind).toBe('committed')
}

describe('fleet loop: what fails for one', () => {
  it('a silent node whose record cannot be stored keeps nobody from being bought for, and people are told', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 1e9, silentNodeMs: 600_000 })
    await bed.ask(9)
    await bed.clock.advance(240_000)
    await fatten(bed, 'n-1')
    bed.observed.set('n-1', 'lost')
    await bed.clock.advance(3_600_000)
    expect(await bed.events('node.isolated')).toEqual([expect.stringContaining('fleet cannot work for it')])
    const bought = bed.cloud.createCalls.length
    await bed.ask(8)
    await bed.clock.advance(300_000)
    expect(bed.pending()).toBe(0)
    expect(bed.cloud.createCalls.length - bought).toBe(3)
    // Its own turn comes as soon as its record can be stored.
    const record = bed.nodes().find(({ id }) => id === 'n-1')
    if (record) await bed.state.commit(bed.state.change().put('node', 'n-1', { ...record, labels: {} }))
    await bed.clock.advance(60_000)
    expect(bed.nodes().find(({ id }) => id === 'n-1')?.availability ?? 'gone').not.toBe('active')
  })

  it('an idle node that cannot be drained keeps no other from being given back', async () => {
    const bed = await fleetBed([fleetPool('small')], { minNodeAgeMs: 60_000 })
    await bed.ask(9)
    await bed.clock.advance(240_000)
    await fatten(bed, 'n-1')
    await bed.stopAll(7)
    await bed.clock.advance(1_800_000)
    expect(bed.nodes().map(({ id }) => id)).toEqual(['n-1'])
    expect(bed.cloud.live()).toHaveLength(1)
  })
})
