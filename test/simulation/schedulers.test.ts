/** Custom schedulers in a whole cluster: the real coordinator and agents, schedulers that a test drives, API and command line. */
import { describe, expect, it } from 'vitest'
import { createApi } from '../../coordinator/api/create-api.ts'
import { apiDeps } from '../../coordinator/api-wiring.ts'
import { randomIds } from '../../shared/ids.ts'
import { silentLogger } from '../../shared/logger.ts'
import { cliBed } from '../builders/cli-bed.ts'
import { aPool } from '../builders/records.ts'
import { answerTo, type TestScheduler, testScheduler } from '../builders/scheduling.ts'
import { anAppSpec, aPlacement, aServiceSpec, aUnitSpec } from '../builders/specs.ts'
import { type ClusterOptions, type SimCluster, simCluster } from './cluster.ts'

const HOUR = 3_600_000

const shop = (scheduler: string, replicas: number, others: Parameters<typeof aServiceSpec>[0][] = []) =>
  anAppSpec({
    services: [
      aServiceSpec({
        replicas,
        placement: aPlacement({ scheduler }),
        labels: { 'gpu.kind': 'a100' },
        unit: aUnitSpec({ drainMs: 500, reservations: { cpuMillis: 500, memoryBytes: 2 ** 26 } }),
      }),
      ...others.map((fields) => aServiceSpec(fields)),
    ],
  })

async function story(options: Partial<ClusterOptions>, tell: (cluster: SimCluster) => Promise<void>): Promise<void> {
  const cluster = await simCluster({ seed: 7, hosts: 3, ...options })
  try {
    await tell(cluster)
  } catch (error) {
    process.stderr.write(`${cluster.trace.tail(60)}\n`)
    throw error
  } finally {
    await cluster.stop()
  }
}

const placed = (cluster: SimCluster, service = 'shop/web') =>
  cluster
    .lead()
    .state.snapshot.instancesOf(service)
    .filter((record) => record.nodeId !== null)
const hostsOf = (cluster: SimCluster, service = 'shop/web') =>
  placed(cluster, service)
    .map((record) => cluster.lead().state.snapshot.get('node', record.nodeId ?? '')?.hostname)
    .sort()
const events = async (cluster: SimCluster, type: string) =>
  (await cluster.drive(cluster.lead().state.events({ limit: 1_000 }))).filter((event) => event.type === type)
const byHost = (scheduler: TestScheduler, verdict: (hostname: string) => object) => {
  scheduler.reply = (question) => {
    const names = new Map(question.nodes.map((node) => [node.id, node.hostname]))
    return answerTo(question, (id) => verdict(names.get(id) ?? ''))
  }
}

async function commandLine(cluster: SimCluster) {
  const coordinator = cluster.lead()
  const api = createApi(
    apiDeps({
      coordinator,
      clock: cluster.clock,
      ids: randomIds(cluster.random),
      logger: silentLogger(),
      caPem: null,
      installScript: '',
      agentBinary: async () => null,
      extraMetrics: () => '',
      offeredPrice: () => null,
      operatorMaxPriority: 90,
    }),
  )
  const { text } = await cluster.drive(
    coordinator.operatorTokens.create({ name: 'ann', role: 'admin', expiresAtMs: null, actor: 'test' }),
  )
  const bed = cliBed({ api, tokens: { admin: text, operator: text, viewer: text }, clock: cluster.clock })
  bed.columns = 400
  return { bed, run: (...argv: string[]) => cluster.drive(bed.run(...argv)) }
}

