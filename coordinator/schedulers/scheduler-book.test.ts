/** Questions in pages, limits and figures, over schedulers that a test drives and virtual time. */
import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import { answerTo, testScheduler } from '../../test/builders/scheduling.ts'
import { aPlacement, aServiceSpec } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { openBoard } from '../placement/board.ts'
import { DEFAULT_PLACEMENT_OPTIONS, type PlacementNode } from '../placement/model.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import { requestOf } from '../placement/requests.ts'
import { openState } from '../state/state.ts'
import { candidatesFor } from './plan-questions.ts'
import { createSchedulerBook } from './scheduler-book.ts'
import { schedulerMetrics } from './scheduler-metrics.ts'

const OPTIONS = DEFAULT_PLACEMENT_OPTIONS
const request = requestOf('shop/web/1/1', {
  app: 'shop',
  spec: aServiceSpec({ placement: aPlacement({ scheduler: 'test' }) }),
  revision: 1,
  home: null,
})
const capacity = { cpuMillis: 1_000, memoryBytes: 2 ** 30, diskBytes: 2 ** 30, slots: 10 }
const nodesOf = (count: number): PlacementNode[] =>
  Array.from({ length: count }, (_, index) =>
    assumedNode(`n-${index}`, capacity, {
      free: { ...capacity, cpuMillis: 1_000 - index },
      closed: index % 10 === 9 ? 'draining' : null,
    }),
  )
const context = { scheduler: 'test', count: 1, labels: {}, dryRun: false }

async function bed(fields: Parameters<typeof testScheduler>[1] = {}) {
  const clock = virtualClock()
  const state = await openState(memoryStore(), clock)
  const scheduler = testScheduler('test', fields)
  return { clock, scheduler, book: createSchedulerBook({ schedulers: [scheduler], state, clock, logger: silentLogger() }) }
}

