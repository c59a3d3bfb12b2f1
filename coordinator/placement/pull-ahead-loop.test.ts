import { afterEach, describe, expect, it } from 'vitest'
import { aNodeObservation, aNodeUse, testObserved } from '../../test/builders/observed.ts'
import { anAppRecord, anInstanceRecord, aNodeRecord, aServiceRecord, someAssignments } from '../../test/builders/records.ts'
import { aContainerSpec, anAppSpec, anUpdate, aScale, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { emptyDisk, memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import { type Change, openState } from '../state/state.ts'
import { DEFAULT_PLACEMENT_OPTIONS } from './model.ts'
import { createNodeView } from './node-view.ts'
import { createPullAheadLoop } from './pull-ahead-loop.ts'

let stop = async () => {}
afterEach(() => stop())

const GIB = 2 ** 30
const app = (image: string, fields: Parameters<typeof aServiceSpec>[0] = {}): AppSpec =>
  anAppSpec({ services: [aServiceSpec({ unit: aUnitSpec({ containers: [aContainerSpec({ image })] }), ...fields })] })

/** Nodes `n-1` … with an instance of `shop/web` on the first, and what each is told. */
async function bed(spec: AppSpec, nodes = 3) {
  const clock = virtualClock()
  const state = await openState(memoryStore(emptyDisk()), clock)
  const observed = testObserved()
  const commit = async (edit: (change: Change) => Change) => void (await state.commit(edit(state.change())))
  const [service] = spec.services
  await commit((change) => change.put('app', 'shop', anAppRecord({ spec })).put('service', 'shop/web', aServiceRecord()))
  for (const id of Array.from({ length: nodes }, (_, index) => `n-${index + 1}`)) {
    await commit((change) => change.put('node', id, aNodeRecord({ id })))
    observed.setNode(aNodeObservation({ nodeId: id, use: aNodeUse({ diskBytes: 10 * GIB }) }))
  }
  const record = anInstanceRecord({ nodeId: 'n-1', specHash: service?.specHash ?? '' })
  await commit((change) => change.put('assignments', 'n-1', someAssignments('n-1', [record])))
  const view = createNodeView({ state, observed })
  const levers = { ahead: null as number | null, broken: false, plans: 0 }
  let told: Record<string, readonly string[]> = {}
  const loop = createPullAheadLoop({
    state,
    observed,
    clock,
    logger: silentLogger(),
    options: DEFAULT_PLACEMENT_OPTIONS,
    nodes() {
      levers.plans += 1
      return view.nodes()
    },
    rulesOf(id) {
      if (levers.broken) throw new Error('broken rules')
      const [, name] = id.split('/')
      return state.snapshot.get('app', 'shop')?.spec.services.find((each) => each.name === name)?.scale ?? null
    },
    aheadOf: () => levers.ahead,
    tell(wanted) {
      told = Object.fromEntries([...wanted].map(([id, images]) => [id, images.map(({ image }) => image)]))
    },
  })
  loop.start()
  stop = async () => {
    await loop.stop()
    view.stop()
    expect(clock.pendingTimers).toBe(0)
  }
  await clock.advance(10)
  return { clock, state, observed, commit, levers, told: () => told }
}

describe('the loop that has images pulled ahead', () => {
  it('B9: an update reaches the node of the old instance at once, and is over with it', async () => {
    const stopFirst = { update: anUpdate({ order: 'stop-first' }) }
    const { clock, commit, told } = await bed(app('web:1', stopFirst))
    expect(told()).toEqual({})
    await clock.advance(5_000)
    const next = app('web:2', stopFirst)
    await commit((change) => change.put('app', 'shop', anAppRecord({ spec: next, revision: 2 })))
    await clock.advance(10)
    expect(told()).toEqual({ 'n-1': ['web:2'] })
    const updated = anInstanceRecord({ id: 'shop/web/1/2', nodeId: 'n-1', specHash: next.services[0]?.specHash ?? '' })
    await commit((change) =>
      change.put('assignments', 'n-1', someAssignments('n-1', [updated])).put('service', 'shop/web', aServiceRecord()),
    )
    await clock.advance(1_100)
    expect(told()).toEqual({})
  })

  it('B9: a service that may grow has its image where the next instances would go, and a forecast adds to them', async () => {
    const { clock, levers, told } = await bed(app('web:1', { scale: aScale() }), 6)
    expect(Object.values(told())).toEqual([['web:1'], ['web:1']])
    levers.ahead = 5
    await clock.advance(61_000)
    expect(Object.keys(told()).sort()).toEqual(['n-2', 'n-3', 'n-4', 'n-5', 'n-6'].slice(0, 4))
  })

  it('a node that drains is asked for nothing more at once, one whose disk fills up within a minute', async () => {
    const { clock, commit, observed, told } = await bed(app('web:1', { scale: aScale({ max: 3 }) }))
    await clock.advance(2_000)
    await commit((change) => change.put('node', 'n-2', aNodeRecord({ id: 'n-2', availability: 'draining' })))
    await clock.advance(10)
    expect(Object.keys(told())).toEqual(['n-3'])
    observed.setNode(aNodeObservation({ nodeId: 'n-3', use: aNodeUse({ diskBytes: 90 * GIB }) }))
    await clock.advance(61_000)
    expect(told()).toEqual({})
  })

  it('an image that came stays where it is: the node is not asked again, and no other is asked instead', async () => {
    const { clock, observed, told } = await bed(app('web:1', { scale: aScale({ max: 2 }) }))
    const [chosen = ''] = Object.keys(told())
    expect(Object.keys(told())).toHaveLength(1)
    const here = { here: ['web:1'], pending: [], failing: [] }
    observed.setNode(aNodeObservation({ nodeId: chosen, ahead: here, use: aNodeUse({ diskBytes: 10 * GIB }) }))
    await clock.advance(61_000)
    expect(told()).toEqual({})
    // A little busier than the other one now: still the cheaper place, since the image is there.
    observed.setNode(aNodeObservation({ nodeId: chosen, ahead: here, use: aNodeUse({ cpuMillis: 400, diskBytes: 10 * GIB }) }))
    await clock.advance(61_000)
    expect(told()).toEqual({})
  })

  it('an image that is on its way is not sent elsewhere because of noise', async () => {
    const { clock, observed, told } = await bed(app('web:1', { scale: aScale({ max: 2 }) }))
    const [chosen = ''] = Object.keys(told())
    const here = { here: [], pending: ['web:1'], failing: [] }
    observed.setNode(aNodeObservation({ nodeId: chosen, ahead: here, use: aNodeUse({ cpuMillis: 400, diskBytes: 10 * GIB }) }))
    await clock.advance(61_000)
    expect(told()).toEqual({ [chosen]: ['web:1'] })
    observed.setNode(aNodeObservation({ nodeId: chosen, ahead: here, use: aNodeUse({ cpuMillis: 3_900, diskBytes: 10 * GIB }) }))
    await clock.advance(61_000)
    expect(Object.keys(told())).not.toContain(chosen)
  })

  it('a stream of changes is planned for once a second, and without any there is a plan a minute', async () => {
    const { clock, commit, levers } = await bed(app('web:1', { scale: aScale({ max: 3 }) }))
    levers.plans = 0
    for (let i = 0; i < 100; i += 1) {
      await commit((change) => change.put('service', 'shop/web', aServiceRecord({ generations: { 1: i } })))
      await clock.advance(100)
    }
    expect(levers.plans).toBeGreaterThanOrEqual(9)
    expect(levers.plans).toBeLessThanOrEqual(11)
    levers.plans = 0
    await clock.advance(600_000)
    expect(levers.plans).toBe(10)
  })

  it('one service whose rules are broken keeps no other from it, and an app that is taken down wants nothing', async () => {
    const { clock, commit, levers, told } = await bed(app('web:1', { update: anUpdate({ order: 'stop-first' }) }))
    levers.broken = true
    const spec = anAppSpec({
      services: [
        ...app('web:2', { update: anUpdate({ order: 'stop-first' }) }).services,
        aServiceSpec({ name: 'api', scale: aScale() }),
      ],
    })
    await commit((change) =>
      change
        .put('app', 'shop', anAppRecord({ spec, revision: 2 }))
        .put('service', 'shop/api', aServiceRecord({ id: 'shop/api' })),
    )
    await clock.advance(1_100)
    expect(told()).toEqual({ 'n-1': ['web:2'] })
    await commit((change) => change.put('app', 'shop', anAppRecord({ spec, revision: 2, removing: true })))
    await clock.advance(1_100)
    expect(told()).toEqual({})
  })
})
