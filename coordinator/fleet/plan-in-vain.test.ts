import { describe, expect, it } from 'vitest'
import { aMachineRecord, aPool } from '../../test/builders/records.ts'
import { requestsOf } from '../../test/builders/requests.ts'
import type { MachineRecord } from '../../shared/model/node.ts'
import type { PlacementRequest } from '../placement/model.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import { type InVainInput, madeOf, planInVain } from './plan-in-vain.ts'

const NOW = 1e12
const HOUR_MS = 3_600_000
const GiB = 2 ** 30

const pool = (name: string) => aPool({ name, capacity: { cpuMillis: 4_000, memoryBytes: 8 * GiB, diskBytes: 0, slots: 50 } })
const kind = (name: string) => ({ pool: pool(name), node: assumedNode(`~${name}`, pool(name).capacity, { pool: name }) })
/** Gone by now; joined so long ago, with so much memory. */
const gone = (id: string, ageMs: number, memoryBytes: number, fields: Partial<MachineRecord> = {}) =>
  aMachineRecord({
    id,
    pool: 'p',
    phase: 'gone',
    nodeId: `n-${id}`,
    capacity: pool('p').capacity,
    joinedAtMs: NOW - ageMs,
    goneAtMs: NOW - ageMs + 1,
    offered: { capacity: { ...pool('p').capacity, memoryBytes }, platform: 'linux/amd64', runtimes: ['docker'] },
    ...fields,
  })
const large = requestsOf('s/large', 3, { charge: { cpuMillis: 1, memoryBytes: 7.8 * GiB, diskBytes: 0 } })
const plan = (fields: Partial<InVainInput>) =>
  planInVain({ requests: large, kinds: [kind('p')], pools: ['p'], nodes: [], machines: [], nowMs: NOW, ...fields })
const stateOf = (fields: Partial<InVainInput>) => plan(fields).inVain.get('s/large')?.get('p')?.state ?? null
const ids = (requests: readonly PlacementRequest[]) => requests.map(({ id }) => id)

describe('what is bought in vain', () => {
  const short = (ageMs: number, id = `m${ageMs}`) => gone(id, ageMs, 7 * GiB)

  it('nothing is known of a pool without machines, and one alone keeps nobody from buying', () => {
    expect(plan({}).wanted).toEqual(large)
    expect(stateOf({ machines: [short(2 * HOUR_MS)] })).toBeNull()
    expect(plan({ machines: [short(2 * HOUR_MS)] }).wanted).toEqual(large)
  })

  it('two in vain pause the pool for an hour, each further one for twice as long, a day at most', () => {
    const pauseOf = (count: number) => {
      const machines = Array.from({ length: count }, (_, index) => short(120_000 + index, `m${index}`))
      return (plan({ machines }).inVain.get('s/large')?.get('p')?.untilMs ?? 0) - (NOW - 120_000)
    }
    expect([2, 3, 4, 7, 20].map(pauseOf).map((ms) => ms / HOUR_MS)).toEqual([1, 2, 4, 24, 24])
    const paused = plan({ machines: [short(120_000), short(130_000)] })
    expect(paused.wanted).toEqual([])
    expect([...paused.left]).toEqual(ids(large))
    expect(paused.wakeAtMs).toBe(NOW - 120_000 + HOUR_MS)
  })

  it('after the pause one machine is tried, and no second while it is on its way', () => {
    const before = [short(2 * HOUR_MS), short(3 * HOUR_MS)]
    expect(stateOf({ machines: before })).toBe('tried')
    expect(ids(plan({ machines: before }).wanted)).toEqual([large[0]?.id])
    const coming = aMachineRecord({ id: 'next', pool: 'p', phase: 'booting' })
    expect(plan({ machines: [...before, coming] }).wanted).toEqual([])
  })

  it('another pool that holds it is bought from meanwhile, and what fits the machines as they are is bought for as ever', () => {
    const machines = [short(120_000), short(130_000)]
    const { wanted } = plan({ machines, kinds: [kind('p'), kind('q')], pools: ['p', 'q', 'static'] })
    expect(wanted.map(({ rules }) => rules.pools)).toEqual(large.map(() => ['q', 'static']))
    const fits = requestsOf('s/fits', 2, { charge: { cpuMillis: 1, memoryBytes: 6 * GiB, diskBytes: 0 } })
    expect(plan({ machines, requests: fits }).wanted).toEqual(fits)
  })

  it('safety: of three machines no single one that lies keeps others from being bought, dead or alive', () => {
    const honest = [gone('a', HOUR_MS, 8 * GiB), gone('b', 2 * HOUR_MS, 8 * GiB)]
    const nothing = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0, slots: 0 }
    for (const ageMs of [0, 120_000, 3 * HOUR_MS]) {
      const liar = gone('z', ageMs, 0, { phase: 'joined', goneAtMs: null })
      const nodes = [assumedNode('n-z', nothing, { pool: 'p', runtimes: [] })]
      expect(plan({ machines: [...honest, liar], nodes }).inVain.size).toBe(0)
    }
    expect(stateOf({ machines: [gone('z', HOUR_MS, 0)] })).toBeNull()
  })

  it('a node that is there counts as it is now; one that has just joined is waited for', () => {
    const there = (ageMs: number, runtimes: readonly ('docker' | 'process')[]) => ({
      machines: ['a', 'b'].map((id) => gone(id, ageMs, 8 * GiB, { phase: 'joined', goneAtMs: null })),
      nodes: ['n-a', 'n-b'].map((id) => assumedNode(id, pool('p').capacity, { pool: 'p', runtimes })),
    })
    expect(stateOf(there(10_000, []))).toBe('settling')
    expect(stateOf(there(120_000, []))).toBe('paused')
    expect(stateOf(there(120_000, ['docker']))).toBeNull()
  })

  it('what was made of something else, promised by a larger pool, or is days old says nothing', () => {
    const other = madeOf({ ...pool('p'), image: 'older' })
    expect(stateOf({ machines: [1, 2].map((n) => gone(`m${n}`, 120_000, 0, { madeOf: other })) })).toBeNull()
    expect(stateOf({ machines: [1, 2].map((n) => gone(`m${n}`, 72 * HOUR_MS, 0)) })).toBeNull()
    const halved = { ...kind('p').pool, capacity: { ...pool('p').capacity, memoryBytes: 7 * GiB } }
    const corrected = { pool: halved, node: assumedNode('~p', halved.capacity, { pool: 'p' }) }
    const requests = requestsOf('s/large', 1, { charge: { cpuMillis: 1, memoryBytes: 7 * GiB, diskBytes: 0 } })
    expect(stateOf({ requests, kinds: [corrected], machines: [short(120_000), short(130_000)] })).toBeNull()
  })
})
