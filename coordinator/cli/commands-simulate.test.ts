/** `rubato simulate` from the command line: what it prints and writes, and what it says of bad input. */
import { beforeEach, describe, expect, it } from 'vitest'
import { apiBed } from '../../test/builders/api-bed.ts'
import { type CliBed, cliBed } from '../../test/builders/cli-bed.ts'
import { anAppSpec, aScale, aServiceSpec } from '../../test/builders/specs.ts'
import { EXIT } from './io.ts'

let cli: CliBed

/** Six hours in steps of 5 min: two hours at 100, two at 400, two at 100. */
const demand = Array.from({ length: 72 }, (_, index) => {
  const at = new Date(Date.UTC(2026, 2, 1) + index * 300_000).toISOString()
  return `${at},${index >= 24 && index < 48 ? 400 : 100}`
}).join('\n')

beforeEach(async () => {
  cli = cliBed(await apiBed())
  cli.columns = 100
  cli.readApp = async () => ({
    spec: anAppSpec({ services: [aServiceSpec({ scale: aScale() }), aServiceSpec({ name: 'db' })] }),
    source: '',
    warnings: [],
  })
  cli.disk.set('/here/demand.csv', { text: `timestamp,value\n${demand}\n`, mode: 0o644 })
})

const simulate = (...more: string[]) => cli.run('simulate', '--trace', 'demand.csv', '--app', 'compose.yaml', ...more)

describe('rubato simulate', () => {
  it('prints a row per policy and boot time, and writes the report', async () => {
    const { exitCode, out } = await simulate('--policy', 'rubato,hpa', '--boot', '30s,4m', '--unit', '50', '--report', 'r.html')
    expect(exitCode).toBe(EXIT.ok)
    const rows = out.split('\n')
    expect(rows[0]).toMatch(/^POLICY +BOOT +UNDER TIME % +OVER % +LATE % +MACHINE HOURS +USD +STEPS \/H/)
    expect(rows.slice(1, 5).map((row) => row.split(/ {2,}/).slice(0, 2))).toEqual([
      ['Rubato', '30s'],
      ['Kubernetes HPA at 70 %', '30s'],
      ['Rubato', '4m'],
      ['Kubernetes HPA at 70 %', '4m'],
    ])
    expect(out).toContain('every decision is in /here/r.html')
    expect(cli.disk.get('/here/r.html')?.text).toContain('<title>shop/web under demand.csv</title>')
  })

  it('gives the metrics as JSON, the same for the same seed', async () => {
    const args = ['--policy', 'fixed', '--unit', '50', '-o', 'json']
    const { out } = await simulate(...args)
    const value = JSON.parse(out)
    expect(value.runs[0]).toMatchObject({ policy: 'fixed', bootMs: 120_000, actionsPerHour: expect.any(Number) })
    expect((await simulate(...args)).out).toBe(out)
  })

  it.each([
    ['no demand', ['simulate', '--app', 'c.yaml'], /no demand to replay.*\n→ Name a CSV with --trace/],
    ['an unknown file', ['simulate', '--app', 'c.yaml', '--trace', 'x.csv'], /no file \/here\/x.csv.*\n→ Name a CSV/],
    ['an unknown policy', ['--policy', 'hap'], /no policy "hap"\n.*did you mean hpa/],
    ['a bad duration', ['--boot', 'soon'], /--boot soon is no duration.\n→ Like/],
    ['an objective out of reach', ['--objective', '200ms'], /out of reach.*\n→ Its own 95th percentile is 300 ms/],
    ['a service that does not scale', ['--service', 'db'], /db does not scale.\n→ Give it x-rubato.scale/],
    ['a time outside', ['--from', '2027-01-01'], /lies outside the series.\n→ It goes from 2026-03-01/],
    ['a gap rule', ['--gaps', 'maybe'], /--gaps maybe means nothing.\n→ Use zero/],
    ['no file of pools', ['--pools', 'pools.yaml'], /no file pools.yaml.\n→ Name a YAML file/],
  ])('says what is wrong with %s, and the next step', async (_what, args, message) => {
    const run = args[0] === 'simulate' ? await cli.run(...args) : await simulate(...args)
    expect(run.err).toMatch(message)
    expect([EXIT.refused, EXIT.notFound]).toContain(run.exitCode)
    expect(cli.disk.has('/here/simulation.html')).toBe(false)
  })

  it('takes pools of a file, and refuses those too small for one instance', async () => {
    cli.disk.set('/here/p.yaml', {
      text: 'pools:\n  - { name: tiny, provider: x, capacity: { cpus: 0.05, memory: 32M, disk: 1G, slots: 5 } }\n',
      mode: 0o644,
    })
    expect((await simulate('--pools', 'p.yaml')).err).toMatch(/No pool has a machine that holds an instance of web/)
    cli.disk.set('/here/p.yaml', { text: 'pools: [{ name: x, provider: y, cpus: 2 }]', mode: 0o644 })
    expect((await simulate('--pools', 'p.yaml')).err).toMatch(/p.yaml: pools\/0/)
  })

  it('O6: replays what the coordinator measured of a service', async () => {
    const api = await apiBed()
    const own = cliBed(api)
    own.readApp = cli.readApp
    const none = await own.run('simulate', '--history', 'shop/web', '--app', 'compose.yaml')
    expect(none.exitCode).not.toBe(EXIT.ok)
    for (let minute = 0; minute < 24 * 60; minute += 1) {
      api.history.record({ subject: 'service shop/web', measure: 'demand' }, api.clock.now(), minute < 720 ? 150 : 600)
      await api.clock.advance(60_000)
    }
    const { exitCode, out, err } = await own.run(
      'simulate',
      '--history',
      'shop/web',
      '--app',
      'c.yaml',
      '--policy',
      'rubato',
      '-o',
      'json',
    )
    expect(err + out).toContain('"policy": "rubato"')
    expect(exitCode).toBe(EXIT.ok)
    // Demand is kept in percent of one instance.
    const { runs, perUnit } = JSON.parse(out)
    expect(perUnit).toBe(100)
    expect(runs[0].hours).toBeCloseTo(16, 1)
    expect(runs[0].underTime).toBeLessThan(5)
    expect(runs[0].overAmount).toBeLessThan(80)
  })

  it('tells the line of a bad series', async () => {
    cli.disk.set('/here/demand.csv', { text: `${demand}\nlater,3\n`, mode: 0o644 })
    expect((await simulate()).err).toMatch(/demand.csv:73: "later" is no time/)
  })
})
