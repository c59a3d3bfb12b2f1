import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseCredential, parseJoinToken } from '../../shared/credentials.ts'
import { ConflictError, InputError, NotFoundError, UnavailableError } from '../../shared/errors.ts'
import { randomIds } from '../../shared/ids.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import type { JoinRequest } from '../../shared/protocol/join.ts'
import { seededRandom } from '../../shared/random.ts'
import { memoryFiles } from '../../test/fakes/memory-files.ts'
import { emptyDisk, memoryStore } from '../../test/fakes/memory-store.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { steadyTime } from '../fleet/steady-time.ts'
import { openState } from '../state/state.ts'
import { CLUSTER_KEY, ensureCluster } from './cluster.ts'
import { createJoinHandler, JoinRefusedError } from './join.ts'
import { createJoinTokens, JOIN_TOKEN_LIFE_MS } from './join-tokens.ts'
import { createKeys, liveKeys } from './keys.ts'
import { authenticateNode } from './node-credentials.ts'
import { createOperatorTokens } from './operator-tokens.ts'

const CA_DIGEST = 'ab'.repeat(32)
const CAPACITY = { cpuMillis: 1000, memoryBytes: 2 ** 30, diskBytes: 2 ** 30, slots: 10 }

async function world(disk = emptyDisk(), seed = 7) {
  const store = memoryStore(disk)
  const clock = virtualClock()
  const state = await openState(store, clock)
  const random = seededRandom(seed)
  const ids = randomIds(random)
  const files = memoryFiles()
  const base = { state, ids, random, clock }
  await ensureCluster(state, ids, random, clock)
  return {
    ...base,
    disk,
    store,
    files,
    keys: createKeys(base),
    operators: createOperatorTokens({ ...base, files, stateDir: '/s' }),
    tokens: createJoinTokens({ ...base, caDigest: CA_DIGEST }),
    join: createJoinHandler({
      ...base,
      steadyNowMs: steadyTime(clock),
      logger: silentLogger(),
      urls: ['https://c:7600'],
      caDigest: CA_DIGEST,
    }),
  }
}

function requestWith(token: string, more: Partial<JoinRequest> = {}): JoinRequest {
  const platform = 'linux/amd64'
  const labels = { disk: 'hdd', own: 'yes' }
  return {
    token,
    hostname: 'h1',
    address: '10.0.0.5',
    platform,
    runtimes: ['process'],
    capacity: CAPACITY,
    labels,
    engineLabels: {},
    agentVersion: '1',
    ...more,
  }
}

function machineIn(phase: MachineRecord['phase']): MachineRecord {
  const times = { requestedAtMs: 1, bootedAtMs: null, joinedAtMs: null, terminatingAtMs: null, goneAtMs: null }
  const rest = {
    pool: 'small',
    provider: 'cloud',
    providerId: null,
    nodeId: null,
    capacity: CAPACITY,
    priceUsdPerHour: 0,
    reason: '',
  }
  return { id: 'm-1', name: 'c-m-1', phase, attempts: 1, lastError: null, ...times, ...rest }
}

const POOL: Pool = {
  name: 'small',
  provider: 'cloud',
  offering: 's',
  image: '',
  zone: 'z1',
  capacity: CAPACITY,
  priceUsdPerHour: 0,
  min: 0,
  max: 5,
  labels: { disk: 'ssd' },
  taints: ['gpu'],
  static: false,
  userData: 'script',
  billing: 'second',
  budgetUsdPerMonth: null,
  settings: {},
}

async function statusOf(promise: Promise<unknown>): Promise<number | string> {
  try {
    await promise
    return 'accepted'
  } catch (error) {
    return error instanceof JoinRefusedError ? error.status : String(error)
  }
}

/** The text with one character replaced by another. */
function mutations(text: string) {
  return fc
    .tuple(fc.nat(text.length - 1), fc.string({ minLength: 1, maxLength: 1 }))
    .map(([at, character]) => text.slice(0, at) + character + text.slice(at + 1))
    .filter((mutated) => mutated !== text)
}

describe('the cluster’s record', () => {
  it('row 1: is made once and is the same after a restart', async () => {
    const first = await world()
    const again = await world(first.disk, 8)
    const record = first.state.snapshot.get('cluster', CLUSTER_KEY)
    expect(again.state.snapshot.get('cluster', CLUSTER_KEY)).toEqual(record)
    expect(Buffer.from(record?.meshSecret ?? '', 'base64')).toHaveLength(32)
  })
})

