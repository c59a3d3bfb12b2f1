/**
 * Every story as it is, and a part of its crash points; `make test-simulation` tries them all. Which part is the same each time: every
 * n-th effect, beginning elsewhere in each story.
 */
import { describe, expect, it } from 'vitest'
import { runStory, type Victim } from './crash-points.ts'
import { FAULT_STORIES, STORIES } from './stories.ts'

const EVERY = 8

describe('the stories of a cluster', () => {
  for (const story of [...STORIES, ...FAULT_STORIES])
    it(`${story.name}: end well`, async () => {
      expect(await runStory(story, 'coordinator', null)).toMatchObject({ failure: null })
    }, 60_000)

  for (const victim of ['coordinator', 'agents'] as const satisfies readonly Victim[])
    for (const [place, story] of STORIES.entries())
      it(`${story.name}: end well also when ${victim === 'agents' ? 'an agent' : 'the coordinator'} dies after an effect (rows 1–3, 8, 15, 16)`, async () => {
        const { effects } = await runStory(story, victim, null)
        expect(effects).toBeGreaterThan(0)
        const failures: string[] = []
        for (let effect = 1 + ((place * 3) % Math.min(EVERY, effects)); effect <= effects; effect += EVERY) {
          const { failure } = await runStory(story, victim, effect)
          if (failure !== null) failures.push(`after effect ${effect} of ${effects}: ${failure}`)
        }
        expect(failures).toEqual([])
      }, 120_000)
})
