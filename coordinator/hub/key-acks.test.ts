import { describe, expect, it } from 'vitest'
import { createKeyAcks } from './key-acks.ts'

describe('what a node is known to have applied of the keys', () => {
  it('a change that concerned the node counts once its frame is confirmed', () => {
    const acks = createKeyAcks()
    acks.flushed()
    acks.changed()
    acks.sent('n1', 7)
    acks.flushed()
    expect(acks.appliedBy('n1')).toBeLessThan(acks.revision())
    acks.acked('n1', 6)
    expect(acks.appliedBy('n1')).toBeLessThan(acks.revision())
    acks.acked('n1', 7)
    expect(acks.appliedBy('n1')).toBe(acks.revision())
  })

  it('a change that did not concern it counts as soon as it is flushed, not before', () => {
    const acks = createKeyAcks()
    acks.flushed()
    acks.changed()
    expect(acks.appliedBy('n1')).toBeLessThan(acks.revision())
    acks.flushed()
    expect(acks.appliedBy('n1')).toBe(acks.revision())
  })

  it('the oldest open frame decides, however many came after it', () => {
    const acks = createKeyAcks()
    acks.flushed()
    const before = acks.revision()
    for (const frame of [1, 2, 3]) {
      acks.changed()
      acks.sent('n1', frame)
      acks.flushed()
    }
    expect(acks.appliedBy('n1')).toBe(before)
    acks.acked('n1', 2)
    expect(acks.appliedBy('n1')).toBe(before + 2)
  })

  it('nothing counts on a new connection until its full set is confirmed, whatever was confirmed on the one before', () => {
    const acks = createKeyAcks()
    acks.flushed()
    acks.attached('n1', 4)
    acks.sent('n1', 4)
    acks.flushed()
    expect(acks.appliedBy('n1')).toBe(0)
    acks.acked('n1', 3)
    expect(acks.appliedBy('n1')).toBe(0)
    acks.acked('n1', 4)
    expect(acks.appliedBy('n1')).toBe(acks.revision())
  })
})
