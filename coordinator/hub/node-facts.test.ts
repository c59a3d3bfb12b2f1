import { describe, expect, it } from 'vitest'
import { aNodeRecord } from '../../test/builders/records.ts'
import type { HelloFrame } from '../../shared/protocol/frames.ts'
import { factsFault, withFacts } from './node-facts.ts'

const record = aNodeRecord({ labels: { tier: 'edge', disk: 'hdd' }, grantedLabels: { tier: 'edge' } })
const hello = (fields: Partial<HelloFrame> = {}): HelloFrame => ({
  type: 'hello',
  major: 1,
  clusterId: 'c1',
  nodeId: record.id,
  epoch: 1,
  bootId: 'b',
  agentVersion: '1',
  hostname: 'host-1',
  address: '10.0.0.1',
  platform: record.platform,
  runtimes: [...record.runtimes],
  capacity: record.capacity,
  labels: {},
  engineLabels: {},
  desiredRevision: 0,
  keysRevision: 0,
  routesRevision: 0,
  inventory: [],
  ...fields,
})

describe('what a node says of itself', () => {
  it('a node cannot talk itself out of the labels that its join token gave it; its own it may change', () => {
    const next = withFacts(record, hello({ labels: { tier: 'vault', disk: 'ssd' } }), {})
    expect(next.labels).toEqual({ tier: 'edge', disk: 'ssd' })
  })

  it('what an agent no longer says is gone, so that no series of hellos makes its record grow', () => {
    expect(withFacts(record, hello({ labels: { own: 'yes' } }), {}).labels).toEqual({ own: 'yes', tier: 'edge' })
    expect(withFacts(record, hello(), {}).labels).toEqual({ tier: 'edge' })
    let fattest = record
    for (let round = 0; round < 20; round += 1) {
      const many = (count: number) =>
        Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${round}-${index}`, 'v'.repeat(1000)]))
      expect(factsFault(hello({ labels: many(128) }))).toMatch(/^labels take more than/)
      expect(factsFault(hello({ labels: many(46) }))).toBeNull()
      fattest = withFacts(fattest, hello({ labels: many(46) }), {})
    }
    expect(JSON.stringify(fattest).length).toBeLessThan(65_536)
    expect(factsFault(hello({ runtimes: Array.from({ length: 1000 }, () => 'docker' as const) }))).toBe(
      'a runtime is named twice',
    )
  })

  it("the pool's labels win over the agent's", () => {
    expect(withFacts(record, hello({ labels: { zone: 'b' } }), { zone: 'a' }).labels).toMatchObject({ zone: 'a' })
  })

  it.each([
    ['hostname', 'a\nb'],
    ['hostname', '<script>'],
    ['address', '10.0.0.1/../x'],
    ['address', '10.0.0.1:22'],
    ['address', ''],
    ['address', 'x'.repeat(300)],
  ])('%s %j is refused as at the join', (field, value) => {
    expect(factsFault(hello({ [field]: value }))).not.toBeNull()
  })

  it('plain facts are fine', () => {
    expect(factsFault(hello())).toBeNull()
    expect(factsFault(hello({ address: 'fd00::1' }))).toBeNull()
  })
})
