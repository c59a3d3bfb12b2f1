/** Jobs, schedules, objectives and named schedulers of an app file. */
import { describe, expect, it } from 'vitest'
import type { ServiceSpec } from '../../shared/model/app.ts'
import { appSpecSchema } from './app-spec-schema.ts'
import { checkAppSpec } from './check-app-spec.ts'
import { readApp } from './read-app.ts'
import { checkBounds } from './spec-bounds.ts'

const file = (service: string) => `services:\n  web:\n    image: web:1\n${service.replace(/^/gm, '    ')}\n`
const read = (service: string) =>
  readApp({ text: file(service), fileName: '/srv/shop/compose.yaml', environment: {}, readFile: async () => null })

async function accept(service: string): Promise<ServiceSpec & { readonly warned: readonly string[] }> {
  const result = await read(service)
  if (result.kind === 'refused') throw new Error(result.faults.map((fault) => `${fault.path} ${fault.message}`).join('\n'))
  expect(appSpecSchema.safeParse(result.app).error?.issues ?? []).toEqual([])
  expect(checkAppSpec(result.app).faults).toEqual([])
  const [spec] = result.app.services
  if (spec === undefined) throw new Error('no service')
  return { ...spec, warned: result.warnings.map((warning) => warning.message) }
}

async function refuse(service: string): Promise<string[]> {
  const result = await read(service)
  if (result.kind === 'ok') throw new Error('was accepted')
  return result.faults.map((fault) => `${fault.line}:${fault.column} ${fault.path} ${fault.message} (${fault.hint ?? ''})`)
}

describe('jobs', () => {
  it('mode replicated-job has as many completions, and as many at once, as replicas', async () => {
    const spec = await accept('deploy: {mode: replicated-job, replicas: 5}')
    expect([spec.mode, spec.replicas, spec.scale]).toEqual(['replicated', 5, null])
    expect(spec.job).toEqual({ completions: 5, parallelism: 5, retries: 3, deadlineMs: null })
    expect(spec.unit.containers[0]?.restart.condition).toBe('none')
  })

  it('mode global-job runs once on each node', async () => {
    const spec = await accept('deploy: {mode: global-job}')
    expect([spec.mode, spec.job?.completions]).toEqual(['global', 1])
  })

  it('x-rubato.job says what Compose cannot, and makes a job of its own', async () => {
    const spec = await accept(
      'deploy: {replicas: 4}\nx-rubato: {job: {cron: "30 2 * * mon-fri", timeZone: Europe/Berlin, overlap: replace, parallelism: 2, retries: 0, deadline: 1h}}',
    )
    expect(spec.job).toEqual({
      completions: 4,
      parallelism: 2,
      cron: { at: '30 2 * * mon-fri', timeZone: 'Europe/Berlin', overlap: 'replace' },
      retries: 0,
      deadlineMs: 3_600_000,
    })
  })

  it.each([
    ['restart: "no"', 0],
    ['restart: on-failure:5', 5],
    ['restart: on-failure', 3],
  ])('%s gives the retries', async (restart, retries) => {
    expect((await accept(`${restart}\ndeploy: {mode: replicated-job}`)).job?.retries).toBe(retries)
  })

  it('what others wait for may be a job', async () => {
    const spec = await accept('deploy: {mode: replicated-job}\ndepends_on: []')
    expect(spec.warned).toEqual([])
  })

  it.each([
    ['deploy: {mode: replicatd-job}', '"replicated-job"'],
    ['deploy: {mode: replicated-job}\nrestart: always', 'cannot be restarted always'],
    ['deploy: {mode: global}\nx-rubato: {job: {cron: "@daily"}}', 'write "mode: global-job"'],
    ['deploy: {mode: global-job, replicas: 3}', '"replicas" means nothing'],
    ['deploy: {mode: replicated-job, replicas: 5000}', 'can have 1000 completions'],
    ['deploy: {mode: replicated-job}\nx-rubato: {scale: {max: 3}}', 'a job does not scale'],
    ['x-rubato: {job: {overlap: skip}}', 'overlap means nothing without "cron"'],
    ['x-rubato: {job: {cron: "0 25 * * *"}}', 'column 3: "25" is no hour (hour is 0–23)'],
    ['x-rubato: {job: {cron: "0 0 30 2 *"}}', 'never matches'],
    ['x-rubato: {job: {cron: "@daily", timeZone: Europe/Berln}}', 'did you mean "Europe/Berlin"?'],
    ['x-rubato: {job: {crno: "@daily"}}', 'did you mean "cron"?'],
    ['deploy: {replicas: 2}\nx-rubato: {job: {retries: 1}, singleton: strict}', 'may run several times at once'],
  ])('refuses %s', async (service, expected) => {
    const faults = await refuse(service)
    expect(faults.join('\n')).toContain(expected)
    for (const fault of faults) expect(fault).toMatch(/^\d+:\d+ \/services\/web/)
  })
})

