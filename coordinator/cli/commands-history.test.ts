import { beforeEach, describe, expect, it } from 'vitest'
import { type ApiBed, apiBed } from '../../test/builders/api-bed.ts'
import { type CliBed, cliBed } from '../../test/builders/cli-bed.ts'
import { EXIT } from './io.ts'
import { chart, columnsOf, fillSteps, sparkline } from './plot.ts'

let api: ApiBed
let cli: CliBed

beforeEach(async () => {
  api = await apiBed()
  cli = cliBed(api)
  const { history } = api
  for (let i = 0; i < 360; i += 1) {
    history.record({ subject: 'service shop/web', measure: 'demand' }, api.clock.now(), 100 + 100 * Math.sin(i / 30))
    history.record({ subject: 'service shop/web', measure: 'ready' }, api.clock.now(), i < 180 ? 1 : 2)
    history.record({ subject: 'cluster', measure: 'memoryBytes' }, api.clock.now(), 2 ** 30)
    await api.clock.advance(10_000)
  }
})

describe('rubato history', () => {
  it('draws one measure as a curve that fits the terminal', async () => {
    const { out, exitCode } = await cli.run('history', 'service', 'shop/web', 'demand')
    expect(exitCode).toBe(EXIT.ok)
    expect(out).toMatchInlineSnapshot(`
      "service shop/web  2026-01-05 00:00 to 2026-01-05 01:00 UTC, steps of 10s
         200% ┤     ▂▅▇██▇▆▄▁                            ▁▄▆██▇▆▄▁
              │   ▂▆█████████▄                         ▁▅█████████▅▁
              │  ▅█████████████▃                      ▄█████████████▄
              │▃████████████████▆                   ▂▇███████████████▇▂
              │███████████████████▃                ▄███████████████████▄
              │████████████████████▆▁            ▂▇█████████████████████▆▁
              │██████████████████████▄▁        ▁▆█████████████████████████▅▁         ▄
           0% ┤████████████████████████▅▃▁▁▁▁▃▆█████████████████████████████▆▃▁▁▁▁▃▅██

      MEASURE  LAST  MEAN  MIN  PEAK
      demand    44%  101%   0%  200%
      "
    `)
    for (const line of out.split('\n')) expect([...line].length).toBeLessThanOrEqual(80)
  })

  it('draws several, or all without a name of one, as a line each', async () => {
    const { out } = await cli.run('history', 'service', 'shop/web', '--since', '30m')
    expect(out).toMatchInlineSnapshot(`
      "service shop/web  2026-01-05 00:30 to 2026-01-05 01:00 UTC, steps of 10s
      MEASURE  LAST  MEAN  MIN  PEAK
      demand    44%  102%   0%  200%  ▄▄▅▅▆▇▇██████████▇▇▆▆▅▄▄▃▃▂▂▁▁▁▁▁▁▁▁▁▂▂
      ready       2     2    2     2  ███████████████████████████████████████
      "
    `)
    for (const line of out.split('\n')) expect([...line].length).toBeLessThanOrEqual(80)
    expect((await cli.run('history', 'cluster', 'memoryBytes')).out).toContain('1G')
  })

  it('prints JSON as the API gives it, and CSV as the simulator reads it', async () => {
    const json = JSON.parse((await cli.run('history', 'service', 'shop/web', 'demand,ready', '-o', 'json')).out)
    expect(json.series).toHaveLength(2)
    const { out } = await cli.run(
      'history',
      'service',
      'shop/web',
      'ready',
      '--since',
      '2026-01-05T00:00:00Z',
      '--step',
      '30m',
      '-o',
      'csv',
    )
    expect(out).toBe('timestamp,value\n2026-01-05T00:00:00Z,1\n2026-01-05T00:30:00Z,2\n')
  })

  it.each([
    [['history', 'app', 'shop'], EXIT.refused, 'service app/web'],
    [['history', 'service', 'shop'], EXIT.refused, 'app/service'],
    [['history', 'service'], EXIT.refused, 'Which service?'],
    [['history', 'service', 'shop/web', '-o', 'csv'], EXIT.refused, 'one measure'],
    [['history', 'service', 'shop/web', 'demnd'], EXIT.refused, 'did you mean demand?'],
    [['history', 'service', 'shop/web', '--since', 'noon'], EXIT.refused, '24h'],
    [['history', 'node', 'n-9'], EXIT.notFound, 'Nothing is kept of node n-9'],
    [['ps', '-o', 'csv'], EXIT.refused, 'does not print CSV'],
  ])('refuses %j and says how to mend it', async (argv, exitCode, text) => {
    const run = await cli.run(...argv)
    expect([run.exitCode, run.err]).toEqual([exitCode, expect.stringContaining(text)])
  })
})

describe('plots', () => {
  it('scale from zero, leave gaps, and never are wider than asked', () => {
    expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7])).toBe('▁▂▃▄▅▆▇█')
    expect(sparkline([5, null, 5])).toBe('█ █')
    expect(sparkline([0, 0])).toBe('▁▁')
    expect(chart([0, 4, 8, null, 16], 2)).toEqual(['    █', '▁▄█ █'])
  })

  it('spread points over columns and steps over theirs', () => {
    const span = { fromMs: 0, toMs: 100 }
    const points = [0, 50].map((atMs) => ({ atMs, value: atMs }))
    const columns = columnsOf(points, span, 10)
    expect(columns).toEqual([0, null, null, null, null, 50, null, null, null, null])
    expect(fillSteps(columns, span, 25)).toEqual([0, 0, 0, null, null, 50, 50, 50, null, null])
  })
})