describe('keys', () => {
  it('show their text once and keep only a hash (I12)', async () => {
    const { keys, disk } = await world()
    const { text, record } = await keys.create({ name: 'ci', roles: ['b', 'a', 'a'], expiresAtMs: null, actor: 'operator:me' })
    expect(parseCredential('rbt', text)?.id).toBe(record.id)
    expect(record.roles).toEqual(['a', 'b'])
    const secret = text.split('_')[2] ?? 'none'
    expect(JSON.stringify([...disk.objects.values(), ...disk.events])).not.toContain(secret)
  })

  it('have unique names among the live ones, also when asked for at the same time', async () => {
    const { keys, clock } = await world()
    const request = { name: 'ci', roles: [], expiresAtMs: clock.now() + 1000, actor: 'x' }
    const outcomes = await Promise.allSettled([keys.create(request), keys.create(request)])
    expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(['fulfilled', 'rejected'])
    clock.jumpWall(2000)
    await keys.create({ ...request, expiresAtMs: null })
    await keys.revoke('ci', 'x')
    await keys.create({ ...request, expiresAtMs: null })
    expect(keys.list()).toHaveLength(3)
  })

  it('are pushed to agents only while neither revoked nor expired', async () => {
    const { keys, clock, state } = await world()
    await keys.create({ name: 'short', roles: [], expiresAtMs: clock.now() + 1000, actor: 'x' })
    const { record } = await keys.create({ name: 'long', roles: ['r'], expiresAtMs: null, actor: 'x' })
    expect(liveKeys(state.snapshot, clock.now())).toHaveLength(2)
    clock.jumpWall(1000)
    expect(liveKeys(state.snapshot, clock.now()).map((key) => key.name)).toEqual(['long'])
    const revoked = await keys.revoke(record.id, 'x')
    expect(await keys.revoke(record.id, 'x')).toEqual(revoked)
    expect(liveKeys(state.snapshot, clock.now())).toEqual([])
  })

  it('are refused with every fault at once, and nothing is kept when the store does not answer', async () => {
    const { keys, clock, store } = await world()
    const bad = { name: 'no spaces', roles: ['Bad Role'], expiresAtMs: clock.now() - 1, actor: 'x' }
    const error = await keys.create(bad).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(InputError)
    expect((error as InputError).faults.map((fault) => fault.path)).toEqual(['/name', '/roles/0', '/expiresAtMs'])
    store.failNext({ kind: 'unavailable', detail: 'disk full' })
    await expect(keys.create({ name: 'a', roles: [], expiresAtMs: null, actor: 'x' })).rejects.toBeInstanceOf(UnavailableError)
    expect(keys.list()).toEqual([])
    store.failNext({ kind: 'conflict', detail: 'somebody was faster' }, 2)
    await keys.create({ name: 'a', roles: [], expiresAtMs: null, actor: 'x' })
    await expect(keys.revoke('b', 'x')).rejects.toBeInstanceOf(NotFoundError)
  })
})

describe('operator tokens', () => {
  it('the first one is made once, into a file of mode 0600; a crash before it is stored makes another', async () => {
    const { operators, files, store } = await world()
    store.failNext({ kind: 'unavailable', detail: 'crash' })
    await expect(operators.ensureFirst()).rejects.toBeInstanceOf(UnavailableError)
    const first = await operators.ensureFirst()
    expect(files.disk.get('/s/admin.token')).toBe(`${first?.text}\n`)
    expect(operators.verify(first?.text ?? '')).toMatchObject({ name: 'admin', role: 'admin' })
    expect(await operators.ensureFirst()).toBeNull()
  })

  it('verify only while they are not expired or revoked', async () => {
    const { operators, clock } = await world()
    await operators.ensureFirst()
    const { text } = await operators.create({ name: 'ci', role: 'viewer', expiresAtMs: clock.now() + 1000, actor: 'x' })
    expect(operators.verify(text)).toMatchObject({ name: 'ci', role: 'viewer' })
    clock.jumpWall(1000)
    expect(operators.verify(text)).toBeNull()
    const lasting = await operators.create({ name: 'ci', role: 'operator', expiresAtMs: null, actor: 'x' })
    await operators.revoke('ci', 'x')
    expect(operators.verify(lasting.text)).toBeNull()
    await expect(operators.revoke('admin', 'x')).rejects.toBeInstanceOf(ConflictError)
  })

  it('P: any single-character mutation is refused', async () => {
    const { operators } = await world()
    const { text } = await operators.create({ name: 'a', role: 'admin', expiresAtMs: null, actor: 'x' })
    fc.assert(fc.property(mutations(text), (mutated) => operators.verify(mutated) === null))
    for (const text of ['', '_', '___', 'rbto_', 'x'.repeat(10_000), 'rbto____']) expect(operators.verify(text)).toBeNull()
  })
})

