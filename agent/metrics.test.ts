import { describe, expect, it } from 'vitest'
import { virtualClock } from '../test/fakes/virtual-clock.ts'
import { createLoadInbox } from './local-api/load-inbox.ts'
import { agentMetrics, type Measured } from './metrics.ts'

const text = (pullAhead: Measured['pullAhead']) =>
  agentMetrics(
    { keys: { revision: 3 }, metered: () => [], loadInbox: createLoadInbox(virtualClock()), pullAhead },
    { connected: () => true, counters: { unknownFrames: 0, refusedFrames: 0, resyncs: 0 } },
  )

describe('the figures of an agent', () => {
  it('B9: images pulled ahead, by how they stand and how the pulls ended', () => {
    const lines = text(() => ({
      answer: () => ({ here: ['a', 'b'], pending: ['c'], failing: [] }),
      counters: { pulled: 2, failed: 1, aborted: 0 },
    })).split('\n')
    expect(lines).toContain('rubato_agent_images_ahead{state="here"} 2')
    expect(lines).toContain('rubato_agent_images_ahead{state="pending"} 1')
    expect(lines).toContain('rubato_agent_images_ahead{state="failing"} 0')
    expect(lines).toContain('rubato_agent_pulls_ahead_total{outcome="pulled"} 2')
    expect(lines).toContain('rubato_agent_pulls_ahead_total{outcome="failed"} 1')
  })

  it('none where the node has no engine', () => {
    expect(text(() => null)).not.toContain('ahead')
    expect(text(() => null)).toContain('rubato_agent_keys_revision 3')
  })
})
