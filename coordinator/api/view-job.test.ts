import { describe, expect, it } from 'vitest'
import { aServiceSpec } from '../../test/builders/specs.ts'
import type { JobRun } from '../state/objects.ts'
import { hasFailed, viewJob } from './view-job.ts'

const run = (fields: Partial<JobRun>): JobRun => ({
  id: 'r1',
  scheduledAtMs: null,
  revision: 1,
  specHash: 'v1',
  startedAtMs: 0,
  endedAtMs: null,
  outcome: 'running',
  message: '',
  completions: 3,
  succeeded: 1,
  done: ['1'],
  failures: {},
  ...fields,
})
const job = { completions: 3, parallelism: 3, retries: 3, deadlineMs: null }
const cron = { at: '0 2 * * *', timeZone: 'UTC', overlap: 'skip' as const }
const record = (runs: JobRun[], decidedAtMs = 0) => ({ job: { runs, decidedAtMs, schedule: '' } })

describe('jobs as the API shows them', () => {
  it('a job without cron wants its completions until its run for this spec has them', () => {
    const spec = aServiceSpec({ specHash: 'v1', job })
    expect(viewJob(spec, undefined)).toMatchObject({ desired: 3, completed: 0, job: { runs: [], nextRunAtMs: null } })
    expect(viewJob(spec, record([run({})]))).toMatchObject({ desired: 3, completed: 1 })
    expect(viewJob(spec, record([run({ specHash: 'v0', succeeded: 3 })]))).toMatchObject({ desired: 3, completed: 0 })
  })

  it('a job with cron wants nothing between its times, and tells the next one', () => {
    const spec = aServiceSpec({ specHash: 'v1', job: { ...job, cron } })
    const after = Date.UTC(2026, 0, 5, 2)
    const ended = run({ id: 't1', scheduledAtMs: after, outcome: 'succeeded', succeeded: 3 })
    const view = viewJob(spec, record([ended], after))
    expect(view).toMatchObject({ desired: 0, completed: 0 })
    expect(view?.job.nextRunAtMs).toBe(after + 86_400_000)
    expect(view?.job.runs[0]).not.toHaveProperty('done')
  })

  it('has failed when its latest run that began did', () => {
    expect(hasFailed({ runs: [run({ outcome: 'skipped' }), run({ outcome: 'failed' })] })).toBe(true)
    expect(hasFailed({ runs: [run({}), run({ outcome: 'failed' })] })).toBe(false)
    expect(hasFailed({ runs: [] })).toBe(false)
  })

  it('a service that goes on running is no job', () => {
    expect(viewJob(aServiceSpec(), undefined)).toBeNull()
  })

  it('has no next time where the stored schedule cannot be read, and does not throw', () => {
    const spec = aServiceSpec({ specHash: 'v1', job: { ...job, cron: { ...cron, timeZone: 'PST' } } })
    expect(viewJob(spec, record([]))?.job).toMatchObject({ timeZone: 'PST', nextRunAtMs: null })
  })
})
