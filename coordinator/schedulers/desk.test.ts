/** What a pass of placement gets from the desk, over schedulers that a test drives and virtual time. */
import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import { aRequest } from '../../test/builders/requests.ts'
import { answerTo, testScheduler } from '../../test/builders/scheduling.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { DEFAULT_PLACEMENT_OPTIONS, type PlacementNode } from '../placement/model.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import { openState } from '../state/state.ts'
import { createSchedulerDesk } from './desk.ts'
import { createSchedulerBook } from './scheduler-book.ts'

const capacity = { cpuMillis: 4_000, memoryBytes: 16 * 2 ** 30, diskBytes: 2 ** 40, slots: 100 }

async function bed() {
  const clock = virtualClock()
  const state = await openState(memoryStore(), clock)
  const scheduler = testScheduler('test')
  const startMs = clock.now() - clock.monotonicMs()
  const joined = new Map<string, number>()
  const book = createSchedulerBook({ schedulers: [scheduler], state, clock, logger: silentLogger() })
  const told = { decided: 0 }
  const desk = createSchedulerDesk({
    book,
    clock,
    options: DEFAULT_PLACEMENT_OPTIONS,
    labelsOf: () => ({}),
    joinedAtMsOf: (id) => joined.get(id) ?? 0,
    steadyNowMs: () => startMs + clock.monotonicMs(),
    onDecided() {
      told.decided += 1
    },
  })
  return { clock, scheduler, book, desk, told, joined, steadyNowMs: () => startMs + clock.monotonicMs() }
}

const request = (id: string) => aRequest(id, { runtime: 'process' }, { scheduler: 'test' })

describe('the desk', () => {
  it.each([0, 3_600_000, -3_600_000])(
    'row 37: learns from a machine that came for a group, the wall clock %d ms off',
    async (jumpMs) => {
      const { clock, scheduler, desk, joined, steadyNowMs } = await bed()
      scheduler.reply = (question) => answerTo(question, () => ({ reject: 'no' }))
      clock.jumpWall(jumpMs)
      const waiting = request('shop/web/1/1')
      const empty = desk.open([waiting], [], 1)
      desk.settle(empty, new Set([waiting.group]), 1)
      await clock.advance(120_000)
      joined.set('n-1', steadyNowMs())
      // A global service runs there already, so that it is not fresh for being empty.
      const node: PlacementNode = {
        ...assumedNode('n-1', capacity, { pool: 'spot', runtimes: ['process'] }),
        services: new Map([['mon/agent', 1]]),
      }
      desk.open([waiting], [node], 2)
      await clock.advance(1_000)
      expect(desk.poolVerdicts(waiting)?.get('spot')?.reason).toBe('no')
    },
  )

  it('has a group that finds its scheduler busy wait a second at most, and dry runs keep nobody waiting', async () => {
    const { clock, scheduler, desk, told } = await bed()
    const nodes = [assumedNode('n-1', capacity, { runtimes: ['process'] })]
    scheduler.reply = () => 'hang'
    const previews = [1, 2, 3, 4].map(() => desk.preview([request('evil/x/1/1')], nodes, {}))
    const first = ['a', 'b', 'c'].map((name) => request(`shop/${name}/1/1`))
    desk.open(first, nodes, 1)
    expect(first.map(({ group }) => desk.asking(group))).toEqual(['test', 'test', 'test'])
    expect(scheduler.questions.filter((question) => !question.dryRun)).toHaveLength(3)
    const turn = desk.open([...first, request('shop/d/1/1')], nodes, 1)
    expect(turn.wakeAtMs).toBe(clock.now() + 1_000)
    await clock.advance(250)
    await Promise.all(previews)
    expect(told.decided).toBe(3)
  })
})
