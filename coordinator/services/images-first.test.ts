import { afterEach, describe, expect, it } from 'vitest'
import { aNodeObservation } from '../../test/builders/observed.ts'
import { type ModelCluster, modelCluster } from '../../test/builders/model-cluster.ts'
import { aContainerSpec, anAppSpec, anUpdate, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import type { PulledAhead } from '../../shared/protocol/frames.ts'
import type { NodeObservation } from '../state/observed.ts'
import { imagesAt } from './images-first.ts'

const NEW = 'shop/web:2'
const unit = aUnitSpec({ containers: [aContainerSpec({ image: NEW }), aContainerSpec({ name: 'side', image: 'side:1' })] })
const ahead = (fields: Partial<PulledAhead> = {}): PulledAhead => ({ here: [], pending: [], failing: [], ...fields })
const at = (fields: Partial<NodeObservation>) => imagesAt(aNodeObservation(fields), unit)

describe('how images stand on a node', () => {
  it('settled when all are there, pending while one comes, unasked as long as nobody asked', () => {
    expect(at({ ahead: ahead({ here: [NEW, 'side:1'] }) })).toBe('settled')
    expect(at({ ahead: ahead({ here: ['side:1'], pending: [NEW] }) })).toBe('pending')
    expect(at({ ahead: ahead({ here: ['side:1'] }) })).toBe('unasked')
    expect(at({ ahead: ahead({ pending: [NEW] }) })).toBe('unasked')
  })

  it('waiting is of no use where an image fails, an older agent runs, or nobody is heard', () => {
    expect(at({ ahead: ahead({ pending: [NEW], failing: ['side:1'] }) })).toBe('settled')
    expect(at({ ahead: null })).toBe('settled')
    expect(at({ ahead: ahead({ pending: [NEW, 'side:1'] }), connected: false })).toBe('settled')
    expect(at({ ahead: ahead({ pending: [NEW, 'side:1'] }), liveness: 'suspect' })).toBe('settled')
    expect(imagesAt(undefined, unit)).toBe('settled')
    expect(imagesAt(aNodeObservation({ ahead: ahead() }), aUnitSpec({ runtime: 'process' }))).toBe('settled')
  })
})

describe('an update that stops first', () => {
  let cluster: ModelCluster
  afterEach(() => cluster.stop())
  const spec = (image: string, order: 'stop-first' | 'start-first' = 'stop-first') =>
    anAppSpec({
      services: [
        aServiceSpec({
          replicas: 1,
          update: anUpdate({ order, monitorMs: 2_000 }),
          unit: aUnitSpec({ containers: [aContainerSpec({ image })] }),
        }),
      ],
    })
  const node = (fields: Partial<PulledAhead> | null) =>
    cluster.observed.setNode(aNodeObservation({ nodeId: 'n-1', ahead: fields && ahead(fields) }))
  const stops = () => cluster.state.snapshot.instancesOf('shop/web').some((record) => record.goal === 'stop')
  const isUpdated = () => cluster.runs('shop/web').every((record) => record.revision === 2)
  const begin = async (fields: Partial<PulledAhead> | null, order?: 'start-first') => {
    cluster = await modelCluster(1, { pullsAhead: true })
    await cluster.deploy(spec('shop/web:1', order))
    await cluster.run(6)
    node(fields)
    await cluster.deploy(spec(NEW, order))
  }

  it('B9: stops nothing before the node has the image, and goes on the moment that it has', async () => {
    await begin({})
    await cluster.run(1)
    node({ pending: [NEW] })
    await cluster.run(60)
    expect(stops()).toBe(false)
    expect(cluster.ready('shop/web')).toHaveLength(1)
    node({ here: [NEW] })
    await cluster.clock.advance(100)
    expect(stops()).toBe(true)
    await cluster.run(10)
    expect(isUpdated()).toBe(true)
    expect(cluster.state.snapshot.get('service', 'shop/web')?.rollout?.phase).toBe('completed')
  })

  it('does not wait for an image that cannot be pulled, nor for ever', async () => {
    await begin({ pending: [NEW] })
    await cluster.run(10)
    expect(stops()).toBe(false)
    node({ failing: [NEW] })
    await cluster.run(2)
    expect(stops() || isUpdated()).toBe(true)
    await cluster.stop()
    await begin({ pending: [NEW] })
    await cluster.run(299)
    expect(stops()).toBe(false)
    await cluster.run(12)
    expect(isUpdated()).toBe(true)
  })

  it('waits a moment for the demand to reach the node, not longer, and not at all for an older agent', async () => {
    await begin({})
    await cluster.clock.advance(1_900)
    expect(stops()).toBe(false)
    await cluster.clock.advance(200)
    expect(stops()).toBe(true)
    await cluster.stop()
    await begin(null)
    await cluster.clock.advance(100)
    expect(stops()).toBe(true)
  })

  it('row 37: a jump of the wall clock makes it wait no longer', async () => {
    await begin({ pending: [NEW] })
    await cluster.run(5)
    cluster.clock.jumpWall(-3_600_000)
    await cluster.run(62)
    expect(stops() || isUpdated()).toBe(true)
  })

  it('start-first nothing waits: the old one serves until the new one is ready', async () => {
    await begin({ pending: [NEW] }, 'start-first')
    await cluster.clock.advance(100)
    expect(cluster.runs('shop/web')).toHaveLength(2)
  })

  it('an instance that serves nothing is exchanged at once', async () => {
    await begin({ pending: [NEW] })
    await cluster.run(2)
    expect(stops()).toBe(false)
    cluster.fail('shop/web/1/1')
    await cluster.run(10)
    expect(isUpdated()).toBe(true)
  })
})
