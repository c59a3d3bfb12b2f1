import { describe, expect, it } from 'vitest'
import { modelCluster } from '../../test/builders/model-cluster.ts'
import { aContainerSpec, anAppSpec, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { removeApp } from './deploy.ts'
import { drainWaits, drainWaitsText } from './drain-waits.ts'
import { withRetiredHomes } from './generations.ts'

const mounts = [{ kind: 'volume' as const, source: 'data', target: '/data', readOnly: false }]
const withData = anAppSpec({
  services: [
    aServiceSpec({ name: 'db', unit: aUnitSpec({ containers: [aContainerSpec({ mounts })] }) }),
    aServiceSpec({ name: 'web' }),
  ],
})

describe('data of services that went', () => {
  it('down and up again finds the nodes with the data of each slot', async () => {
    const cluster = await modelCluster(2)
    const { state } = cluster
    await state.commit(state.change().put('cluster', 'cluster', { id: 'c-1', createdAtMs: 0, meshSecret: '' }))
    await cluster.deploy(withData)
    await cluster.run(4)
    const record = state.snapshot.get('service', 'shop/db')
    if (record === undefined) throw new Error('no service')
    await state.commit(state.change().put('service', 'shop/db', { ...record, homes: { 1: 'n-2' } }))
    await state.commit(removeApp(state, { name: 'shop', by: 't' }).change)
    await cluster.run(6)
    expect(state.snapshot.all('service').size).toBe(0)
    await cluster.deploy(withData)
    expect(state.snapshot.get('service', 'shop/db')?.homes).toEqual({ 1: 'n-2' })
    expect(state.snapshot.get('service', 'shop/web')?.homes).toBeUndefined()
    await cluster.stop()
  })

  it('remembers a bounded number of slots, the latest services first, each whole', () => {
    let cluster: Parameters<typeof withRetiredHomes>[0] = {}
    const homes = Object.fromEntries(Array.from({ length: 300 }, (_, slot) => [slot + 1, 'n-1']))
    for (let i = 0; i < 10; i += 1) cluster = withRetiredHomes(cluster, { id: `shop/db-${i}`, homes })
    expect(Object.keys(cluster.retiredHomes ?? {})).toEqual(['shop/db-7', 'shop/db-8', 'shop/db-9'])
    expect(Object.keys(cluster.retiredHomes?.['shop/db-9'] ?? {})).toHaveLength(300)
    expect(withRetiredHomes(cluster, { id: 'shop/db-8' }).retiredHomes).not.toHaveProperty('shop/db-8')
  })
})

describe('what a drain cannot move', () => {
  it('names the instances with local data, and why', async () => {
    const cluster = await modelCluster(1)
    await cluster.deploy(withData)
    await cluster.run(4)
    const waits = drainWaits(cluster.state.snapshot, 'n-1')
    expect(waits.map(({ instance }) => instance)).toEqual(['shop/db/1/1'])
    expect(drainWaitsText(waits)).toContain('shop/db/1/1 has its data on this node')
    expect(drainWaitsText(drainWaits(cluster.state.snapshot, 'n-9'))).toBe('')
    await cluster.stop()
  })
})
