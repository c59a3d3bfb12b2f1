import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import type { InstanceStatus } from '../../shared/model/observation.ts'
import { aContainerSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { catalogBackendContract } from '../../test/contracts/catalog-backend-contract.ts'
import { fakeCatalogBackend } from '../../test/fakes/fake-catalog-backend.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import type { ForeignContainer } from '../runtime/runtime.ts'
import { foreignRegistrations, type ManagedInstance } from './plan-registrations.ts'
import { createRegistrar } from './registrar.ts'

const node = { hostname: 'h1', address: '10.0.0.1', registerUnlabelled: false }
const ready: InstanceStatus = {
  instance: 'shop/web/1/1',
  specHash: 'x',
  phase: 'ready',
  healthy: true,
  restarts: 0,
  crashLooping: false,
  ports: [{ containerPort: 80, protocol: 'http', gatewayPort: 20001 }],
  startedAtMs: 1,
  readyAtMs: 2,
  containerId: 'c1',
  message: '',
}
const unit = aUnitSpec({ containers: [aContainerSpec({ name: 'web' })] })
const other: ForeignContainer = {
  id: '0123456789abcdef',
  name: 'redis1',
  image: 'redis:7',
  labels: { SERVICE_NAME: 'cache', SERVICE_CHECK_HTTP: '/ping', SERVICE_CHECK_INTERVAL: '5s' },
  environment: [],
  address: '172.17.0.2',
  ports: [{ containerPort: 6379, protocol: 'tcp', hostIp: '0.0.0.0', hostPort: 32770 }],
  running: true,
  healthy: null,
}

function bed() {
  const clock = virtualClock()
  const backend = fakeCatalogBackend()
  const managed: ManagedInstance[] = []
  const foreign: ForeignContainer[] = []
  const levers = { engineDown: false }
  const make = () =>
    createRegistrar({
      backend,
      node,
      clock,
      logger: silentLogger(),
      managed: () => managed,
      foreign: async () => {
        if (levers.engineDown) throw new Error('engine down')
        return foreign
      },
      onForeign: () => {},
    })
  return { clock, backend, managed, foreign, levers, make }
}

describe('fake catalog backend', () => {
  catalogBackendContract(async () => {
    const backend = fakeCatalogBackend()
    return { backend, stateOf: async (id) => backend.services.get(id)?.state ?? null }
  })
})

describe('registrar', () => {
  it('registers an instance when it is ready, not before', async () => {
    const { clock, backend, managed, make } = bed()
    managed.push({ status: { ...ready, phase: 'starting' }, unit })
    const registrar = make()
    registrar.start()
    await clock.advance(100)
    expect(backend.services.size).toBe(0)
    managed[0] = { status: ready, unit }
    registrar.poke()
    await clock.advance(100)
    expect(backend.services.get('h1:shop.web.1.1:80')).toMatchObject({
      name: 'web',
      address: '10.0.0.1',
      port: 20001,
      state: 'passing',
      tags: ['shop'],
    })
    await registrar.stop()
    expect(clock.pendingTimers).toBe(0)
  })
  it('takes an instance out before withdraw resolves, and keeps it out though it still runs', async () => {
    const { clock, backend, managed, make } = bed()
    managed.push({ status: ready, unit })
    const registrar = make()
    registrar.start()
    await clock.advance(100)
    await registrar.withdraw(ready.instance)
    expect(backend.services.size).toBe(0)
    await clock.advance(60_000)
    expect(backend.services.size).toBe(0)
    await registrar.stop()
  })
  it('does not hold up a stop for a catalog that is away', async () => {
    const { clock, backend, managed, make } = bed()
    managed.push({ status: ready, unit })
    const registrar = make()
    registrar.start()
    await clock.advance(100)
    backend.down = true
    await registrar.withdraw(ready.instance)
    backend.down = false
    managed.pop()
    await clock.advance(60_000)
    expect(backend.services.size).toBe(0)
    await registrar.stop()
  })
  it('row 48: registers again within a minute what a wiped Consul lost', async () => {
    const { clock, backend, managed, make } = bed()
    managed.push({ status: ready, unit })
    const registrar = make()
    registrar.start()
    await clock.advance(100)
    backend.wipe()
    await clock.advance(60_000)
    expect(backend.services.size).toBe(1)
    await registrar.stop()
  })
  it('row 48: removes at its start what a killed agent left behind', async () => {
    const { clock, backend, managed, make } = bed()
    await backend.register({
      id: 'h1:shop.web.9.1:80',
      name: 'web',
      address: '10.0.0.1',
      port: 20009,
      tags: [],
      meta: {},
      check: null,
    })
    managed.push({ status: ready, unit })
    const registrar = make()
    registrar.start()
    await clock.advance(100)
    expect([...backend.services.keys()]).toEqual(['h1:shop.web.1.1:80'])
    await registrar.stop()
  })
  it('keeps an unhealthy instance registered, as critical', async () => {
    const { clock, backend, managed, make } = bed()
    managed.push({ status: { ...ready, healthy: false }, unit })
    const registrar = make()
    registrar.start()
    await clock.advance(100)
    expect(backend.services.get('h1:shop.web.1.1:80')?.state).toBe('critical')
    await registrar.stop()
  })
  it('row 19: keeps registrations of others while the engine does not answer', async () => {
    const { clock, backend, foreign, levers, make } = bed()
    foreign.push(other)
    const registrar = make()
    registrar.start()
    await clock.advance(100)
    levers.engineDown = true
    await clock.advance(60_000)
    expect(backend.services.has('h1:redis1:6379')).toBe(true)
    foreign.pop()
    levers.engineDown = false
    await clock.advance(60_000)
    expect(backend.services.size).toBe(0)
    await registrar.stop()
  })
})

describe('containers of others', () => {
  it('are registered by their labels with the native check', () => {
    expect(foreignRegistrations(other, node)).toMatchObject([
      {
        id: 'h1:redis1:6379',
        name: 'cache',
        address: '10.0.0.1',
        port: 32770,
        check: { kind: 'http', url: 'http://10.0.0.1:32770/ping', intervalMs: 5000 },
      },
    ])
  })
  it('get a TTL check from their own HEALTHCHECK where no label asks for one', () => {
    const container = { ...other, labels: { SERVICE_NAME: 'cache' }, healthy: false }
    expect(foreignRegistrations(container, node)).toMatchObject([
      { check: { kind: 'ttl' }, initialStatus: 'critical', passing: false },
    ])
  })
  it('without labels are registered only when the node is told to', () => {
    const bare = { ...other, labels: {} }
    expect(foreignRegistrations(bare, node)).toEqual([])
    expect(foreignRegistrations(bare, { ...node, registerUnlabelled: true })).toMatchObject([{ name: 'redis' }])
  })
  it('that publish nothing are not registered', () => {
    expect(
      foreignRegistrations({ ...other, ports: [{ containerPort: 6379, protocol: 'tcp', hostIp: null, hostPort: null }] }, node),
    ).toEqual([])
  })

  it('row 48: a registration with a native check is missed and made again when Consul lost it', async () => {
    const { clock, backend, foreign, make } = bed()
    foreign.push(other)
    const registrar = make()
    registrar.start()
    await clock.advance(100)
    expect(backend.services.size).toBe(1)
    backend.wipe()
    await clock.advance(25_000)
    expect([...backend.services.values()].map((service) => service.name)).toEqual(['cache'])
    await registrar.stop()
  })

  it('an engine that hangs does not keep heartbeats from going out', async () => {
    const { clock, backend, managed } = bed()
    managed.push({ status: ready, unit })
    const registrar = createRegistrar({
      backend,
      node,
      clock,
      logger: silentLogger(),
      managed: () => managed,
      foreign: () => new Promise(() => {}),
      onForeign: () => {},
    })
    registrar.start()
    await clock.advance(100_000)
    const beats = backend.calls.filter((call) => call.startsWith('heartbeat')).length
    expect(beats).toBeGreaterThanOrEqual(6)
    await registrar.stop()
  })

  it('containers of others are told of without delay while Consul is away', async () => {
    const { clock, backend, foreign, make } = bed()
    backend.down = true
    const registrar = make()
    registrar.start()
    await clock.advance(60_000)
    foreign.push(other)
    registrar.poke()
    await clock.advance(50)
    expect(registrar.foreignServices().map((service) => service.name)).toEqual(['cache'])
    backend.down = false
    await clock.advance(15_000)
    expect(backend.services.size).toBe(1)
    await registrar.stop()
  })

  it('a burst of pokes does not repeat heartbeats; a changed state is told at once', async () => {
    const { clock, backend, managed, make } = bed()
    managed.push({ status: ready, unit })
    const registrar = make()
    registrar.start()
    await clock.advance(100)
    const beats = () => backend.calls.filter((call) => call.startsWith('heartbeat')).length
    const before = beats()
    for (let round = 0; round < 20; round += 1) {
      registrar.poke()
      await clock.advance(20)
    }
    expect(beats()).toBe(before)
    managed[0] = { status: { ...ready, healthy: false }, unit }
    registrar.poke()
    await clock.advance(20)
    expect([...backend.services.values()][0]?.state).toBe('critical')
    await registrar.stop()
  })

  it('an instance is withdrawn also when its ports are not known any more, and when no pass has run yet', async () => {
    const { clock, backend, managed, make } = bed()
    managed.push({ status: ready, unit })
    const first = make()
    first.start()
    await clock.advance(100)
    managed[0] = { status: { ...ready, phase: 'draining', ports: [] }, unit }
    await first.withdraw(ready.instance)
    expect(backend.services.size).toBe(0)
    await first.stop()

    managed[0] = { status: ready, unit }
    const second = make()
    second.start()
    await clock.advance(100)
    await second.stop()
    expect(backend.services.size).toBe(1)
    await make().withdraw(ready.instance)
    expect(backend.services.size).toBe(0)
  })

  it('two containers that claim one id do not replace each other for ever', async () => {
    const { clock, backend, foreign, make } = bed()
    const claim = { ...other, labels: { ...other.labels, SERVICE_ID: 'same' } }
    foreign.push(claim, { ...claim, id: 'another', name: 'redis2', ports: [{ ...claim.ports[0], hostPort: 32771 } as never] })
    const registrar = make()
    registrar.start()
    await clock.advance(60_000)
    expect(backend.calls.filter((call) => call.startsWith('register'))).toHaveLength(1)
    await registrar.stop()
  })

  it('an engine that does not answer at the start costs containers of others nothing', async () => {
    const { clock, backend, foreign, levers, make } = bed()
    foreign.push(other)
    const first = make()
    first.start()
    await clock.advance(100)
    await first.stop()
    levers.engineDown = true
    const second = make()
    second.start()
    await clock.advance(60_000)
    expect(backend.services.size).toBe(1)
    foreign.length = 0
    levers.engineDown = false
    await clock.advance(15_000)
    expect(backend.services.size).toBe(0)
    await second.stop()
  })
})
