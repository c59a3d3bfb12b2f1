import { describe, expect, it } from 'vitest'
import { requestsOf } from '../../test/builders/requests.ts'
import { aCapacity, anAppRecord, anInstanceRecord, aServiceRecord } from '../../test/builders/records.ts'
import { aContainerSpec, anAppSpec, anUpdate, aPlacement, aScale, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { InstanceRecord, ServiceRecord } from '../state/objects.ts'
import { DEFAULT_PLACEMENT_OPTIONS, type PlacementNode } from './model.ts'
import { assumedNode } from './plan-offline.ts'
import {
  type GrowthWant,
  IMAGES_PER_NODE,
  imagesToPull,
  placeGrowth,
  planPullAhead,
  type PullAheadInput,
} from './plan-pull-ahead.ts'
import { planPlacement } from './plan-placement.ts'
import { growthWantOf, updateWantOf } from './pull-wants.ts'

const NOW = 1_000_000_000
const node = (id: string, fields: Partial<PlacementNode> = {}) => assumedNode(id, aCapacity(), fields)
const nodes = (count: number) => Array.from({ length: count }, (_, index) => node(`n-${index + 1}`))
const plan = ({
  growth = [],
  ...input
}: Partial<Omit<PullAheadInput, 'growth'>> & { readonly growth?: readonly GrowthWant[] }) => {
  const places = input.nodes ?? nodes(3)
  const grown = placeGrowth(growth, places, DEFAULT_PLACEMENT_OPTIONS)
  return planPullAhead({ updates: [], nodes: places, diskUse: () => null, growth: grown, ...input })
}
const named = (wanted: ReturnType<typeof plan>) =>
  Object.fromEntries([...wanted].map(([id, images]) => [id, images.map(({ image }) => image)]))
const image = (name: string) => [{ image: name }]
const update = (service: string, name: string, places: readonly string[]) => ({ service, images: image(name), nodes: places })
const growing = (service: string, name: string, count = 1) => ({
  service,
  images: image(name),
  requests: requestsOf(service, count),
})

describe('what is pulled ahead where', () => {
  it('B9: the image of the next instances goes where placement would put them, and nowhere else', () => {
    const four = nodes(4).map((each, index) => ({ ...each, measuredUse: index / 10 }))
    const growth = [growing('shop/web', 'web:1', 2)]
    const placed = planPlacement({ requests: growth[0]?.requests ?? [], nodes: four }).assignments.map((one) => one.node)
    expect(Object.keys(named(plan({ growth, nodes: four })))).toEqual(placed)
    expect(placed).toEqual(['n-1', 'n-2'])
  })

  it('B9: not to nodes that have it: others of its instances run there, or it was pulled before', () => {
    const two = [node('n-1', { images: new Set(['web:1']) }), node('n-2')]
    expect(named(plan({ growth: [growing('shop/web', 'web:1', 2)], nodes: two }))).toEqual({ 'n-2': ['web:1'] })
  })

  it('B9: the image of an update goes where old instances are', () => {
    expect(named(plan({ updates: [update('shop/web', 'web:2', ['n-3', 'n-1'])] }))).toEqual({
      'n-3': ['web:2'],
      'n-1': ['web:2'],
    })
  })

  it.each(['draining', 'cordoned', 'lost', 'not reported yet'])('B9: a node that is %s pulls nothing ahead', (closed) => {
    const places = [node('n-1', { closed }), node('n-2')]
    const wanted = plan({
      updates: [update('shop/web', 'web:2', ['n-1', 'n-2'])],
      growth: [growing('shop/api', 'api', 2)],
      nodes: places,
    })
    expect([...wanted.keys()]).toEqual(['n-2'])
  })

  it('B9: nor one whose disk is nearly full by measurement, or that has no engine; an unknown disk is no reason', () => {
    const places = [node('n-1'), node('n-2'), node('n-3', { runtimes: ['process'] }), node('n-4')]
    const diskUse = new Map([
      ['n-1', 0.8],
      ['n-2', 0.79],
      ['n-4', null],
    ])
    const updates = [update('shop/web', 'web:2', ['n-1', 'n-2', 'n-3', 'n-4'])]
    expect([...plan({ updates, nodes: places, diskUse: ({ id }) => diskUse.get(id) ?? null }).keys()]).toEqual(['n-2', 'n-4'])
  })

  it('B9: a node is never asked for more images than the bound; updates come first, then what grows most likely', () => {
    const names = Array.from({ length: IMAGES_PER_NODE + 4 }, (_, index) => `app/s${index}`)
    const growth = names.map((service) => growing(service, `${service}:1`))
    const wanted = named(plan({ updates: [update('shop/web', 'web:2', ['n-1'])], growth, nodes: [node('n-1')] }))
    expect(wanted['n-1']).toEqual(['web:2', ...names.slice(0, IMAGES_PER_NODE - 1).map((service) => `${service}:1`)])
  })

  it('what two services share is asked for once', () => {
    const growth = [growing('shop/a', 'same:1'), growing('shop/b', 'same:1')]
    expect(named(plan({ growth, nodes: [node('n-1')] }))).toEqual({ 'n-1': ['same:1'] })
  })
})

describe('which images a unit needs', () => {
  const unit = (fields: Parameters<typeof aContainerSpec>[0]) => aUnitSpec({ containers: [aContainerSpec(fields)] })

  it('B9: pull_policy holds: never is not pulled, always is pulled again, a platform is kept', () => {
    expect(imagesToPull(unit({ pullPolicy: 'never' }))).toEqual([])
    expect(imagesToPull(unit({ image: 'a', pullPolicy: 'always' }))).toEqual([{ image: 'a', refresh: true }])
    expect(imagesToPull(unit({ image: 'a', platform: 'linux/arm64' }))).toEqual([{ image: 'a', platform: 'linux/arm64' }])
  })

  it('processes have none, and a name that agents would refuse is left out', () => {
    expect(imagesToPull(aUnitSpec({ runtime: 'process' }))).toEqual([])
    expect(imagesToPull(unit({ image: 'x'.repeat(501) }))).toEqual([])
  })
})

const here = (
  spec: Partial<ServiceSpec> = {},
  record: Partial<ServiceRecord> = {},
  instances: readonly InstanceRecord[] = [],
) => {
  const service = aServiceSpec({ specHash: 'new', ...spec })
  return {
    app: anAppRecord({ revision: 2, spec: anAppSpec({ services: [service] }) }),
    spec: service,
    record: aServiceRecord(record),
    instances,
  }
}
const running = (count: number, specHash = 'new', fields: Partial<InstanceRecord> = {}) =>
  Array.from({ length: count }, (_, index) =>
    anInstanceRecord({ id: `shop/web/${index + 1}/1`, nodeId: `n-${index + 1}`, specHash, ...fields }),
  )

describe('what an update would have pulled', () => {
  const stopFirst = { update: anUpdate({ order: 'stop-first' }) }

  it('B9: where the instances are that stop next, a few turns ahead and no more', () => {
    expect(updateWantOf(here(stopFirst, {}, running(20, 'old')))?.nodes).toEqual(['n-1', 'n-2', 'n-3', 'n-4'])
    const wide = { update: anUpdate({ order: 'stop-first', parallelism: 5 }) }
    expect(updateWantOf(here(wide, {}, running(20, 'old')))?.nodes).toHaveLength(10)
    const all = { update: anUpdate({ order: 'stop-first', parallelism: 0 }) }
    expect(updateWantOf(here(all, {}, running(40, 'old')))?.nodes).toHaveLength(16)
  })

  it('not of instances that run it already, that stop, or that wait for a place', () => {
    const instances = [
      ...running(1),
      anInstanceRecord({ id: 'shop/web/2/1', nodeId: 'n-2', specHash: 'old', goal: 'stop' }),
      anInstanceRecord({ id: 'shop/web/3/1', nodeId: null, specHash: 'old' }),
    ]
    expect(updateWantOf(here(stopFirst, {}, instances))).toBeNull()
  })

  it('nothing once the update has stopped by itself, until the next revision', () => {
    const rollout = { fromRevision: 1, toRevision: 2, phase: 'paused', startedAtMs: 0, message: '' } as const
    expect(updateWantOf(here(stopFirst, { rollout }, running(1, 'old')))).toBeNull()
    expect(updateWantOf(here(stopFirst, { rollout: { ...rollout, toRevision: 1 } }, running(1, 'old')))).not.toBeNull()
  })

  it('start-first the new ones go where placement puts them, so that is where the image goes', () => {
    const update = here({}, {}, running(3, 'old'))
    expect(updateWantOf(update)).toBeNull()
    const growth = growthWantOf(update, { rules: null, ahead: null }, NOW)
    expect(growth).toMatchObject({ urgency: 0, want: { requests: { length: 3 } } })
  })
})

describe('what growth would have pulled', () => {
  const by = (max: number, ahead: number | null = null) => ({ rules: aScale({ max }), ahead })
  const count = (...args: Parameters<typeof growthWantOf>) => growthWantOf(...args)?.want.requests.length ?? 0
  const scaled = { scale: aScale() }

  it('B9: a service that may grow has a few planned ahead, one that its forecast grows as many as that says', () => {
    const service = here(scaled, { desired: 3 }, running(3))
    expect(growthWantOf(service, by(40), NOW)).toMatchObject({ urgency: 3, want: { requests: { length: 2 } } })
    expect(growthWantOf(service, by(40, 3), NOW)).toMatchObject({ urgency: 3 })
    expect(growthWantOf(service, by(40, 8), NOW)).toMatchObject({ urgency: 1, want: { requests: { length: 5 } } })
    expect(count(service, by(40, 40), NOW)).toBe(8)
  })

  it('never more than its rules allow beside what runs or is wanted', () => {
    expect(count(here(scaled, { desired: 3 }, running(3)), by(4, 40), NOW)).toBe(1)
    expect(growthWantOf(here(scaled, { desired: 4 }, running(3)), by(4), NOW)).toBeNull()
  })

  it('replacements are not counted beside what they replace, nor forgotten once they have taken its place', () => {
    const replaced = running(3, 'new', { replaces: 'shop/web/9/9' })
    expect(count(here(scaled, { desired: 1 }, replaced), by(4), NOW)).toBe(1)
    const pair = [
      ...running(1),
      anInstanceRecord({ id: 'shop/web/1/2', nodeId: 'n-2', specHash: 'new', replaces: 'shop/web/1/1' }),
    ]
    expect(count(here(scaled, { desired: 1 }, pair), by(2), NOW)).toBe(1)
  })

  it('one that grew within the hour comes before one that merely may', () => {
    const lastScale = { atMs: NOW - 60_000, from: 2, to: 3, reason: '' }
    const grown = here(scaled, { desired: 3, lastScale }, running(3))
    expect(growthWantOf(grown, by(40), NOW)).toMatchObject({ urgency: 2 })
    expect(growthWantOf(grown, by(40), NOW + 3_600_000)).toMatchObject({ urgency: 3 })
    const shrunk = here(scaled, { desired: 2, lastScale: { ...lastScale, from: 3, to: 2 } }, running(2))
    expect(growthWantOf(shrunk, by(40), NOW)).toMatchObject({ urgency: 3 })
  })

  it('not of services that a person pinned, of jobs, of one per node, and where a custom scheduler chooses', () => {
    const none = (spec: Partial<ServiceSpec>, record: Partial<ServiceRecord> = {}) =>
      expect(growthWantOf(here({ ...scaled, ...spec }, { desired: 1, ...record }, running(1)), by(40, 40), NOW)).toBeNull()
    none({}, { pinned: 1 })
    none({ mode: 'global' })
    none({ job: { completions: 1, parallelism: 1, retries: 0, deadlineMs: null } })
    none({ placement: aPlacement({ scheduler: 'mine' }) })
    none({ unit: aUnitSpec({ containers: [aContainerSpec({ pullPolicy: 'never' })] }) })
  })
})
