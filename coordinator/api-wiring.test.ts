import { describe, expect, it } from 'vitest'
import { anAppSpec, aServiceSpec } from '../test/builders/specs.ts'
import { memoryFiles } from '../test/fakes/memory-files.ts'
import { memoryStore } from '../test/fakes/memory-store.ts'
import { virtualClock } from '../test/fakes/virtual-clock.ts'
import { ConflictError } from '../shared/errors.ts'
import { randomIds } from '../shared/ids.ts'
import { silentLogger } from '../shared/logger.ts'
import { seededRandom } from '../shared/random.ts'
import { apiDeps } from './api-wiring.ts'
import { createCoordinator } from './coordinator.ts'

async function wired() {
  const clock = virtualClock()
  const random = seededRandom(1)
  const ids = randomIds(random)
  const logger = silentLogger()
  const coordinator = await createCoordinator(
    {
      store: memoryStore(),
      clock,
      random,
      ids,
      logger,
      files: memoryFiles(),
      providers: new Map(),
      userData: () => Promise.resolve(''),
    },
    {
      stateDir: '/state',
      pools: [],
      hub: {},
      fleet: {},
      fleetEnabled: false,
      strategy: 'spread',
      forecastTimeZone: 'UTC',
      caDigest: null,
      urls: [],
    },
  )
  const noBinary = () => Promise.resolve(null)
  const wiring = {
    coordinator,
    clock,
    ids,
    logger,
    caPem: null,
    installScript: '',
    agentBinary: noBinary,
    offeredPrice: () => null,
    operatorMaxPriority: 90,
    extraMetrics: () => '',
  }
  return { coordinator, apps: apiDeps(wiring).apps }
}

const deploy = (image: string, ifRevision: number | null) => ({
  spec: anAppSpec({ services: [aServiceSpec({ specHash: image })] }),
  source: '',
  actor: 'operator:ann',
  ifRevision,
})

describe('operations on apps behind the API', () => {
  it('of two deploys at once onto the same revision one is refused, not laid over the other', async () => {
    const { apps, coordinator } = await wired()
    await apps.deploy(deploy('v1', null))
    const outcomes = await Promise.allSettled([apps.deploy(deploy('v2', 1)), apps.deploy(deploy('v3', 1))])
    const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []))
    expect(refused).toHaveLength(1)
    expect(refused[0]).toBeInstanceOf(ConflictError)
    expect(coordinator.state.snapshot.get('app', 'shop')?.revision).toBe(2)
  })

  it('a port that another app publishes is refused by name, in a dry run too, until that app goes', async () => {
    const { apps } = await wired()
    const published = [{ port: 8080, containerPort: 80, protocol: 'http', mode: 'ingress' }] as const
    const appNamed = (name: string) => ({
      ...deploy('v1', null),
      spec: anAppSpec({ name, services: [aServiceSpec({ published })] }),
    })
    await apps.deploy(appNamed('shop'))
    await apps.deploy(appNamed('shop'))
    const refused = { faults: [{ message: 'port 8080/tcp of two/web is already published by shop/web' }] }
    await expect(apps.deploy(appNamed('two'))).rejects.toMatchObject(refused)
    await expect(apps.preview(appNamed('two'))).rejects.toMatchObject(refused)
    await apps.remove('shop', 'operator:ann')
    await expect(apps.deploy(appNamed('two'))).resolves.toMatchObject({ changed: true })
  })

  it('without a revision the later of two deploys wins', async () => {
    const { apps, coordinator } = await wired()
    await Promise.all(['v1', 'v2', 'v3'].map((image) => apps.deploy(deploy(image, null))))
    expect(coordinator.state.snapshot.get('app', 'shop')?.revision).toBe(3)
  })
})
