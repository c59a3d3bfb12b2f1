import { describe, expect, it } from 'vitest'
import { anInstanceRecord, T0 } from '../../test/builders/records.ts'
import { anAppSpec, aScale, aServiceSpec } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openState } from '../state/state.ts'
import { MAX_HISTORY } from './app-record.ts'
import { deployApp, removeApp, rollbackApp, scaleService } from './deploy.ts'
import { firstGenerations, nextGeneration, withGeneration, withRetired } from './generations.ts'

const open = () => openState(memoryStore(), virtualClock())
const request = (specHash: string, fields = {}) => ({
  spec: anAppSpec({ services: [aServiceSpec({ specHash, ...fields })] }),
  source: `# ${specHash}`,
  by: 'operator:ann',
})

describe('deploying', () => {
  it('keeps at most five earlier revisions, newest first, and changes nothing for the same spec', async () => {
    const state = await open()
    for (let i = 1; i <= 8; i += 1) await state.commit(deployApp(state, request(`v${i}`), T0).change)
    const app = state.snapshot.get('app', 'shop')
    expect(app?.revision).toBe(8)
    expect(app?.history.map((entry) => entry.revision)).toEqual([7, 6, 5, 4, 3].slice(0, MAX_HISTORY))
    const again = deployApp(state, request('v8'), T0)
    expect(again.outcome.kind).toBe('unchanged')
    expect(again.change.isEmpty).toBe(true)
  })
  it('keeps an older revision as long as an instance runs it that no newer one tells of', async () => {
    const state = await open()
    await state.commit(deployApp(state, request('v1'), T0).change)
    const running = { ...anInstanceRecord({ id: 'shop/web/1/1' }), revision: 1, specHash: 'v1' }
    await state.commit(state.change().put('assignments', 'n-1', { nodeId: 'n-1', instances: [running] }))
    for (let i = 2; i <= 9; i += 1) await state.commit(deployApp(state, request(`v${i}`), T0).change)
    const kept = () => state.snapshot.get('app', 'shop')?.history.map((entry) => entry.revision)
    expect(kept()).toEqual([8, 7, 6, 5, 4, 1])
    await state.commit(state.change().put('assignments', 'n-1', { nodeId: 'n-1', instances: [] }))
    await state.commit(deployApp(state, request('v10'), T0).change)
    expect(kept()).toEqual([9, 8, 7, 6, 5])
  })
  it('goes back to the newest revision that differs, as a new one', async () => {
    const state = await open()
    for (const hash of ['v1', 'v2']) await state.commit(deployApp(state, request(hash), T0).change)
    await state.commit(rollbackApp(state, { name: 'shop', by: 'operator:ann' }, T0).change)
    expect(state.snapshot.get('app', 'shop')).toMatchObject({ revision: 3, source: '# v1' })
    expect(() => rollbackApp(state, { name: 'shop', toRevision: 99, by: 'x' }, T0)).toThrow(/99/)
    expect(() => rollbackApp(state, { name: 'none', by: 'x' }, T0)).toThrow(/no app/)
  })
  it('keeps what scaling wanted within the new bounds, and a pin unless the file changes the count', async () => {
    const state = await open()
    const deploy = (max: number, hash = 'v1') =>
      state.commit(deployApp(state, request(hash, { scale: aScale({ max }) }), T0).change)
    await deploy(10)
    const record = state.snapshot.get('service', 'shop/web')
    if (!record) throw new Error('no record')
    await state.commit(state.change().put('service', 'shop/web', { ...record, desired: 8 }))
    await state.commit(scaleService(state, { app: 'shop', service: 'web', count: 9, by: 'x' }).change)
    await deploy(10, 'v2')
    expect(state.snapshot.get('service', 'shop/web')).toMatchObject({ desired: 8, pinned: 9 })
    await deploy(5, 'v2')
    expect(state.snapshot.get('service', 'shop/web')).toMatchObject({ desired: 5, pinned: null })
    expect(() => scaleService(state, { app: 'shop', service: 'web', count: 6, by: 'x' })).toThrow(/between 1 and 5/)
    expect(() => scaleService(state, { app: 'shop', service: 'web', count: Number.NaN, by: 'x' })).toThrow(/whole number/)
  })
  it('scaling goes on from the count of a pin that ends, not from what it wanted before it', async () => {
    const state = await open()
    await state.commit(deployApp(state, request('v1', { scale: aScale({ min: 1, max: 10 }) }), T0).change)
    const record = state.snapshot.get('service', 'shop/web')
    if (!record) throw new Error('no record')
    await state.commit(state.change().put('service', 'shop/web', { ...record, desired: 8 }))
    const pin = (count: number | null) => scaleService(state, { app: 'shop', service: 'web', count, by: 'x' })
    await state.commit(pin(2).change)
    expect(pin(null).outcome).toMatchObject({ from: 2, to: 2, pinned: false })
    await state.commit(pin(null).change)
    expect(state.snapshot.get('service', 'shop/web')).toMatchObject({ desired: 2, pinned: null })
  })
  it('takes back a removal when the app is deployed again before it has gone', async () => {
    const state = await open()
    await state.commit(deployApp(state, request('v1'), T0).change)
    await state.commit(removeApp(state, { name: 'shop', by: 'x' }).change)
    expect(removeApp(state, { name: 'shop', by: 'x' }).change.isEmpty).toBe(true)
    await state.commit(deployApp(state, request('v1'), T0).change)
    expect(state.snapshot.get('app', 'shop')?.removing).toBe(false)
  })
  it('gives services numbers that stay when others are added', async () => {
    const state = await open()
    const named = (...names: string[]) => ({
      spec: anAppSpec({ services: names.map((name) => aServiceSpec({ name })) }),
      source: '',
      by: 'x',
    })
    await state.commit(deployApp(state, named('b', 'c'), T0).change)
    await state.commit(deployApp(state, named('a', 'b', 'c'), T0).change)
    expect(['a', 'b', 'c'].map((name) => state.snapshot.get('service', `shop/${name}`)?.ordinal)).toEqual([3, 1, 2])
  })
  it('takes an app whose history would not fit into one commit', async () => {
    const state = await open()
    for (let i = 1; i <= 7; i += 1) {
      const outcome = await state.commit(deployApp(state, { ...request(`v${i}`), source: 'x'.repeat(100_000) }, T0).change)
      expect(outcome.kind).toBe('committed')
    }
  })
  it('keeps the revision before of a large app, and refuses by its size what cannot be kept beside it', async () => {
    const state = await open()
    const large = (hash: string, bytes: number) => ({
      ...request(hash, { labels: { text: 'x'.repeat(bytes) } }),
      source: 's'.repeat(bytes),
    })
    for (const hash of ['v1', 'v2', 'v3'])
      expect((await state.commit(deployApp(state, large(hash, 120_000), T0).change)).kind).toBe('committed')
    const app = state.snapshot.get('app', 'shop')
    expect(app?.history.map((entry) => [entry.revision, entry.spec.services[0]?.specHash])).toEqual([[2, 'v2']])
    expect(() => deployApp(state, large('v4', 250_000), T0)).toThrow(
      /the app and its revision before take 3\d\d KiB; at most 283 KiB/,
    )
  })
})

