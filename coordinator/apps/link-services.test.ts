import { describe, expect, it } from 'vitest'
import { accept, acceptOne, main, refuse, refuseOne } from '../../test/builders/app-files.ts'

describe('health, restarts, dependencies, sidecars', () => {
  it('reads health checks with Compose defaults', async () => {
    expect(main(await acceptOne('healthcheck: {test: "curl -f localhost"}')).health).toEqual({
      probe: { kind: 'exec', argv: ['/bin/sh', '-c', 'curl -f localhost'] },
      intervalMs: 30_000,
      timeoutMs: 30_000,
      retries: 3,
      startPeriodMs: 0,
      startIntervalMs: 5_000,
    })
    expect(main(await acceptOne('healthcheck: {test: [CMD, pg_isready], interval: 1m30s}')).health).toMatchObject({
      probe: { argv: ['pg_isready'] },
      intervalMs: 90_000,
    })
    expect(main(await acceptOne('healthcheck: {test: [NONE]}')).health).toBeUndefined()
    expect(main(await acceptOne('healthcheck: {disable: true}')).health).toBeUndefined()
    expect(
      main(await acceptOne('expose: [80]\nhealthcheck: {interval: 2s}\nx-rubato: {health: {http: /ok}}')).health,
    ).toMatchObject({ probe: { kind: 'http', port: 80, path: '/ok' }, intervalMs: 2_000 })
    expect((await refuseOne('healthcheck: {test: a, interval: 30}')).hint).toBe('write "30s" for seconds')
  })

  it('reads restart policies; what others wait for may end', async () => {
    const conditionOf = async (service: string) => main(await acceptOne(service)).restart
    expect((await conditionOf('restart: "no"')).condition).toBe('none')
    expect((await conditionOf('restart: no')).condition).toBe('none')
    expect(await conditionOf('restart: on-failure:3')).toMatchObject({ condition: 'on-failure', maxAttempts: 3 })
    expect(await conditionOf('deploy: {restart_policy: {condition: on-failure, delay: 5s, window: 2m}}')).toMatchObject({
      condition: 'on-failure',
      delayMs: 5_000,
      windowMs: 120_000,
    })
    const { app } = await accept(
      'services: {web: {image: "a:1", depends_on: {init: {condition: service_completed_successfully}}}, init: {image: "b:1"}}',
    )
    expect(app.services.map((service) => main(service).restart.condition)).toEqual(['any', 'on-failure'])
  })

  it('refuses circles, unknown services, and those left out for their profile', async () => {
    expect(
      (
        await refuse(
          'services: {a: {image: "a:1", depends_on: [b]}, b: {image: "a:1", depends_on: [c]}, c: {image: "a:1", links: [a]}}',
        )
      )[0]?.message,
    ).toMatch(/circle: a → b → c → a/)
    expect((await refuseOne('depends_on: [wbe]')).hint).toBe('did you mean "web"?')
    const text = 'services: {web: {image: "a:1", depends_on: [dbg]}, dbg: {image: "b:1", profiles: [debug]}}'
    expect((await refuse(text))[0]?.message).toMatch(/left out/)
    expect((await accept(text, { profiles: ['debug'] })).app.services).toHaveLength(2)
    expect(
      (await accept(text.replace('[dbg]', '{dbg: {condition: service_started, required: false}}'))).app.services,
    ).toHaveLength(1)
  })

  it('a service in the network of another becomes its sidecar', async () => {
    const { app } = await accept(
      'services:\n  web: {image: "a:1", ports: ["80:80"], mem_reservation: 64m, depends_on: [proxy]}\n  proxy: {image: "p:1", network_mode: "service:web", expose: [9000], mem_reservation: 32m, depends_on: [web, db]}\n  db: {image: "d:1", expose: [1], depends_on: {x: {condition: service_started}}}\n  x: {image: "x:1", expose: [2]}\n',
    )
    expect(app.services.map((service) => service.name)).toEqual(['web', 'db', 'x'])
    expect(app.services[0]).toMatchObject({
      dependsOn: [{ service: 'db', condition: 'started', required: true }],
      unit: {
        containers: [{ name: 'web' }, { name: 'proxy' }],
        ports: [{ containerPort: 80 }, { containerPort: 9000 }],
        reservations: { memoryBytes: 96 * 2 ** 20 },
      },
    })
  })

  it('refuses sidecars that publish, scale, or go in circles', async () => {
    expect(
      (await refuse('services: {a: {image: "a:1"}, b: {image: "a:1", network_mode: "service:a", ports: ["80:80"]}}'))[0]?.message,
    ).toMatch(/cannot publish/)
    expect(
      (await refuse('services: {a: {image: "a:1", network_mode: "service:b"}, b: {image: "a:1", network_mode: "service:a"}}'))
        .map((fault) => fault.message)
        .join(),
    ).toMatch(/circle/)
  })
})
