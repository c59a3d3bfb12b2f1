/** `rubato simulate` from the command line: what it prints and writes, and what it says of bad input. */
import { beforeEach, describe, expect, it } from 'vitest'
import { apiBed } from '../../test/builders/api-bed.ts'
import { type CliBed, cliBed } from '../../test/builders/cli-bed.ts'
import { anAppSpec, aPlacement, aScale, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
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
  }, 30_000)

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
    [
      'an objective out of reach',
      ['--objective', '200ms', '--service-time', '100ms'],
      /out of reach.*\n→ Its own 95th percentile is 300 ms/,
    ],
    ['a service that does not scale', ['--service', 'db'], /db does not scale.\n→ Give it x-rubato.scale/],
    ['a time outside', ['--from', '2027-01-01'], /lies outside the series.\n→ It goes from 2026-03-01/],
    ['a gap rule', ['--gaps', 'maybe'], /--gaps maybe means nothing.\n→ Use zero/],
    ['no file of pools', ['--pools', 'pools.yaml'], /no file pools.yaml.\n→ Name a YAML file/],
  ])(
    'says what is wrong with %s, and the next step',
    async (_what, args, message) => {
      const run = args[0] === 'simulate' ? await cli.run(...args) : await simulate(...args)
      expect(run.err).toMatch(message)
      expect([EXIT.refused, EXIT.notFound]).toContain(run.exitCode)
      expect(cli.disk.has('/here/simulation.html')).toBe(false)
    },
    30_000,
  )

  const pools = (text: string) => cli.disk.set('/here/p.yaml', { text, mode: 0o644 })
  const TINY = 'pools:\n  - { name: tiny, provider: x, capacity: { cpus: 0.05, memory: 32M, disk: 1G, slots: 5 }'
  const LARGE = 'pools:\n  - { name: large, provider: x, capacity: { cpus: 4, memory: 8G }'

  it('takes pools of a file, and refuses those too small for one instance', async () => {
    pools(`${TINY}, priceUsdPerHour: 0.01 }\n`)
    expect((await simulate('--pools', 'p.yaml')).err).toMatch(/No pool has a machine that holds an instance of web/)
  })

  it.each([
    ['a pool without a price', `${LARGE} }\n`, /p.yaml:2: pools.0.priceUsdPerHour: The pool large needs a priceUsdPerHour/],
    ['a pool without a capacity', 'pools: [{ name: x, provider: y, priceUsdPerHour: 1 }]', /The pool x needs a capacity/],
    [
      'a key that there is not',
      `${LARGE}, priceUsdPerHour: 1 }\nfleet: { headroom: 5 }\n`,
      /p.yaml:3: fleet.headroom: There is no such key/,
    ],
    ['no pool', 'fleet: { headroomPercent: 5 }\n', /There are no pools/],
    ['a key of a pool', 'pools: [{ name: x, provider: y, cpus: 2 }]', /p.yaml:1: pools.0/],
  ])('refuses %s as the coordinator does', async (_what, text, message) => {
    pools(text)
    const { err, exitCode } = await simulate('--pools', 'p.yaml')
    expect(err).toMatch(message)
    expect(exitCode).toBe(EXIT.refused)
  })

  it('takes the coordinator’s own file: prices of offerings, budget and pace of the fleet', async () => {
    const costOf = async (more: string) => {
      pools(
        `listen: 127.0.0.1:7600\nproviders: { lab: { kind: exec, command: [x], offerings: { small: { cpus: 1, memory: 2G, priceUsdPerHour: 0.5 } } } }\npools: [{ name: small, provider: lab, offering: small, max: 100 }]\n${more}`,
      )
      const run = await simulate(
        '--pools',
        'p.yaml',
        '--policy',
        'rubato',
        '--unit',
        '10',
        '--from',
        '2026-03-01T00:30',
        '-o',
        'json',
      )
      expect(run.exitCode, run.err).toBe(EXIT.ok)
      return { usd: JSON.parse(run.out).runs[0].costUsd as number, err: run.err }
    }
    const free = await costOf('')
    const patient = await costOf('fleet: { minNodeAge: 6h, joinDeadline: 5m, reapInterval: 30s }\n')
    const poor = await costOf(`budgetUsdPerMonth: ${(free.usd / 2).toFixed(2)}\n`)
    expect(free.usd).toBeGreaterThan(5)
    expect(patient.usd).toBeGreaterThan(1.1 * free.usd)
    expect(poor.usd).toBeLessThan(0.9 * free.usd)
    expect(free.err).not.toContain('warning')
    expect(patient.err).toMatch(/warning: p.yaml: without effect in a simulation: fleet.joinDeadline, fleet.reapInterval\n/)
  }, 30_000)

  it('tells what of the service it does not replay', async () => {
    cli.readApp = async () => ({
      spec: anAppSpec({
        services: [
          aServiceSpec({
            scale: aScale(),
            placement: aPlacement({ scheduler: 'coolest' }),
            unit: aUnitSpec({ load: [{ kind: 'memory' }] }),
          }),
        ],
      }),
      source: '',
      warnings: [{ path: '/services/web/build', message: 'build is ignored', line: 3, column: 5 }],
    })
    const { err, out } = await simulate('--policy', 'fixed', '--boot', '15m', '-o', 'json')
    expect(err).toContain('compose.yaml:3:5: warning: build is ignored')
    expect(err).toContain('warning: compose.yaml: web: the scheduler coolest is not asked')
    expect(err).toContain('warning: compose.yaml: web: load by memory')
    expect(err).toContain('warning: a coordinator gives up machines that have not joined within 10m')
    expect(JSON.parse(out).warnings).toHaveLength(3)
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

  it('O6: replays minutes where they are kept, learns from the quarters before, and warns where only quarters are left', async () => {
    const api = await apiBed()
    const own = cliBed(api)
    own.readApp = cli.readApp
    const measured = async (minutes: number, everyMs: number) => {
      for (let passed = 0; passed < minutes * 60_000; passed += everyMs) {
        api.history.record({ subject: 'service shop/web', measure: 'demand' }, api.clock.now(), 200)
        await api.clock.advance(everyMs)
      }
    }
    await measured(10 * 24 * 60, 900_000)
    await measured(24 * 60, 60_000)
    const replay = (...more: string[]) =>
      own.run('simulate', '--history', 'shop/web', '--app', 'c.yaml', '--policy', 'fixed', '-o', 'json', ...more)
    const fine = await replay()
    expect(JSON.parse(fine.out)).toMatchObject({ stepMs: 60_000, warnings: [] })
    expect(own.disk.get('/here/simulation.html')?.text).toMatch(/learned from before it<\/dt><dd>2\d\d quarters of an hour/)
    const from = new Date(api.clock.now() - 9 * 86_400_000).toISOString()
    const coarse = await replay('--from', from)
    expect(JSON.parse(coarse.out).stepMs).toBe(900_000)
    expect(coarse.err).toMatch(/warning: the replay is made of means over 15m/)
  })

  it('tells the line of a bad series', async () => {
    cli.disk.set('/here/demand.csv', { text: `${demand}\nlater,3\n`, mode: 0o644 })
    expect((await simulate()).err).toMatch(/demand.csv:73: "later" is no time/)
  })
})
