import { describe, expect, it } from 'vitest'
import type { ServiceView } from '../api/schemas.ts'
import { serviceColumns, topServiceColumns } from './app-tables.ts'
import { paintWith, renderTable } from './table.ts'

const NOW = Date.UTC(2026, 10, 29, 20, 0)

function aView(fields: Partial<ServiceView> = {}): ServiceView {
  return {
    id: 'shop/web',
    app: 'shop',
    name: 'web',
    image: '',
    mode: 'replicated',
    desired: 3,
    pinned: null,
    ready: 3,
    updated: 3,
    completed: 0,
    running: 3,
    pending: 0,
    loadPercent: 62.4,
    thresholdPercent: 76,
    waitsFor: null,
    scale: { min: 1, max: 9, lowPercent: 60, highPercent: 76 },
    ports: [],
    rollout: null,
    forecast: null,
    objective: null,
    lastScale: null,
    job: null,
    ...fields,
  }
}

const job = (nextRunAtMs: number): NonNullable<ServiceView['job']> => ({
  completions: 3,
  parallelism: 3,
  retries: 2,
  deadlineMs: null,
  cron: '* * * * *',
  timeZone: 'UTC',
  nextRunAtMs,
  runs: [
    {
      id: 'r1',
      scheduledAtMs: NOW,
      startedAtMs: NOW,
      endedAtMs: NOW,
      outcome: 'succeeded',
      message: '',
      completions: 3,
      succeeded: 3,
    },
  ],
})

const table = (rows: readonly ServiceView[], width: number | null) =>
  renderTable(rows, serviceColumns(NOW), { width, paint: paintWith(false) })
const line = (fields: Partial<ServiceView>) => table([aView(fields)], null)[1] ?? ''

describe('services in a table', () => {
  it('load stands beside the threshold, the objective says whether it is kept, the forecast how many instances it needs', () => {
    const objective = { latencyP95Ms: 200, p95Ms: 251, kept: false, shareOfTime: 1, shareOfRequests: 1, shiftPercent: 0 }
    const forecast = {
      method: 'seasonal',
      trusted: true,
      judged: true,
      horizonMs: 60_000,
      peakPercent: 310,
      errorVsPersistence: 0.5,
    }
    expect(table([aView({ objective, forecast })], null)).toEqual([
      'SERVICE   READY    LOAD  P95          EXPECTS  SCALE  NOTE',
      'shop/web    3/3  62/76%  251/200ms ✗       ≤5  1-9    -',
    ])
    expect(line({ objective: { ...objective, p95Ms: null, kept: null } })).toContain('-/200ms ')
    expect(line({ forecast: { ...forecast, trusted: false } })).not.toContain('≤')
  })

  it('a column in which no row says anything is left out', () => {
    expect(table([aView()], null)[0]).toBe('SERVICE   READY    LOAD  SCALE  NOTE')
    const ports = [{ port: 8090, containerPort: 80, protocol: 'http', mode: 'ingress' }]
    expect(table([aView(), aView({ ports, image: 'nginx' })], null)[0]).toMatch(/PORTS +NOTE +IMAGE$/)
  })

  it('at 80 columns the name is whole, and what is less needed goes first', () => {
    const id = 'nightly-reports/customer-statements'
    const ports = [{ port: 8090, containerPort: 8000, protocol: 'http', mode: 'ingress' }]
    const rows = [
      aView({
        id,
        ports,
        image: 'registry.example.org/reports:1',
        lastScale: { atMs: 0, from: 2, to: 3, reason: 'load was over its threshold' },
      }),
    ]
    const [header = '', row = ''] = table(rows, 80)
    expect(row.length).toBeLessThanOrEqual(80)
    expect(row).toContain(`${id} `)
    expect(row).toContain('62/76%')
    expect(row).toContain('2→3 load')
    expect(header).not.toContain('IMAGE')
  })

  it('a job tells its last run and how long it is to the next', () => {
    expect(line({ job: job(NOW + 40_000) })).toContain('succeeded 3/3, next in 40s')
  })

  it('what it waits for goes before everything else that there is to say', () => {
    const lastScale = { atMs: 0, from: 1, to: 2, reason: 'load' }
    expect(line({ lastScale, waitsFor: 'starts after shop/api' })).toMatch(/starts after shop\/api$/)
  })

  it('top marks the threshold in the bar', () => {
    const [, row] = renderTable([aView()], topServiceColumns(NOW), { width: 80, paint: paintWith(false) })
    expect(row).toContain('████████████···┃····')
  })
})
