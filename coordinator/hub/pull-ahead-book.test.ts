/** Hints of images to pull ahead, over real links of model agents. */
import { afterEach, describe, expect, it } from 'vitest'
import { anAppRecord, anInstanceRecord, aServiceRecord, someAssignments } from '../../test/builders/records.ts'
import { linkBed, type LinkBed } from '../../test/builders/link-bed.ts'
import { aServiceSpec } from '../../test/builders/specs.ts'
import type { ImageToPull } from '../../shared/protocol/frames.ts'

let bed: LinkBed
afterEach(async () => {
  await bed.stop()
  await bed.clock.advance(30_000)
  expect(bed.clock.pendingTimers).toBe(0)
})

const images = (...names: string[]): readonly ImageToPull[] => names.map((image) => ({ image }))
const want = (...named: readonly (readonly [string, readonly ImageToPull[]])[]) => bed.hub.pullAhead(new Map(named))
const ahead = (id = 'n-1') => bed.hub.observed.node(id)?.ahead
async function start(hello: { readonly pullsAhead?: boolean } = { pullsAhead: true }) {
  bed = await linkBed()
  await bed.addNode('n-1')
  const service = aServiceSpec()
  await bed.commit((change) =>
    change
      .put('app', 'shop', anAppRecord({ spec: { name: 'shop', services: [service] } }))
      .put('service', 'shop/web', aServiceRecord())
      .put('assignments', 'n-1', someAssignments('n-1', [anInstanceRecord({ nodeId: 'n-1' })])),
  )
  const agent = await bed.agent('n-1', hello)
  await bed.clock.until(() => agent.desired.length === 1, 'its sets')
  await bed.clock.advance(200)
  return agent
}

describe('images to pull ahead', () => {
  it('B9: an agent is told what it shall pull, and what it says is known', async () => {
    const agent = await start()
    expect(agent.pullAhead).toEqual([[]])
    want(['n-1', [{ image: 'web:2', platform: 'linux/arm64', refresh: true }, { image: 'side:1' }]])
    expect(ahead()).toEqual({ here: [], pending: ['web:2', 'side:1'], failing: [] })
    await bed.clock.advance(100)
    expect(agent.pullAhead.at(-1)).toEqual([{ image: 'web:2', platform: 'linux/arm64', refresh: true }, { image: 'side:1' }])
    agent.link.sendPulledAhead({ here: ['side:1'], pending: [], failing: ['web:2'] })
    await bed.clock.advance(100)
    expect(ahead()).toEqual({ here: ['side:1'], pending: [], failing: ['web:2'] })
    want()
    await bed.clock.advance(100)
    expect(agent.pullAhead.at(-1)).toEqual([])
    expect(ahead()).toEqual({ here: [], pending: [], failing: [] })
  })

  it('moves no revision of the desired set, has nothing saved, and says the same thing once', async () => {
    const agent = await start()
    const revision = ahead() && bed.hub.observed.node('n-1')?.appliedDesiredRevision
    const disk = JSON.stringify([...agent.disk])
    for (let round = 0; round < 3; round += 1) {
      want(['n-1', images('web:2')])
      await bed.clock.advance(1_000)
    }
    expect(agent.pullAhead).toEqual([[], images('web:2')])
    expect(agent.desired).toHaveLength(1)
    expect(bed.hub.observed.node('n-1')?.appliedDesiredRevision).toBe(revision)
    expect(JSON.stringify([...agent.disk])).toBe(disk)
  })

  it.each([{}, { pullsAhead: false }])(
    'an agent that does not say that it pulls ahead (%j) hears nothing of it',
    async (hello) => {
      const agent = await start(hello)
      want(['n-1', images('web:2')])
      await bed.clock.advance(1_000)
      expect(agent.pullAhead).toEqual([])
      expect(agent.link.counters.unknownFrames).toBe(0)
      expect(ahead()).toBeNull()
    },
  )

  it('an agent that connects again is told again, by whichever coordinator it finds', async () => {
    const agent = await start()
    want(['n-1', images('web:2')])
    await bed.clock.advance(100)
    agent.link.sendPulledAhead({ here: ['web:2'], pending: [], failing: [] })
    await bed.clock.advance(100)
    await bed.restartCoordinator()
    await bed.clock.until(() => bed.hub.observed.node('n-1')?.connected === true, 'the next coordinator', 60_000)
    await bed.clock.advance(100)
    // The new one has not planned yet: what the old one asked for is taken back.
    expect(agent.pullAhead.at(-1)).toEqual([])
    want(['n-1', images('web:2')])
    await bed.clock.advance(100)
    expect(agent.pullAhead.at(-1)).toEqual(images('web:2'))
    expect(ahead()).toEqual({ here: [], pending: ['web:2'], failing: [] })
  })

  it('of a node that is away nothing is believed', async () => {
    const agent = await start()
    want(['n-1', images('web:2')])
    await bed.clock.advance(100)
    await agent.link.stop()
    await bed.clock.advance(100)
    expect(ahead()).toBeNull()
  })

  it('what an agent says of images that nobody asked it for is ignored', async () => {
    const agent = await start()
    want(['n-1', images('web:2')])
    agent.link.sendPulledAhead({ here: ['other:1'], pending: [], failing: ['another:1'] })
    await bed.clock.advance(100)
    expect(ahead()).toEqual({ here: [], pending: ['web:2'], failing: [] })
  })
})
