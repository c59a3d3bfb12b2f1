import { describe, expect, it } from 'vitest'
import { specHashOf } from '../../shared/canonical.ts'
import { aContainerSpec, anAppSpec, aScale, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { checkAppSpec } from './check-app-spec.ts'
import { describeApp, diffApps, formatReservation } from './dry-run.ts'

const NOW = Date.UTC(2026, 10, 29, 20, 0)

describe('describing an app', () => {
  it('tells when a job runs and what must complete, the bounds that change by the clock, and the objective', () => {
    const cron = { at: '30 2 * * *', timeZone: 'Europe/Berlin', overlap: 'skip' } as const
    const job = { completions: 3, parallelism: 2, retries: 1, deadlineMs: null }
    const schedules = [{ at: '0 8 * * 1-5', timeZone: 'UTC', min: 3, max: 9 }]
    const app = anAppSpec({
      services: [
        aServiceSpec({ name: 'report', replicas: 3, job: { ...job, cron } }),
        aServiceSpec({ name: 'migrate', replicas: 3, job }),
        aServiceSpec({ scale: { ...aScale({ min: 1, max: 9 }), schedules, objective: { latencyP95Ms: 200 } } }),
      ],
    })
    expect(describeApp(app, NOW)).toMatchObject([
      { count: 'job, 3', runs: 'at "30 2 * * *" Europe/Berlin, next 2026-11-30T01:30Z', scale: '' },
      { count: 'job, 3', runs: 'once' },
      { count: '1–9', runs: '', scale: 'custom 60–80 %, p95 ≤ 200 ms', schedules: ['3–9 at "0 8 * * 1-5" UTC'] },
    ])
    expect(diffApps(null, app).map(({ message }) => message)).toEqual([
      '3 × shop/web:1 will run to their end, at "30 2 * * *" Europe/Berlin',
      '3 × shop/web:1 will run to their end, once',
      '1–9 × shop/web:1 will be started; by custom 60–80 %, p95 ≤ 200 ms; 3–9 at "0 8 * * 1-5" UTC',
    ])
  })

  it('gives one row per service', () => {
    const published = [{ port: 8080, containerPort: 80, protocol: 'http', mode: 'ingress' }] as const
    const service = aServiceSpec({
      scale: aScale({ min: 1, max: 40 }),
      unit: aUnitSpec({
        published,
        ports: [
          { containerPort: 80, protocol: 'http' },
          { containerPort: 90, protocol: 'tcp' },
        ],
      }),
      published,
      dependsOn: [{ service: 'db', condition: 'healthy', required: true }],
    })
    const [row] = describeApp(anAppSpec({ services: [service] }), NOW)
    expect(row).toMatchObject({
      count: '1–40',
      ports: ['8080→80/http', '90/tcp'],
      access: 'any key',
      scale: 'custom 60–80 %',
      dependsOn: ['db (healthy)'],
    })
    expect(row && formatReservation(row)).toBe('0.1 CPU, 64 MiB')
    const storing = { cpuMillis: 0, memoryBytes: 0, diskBytes: 10 * 2 ** 30 }
    expect(formatReservation(storing)).toBe('10 GiB disk')
    const tcp = aServiceSpec({ unit: aUnitSpec({ ports: [{ containerPort: 5432, protocol: 'tcp' }] }) })
    expect(describeApp(anAppSpec({ services: [tcp] }), NOW)[0]?.access).toBe('no keys (not http)')
  })
})

describe('the difference of two versions', () => {
  const withImage = (image: string) => aServiceSpec({ unit: aUnitSpec({ containers: [aContainerSpec({ image })] }) })

  it('is empty when nothing changes', () => {
    expect(diffApps(anAppSpec(), anAppSpec())).toEqual([])
  })

  it('says what is created, replaced, adjusted and removed, and why', () => {
    const before = anAppSpec({ services: [withImage('a:1'), aServiceSpec({ name: 'rules' }), aServiceSpec({ name: 'old' })] })
    const after = anAppSpec({
      services: [withImage('a:2'), aServiceSpec({ name: 'rules', replicas: 3 }), aServiceSpec({ name: 'new' })],
    })
    expect(diffApps(before, after)).toMatchObject([
      { service: 'web', kind: 'replace', fields: [{ path: 'unit.containers[0].image', before: 'a:1', after: 'a:2' }] },
      { service: 'rules', kind: 'adjust', fields: [{ path: 'replicas', before: '1', after: '3' }] },
      { service: 'new', kind: 'create' },
      { service: 'old', kind: 'remove' },
    ])
    expect(diffApps(null, after).map((change) => change.kind)).toEqual(['create', 'create', 'create'])
  })

  it('never shows values of the environment or of carried files', () => {
    const withSecret = (value: string, isFile: boolean) =>
      aServiceSpec({
        unit: aUnitSpec({
          containers: [
            aContainerSpec({
              environment: { P: value },
              files: isFile ? [{ target: '/s', mode: 0o444, contentBase64: value, secret: true }] : [],
            }),
          ],
        }),
      })
    const changes = diffApps(
      anAppSpec({ services: [withSecret('hunter2', false)] }),
      anAppSpec({ services: [withSecret('hunter3', true)] }),
    )
    expect(changes[0]?.kind).toBe('replace')
    expect(JSON.stringify(changes)).not.toMatch(/hunter/)
    const added = diffApps(
      anAppSpec({ services: [withImage('a:1')] }),
      anAppSpec({
        services: [
          aServiceSpec({
            unit: aUnitSpec({ containers: [aContainerSpec(), aContainerSpec({ name: 'side', environment: { P: 'hunter4' } })] }),
          }),
        ],
      }),
    )
    expect(JSON.stringify(added)).not.toMatch(/hunter/)
  })
})

describe('specs that come in through the API', () => {
  it('are refused when they contradict themselves', () => {
    const check = checkAppSpec(
      anAppSpec({
        services: [
          aServiceSpec({ specHash: '0'.repeat(16), dependsOn: [{ service: 'none', condition: 'started', required: true }] }),
          aServiceSpec({ replicas: 9, scale: aScale({ max: 3 }) }),
        ],
      }),
    )
    expect(check.faults.map((fault) => fault.path)).toEqual([
      '/services',
      '/services/0/specHash',
      '/services/0/dependsOn/0/service',
      '/services/1/replicas',
    ])
  })

  it('are forbidden what the policy does not allow, however a path is spelt', () => {
    const sources = [
      ...['/', '//', '/var/run/docker.sock', '/srv/../etc', '/etc/', 'relative', '/srv/./x', '/var', '/var/lib', '/var/lib/'],
      // What gives root, or the node's and the cluster's credentials.
      ...['/var/lib/docker/volumes', '/var/lib/rubato', '/var/lib/rubato-agent/identity.json', '/var/lib/cloud', '/var/spool'],
      ...['/var/spool/cron/crontabs', '/var/lib/systemd', '/run/docker.sock', '/proc/1/root', '/home', '/root/.ssh'],
    ]
    const mounts = sources.map((source) => ({
      kind: 'bind' as const,
      source,
      target: '/x',
      readOnly: true,
    }))
    const unit = aUnitSpec({
      containers: [aContainerSpec({ mounts, capAdd: ['CAP_SYS_ADMIN'], privileged: true, hostNetwork: true })],
    })
    const spec = anAppSpec({ services: [aServiceSpec({ unit, specHash: specHashOf(unit) })] })
    expect(checkAppSpec(spec).forbidden).toHaveLength(mounts.length + 3)
    expect(checkAppSpec(spec, { allowPrivileged: true, allowHostMounts: true, allowHostNetwork: true }).forbidden).toEqual([])
  })
})
