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
