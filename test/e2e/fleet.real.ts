/**
 * The fleet on real engines: one host of its own and machines of an `exec` provider, each with its own Docker engine, joined by
 * their user data alone. A node takes one instance, so counts say how many machines there must be. The cloud is made slow and made
 * to fail; fleet-faults.real.ts kills whoever takes part. Tests run in order and build on each other; figures are printed as
 * `figure: …`.
 */
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ClusterBed, type Footprint, figure, say, startClusterBed, WORKER_IMAGE } from '../lab/cluster-bed.ts'
import type { Host } from '../lab/hosts.ts'
import { isRootOnDebian } from '../lab/packages.ts'

const WEB = 'shop/web'

describe.skipIf(!isRootOnDebian())('the fleet, machines with engines of their own', { timeout: 240_000 }, () => {
  let bed: ClusterBed
  let before: Footprint

  beforeAll(async () => {
    const pool = (name: string, priceUsdPerHour: number) => ({
      name,
      provider: 'lab',
      offering: 'small',
      priceUsdPerHour,
      max: 8,
    })
    bed = await startClusterBed({
      id: 'rbfl',
      net: '10.91.6',
      bridgeNet: '10.94',
      hosts: 1,
      offerings: { small: { cpus: 1, memory: '1G', slots: 50 } },
      settings: {
        budgetUsdPerMonth: 50,
        liveness: { heartbeat: '1s', suspect: '6s', lost: '20s', unknownFor: '60s', reportInterval: '1s' },
        fleet: {
          minNodeAge: '3s',
          downInterval: '1s',
          reapInterval: '2s',
          takeover: '2s',
          orphanGrace: '4s',
          entrySettle: '8s',
          capacityCoolDown: '10m',
          maxParallelDrains: 4,
          // The pace of these machines is the test's own: a busy test machine must not look like a slow cloud.
          slowBootFactor: 0,
          rebalance: { maxMovesPerHour: 0 },
        },
        pools: [pool('cheap', 0.02), pool('dear', 0.03), pool('gold', 100)],
      },
    })
    const [own] = bed.lab.hosts as [Host]
    await bed.join(own, { cpus: 1, memory: '1G' })
    await bed.until(async () => (await bed.liveNodes()).length === 1, 'the first node')
    before = await bed.footprint()
    await bed.up('shop', webFile())
    await bed.until(async () => (await bed.service(WEB)).loadPercent !== null, 'a load to be known')
  })

  afterAll(() => bed?.stop())

  it('V10: load rises, no node has room: a machine is bought, joins by its user data, and the extra instance is ready', async () => {
    const jumpedAt = performance.now()
    bed.dial.set(WEB, 95)
    await bed.until(() => bed.cloud.calls.some((call) => call.startsWith('create')), 'the order', 60_000, 20)
    const orderedAt = performance.now()
    await bed.until(async () => (await bed.liveNodes()).length === 2, 'the machine to join', 120_000, 50)
    const joinedAt = performance.now()
    await bed.until(async () => (await bed.service(WEB)).ready === 2, 'the extra instance', 60_000, 50)
    const readyAt = performance.now()
    figure('load jump → machine ordered', jumpedAt, orderedAt)
    figure('its own boot: order → host up with its engine and user data → joined', orderedAt, joinedAt)
    figure('joined → the extra instance is ready', joinedAt, readyAt)
    figure('load jump → extra instance ready, VM-bound', jumpedAt, readyAt)
    await bed.scale(WEB, 2)
  })

  it('a burst that needs two machines buys two, once, however long the cloud takes to answer', async () => {
    const open = bed.cloud.hold('asked')
    const startedAt = performance.now()
    await bed.scale(WEB, 4)
    await bed.until(() => creates().length === 3, 'two orders to reach the cloud')
    // Several passes of the fleet go by while the cloud says nothing.
    const lists = bed.cloud.calls.filter((call) => call.startsWith('list')).length
    await bed.until(
      () => bed.cloud.calls.filter((call) => call.startsWith('list')).length >= lists + 2,
      'two more looks at the cloud',
    )
    expect((await bed.events('machine.requested')).length).toBe(3)
    expect(await bed.cli('explain', WEB)).toMatch(/waits for machine m-/)
    open()
    await bed.until(async () => (await bed.service(WEB)).ready === 4, 'the burst to run', 120_000)
    figure('burst of two → both run', startedAt)
    expect((await bed.events('machine.requested')).length).toBe(3)
    expect(bed.cloud.machines.length).toBe(3)
  })

  it('row 9: a pool without capacity rests, the next one is bought from, and the failed order is not repeated', async () => {
    bed.cloud.levers.odd.set('cheap', { kind: 'refuses', exit: 10, message: 'sold out' })
    const before = creates().length
    const startedAt = performance.now()
    await bed.scale(WEB, 5)
    await bed.until(async () => (await bed.service(WEB)).ready === 5, 'the instance to run', 120_000)
    figure('cheap pool sold out → instance runs on the next pool', startedAt)
    expect(creates().length - before, 'one order refused, one carried out').toBe(2)
    expect(bed.cloud.machines.at(-1)?.pool).toBe('dear')
    const [rest] = await bed.events('pool.cooling-down')
    expect(rest?.message).toMatch(/cheap rests for .* sold out/)
    bed.cloud.levers.odd.clear()
  })

  it('M6: beyond the budget nothing is bought; the event and explain give the sum', async () => {
    const before = creates().length
    await bed.up('gold', goldFile(), false)
    await bed.until(async () => (await bed.events('fleet.budget-reached')).length === 1, 'the refusal')
    const sum = /one more gold \(\$100\.00\) would bring this month to \$\d+\.\d\d, over the budget of \$50\.00/
    expect((await bed.events('fleet.budget-reached'))[0]?.message).toMatch(sum)
    expect(await bed.cli('explain', 'gold/web')).toMatch(sum)
    expect(creates().length).toBe(before)
    await bed.cli('down', 'gold')
    await bed.until(async () => (await bed.instances()).length === 5, 'it to be gone')
  })

  it('returning demand takes back the node that is being given back, and buys nothing', async () => {
    const before = creates().length
    await bed.scale(WEB, 4)
    await bed.until(async () => (await leaving()).length === 1, 'a node to be given back', 90_000, 50)
    const [back] = await leaving()
    const startedAt = performance.now()
    await bed.scale(WEB, 5)
    await bed.until(
      async () => (await bed.service(WEB)).ready === 5 && (await leaving()).length === 0,
      'all to run again',
      90_000,
      50,
    )
    figure('demand returns → runs on the node taken back', startedAt)
    expect((await bed.liveNodes()).some((node) => node.id === back?.id)).toBe(true)
    expect((await bed.events('node.activated')).some((event) => event.subject === back?.id)).toBe(true)
    expect(creates().length).toBe(before)
    expect((await bed.machines()).filter((machine) => machine.phase === 'joined').length).toBe(4)
  })

  it('V11: demand falls: everything moves to one node, every machine is given back, and nothing is left of them', async () => {
    const startedAt = performance.now()
    await bed.scale(WEB, 1)
    await bed.until(async () => (await bed.machines()).length === 0, 'every machine to be gone', 180_000)
    figure('demand falls from five to one → one node, four machines gone', startedAt)
    await bed.until(async () => (await bed.instances()).every((one) => one.routable), 'the last instance', 60_000)
    expect((await bed.instances()).length).toBe(1)
    expect((await bed.liveNodes()).length).toBe(1)
    expect(bed.cloud.machines.every((machine) => machine.deleted && !machine.host.running)).toBe(true)
    // One for the jump, two for the burst, one that its pool had sold out and the one that stood in for it.
    expect((await bed.events('machine.requested')).length).toBe(5)
    say(
      `figure: machines ordered: ${(await bed.events('machine.requested')).length}, made: ${bed.cloud.machines.length}, left: 0`,
    )
  })

  it('when the app is gone too, nothing is left: machines, namespaces, containers, networks, rules and processes are as before it came', async () => {
    await bed.cli('down', 'shop')
    await bed.until(async () => (await bed.instances()).length === 0, 'the app to be gone')
    await bed.until(async () => isDeepStrictEqual(await bed.footprint(), before), 'no trace of it', 15_000).catch(() => undefined)
    expect(await bed.footprint()).toEqual(before)
  })

  /* ---- what the tests are made of ---- */

  const webFile = () => `services:
  web:
    image: ${WORKER_IMAGE}
    command: ["/usr/bin/node", "/app.mjs"]
    environment: { DIAL: "${bed.dial.url}" }
    expose: ["8080"]
    stop_grace_period: 2s
    healthcheck: { interval: 1s, timeout: 5s, retries: 5, start_period: 30s, start_interval: 200ms }
    deploy: { placement: { max_replicas_per_node: 1 }, resources: { reservations: { cpus: "0.2", memory: 64M } } }
    x-rubato:
      health: { http: /health }
      scale: { min: 1, max: 8, load: custom, window: 3s, predict: off }
      drain: 1s
`
  const goldFile = () => `services:
  web:
    image: ${WORKER_IMAGE}
    command: ["/usr/bin/node", "/app.mjs"]
    deploy: { resources: { reservations: { cpus: "0.2", memory: 64M } } }
    x-rubato: { pools: [gold] }
`

  const creates = () => bed.cloud.calls.filter((call) => call.startsWith('create'))
  const leaving = async () => (await bed.nodes()).filter((one) => one.availability !== 'active')
})