describe('generations', () => {
  it('I2: never repeat, also when the record keeps only a floor of them', () => {
    let record = { generations: {} as Readonly<Record<string, number>>, pending: [] }
    const used = new Set<string>()
    for (let i = 0; i < 3_000; i += 1) {
      const slot = 1 + ((i * 7) % 400)
      const generation = nextGeneration(record, slot, [])
      expect(used.has(`${slot}/${generation}`)).toBe(false)
      used.add(`${slot}/${generation}`)
      record = withGeneration(record, slot, generation)
    }
    expect(Object.keys(record.generations).length).toBeLessThanOrEqual(257)
  })
  it('I2: what removed services used stays known, in bounded room', () => {
    let cluster = {}
    for (let i = 1; i <= 1_000; i += 1) cluster = withRetired(cluster, { id: `app-${i}/web`, generations: { 1: (i % 9) + 1 } })
    expect(Object.keys((cluster as { retired: object }).retired).length).toBeLessThanOrEqual(257)
    for (let i = 1; i <= 1_000; i += 1) {
      const generations = firstGenerations(cluster, `app-${i}/web`)
      expect(nextGeneration({ generations, pending: [] }, 1, [])).toBeGreaterThan((i % 9) + 1)
    }
    expect(firstGenerations({}, 'constructor')).toEqual({})
  })
})