describe('joining', () => {
  it('V9: a join token makes a node with the labels of its pool, linked to its machine', async () => {
    const { state, tokens, join } = await world()
    await state.commit(state.change().put('machine', 'm-1', machineIn('joining')).put('pool', 'small', POOL))
    const { text } = await tokens.create({ machineId: 'm-1', labels: { tier: 'web' }, actor: 'fleet' })
    const response = await join(requestWith(text), '10.0.0.5')
    const node = state.snapshot.get('node', response.nodeId)
    expect(node).toMatchObject({
      labels: { disk: 'ssd', own: 'yes', tier: 'web' },
      taints: ['gpu'],
      pool: 'small',
      provider: 'cloud',
      zone: 'z1',
      machineId: 'm-1',
    })
    expect(state.snapshot.get('machine', 'm-1')).toMatchObject({ phase: 'joined', nodeId: response.nodeId })
    expect(authenticateNode(state.snapshot, response.credential)).toBe(response.nodeId)
    expect(response.clusterId).toBe(state.snapshot.get('cluster', CLUSTER_KEY)?.id)
  })

  it('V7, row 37: the machine of the token joined, by steady time: a wall clock set right late makes no machine look slow', async () => {
    const { state, tokens, join, clock } = await world()
    const orderedMs = clock.now()
    await state.commit(
      state
        .change()
        .put('machine', 'm-1', { ...machineIn('joining'), requestedAtMs: orderedMs })
        .put('pool', 'small', POOL),
    )
    await clock.advance(90_000)
    clock.jumpWall(30 * 60_000)
    const { text } = await tokens.create({ machineId: 'm-1', labels: {}, actor: 'fleet' })
    const { nodeId } = await join(requestWith(text), null)
    expect(state.snapshot.get('machine', 'm-1')?.joinedAtMs).toBe(orderedMs + 90_000)
    expect(state.snapshot.get('node', nodeId)?.joinedAtMs).toBe(orderedMs + 90_000)
    const [event] = await state.events({ type: 'machine.joined' })
    expect(event).toMatchObject({ subject: 'm-1', data: { node: nodeId, afterMs: 90_000 } })
  })

  it('row 47: a token used a second time is refused with 409 and an alarm, once a minute at most', async () => {
    const { tokens, join, state, clock } = await world()
    const { text } = await tokens.create({ machineId: null, labels: {}, actor: 'x' })
    await join(requestWith(text, { retryProof: 'p'.repeat(43) }), '10.0.0.5')
    for (const proof of [undefined, 'q'.repeat(43)])
      expect(await statusOf(join(requestWith(text, proof ? { retryProof: proof } : {}), '10.0.0.9'))).toBe(409)
    const alarms = () => state.events({ type: 'token.reused' })
    expect((await alarms()).map((event) => [event.severity, event.data?.remoteAddress])).toEqual([['warning', '10.0.0.9']])
    await clock.advance(61_000)
    expect(await statusOf(join(requestWith(text), '10.0.0.9'))).toBe(409)
    expect(await alarms()).toHaveLength(2)
    expect(state.snapshot.all('node').size).toBe(1)
  })

  it('row 47: of two who use a token at the same time one wins', async () => {
    const { tokens, join, state } = await world()
    const { text } = await tokens.create({ machineId: null, labels: {}, actor: 'x' })
    const outcomes = await Promise.all([statusOf(join(requestWith(text), 'a')), statusOf(join(requestWith(text), 'b'))])
    expect(outcomes.sort()).toEqual([409, 'accepted'])
    expect(state.snapshot.all('node').size).toBe(1)
  })

  it('the same agent that lost the reply gets the same node and credential, however late it asks', async () => {
    const { tokens, join, state, clock } = await world()
    const { text } = await tokens.create({ machineId: null, labels: {}, actor: 'x' })
    const request = requestWith(text, { retryProof: 'p'.repeat(43) })
    const [first, second] = await Promise.all([join(request, 'a'), join(request, 'a')])
    expect(second).toEqual(first)
    expect(await join(request, 'a')).toEqual(first)
    expect(authenticateNode(state.snapshot, first.credential)).toBe(first.nodeId)
    expect(await state.events({ type: 'token.reused' })).toEqual([])
    clock.jumpWall(JOIN_TOKEN_LIFE_MS)
    expect(await join(request, 'a')).toEqual(first)
    expect(await statusOf(join(requestWith(text, { retryProof: 'q'.repeat(43) }), 'a'))).toBe(409)
  })

  it('row 35: a machine that boots for longer than a token lives, or meets a clock that jumped, joins while it is awaited', async () => {
    const { state, tokens, join, clock } = await world()
    await state.commit(state.change().put('machine', 'm-1', machineIn('joining')))
    const { text } = await tokens.create({ machineId: 'm-1', labels: {}, actor: 'fleet' })
    clock.jumpWall(3 * JOIN_TOKEN_LIFE_MS)
    expect(await statusOf(join(requestWith(text), 'a'))).toBe('accepted')
    expect(await statusOf(join(requestWith(text), 'a'))).toBe(409)
  })

  it.each(['terminating', 'gone', 'lost'] as const)(
    'row 5: a late join of a machine that is %s is refused with 410',
    async (phase) => {
      const { state, tokens, join } = await world()
      const { text } = await tokens.create({ machineId: 'm-1', labels: {}, actor: 'fleet' })
      await state.commit(state.change().put('machine', 'm-1', machineIn(phase)))
      expect(await statusOf(join(requestWith(text), 'a'))).toBe(410)
      expect(state.snapshot.all('node').size).toBe(0)
    },
  )

  it('row 2: each try of a machine’s creation has a token of its own; only one of them makes a node', async () => {
    const { state, tokens, join } = await world()
    await state.commit(state.change().put('machine', 'm-1', machineIn('requested')))
    const first = await tokens.create({ machineId: 'm-1', labels: {}, actor: 'fleet' })
    const second = await tokens.create({ machineId: 'm-1', labels: {}, actor: 'fleet' })
    expect(await statusOf(join(requestWith(first.text), 'a'))).toBe('accepted')
    expect(await statusOf(join(requestWith(second.text), 'b'))).toBe(409)
  })

  it('an expired token is refused; old ones are forgotten in the end', async () => {
    const { state, tokens, join, clock } = await world()
    const { text } = await tokens.create({ machineId: null, labels: {}, actor: 'x' })
    clock.jumpWall(JOIN_TOKEN_LIFE_MS)
    expect(await statusOf(join(requestWith(text), 'a'))).toBe(401)
    clock.jumpWall(25 * 3_600_000)
    await tokens.create({ machineId: null, labels: {}, actor: 'x' })
    expect(state.snapshot.all('joinToken').size).toBe(1)
  })

  it('malformed requests are refused with every fault', async () => {
    const { tokens, join } = await world()
    const { text } = await tokens.create({ machineId: null, labels: {}, actor: 'x' })
    const bad = requestWith(text, {
      hostname: 'a b',
      address: '1.2.3.4/../',
      labels: JSON.parse('{"__proto__": "x", "a": "\\n"}') as Record<string, string>,
    })
    const error = await join(bad, 'a').catch((thrown: unknown) => thrown)
    expect((error as InputError).faults.map((fault) => fault.path)).toEqual([
      '/labels/__proto__',
      '/labels/a',
      '/hostname',
      '/address',
    ])
  })

  it('P: any single-character mutation of a join token is refused, and makes no node', async () => {
    const { tokens, join, state } = await world()
    const { text } = await tokens.create({ machineId: null, labels: {}, actor: 'x' })
    expect(parseJoinToken(text)?.caDigest).toBe(CA_DIGEST)
    await fc.assert(
      fc.asyncProperty(mutations(text), async (mutated) => (await statusOf(join(requestWith(mutated), 'a'))) === 401),
    )
    expect(state.snapshot.all('node').size).toBe(0)
  })

  it('P: any single-character mutation of a node credential is refused', async () => {
    const { tokens, join, state } = await world()
    const { text } = await tokens.create({ machineId: null, labels: {}, actor: 'x' })
    const { credential } = await join(requestWith(text), 'a')
    fc.assert(fc.property(mutations(credential), (mutated) => authenticateNode(state.snapshot, mutated) === null))
  })
})
