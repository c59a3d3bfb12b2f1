import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import type { InstanceUse } from '../../shared/model/observation.ts'
import { aNodeObservation, anInstanceObservation, anInstanceUse, aNodeUse, testObserved } from '../../test/builders/observed.ts'
import {
  anAppRecord,
  aNodeRecord,
  anInstanceRecord,
  aPool,
  aServiceRecord,
  someAssignments,
} from '../../test/builders/records.ts'
import { anAppSpec, aServiceSpec } from '../../test/builders/specs.ts'
import { memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { createNodeView } from '../placement/node-view.ts'
import type { JobRun } from '../state/objects.ts'
import { openState } from '../state/state.ts'
import { createMemoryHistory } from './memory-history.ts'
import { figureOf } from './prometheus/figure-names.ts'
import { createRecordingLoop, wantedOf } from './recording-loop.ts'
import type { HistoryBackend, Measure } from './series.ts'

const [A, B] = ['shop/web/1/1', 'shop/web/2/1'] as const

async function recording(change: (history: HistoryBackend) => HistoryBackend = (history) => history) {
  const clock = virtualClock()
  const state = await openState(memoryStore(), clock)
  const observed = testObserved()
  const first = state.change()
  first.put('app', 'shop', anAppRecord({ spec: anAppSpec({ services: [aServiceSpec()] }) }))
  first.put('service', 'shop/web', aServiceRecord({ desired: 2 }))
  first.put('node', 'n-1', aNodeRecord())
  first.put(
    'assignments',
    'n-1',
    someAssignments('n-1', [anInstanceRecord({ id: A, nodeId: 'n-1' }), anInstanceRecord({ id: B, nodeId: 'n-1' })]),
  )
  await state.commit(first)
  observed.setNode(aNodeObservation({ use: aNodeUse({ cpuMillis: 700, memoryBytes: 5e8 }) }))
  observed.setInstance(anInstanceObservation({ instance: A }))
  observed.setInstance(anInstanceObservation({ instance: B }))
  const history = change(createMemoryHistory(clock))
  const view = createNodeView({ state, observed })
  const loop = createRecordingLoop({ history, state, observed, nodes: () => view.nodes(), clock, logger: silentLogger() })
  const startMs = clock.now()
  loop.start()
  const values = (subject: string, measure: Measure) =>
    history
      .query({ subject, measure, fromMs: startMs, toMs: Number.POSITIVE_INFINITY, stepMs: 10_000 })
      .map(({ atMs, value }) => [(atMs - startMs) / 1000, value])
  const use = (instance: string, fields: Partial<InstanceUse>) =>
    observed.setUse(anInstanceUse({ instance, ...fields }), clock.now())
  const report = async (fields: Partial<InstanceUse>, seconds: number) => {
    for (let i = 0; i < seconds / 2; i += 1) {
      for (const instance of [A, B]) use(instance, fields)
      await clock.advance(2_000)
    }
  }
  return { clock, state, observed, history, loop, values, use, report }
}

describe('what is wanted', () => {
  it('of a job is what its runs under way still lack, of which so many may run at once', () => {
    const run = (outcome: 'running' | 'succeeded', succeeded: number): JobRun => ({
      id: `r${succeeded}`,
      revision: 1,
      specHash: 'h',
      scheduledAtMs: null,
      startedAtMs: 0,
      endedAtMs: null,
      outcome,
      message: '',
      completions: 3,
      succeeded,
      done: [],
      failures: {},
    })
    const rules = { completions: 3, parallelism: 2, retries: 0, deadlineMs: null }
    const wanted = (...runs: JobRun[]) => wantedOf({ desired: 3, job: { runs, decidedAtMs: 0, schedule: '' } }, rules)
    expect(wanted()).toBe(0)
    expect(wanted(run('succeeded', 3))).toBe(0)
    expect(wanted(run('running', 0))).toBe(2)
    expect(wanted(run('running', 2), run('succeeded', 3))).toBe(1)
    expect(wantedOf({ desired: 3 }, undefined)).toBe(3)
  })
})

describe('recording loop', () => {
  it('O6: records demand as the sum and load as the mean of the ready instances, with what is wanted and ready', async () => {
    const { loop, values, report, clock } = await recording()
    await report({ loadPercent: 40, cpuMillis: 250, memoryBytes: 1000 }, 10)
    await clock.advance(500)
    const service = 'service shop/web'
    // The first sample came before the first report.
    expect(values(service, 'demand')[0]).toEqual([0, 80])
    expect(values(service, 'load')[0]).toEqual([0, 40])
    expect(values(service, 'cpuMillis')[0]).toEqual([0, 250])
    expect(values(service, 'wanted')[0]).toEqual([0, 2])
    expect(values(service, 'ready')[0]).toEqual([0, 2])
    expect(values('cluster', 'ready')[0]).toEqual([0, 2])
    expect(values('node n-1', 'cpuMillis')[0]).toEqual([0, 700])
    expect(values('node n-1', 'reservedPercent')[0]?.[1]).toBeGreaterThan(0)
    expect(values('cluster', 'machines')[0]).toEqual([0, 0])
    await loop.stop()
    expect(clock.pendingTimers).toBe(0)
  })

  it('O6: whatever it records has a name under which it is published', async () => {
    const { loop, history, report, state } = await recording()
    await state.commit(state.change().put('pool', 'small', aPool({ name: 'small' })))
    const latency = Array.from({ length: 20 }, () => 1)
    await report({ loadPercent: 40, requests: 10, rxBytes: 1, latency }, 20)
    const recorded = [...history.eachSeries()]
    expect(recorded.length).toBeGreaterThan(25)
    expect(recorded.filter((id) => figureOf(id) === null)).toEqual([])
    await loop.stop()
  })

  it('counts each report once, as requests per second at the time in which they were made', async () => {
    const { loop, values, report } = await recording()
    const latency = Array.from({ length: 20 }, (_, bucket) => (bucket === 4 ? 10 : 0))
    await report({ requests: 10, errors: 1, denied: 2, latency }, 20)
    await report({ requests: 0 }, 20)
    const requests = values('service shop/web', 'requests')
    expect(requests.map(([at]) => at)).toEqual([0, 10, 20, 30])
    const perStep = requests.map(([, value]) => (value ?? 0) * 10)
    expect(perStep.reduce((sum, value) => sum + value, 0)).toBeCloseTo(200)
    expect(perStep[1]).toBeCloseTo(100)
    expect(values('service shop/web', 'errors')[1]?.[1]).toBeCloseTo(1)
    expect(values('cluster', 'denied')[1]?.[1]).toBeCloseTo(2)
    // All of them took 10 to 20 ms.
    expect(values('service shop/web', 'latencyP95')[1]?.[1]).toBeCloseTo(19.5)
    await loop.stop()
  })

  it('row 12: a missing report is not zero: the others stand for it, and when most are missing nothing is recorded', async () => {
    const { clock, loop, values, use, observed } = await recording()
    for (let i = 0; i < 20; i += 1) {
      use(A, { loadPercent: 60 })
      await clock.advance(2_000)
    }
    expect(values('service shop/web', 'demand').at(-1)).toEqual([40, 120])
    await clock.advance(40_000)
    expect(values('service shop/web', 'demand').at(-1)?.[0]).toBeLessThan(60)
    observed.setNode(aNodeObservation({ liveness: 'lost', connected: false, use: aNodeUse({ cpuMillis: 700 }) }))
    await clock.advance(20_000)
    expect(values('service shop/web', 'ready').at(-1)?.[1]).toBe(0)
    expect(values('node n-1', 'cpuMillis').at(-1)?.[0]).toBeLessThan(90)
    await loop.stop()
  })

  it('records a service that answers nothing without inventing request series', async () => {
    const { loop, history, report } = await recording()
    await report({ loadPercent: 10 }, 30)
    const measures = history.series('service shop/web').map(({ measure }) => measure)
    expect(measures).toEqual(['cpuMillis', 'demand', 'load', 'memoryBytes', 'ready', 'wanted'])
    await loop.stop()
  })

  it('row 33: says in the audit trail once that the history is not kept, and once that it is again', async () => {
    let fault: string | null = null
    const { clock, state, loop } = await recording((history) => ({
      ...history,
      status: () => ({ ...history.status(), fault }),
    }))
    await clock.advance(10_000)
    fault = 'there is no room for the history'
    await clock.advance(60_000)
    fault = null
    await clock.advance(60_000)
    const all = await state.events({ limit: 100 })
    const events = all.flatMap(({ actor, type, severity }) => (actor === 'history' ? [[type, severity]] : []))
    expect(events.sort()).toEqual([
      ['history.degraded', 'warning'],
      ['history.recovered', 'info'],
    ])
    await loop.stop()
  })
})
