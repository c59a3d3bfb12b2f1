import { describe, expect, it } from 'vitest'
import { testObserved } from '../../test/builders/observed.ts'
import { aNodeRecord, anAppRecord, aServiceRecord } from '../../test/builders/records.ts'
import { aServiceSpec } from '../../test/builders/specs.ts'
import { emptyDisk, memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { type Change, openState } from '../state/state.ts'
import { createDirtyServices } from './dirty-services.ts'

async function aBed() {
  const state = await openState(memoryStore(emptyDisk()), virtualClock())
  const app = (name: string, modes: Readonly<Record<string, 'global' | 'replicated'>>) => {
    const services = Object.entries(modes).map(([service, mode]) => aServiceSpec({ name: service, mode }))
    return anAppRecord({ name, spec: { name, services } })
  }
  await state.commit(
    state
      .change()
      .put('app', 'shop', app('shop', { web: 'replicated', logs: 'global' }))
      .put('service', 'shop/web', aServiceRecord({ id: 'shop/web' }))
      .put('app', 'shop-two', app('shop-two', { web: 'replicated' }))
      .put('service', 'shop-two/web', aServiceRecord({ id: 'shop-two/web' })),
  )
  const dirty = createDirtyServices(state, testObserved())
  dirty.markAll()
  state.onChange((change) => dirty.onState(change))
  /** What a change marks. */
  const marked = async (change: Change) => {
    dirty.services.clear()
    dirty.apps.clear()
    await state.commit(change)
    return { services: [...dirty.services].sort(), apps: [...dirty.apps].sort() }
  }
  return { state, app, marked }
}

describe('services that a change may concern', () => {
  it('of an app are those it has and those it had, and no others', async () => {
    const { state, app, marked } = await aBed()
    const renamed = state.change().put('app', 'shop', app('shop', { site: 'replicated' }))
    expect(await marked(renamed)).toEqual({ services: ['shop/site', 'shop/web'], apps: ['shop'] })
    const made = state.change().put('service', 'shop/site', aServiceRecord({ id: 'shop/site' }))
    expect(await marked(made)).toEqual({ services: ['shop/site'], apps: ['shop'] })
    const gone = state.change().delete('service', 'shop/web')
    expect(await marked(gone)).toEqual({ services: ['shop/web'], apps: ['shop'] })
    expect((await marked(state.change().delete('app', 'shop'))).services).toEqual(['shop/site'])
  })

  it('of a node are the global ones of the apps as they are now', async () => {
    const { state, app, marked } = await aBed()
    const node = (id: string) => state.change().put('node', id, aNodeRecord({ id }))
    expect((await marked(node('n-1'))).services).toEqual(['shop/logs'])
    await marked(state.change().put('app', 'shop-two', app('shop-two', { web: 'global', probe: 'global' })))
    expect((await marked(node('n-2'))).services).toEqual(['shop-two/probe', 'shop-two/web', 'shop/logs'])
    await marked(state.change().put('app', 'shop', app('shop', { web: 'replicated', logs: 'replicated' })))
    await marked(state.change().put('app', 'shop-two', app('shop-two', { web: 'global' })))
    expect((await marked(node('n-3'))).services).toEqual(['shop-two/web'])
    await marked(state.change().delete('app', 'shop-two'))
    expect((await marked(node('n-4'))).services).toEqual([])
  })
})
