import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type ModelCluster, modelCluster } from '../../test/builders/model-cluster.ts'
import { aContainerSpec, anAppSpec, aRestartPolicy, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import type { JobRules, ServiceSpec } from '../../shared/model/app.ts'
import { CATCH_UP_MS, MAX_ENDED_RUNS } from './job-runs.ts'

const WORK = 'shop/work'
const MINUTE = 60_000
const rules = (fields: Partial<JobRules> = {}): JobRules => ({
  completions: 1,
  parallelism: Math.max(1, fields.completions ?? 1),
  retries: 0,
  deadlineMs: null,
  ...fields,
})
const unit = aUnitSpec({ containers: [aContainerSpec({ restart: aRestartPolicy({ condition: 'none' }) })] })
const aJob = (fields: Partial<JobRules> = {}, service: Partial<ServiceSpec> = {}) =>
  anAppSpec({ services: [aServiceSpec({ name: 'work', unit, job: rules(fields), ...service })] })
const every = (at: string, overlap: 'skip' | 'replace' | 'allow' = 'skip') => ({ at, timeZone: 'UTC', overlap })
const runsOf = (cluster: ModelCluster) => cluster.state.snapshot.get('service', WORK)?.job?.runs ?? []
const outcomes = (cluster: ModelCluster) => runsOf(cluster).map(({ outcome }) => outcome)
const finishAll = (cluster: ModelCluster) => {
  for (const id of cluster.ready(WORK)) cluster.finish(id)
}

describe('jobs without cron', () => {
  it('runs to its completions, no more at once than its parallelism, and leaves nothing', async () => {
    const cluster = await modelCluster(3)
    cluster.watch = () => expect(cluster.runs(WORK).length).toBeLessThanOrEqual(2)
    await cluster.deploy(aJob({ completions: 5, parallelism: 2 }))
    const seen = new Set<string>()
    for (let i = 0; i < 20; i += 1) {
      await cluster.run(3)
      for (const record of cluster.runs(WORK)) seen.add(record.id)
      finishAll(cluster)
    }
    expect(seen.size).toBe(5)
    expect(runsOf(cluster)).toMatchObject([{ outcome: 'succeeded', succeeded: 5, completions: 5 }])
    expect(cluster.state.snapshot.instances().size).toBe(0)
    await cluster.run(120)
    expect(outcomes(cluster)).toEqual(['succeeded'])
    await cluster.stop()
  })

  it('a failed completion is tried again with a pause, and one failure too many ends the run', async () => {
    const cluster = await modelCluster(2)
    cluster.badHashes.add('bad')
    await cluster.deploy(aJob({ completions: 2, parallelism: 1, retries: 2 }, { specHash: 'bad' }))
    await cluster.run(8)
    expect(runsOf(cluster)[0]?.failures).toMatchObject({ 1: { attempts: 1 } })
    // The first pause is 10 s, meanwhile the other completion is tried.
    await cluster.run(60)
    const [run] = runsOf(cluster)
    expect(run).toMatchObject({ outcome: 'failed', succeeded: 0 })
    expect(run?.message).toContain('failed 3 times')
    expect(cluster.runs(WORK)).toEqual([])
    // A job that failed rolls nothing back and is not begun again by itself.
    expect(cluster.state.snapshot.get('app', 'shop')?.revision).toBe(1)
    await cluster.run(120)
    expect(outcomes(cluster)).toEqual(['failed'])
    await cluster.stop()
  })

  it('a run over its deadline is stopped and has failed', async () => {
    const cluster = await modelCluster(1)
    await cluster.deploy(aJob({ deadlineMs: 20_000 }))
    await cluster.run(15)
    expect(cluster.ready(WORK)).toHaveLength(1)
    await cluster.run(12)
    expect(runsOf(cluster)[0]).toMatchObject({ outcome: 'failed' })
    expect(cluster.state.snapshot.instances().size).toBe(0)
    await cluster.stop()
  })

  it('a new revision ends the run of the old one and begins its own; the same again does not', async () => {
    const cluster = await modelCluster(2)
    await cluster.deploy(aJob({}, { specHash: 'v1' }))
    await cluster.run(4)
    await cluster.deploy(aJob({}, { specHash: 'v2' }))
    await cluster.run(6)
    expect(outcomes(cluster)).toEqual(['running', 'cancelled'])
    expect(cluster.runs(WORK).map(({ specHash }) => specHash)).toEqual(['v2'])
    finishAll(cluster)
    await cluster.run(3)
    await cluster.deploy(aJob({}, { specHash: 'v2', labels: { a: 'b' } }))
    await cluster.run(5)
    expect(outcomes(cluster)).toEqual(['succeeded', 'cancelled'])
    await cluster.stop()
  })

  it('a strict singleton waits until the instance of the run before has stopped', async () => {
    const cluster = await modelCluster(2)
    const strict = { unit: { ...unit, singletonStrictMs: 20_000 } }
    cluster.watch = () => {
      const there = [...cluster.running.values()].flatMap((here) => [...here.values()])
      expect(there.filter((phase) => phase !== 'stopped').length).toBeLessThanOrEqual(1)
    }
    await cluster.deploy(aJob({}, { ...strict, specHash: 'v1' }))
    await cluster.run(5)
    await cluster.deploy(aJob({}, { ...strict, specHash: 'v2' }))
    await cluster.run(8)
    expect(cluster.runs(WORK).map(({ specHash }) => specHash)).toEqual(['v2'])
    expect(cluster.ready(WORK)).toHaveLength(1)
    await cluster.stop()
  })

  it('row 24: a strict singleton that is cut off is waited for as its node was told, whatever the job says since', async () => {
    const cluster = await modelCluster(2)
    await cluster.deploy(aJob({}, { unit: { ...unit, singletonStrictMs: 20_000 }, specHash: 'v1' }))
    await cluster.run(5)
    const [given] = cluster.runs(WORK)
    const waitMs = (20_000 + unit.stopGraceMs) * 1.5 + 15_000
    await cluster.setNode(given?.nodeId ?? '', { up: false })
    await cluster.run(5)
    await cluster.deploy(aJob({}, { specHash: 'v2' }))
    await cluster.run(waitMs / 1_000 - 7)
    expect(cluster.ready(WORK)).toEqual([])
    await cluster.run(6)
    expect(cluster.ready(WORK)).toHaveLength(1)
    await cluster.stop()
  })

  it('an instance on a draining node may finish, one on a lost node is started anew and that is no failure', async () => {
    const cluster = await modelCluster(2)
    await cluster.deploy(aJob())
    await cluster.run(4)
    const [first] = cluster.runs(WORK)
    await cluster.setNode(first?.nodeId ?? '', { availability: 'draining' })
    await cluster.run(20)
    expect(cluster.runs(WORK).map(({ id }) => id)).toEqual([first?.id])
    await cluster.setNode(first?.nodeId ?? '', { up: false })
    await cluster.run(6)
    expect(cluster.ready(WORK)).toHaveLength(1)
    expect(cluster.runs(WORK)[0]?.id).not.toBe(first?.id)
    expect(cluster.runs(WORK)[0]?.job?.attempt).toBe(1)
    finishAll(cluster)
    await cluster.run(4)
    expect(outcomes(cluster)).toEqual(['succeeded'])
    await cluster.stop()
  })

  it('others start when it has completed, and not before', async () => {
    const cluster = await modelCluster(1)
    const [work] = aJob().services
    if (work === undefined) throw new Error('no service')
    const web = aServiceSpec({ dependsOn: [{ service: 'work', condition: 'completed', required: true }] })
    await cluster.deploy(anAppSpec({ services: [web, work] }))
    await cluster.run(10)
    expect(cluster.runs('shop/web')).toEqual([])
    finishAll(cluster)
    await cluster.run(5)
    expect(cluster.ready('shop/web')).toHaveLength(1)
    await cluster.stop()
  })

  it('mode global runs once on each node, and on nodes that join later', async () => {
    const cluster = await modelCluster(3)
    await cluster.deploy(aJob({ parallelism: 100 }, { mode: 'global' }))
    await cluster.run(4)
    expect(
      cluster
        .runs(WORK)
        .map(({ nodeId }) => nodeId)
        .sort(),
    ).toEqual(['n-1', 'n-2', 'n-3'])
    finishAll(cluster)
    await cluster.run(3)
    expect(runsOf(cluster)).toMatchObject([{ outcome: 'succeeded', succeeded: 3 }])
    await cluster.setNode('n-4', { up: true, availability: 'active' })
    await cluster.run(65)
    expect(cluster.runs(WORK).map(({ nodeId }) => nodeId)).toEqual(['n-4'])
    finishAll(cluster)
    await cluster.run(3)
    expect(runsOf(cluster)).toMatchObject([{ outcome: 'succeeded', succeeded: 4 }])
    await cluster.stop()
  })
})

describe('jobs with cron', () => {
  it('runs at each scheduled time; the first is the first after the deploy', async () => {
    const cluster = await modelCluster(1)
    await cluster.deploy(aJob({ cron: every('*/5 * * * *') }))
    await cluster.run(290)
    expect(runsOf(cluster)).toEqual([])
    await cluster.run(15)
    finishAll(cluster)
    await cluster.run(300)
    finishAll(cluster)
    await cluster.run(3)
    expect(runsOf(cluster).map(({ scheduledAtMs }) => new Date(scheduledAtMs ?? 0).toISOString().slice(11, 16))).toEqual([
      '00:10',
      '00:05',
    ])
    expect(outcomes(cluster)).toEqual(['succeeded', 'succeeded'])
    await cluster.stop()
  })

  it.each([
    ['skip', ['skipped', 'running'], 1],
    ['replace', ['running', 'cancelled'], 1],
    ['allow', ['running', 'running'], 2],
  ] as const)('overlap %s', async (overlap, expected, instances) => {
    const cluster = await modelCluster(2)
    await cluster.deploy(aJob({ cron: every('* * * * *', overlap) }))
    await cluster.run(130)
    expect(outcomes(cluster).slice(0, 2)).toEqual(expected)
    expect(cluster.runs(WORK)).toHaveLength(instances)
    await cluster.stop()
  })

  it('what fell due while no coordinator ran is made up for once, within the bound', async () => {
    const cluster = await modelCluster(1)
    await cluster.deploy(aJob({ cron: every('*/10 * * * *') }))
    await cluster.run(2)
    await cluster.crashCoordinator(45 * MINUTE)
    await cluster.run(5)
    expect(runsOf(cluster).map(({ id }) => id)).toEqual([`t${Date.UTC(2026, 0, 5, 0, 40)}`])
    finishAll(cluster)
    await cluster.run(5)
    await cluster.crashCoordinator()
    await cluster.run(60)
    expect(outcomes(cluster)).toEqual(['succeeded'])
    await cluster.stop()
  })

  it('what fell due longer ago is missed, and said so', async () => {
    const cluster = await modelCluster(1)
    await cluster.deploy(aJob({ cron: every('30 0 * * *') }))
    await cluster.run(2)
    await cluster.crashCoordinator(30 * MINUTE + CATCH_UP_MS)
    await cluster.run(5)
    expect(outcomes(cluster)).toEqual(['missed'])
    expect(cluster.runs(WORK)).toEqual([])
    expect((await cluster.state.events({ limit: 50 })).map(({ type }) => type)).toContain('job.missed')
    await cluster.stop()
  })

  it('remembers a bounded number of runs', async () => {
    const cluster = await modelCluster(1)
    await cluster.deploy(aJob({ cron: every('* * * * *') }))
    for (let i = 0; i < MAX_ENDED_RUNS + 5; i += 1) {
      await cluster.run(50)
      finishAll(cluster)
      await cluster.run(10)
    }
    expect(outcomes(cluster).filter((outcome) => outcome === 'succeeded')).toHaveLength(MAX_ENDED_RUNS)
    await cluster.stop()
  })

  it('I2, I10: no scheduled time begins twice and every completion is done, whatever crashes when', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            fc.record({ kind: fc.constant('crash' as const), downMs: fc.integer({ min: 0, max: 150_000 }) }),
            fc.record({ kind: fc.constant('finish' as const) }),
            fc.record({ kind: fc.constant('fail' as const) }),
            fc.record({ kind: fc.constant('wait' as const), seconds: fc.integer({ min: 1, max: 40 }) }),
            fc.record({ kind: fc.constant('node' as const), up: fc.boolean() }),
          ),
          { minLength: 5, maxLength: 25 },
        ),
        fc.constantFrom('skip' as const, 'replace' as const, 'allow' as const),
        async (steps, overlap) => {
          const cluster = await modelCluster(2)
          await cluster.deploy(aJob({ completions: 2, retries: 50, cron: every('* * * * *', overlap) }))
          const begun = new Map<string, number>()
          const identities = new Map<string, string>()
          cluster.watch = () => {
            for (const run of runsOf(cluster))
              if (run.outcome === 'running') {
                expect(begun.get(run.id) ?? run.startedAtMs).toBe(run.startedAtMs)
                begun.set(run.id, run.startedAtMs)
              }
            for (const record of cluster.state.snapshot.instancesOf(WORK)) {
              const task = JSON.stringify(record.job)
              expect(identities.get(record.id) ?? task).toBe(task)
              identities.set(record.id, task)
            }
          }
          for (const step of steps) {
            if (step.kind === 'crash') await cluster.crashCoordinator(step.downMs)
            else if (step.kind === 'finish') cluster.finish(cluster.ready(WORK)[0] ?? '')
            else if (step.kind === 'fail') cluster.fail(cluster.ready(WORK)[0] ?? '')
            else if (step.kind === 'node') await cluster.setNode('n-2', { up: step.up })
            await cluster.run(step.kind === 'wait' ? step.seconds : 1)
          }
          await cluster.setNode('n-2', { up: true })
          // A schedule that is never due again, and no more faults: what runs comes to its end.
          await cluster.deploy(aJob({ completions: 2, retries: 50, cron: every('0 0 29 2 *', overlap) }))
          for (let i = 0; i < 40; i += 1) {
            await cluster.run(10)
            finishAll(cluster)
          }
          expect(outcomes(cluster)).not.toContain('running')
          expect(cluster.state.snapshot.instances().size).toBe(0)
          for (const run of runsOf(cluster)) if (run.outcome === 'succeeded') expect(run.succeeded).toBe(2)
          await cluster.stop()
        },
      ),
      { numRuns: 25 },
    )
  }, 60_000)
})

