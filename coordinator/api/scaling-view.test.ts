import { describe, expect, it } from 'vitest'
import { apiBed } from '../../test/builders/api-bed.ts'
import { anAppRecord, aServiceRecord } from '../../test/builders/records.ts'
import { anAppSpec, aScale, aServiceSpec } from '../../test/builders/specs.ts'
import { seededRandom } from '../../shared/random.ts'
import { createDemandForecaster } from '../forecast/demand-forecaster.ts'
import type { DecisionRecord } from '../scaling/decision-log.ts'
import type { ApiDeps } from './deps.ts'

const decision = (atMs: number, code: DecisionRecord['code'], wanted: number, wish: number): DecisionRecord => ({
  atMs,
  serviceId: 'shop/web',
  code,
  reason: `because ${code}`,
  wanted,
  wish,
  n: wanted,
  ready: wanted,
  excluded: 0,
  demandPercent: 150,
  thresholdPercent: 70,
  load: {
    demandPercent: 150,
    meanPercent: 75,
    settledMs: 1,
    coveredMs: 1,
    peakDemandPercent: 150,
    completeMs: 1,
    backlogKnown: false,
    sustainedPercent: 140,
    arrivalPercent: null,
    parts: { idlePercent: 12.34, requestMs: 5.678 },
    growthPercentPerS: 0.5,
  },
})
const objective = { objectiveMs: 200, p95Ms: 250, kept: false, shareOfTime: 0.8, shareOfRequests: 0.93, shiftPercent: -5 }

interface Answer {
  readonly service: string
  readonly objective: unknown
  readonly reasons: readonly { readonly text: string }[]
  readonly decisions: readonly unknown[]
}

async function bedWithDecisions(explain: Partial<ApiDeps['explain']> = {}) {
  const bed = await apiBed()
  Object.assign(bed.deps.explain, {
    objective: () => objective,
    turnsPerHour: () => 2,
    decisions: () => [decision(2_000, 'steady', 3, 3), decision(1_000, 'up', 2, 3)],
    ...explain,
  })
  const change = bed.state.change()
  change.put('app', 'shop', anAppRecord({ spec: anAppSpec({ services: [aServiceSpec({ scale: aScale() })] }) }))
  change.put('service', 'shop/web', aServiceRecord())
  await bed.state.commit(change)
  const get = async (path: string) =>
    (await bed.api.request(path, { headers: { authorization: `Bearer ${bed.tokens.viewer}` } })).json() as Promise<Answer>
  return get
}

describe('scaling in the API', () => {
  it('V16: a service says how its objective is kept, and explain says it in words with the decisions before', async () => {
    const get = await bedWithDecisions()
    expect((await get('/v1/services/shop/web')).objective).toMatchObject({
      latencyP95Ms: 200,
      kept: false,
      shareOfRequests: 0.93,
    })
    const texts = (await get('/v1/services/shop/web/explain')).reasons.map(({ text }) => text).join('\n')
    expect(texts).toContain('missed (p95 250 ms; last hour 80.0 % of the time, 93.0 % of the answers)')
    expect(texts).toContain('up 2 → 3: because up')
    expect(texts).toContain('changed direction 2 times')
    expect(texts).toContain('uses 12.3 % when idle, and a request takes 5.7 ms of it')
  })
  it.each([
    [2, 'No forecast yet: a day of demand must be seen first.', false],
    [30, 'No forecast is used: nothing told its demand of the next 5 min better than "as it is now" lately.', true],
  ])('after %i hours of a random walk explain says of the forecast what is true by then', async (hours, text, tellsErrors) => {
    const forecaster = createDemandForecaster()
    const random = seededRandom(3)
    let demand = 1_000
    for (let minute = 0; minute < 60 * hours; minute += 1) {
      demand = Math.max(100, demand + 40 * (random.next() - 0.5))
      forecaster.observe(60_000 * minute, demand)
    }
    const get = await bedWithDecisions({
      forecast: () => forecaster.forecast(300_000),
      forecasters: () => forecaster.standings(300_000),
    })
    const texts = (await get('/v1/services/shop/web/explain')).reasons.map((reason) => reason.text)
    expect(texts).toContain(text)
    expect(texts.some((each) => each.startsWith('Errors of the forecasters'))).toBe(tellsErrors)
  })
  it('decisions come with what they were made from, newest first', async () => {
    const get = await bedWithDecisions()
    const found = await get('/v1/services/shop/web/decisions')
    expect(found).toMatchObject({ service: 'shop/web', directionChangesPerHour: 2 })
    expect(found.decisions[1]).toMatchObject({ code: 'up', atMs: 1_000, load: { sustainedPercent: 140, growthPercentPerS: 0.5 } })
  })
})
