import { describe, expect, it, vi } from 'vitest'
import { apiBed } from '../../test/builders/api-bed.ts'
import { parseTrace } from '../simulate/trace.ts'
import type { HistoryView } from './routes-history.ts'

const SERVICE = encodeURIComponent('service shop/web')

async function bed() {
  const api = await apiBed()
  const startMs = api.clock.now()
  for (let i = 0; i < 360; i += 1) {
    api.history.record({ subject: 'service shop/web', measure: 'demand' }, api.clock.now(), i)
    if (i % 2 === 0) api.history.record({ subject: 'service shop/web', measure: 'ready' }, api.clock.now(), 3)
    await api.clock.advance(10_000)
  }
  api.history.record({ subject: 'node n-1', measure: 'cpuMillis' }, api.clock.now(), 5)
  const get = (query: string, headers: Record<string, string> = {}) =>
    api.send('GET', `/v1/history${query}`, { as: 'viewer', headers })
  return { api, startMs, get }
}

describe('history routes', () => {
  it('O6: answers several measures at once, the last hour by default, in the step asked for', async () => {
    const { get, startMs } = await bed()
    const view = (await (await get(`?subject=${SERVICE}&measure=demand,ready&step=5m`)).json()) as HistoryView
    expect(view).toMatchObject({ subject: 'service shop/web', fromMs: startMs, stepMs: 300_000 })
    expect(view.series.map(({ measure, points }) => [measure, points.length])).toEqual([
      ['demand', 12],
      ['ready', 12],
    ])
    expect(view.series[0]?.points[1]).toEqual({ atMs: startMs + 300_000, value: 44.5, max: 59 })
    const finest = (await (await get(`?subject=${SERVICE}&measure=demand`)).json()) as HistoryView
    expect(finest.stepMs).toBe(10_000)
    expect(finest.series[0]?.points).toHaveLength(360)
  })

  it('takes times as ISO 8601 or ms, and coarsens what is no longer kept so fine', async () => {
    const { get, startMs } = await bed()
    const iso = new Date(startMs + 600_000).toISOString()
    const view = (await (
      await get(`?subject=${SERVICE}&measure=demand&from=${startMs}&to=${iso.replace('Z', '')}&step=10s`)
    ).json()) as HistoryView
    expect(view.series[0]?.points).toHaveLength(60)
    const old = (await (
      await get(`?subject=${SERVICE}&measure=demand&from=${startMs - 86_400_000}&step=10s`)
    ).json()) as HistoryView
    expect(old.stepMs).toBe(60_000)
    expect(old.series[0]?.points).toHaveLength(60)
  })

  it('gives CSV as the simulator reads it', async () => {
    const { get, startMs } = await bed()
    const response = await get(`?subject=${SERVICE}&measure=demand&step=15m`, { accept: 'text/csv' })
    expect(response.headers.get('content-type')).toMatch(/^text\/csv/)
    const text = await response.text()
    const trace = parseTrace(text, { name: 'demand.csv' })
    expect([trace.startMs, trace.stepMs, [...trace.values]]).toEqual([startMs, 900_000, [44.5, 134.5, 224.5, 314.5]])
    expect(text.split('\n').slice(0, 3)).toEqual(['timestamp,value', '2026-01-05T00:00:00Z,44.5', '2026-01-05T00:15:00Z,134.5'])
  })

  it('lists series in pages', async () => {
    const { get } = await bed()
    const all = (await (await get('/series')).json()) as { items: unknown[]; next: string | null }
    expect(all.items).toHaveLength(3)
    const first = (await (await get('/series?limit=2')).json()) as { items: { measure: string }[]; next: string }
    const rest = (await (await get(`/series?limit=2&after=${encodeURIComponent(first.next)}`)).json()) as typeof first
    expect([...first.items, ...rest.items].map(({ measure }) => measure)).toEqual(['cpuMillis', 'demand', 'ready'])
    expect(((await (await get(`/series?subject=${SERVICE}`)).json()) as typeof first).items).toHaveLength(2)
  })

  it('a query with thousands of measures has one fault, not thousands', async () => {
    const { get } = await bed()
    const text = await (await get(`?subject=${SERVICE}&measure=${'x,'.repeat(3_000)}`)).text()
    expect((JSON.parse(text) as { errors: unknown[] }).errors).toHaveLength(1)
  })

  it('pages never have all series sorted', async () => {
    const { get, api } = await bed()
    const { history } = api
    for (let i = 0; i < 500; i += 1)
      history.record({ subject: `service app${i % 7}/s${(i * 37) % 500}`, measure: 'load' }, api.clock.now(), 1)
    const sorted = history.series().map(({ subject, measure }) => `${subject} ${measure}`)
    const series = vi.spyOn(history, 'series')
    const found: string[] = []
    for (let after: string | null = ''; after !== null; ) {
      const query: string = after === '' ? '' : `&after=${encodeURIComponent(after)}`
      const page = (await (await get(`/series?limit=60${query}`)).json()) as {
        items: { subject: string; measure: string }[]
        next: string | null
      }
      found.push(...page.items.map(({ subject, measure }) => `${subject} ${measure}`))
      after = page.next
    }
    expect(found).toEqual([...sorted].sort((a, b) => (a < b ? -1 : 1)))
    expect(series).not.toHaveBeenCalled()
  })

  it.each([
    ['?subject=web&measure=demand', 422, 'service app/name'],
    [`?subject=${SERVICE}`, 422, '/measure'],
    [`?subject=${SERVICE}&measure=demnd`, 422, 'did you mean demand?'],
    [`?subject=${SERVICE}&measure=${'x,'.repeat(3_000)}`, 422, 'names too many'],
    [`?subject=${SERVICE}&measure=${'demand,'.repeat(40)}`, 422, 'names too many'],
    [`?subject=${SERVICE}&measure=demand&step=1s`, 422, 'at least 10s'],
    [`?subject=${SERVICE}&measure=demand&from=yesterday`, 422, '2026-03-01T12:00:00Z'],
    [`?subject=${SERVICE}&measure=demand&from=2026-01-06&to=2026-01-05`, 422, 'earlier'],
    [`?subject=${SERVICE}&measure=demand,load,ready&from=2026-01-01&step=10s`, 422, 'ask for a step of 2m or more'],
    [`?subject=${SERVICE}&measure=errors`, 404, 'there is demand, ready'],
    ['?subject=cluster&measure=ready', 404, '/v1/history/series'],
    [`?subject=${SERVICE}&measure=demand&colour=red`, 422, 'unknown field'],
  ])('refuses %s with %i and says how to mend it', async (query, status, hint) => {
    const { get } = await bed()
    const response = await get(query)
    expect(response.status).toBe(status)
    expect(response.headers.get('content-type')).toBe('application/problem+json')
    expect(await response.text()).toContain(hint)
  })

  it('refuses several measures as CSV, and anybody without a token', async () => {
    const { get, api } = await bed()
    expect((await get(`?subject=${SERVICE}&measure=demand,ready`, { accept: 'text/csv' })).status).toBe(422)
    expect((await api.send('GET', `/v1/history?subject=${SERVICE}&measure=demand`, { as: null })).status).toBe(401)
  })
})