describe('a custom scheduler in a whole cluster', () => {
  it('B4: is asked once for all instances of a service, and its order, limits and rejections hold', () => {
    const scheduler = testScheduler('gpu-first')
    byHost(scheduler, (host) => (host === 'h1' ? { reject: 'too hot' } : host === 'h2' ? { score: 90, max: 2 } : { score: 10 }))
    return story({ schedulers: [scheduler] }, async (cluster) => {
      await cluster.deploy(shop('gpu-first', 5))
      await cluster.until(() => placed(cluster).length === 5, 'five are placed')
      expect(hostsOf(cluster)).toEqual(['h2', 'h2', 'h3', 'h3', 'h3'])
      expect(scheduler.questions).toHaveLength(1)
      expect(scheduler.questions[0]).toMatchObject({
        scheduler: 'gpu-first',
        dryRun: false,
        count: 5,
        leftOut: 0,
        service: { id: 'shop/web', labels: { 'gpu.kind': 'a100' }, charge: { cpuMillis: 500 } },
      })
      const { run } = await commandLine(cluster)
      const { out } = await run('explain', 'shop/web/1/1')
      expect(out).toMatch(/Its node was chosen by scheduler gpu-first with a score of (90|10)\./)
      expect((await run('explain', 'shop/web')).out).toContain('those of 5 of 5 instances were chosen by it.')
      expect((await events(cluster, 'instance.placed'))[0]?.message).toContain('chosen by scheduler gpu-first')
    })
  })

  it('B4: what it turns away is counted under its name and reason, and asked about again until it changes its mind', () => {
    const scheduler = testScheduler('gpu-first')
    byHost(scheduler, (host) => ({ reject: host === 'h1' ? 'no licence' : 'too hot' }))
    return story({ schedulers: [scheduler] }, async (cluster) => {
      await cluster.deploy(shop('gpu-first', 2))
      const { run } = await commandLine(cluster)
      await cluster.until(() => cluster.lead().placement.refusals().length === 2, 'both are refused')
      const { out } = await run('explain', 'shop/web/1/1')
      expect(out).toContain('0 of 3 nodes: 2 scheduler gpu-first: too hot, 1 scheduler gpu-first: no licence')
      await cluster.advance(5 * 60_000)
      // Reasons that change with every answer are no news; the scheduler is asked now and then, and not all the time.
      expect(await events(cluster, 'instance.unplaced')).toHaveLength(1)
      expect(scheduler.questions.length).toBeGreaterThan(20)
      expect(scheduler.questions.length).toBeLessThan(60)
      byHost(scheduler, () => ({ score: 1 }))
      await cluster.until(() => placed(cluster).length === 2, 'both are placed', 15_000)
    })
  })

  it('B4: one that hangs holds up nobody else; the built-in one chooses, events say so, and soon it is not even asked', () => {
    const scheduler = testScheduler('gpu-first', { deadlineMs: 5_000 })
    scheduler.reply = () => 'hang'
    return story({ schedulers: [scheduler] }, async (cluster) => {
      const started = cluster.clock.monotonicMs()
      await cluster.deploy(shop('gpu-first', 2, [{ name: 'plain', replicas: 2 }]))
      await cluster.until(() => placed(cluster, 'shop/plain').length === 2, 'the other service is placed')
      expect(cluster.clock.monotonicMs() - started).toBeLessThan(1_000)
      expect(placed(cluster)).toHaveLength(0)
      const { run } = await commandLine(cluster)
      expect((await run('explain', 'shop/web/1/1')).out).toContain('Scheduler gpu-first is being asked where it shall go.')
      await cluster.until(() => placed(cluster).length === 2, 'the deadline is over', 10_000)
      const why = 'no answer within 5000 ms'
      expect((await events(cluster, 'scheduler.failed')).map((event) => event.message)).toEqual([
        `gpu-first did not choose for shop/web: ${why}; the built-in scheduler does`,
      ])
      expect((await run('explain', 'shop/web/1/1')).out).toContain(`chosen by the built-in scheduler, not by gpu-first: ${why}`)
      for (const count of [3, 4]) {
        await cluster.scale('shop', 'web', count)
        await cluster.until(() => placed(cluster).length === count, 'one more is placed', 10_000)
      }
      expect((await events(cluster, 'scheduler.paused')).map((event) => event.subject)).toEqual(['gpu-first'])
      const asked = scheduler.questions.length
      await cluster.scale('shop', 'web', 5)
      const before = cluster.clock.monotonicMs()
      await cluster.until(() => placed(cluster).length === 5, 'one more is placed')
      expect(cluster.clock.monotonicMs() - before).toBeLessThan(1_000)
      expect(scheduler.questions).toHaveLength(asked)
      scheduler.reply = (question) => answerTo(question, () => ({ score: 1 }))
      await cluster.advance(10_000)
      await cluster.scale('shop', 'web', 6)
      await cluster.until(() => placed(cluster).length === 6, 'it chooses again')
      expect(await events(cluster, 'scheduler.resumed')).toHaveLength(1)
      expect(placed(cluster).find((record) => record.id === 'shop/web/6/1')?.placedBy).toContain('chosen by scheduler gpu-first')
    })
  })

  it('B4: that the configuration does not have is refused at deploy, and after a change of the configuration the built-in one chooses', () => {
    const schedulers = [testScheduler('gpu-first'), testScheduler('near-data')]
    return story({ schedulers }, async (cluster) => {
      const { bed, run } = await commandLine(cluster)
      bed.readApp = async () => ({ spec: shop('gpu-frist', 1), source: '', warnings: [] })
      const refused = await run('up', '-f', 'app.yaml', '--detach')
      expect(refused.exitCode).not.toBe(0)
      expect(refused.err).toContain('names scheduler gpu-frist')
      expect(refused.err).toContain('it has gpu-first, near-data; did you mean gpu-first?')
      expect((await run('up', '-f', 'app.yaml', '--dry-run')).err).toContain('names scheduler gpu-frist')
      await cluster.deploy(shop('gpu-first', 1))
      await cluster.until(() => placed(cluster).length === 1, 'it is placed')
      cluster.killCoordinator()
      schedulers.splice(0, 1)
      await cluster.startCoordinator()
      await cluster.settle()
      await cluster.scale('shop', 'web', 2)
      await cluster.until(() => placed(cluster).length === 2, 'the second is placed')
      expect((await events(cluster, 'scheduler.missing')).map((event) => event.message)).toEqual([
        'shop/web names scheduler gpu-first, which the configuration does not have (it has near-data); the built-in scheduler chooses',
      ])
    })
  })

  it('B4: a dry run asks too, says so in the question, and shows who chose', () => {
    const scheduler = testScheduler('gpu-first')
    byHost(scheduler, (host) => (host === 'h2' ? { score: 80 } : { reject: 'too hot' }))
    return story({ schedulers: [scheduler] }, async (cluster) => {
      await cluster.settle()
      const { bed, run } = await commandLine(cluster)
      bed.readApp = async () => ({ spec: shop('gpu-first', 2), source: '', warnings: [] })
      expect((await run('up', '-f', 'app.yaml', '--dry-run')).out).toMatch(
        /shop\/web on \S+ \(2\), chosen by scheduler gpu-first with a score of 80/,
      )
      expect(scheduler.questions.map((question) => question.dryRun)).toEqual([true])
      scheduler.reply = () => ({ kind: 'failed', code: 'unreachable', detail: 'it cannot be reached: ECONNREFUSED' })
      expect((await run('up', '-f', 'app.yaml', '--dry-run')).out).toContain(
        'chosen by the built-in scheduler, not by gpu-first: it cannot be reached: ECONNREFUSED',
      )
    })
  })
})