describe('schedules and objective', () => {
  it('reads schedules; a bound that is left away is the service’s own', async () => {
    const spec = await accept(
      'x-rubato: {scale: {min: 2, max: 20, objective: {latencyP95: 200ms}, schedules: [{at: "0 8 * * mon-fri", timeZone: Europe/Berlin, min: 10}, {at: "0 20 * * *", max: 4}]}}',
    )
    expect(spec.scale?.schedules).toEqual([
      { at: '0 8 * * mon-fri', timeZone: 'Europe/Berlin', min: 10, max: 20 },
      { at: '0 20 * * *', timeZone: 'UTC', min: 2, max: 4 },
    ])
    expect(spec.scale?.objective).toEqual({ latencyP95Ms: 200 })
  })

  it.each([
    ['schedules: [{at: "0 8 * *", min: 2}]', 'has 4 fields instead of 5'],
    ['schedules: [{at: "@daily", min: 30}]', 'min (30) is not between min (1) and max (20)'],
    ['schedules: [{at: "@daily", min: 5, max: 4}]', 'min (5) is larger than max (4)'],
    ['schedules: [{at: "@daily", timezone: UTC, min: 4}]', 'did you mean "timeZone"?'],
    ['schedules: [{at: "@daily", timeZone: PST, min: 4}]', 'did you mean "America/Los_Angeles"?'],
    ['objective: {latencyP95: 200}', 'must be a duration'],
    ['objective: {latencyP95: 0s}', 'at least 1ms'],
  ])('refuses %s', async (part, expected) => {
    expect((await refuse(`x-rubato: {scale: {max: 20, ${part}}}`)).join('\n')).toContain(expected)
  })

  it('an app has at most 500 schedules and cron jobs, in a file and through the API', async () => {
    const schedules = Array.from({ length: 50 }, (_, minute) => `{at: "${minute} * * * *", min: 2}`).join(', ')
    const services = Array.from(
      { length: 11 },
      (_, index) => `  s${index}: {image: app, x-rubato: {scale: {max: 20, schedules: [${schedules}]}}}`,
    ).join('\n')
    const text = `services:\n${services}\n`
    const result = await readApp({ text, fileName: '/srv/shop/compose.yaml', environment: {}, readFile: async () => null })
    expect(JSON.stringify(result)).toContain('550 schedules and cron jobs; at most 500')
    const many = { services: Array.from({ length: 501 }, () => ({ job: { cron: {} } })) }
    expect(checkBounds(many)).toMatchObject([{ path: '/services' }])
    expect([checkBounds(undefined), checkBounds(null), checkBounds({ services: 'x' })]).toEqual([[], [], []])
  })

  it('the API holds the same of a spec that no file made', async () => {
    const spec = await accept('deploy: {mode: replicated-job}\nx-rubato: {job: {cron: "@daily"}}')
    const { warned: _warned, ...service } = spec
    const bad = {
      name: 'shop',
      services: [{ ...service, job: { ...service.job, cron: { ...service.job?.cron, at: '61 * * * *' } } }],
    }
    expect(appSpecSchema.safeParse(bad).success).toBe(false)
    const restarting = {
      ...service,
      unit: {
        ...service.unit,
        containers: service.unit.containers.map((c) => ({ ...c, restart: { ...c.restart, condition: 'any' as const } })),
      },
    }
    expect(checkAppSpec({ name: 'shop', services: [restarting] }).faults.map((fault) => fault.path)).toContain(
      '/services/0/unit/containers/0/restart/condition',
    )
  })
})

describe('reserved disk', () => {
  it.each([
    ['10G', 10 * 2 ** 30],
    ['1.5gb', 1.5 * 2 ** 30],
    ['500MiB', 500 * 2 ** 20],
    ['0b', undefined],
  ])('of %s is %s bytes', async (disk, bytes) => {
    expect((await accept(`x-rubato: {disk: ${disk}}`)).placement.diskBytes).toBe(bytes)
  })

  it.each(['10', '"10 apples"', '-1G'])('of %s is refused', async (disk) => {
    expect((await refuse(`x-rubato: {disk: ${disk}}`)).join('\n')).toMatch(/disk must be a size such as "10G"/)
  })
})

describe('a named scheduler', () => {
  it('is read as it is written; without one the field is absent', async () => {
    expect((await accept('x-rubato: {scheduler: gpu-first}')).placement.scheduler).toBe('gpu-first')
    expect('scheduler' in (await accept('deploy: {replicas: 2}')).placement).toBe(false)
  })

  it.each([
    ['x-rubato: {scheduler: "GPU first"}', 'must be the name of a scheduler'],
    ['x-rubato: {schedular: gpu-first}', 'did you mean "scheduler"?'],
    ['deploy: {mode: global}\nx-rubato: {scheduler: gpu-first}', 'a global service runs on every node'],
    ['deploy: {mode: global-job}\nx-rubato: {scheduler: gpu-first}', 'a global service runs on every node'],
  ])('is refused in %s', async (service, expected) => {
    expect((await refuse(service)).join('\n')).toContain(expected)
  })

  it('of a global service is refused by the API too', async () => {
    const { warned: _warned, ...service } = await accept('deploy: {mode: global}')
    const bad = { ...service, placement: { ...service.placement, scheduler: 'gpu-first' } }
    expect(checkAppSpec({ name: 'shop', services: [bad] }).faults.map((fault) => fault.path)).toEqual([
      '/services/0/placement/scheduler',
    ])
  })
})