describe('a question', () => {
  it('is about nodes that pass every filter, best first by the built-in scheduler', () => {
    const nodes = nodesOf(20)
    const found = candidatesFor(request, openBoard(nodes, [request], OPTIONS), OPTIONS).map((node) => node.id)
    expect(found).toHaveLength(18)
    expect(found.slice(0, 3)).toEqual(['n-0', 'n-1', 'n-2'])
    expect(found).not.toContain('n-9')
  })

  it('has a bounded number of nodes; more are asked about only while none is accepted', async () => {
    const { scheduler, book } = await bed({ maxCandidates: 4 })
    scheduler.reply = (question) => answerTo(question, (id) => (id === 'n-5' ? { score: 1 } : { reject: 'no' }))
    const outcome = await book.consult(request, nodesOf(20), context)
    expect(scheduler.questions.map(({ nodes, leftOut }) => [nodes.length, leftOut])).toEqual([
      [4, 16],
      [4, 12],
    ])
    expect(outcome.kind === 'answered' && outcome.verdicts.size).toBe(8)
    scheduler.reply = (question) => answerTo(question, () => ({ reject: 'no' }))
    const all = await book.consult(request, nodesOf(20), context)
    expect(all.kind === 'answered' && all.verdicts.size).toBe(20)
  })

  it('of a dry run waits for no place of placement, takes none of it, and its failures are its own', async () => {
    const { clock, scheduler, book } = await bed()
    scheduler.reply = () => 'hang'
    const dry = { ...context, dryRun: true }
    const asking = Array.from({ length: 3 }, () => book.consult(request, nodesOf(1), context))
    expect(book.isBusy('test')).toBe(true)
    const previewing = book.consult(request, nodesOf(1), dry)
    expect(scheduler.questions).toHaveLength(4)
    expect(await book.consult(request, nodesOf(1), dry)).toEqual({
      kind: 'undecided',
      why: 'it is asked by another dry run at this moment',
    })
    await clock.advance(250)
    await Promise.all([...asking, previewing])
    expect(book.decline('test', 'shop/web')).toBe('it rests after 3 failures in a row')
    await clock.advance(5_000)
    scheduler.reply = (question) => answerTo(question, () => ({ score: 50 }))
    await book.consult(request, nodesOf(1), context)
    // One tenant's dry runs about what its scheduler is slow with: the others go on.
    scheduler.reply = () => 'hang'
    for (let i = 0; i < 5; i += 1) {
      const slow = book.consult(request, nodesOf(1), dry)
      expect(book.isBusy('test')).toBe(false)
      await clock.advance(250)
      expect(await slow).toEqual({ kind: 'undecided', why: 'no answer within 250 ms' })
    }
    expect(book.decline('test', 'shop/web')).toBe(null)
    await book.close()
  })

  it('is one of three at once, and is given up when the coordinator stops', async () => {
    const { scheduler, book } = await bed()
    scheduler.reply = () => 'hang'
    const asking = Array.from({ length: 3 }, () =>
      book.consult(request, nodesOf(1), context).catch((error: Error) => error.message),
    )
    expect(book.isBusy('test')).toBe(true)
    await book.close()
    expect(await Promise.all(asking)).toEqual(Array(3).fill('the coordinator stops'))
    expect(book.isBusy('test')).toBe(false)
  })

  it('that was interrupted by another one is put again, and is no failure of the scheduler', async () => {
    const { scheduler, book } = await bed()
    const interrupted = { kind: 'failed', code: 'interrupted', detail: 'another question ended its thread' } as const
    for (let i = 0; i < 3; i += 1) {
      let times = 0
      scheduler.reply = (question) => (++times < 3 ? interrupted : answerTo(question, () => ({ score: 1 })))
      expect((await book.consult(request, nodesOf(1), context)).kind).toBe('answered')
    }
    let isLoaded = false
    scheduler.recovered = async () => {
      isLoaded = true
    }
    scheduler.reply = (question) => (isLoaded ? answerTo(question, () => ({ score: 1 })) : interrupted)
    expect((await book.consult(request, nodesOf(1), context)).kind).toBe('answered')
    scheduler.recovered = () => Promise.reject(new Error('it is not loaded'))
    scheduler.reply = () => interrupted
    for (let i = 0; i < 5; i += 1) expect((await book.consult(request, nodesOf(1), context)).kind).toBe('undecided')
    expect(scheduler.questions).toHaveLength(26)
    expect(book.decline('test', 'shop/web')).toBe(null)
    await book.close()
  })

  it('is counted by its outcome and latency', async () => {
    const { clock, scheduler, book } = await bed()
    await book.consult(request, nodesOf(1), context)
    scheduler.reply = () => 'hang'
    for (let i = 0; i < 3; i += 1) {
      const asking = book.consult(request, nodesOf(1), context)
      await clock.advance(250)
      expect(await asking).toEqual({ kind: 'undecided', why: 'no answer within 250 ms' })
    }
    expect(await book.consult(request, nodesOf(1), context)).toEqual({
      kind: 'undecided',
      why: 'it rests after 3 failures in a row',
    })
    const text = schedulerMetrics(book.figures())
    expect(text).toContain('rubato_scheduler_requests_total{scheduler="test",result="answered"} 1\n')
    expect(text).toContain('rubato_scheduler_requests_total{scheduler="test",result="timeout"} 3\n')
    expect(text).toContain('rubato_scheduler_skipped_total{scheduler="test"} 1\n')
    expect(text).toContain('rubato_scheduler_resting{scheduler="test"} 1\n')
    expect(text).toContain('rubato_scheduler_request_duration_seconds_bucket{scheduler="test",le="0.1"} 1\n')
    expect(text).toContain('rubato_scheduler_request_duration_seconds_bucket{scheduler="test",le="0.25"} 4\n')
    expect(text).toContain('rubato_scheduler_request_duration_seconds_count{scheduler="test"} 4\n')
    expect(schedulerMetrics([])).toBe('')
    await book.close()
  })
})