describe('machines for a service with a custom scheduler', () => {
  const pools = [
    aPool({
      name: 'small',
      provider: 'fake',
      capacity: { cpuMillis: 2_000, memoryBytes: 2 ** 32, diskBytes: 2 ** 36, slots: 50 },
      max: 20,
    }),
  ]
  const bought = (cluster: SimCluster) => cluster.lead().state.snapshot.all('machine').size

  it('one that refuses every machine makes the fleet buy one on trial, give it back, and wait longer each time', () => {
    const scheduler = testScheduler('never')
    byHost(scheduler, () => ({ reject: 'not good enough' }))
    return story({ hosts: 0, pools, schedulers: [scheduler] }, async (cluster) => {
      await cluster.deploy(shop('never', 40))
      await cluster.until(() => cluster.lead().placement.refusals().length === 40, 'all wait')
      await cluster.until(() => scheduler.questions.length > 0, 'the machine is there', 600_000)
      await cluster.advance(60_000)
      expect(bought(cluster)).toBe(1)
      const { run } = await commandLine(cluster)
      expect((await run('explain', 'shop/web/1/1')).out).toContain(
        'scheduler never wanted no fresh machine of any pool, small: not good enough',
      )
      await cluster.until(() => cluster.provider.live().length === 0, 'it is given back', HOUR)
      await cluster.advance(0.75 * HOUR)
      expect(cluster.provider.live()).toHaveLength(0)
      await cluster.until(() => cluster.provider.live().length === 1, 'it is tried once more', 2 * HOUR)
      await cluster.until(() => cluster.provider.live().length === 0, 'it is given back', HOUR)
      await cluster.advance(1.75 * HOUR)
      expect(bought(cluster)).toBeLessThanOrEqual(2)
    })
  }, 120_000)

  it('one that likes the first machine gets as many as its service needs', () => {
    const scheduler = testScheduler('fussy')
    return story({ hosts: 1, pools, schedulers: [scheduler] }, async (cluster) => {
      // What is there is never good enough; what is bought is.
      byHost(scheduler, (host) => (host === 'h1' ? { reject: 'too hot' } : { score: 50 }))
      await cluster.deploy(shop('fussy', 12))
      await cluster.until(() => placed(cluster).length === 12, 'all are placed', 600_000)
      expect(hostsOf(cluster)).not.toContain('h1')
      expect(cluster.provider.live()).toHaveLength(3)
    })
  })
})