describe('jobs and what is wrong around them', () => {
  it('a clock that was a year ahead and is set right: the job goes on within minutes, and the audit trail says why', async () => {
    const cluster = await modelCluster(1)
    await cluster.deploy(aJob({ cron: every('* * * * *') }))
    const live = async (seconds: number) => {
      for (let s = 0; s < seconds; s += 5) {
        await cluster.run(5)
        finishAll(cluster)
      }
    }
    await live(130)
    cluster.clock.jumpWall(365 * 24 * 60 * MINUTE)
    await live(130)
    cluster.clock.jumpWall(-365 * 24 * 60 * MINUTE)
    await live(300)
    const [newest] = runsOf(cluster)
    expect(Math.abs((newest?.scheduledAtMs ?? 0) - cluster.clock.now())).toBeLessThan(3 * MINUTE)
    const events = await cluster.state.events({ type: 'job.rescheduled' })
    expect(events).toHaveLength(1)
    expect(events[0]?.message).toContain('until 365 days from now')
    expect(new Set(runsOf(cluster).map(({ id }) => id)).size).toBe(runsOf(cluster).length)
    await cluster.stop()
  })

  it('a time that was begun while the clock ran ahead is not begun again when it comes', async () => {
    const cluster = await modelCluster(1)
    await cluster.deploy(aJob({ cron: every('0 * * * *') }))
    await cluster.run(150)
    cluster.clock.jumpWall(49 * 60 * MINUTE)
    await cluster.run(150)
    finishAll(cluster)
    await cluster.run(150)
    const [early] = runsOf(cluster)
    expect(early?.outcome).toBe('succeeded')
    cluster.clock.jumpWall(-49 * 60 * MINUTE)
    await cluster.run(150)
    cluster.clock.jumpWall((early?.scheduledAtMs ?? 0) - cluster.clock.now() + MINUTE)
    await cluster.run(150)
    expect(runsOf(cluster).filter(({ id }) => id === early?.id)).toHaveLength(1)
    expect(cluster.runs(WORK)).toEqual([])
    await cluster.stop()
  })

  it('failed attempts are told at once, then together and ever more rarely, and none is left out', async () => {
    const cluster = await modelCluster(3)
    cluster.badHashes.add('bad')
    await cluster.deploy(aJob({ completions: 60, retries: 1_000 }, { specHash: 'bad' }))
    await cluster.run(1_800)
    const events = await cluster.state.events({ type: 'job.retried', limit: 1_000 })
    expect(events.length).toBeGreaterThan(1)
    expect(events.length).toBeLessThan(10)
    const told = events.reduce((sum, { message }) => sum + Number(/(\d+) attempts failed/.exec(message)?.[1] ?? 1), 0)
    const [run] = runsOf(cluster)
    const failed = Object.values(run?.failures ?? {}).reduce((sum, { attempts }) => sum + attempts, 0)
    expect(failed).toBeGreaterThan(200)
    expect(told + (run?.retried?.untold ?? 0)).toBe(failed)
    await cluster.stop()
  })

  it('one whose time zone this host does not know stops no other, and is told', async () => {
    const cluster = await modelCluster(1)
    const bad = aServiceSpec({ name: 'work', unit, job: rules({ cron: { at: '@daily', timeZone: 'PST', overlap: 'skip' } }) })
    await cluster.deploy(anAppSpec({ services: [bad, aServiceSpec({ name: 'web' })] }))
    await cluster.run(30)
    expect(cluster.ready('shop/web')).toHaveLength(1)
    expect(await cluster.state.events({ type: 'service.isolated' })).toMatchObject([{ subject: WORK, actor: 'services' }])
    await cluster.stop()
  })
})
