/** The HTTP API over a store in memory with real keys and tokens, and apps that only change state: nothing converges by itself. */
import { createJoinHandler } from '../../coordinator/access/join.ts'
import { createJoinTokens } from '../../coordinator/access/join-tokens.ts'
import { createKeys } from '../../coordinator/access/keys.ts'
import { createOperatorTokens } from '../../coordinator/access/operator-tokens.ts'
import { appSpecSchema } from '../../coordinator/apps/app-spec-schema.ts'
import { createApi } from '../../coordinator/api/create-api.ts'
import type { ApiDeps, LogLine } from '../../coordinator/api/deps.ts'
import type { Api } from '../../coordinator/api/endpoint.ts'
import { createMemoryHistory } from '../../coordinator/history/memory-history.ts'
import { ownPast } from '../../coordinator/history/past.ts'
import type { HistoryBackend } from '../../coordinator/history/series.ts'
import type { AppRecord } from '../../coordinator/state/objects.ts'
import { openState, type State } from '../../coordinator/state/state.ts'
import { ConflictError, NotFoundError, UnavailableError } from '../../shared/errors.ts'
import { randomIds } from '../../shared/ids.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { OperatorRole } from '../../shared/model/access.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import type { NodeRecord } from '../../shared/model/node.ts'
import { seededRandom } from '../../shared/random.ts'
import { memoryFiles } from '../fakes/memory-files.ts'
import { type MemoryStore, memoryStore } from '../fakes/memory-store.ts'
import { type VirtualClock, virtualClock } from '../fakes/virtual-clock.ts'
import { type TestObserved, testObserved } from './observed.ts'
import { anAppRecord, aServiceRecord } from './records.ts'

export interface Sent {
  readonly as?: OperatorRole | null
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  /** Sent as it is instead of `body`. */
  readonly raw?: string
}

export interface ApiBed {
  readonly api: Api
  readonly deps: ApiDeps
  readonly state: State
  readonly store: MemoryStore
  readonly observed: TestObserved
  readonly clock: VirtualClock
  /** What the API reads the past from. */
  readonly history: HistoryBackend
  readonly tokens: Readonly<Record<OperatorRole, string>>
  /** Levers. */
  readonly keysWaitingFor: string[]
  readonly logLines: LogLine[]
  send(method: string, path: string, sent?: Sent): Promise<Response>
  /** Stores the app and a record per service, as a deploy would. */
  seedApp(spec: AppSpec): Promise<void>
}

export async function apiBed(overrides: Partial<ApiDeps> = {}): Promise<ApiBed> {
  const clock = virtualClock()
  const store = memoryStore()
  const state = await openState(store, clock)
  const observed = testObserved()
  const random = seededRandom(7)
  const ids = randomIds(random)
  const files = memoryFiles()
  const keysWaitingFor: string[] = []
  const logLines: LogLine[] = []
  const operatorTokens = createOperatorTokens({ state, ids, random, clock, files, stateDir: '/state' })
  const joinTokens = createJoinTokens({ state, ids, random, clock, caDigest: null })
  const join = createJoinHandler({
    state,
    ids,
    random,
    clock,
    steadyNowMs: () => clock.now(),
    logger: silentLogger(),
    urls: ['http://127.0.0.1:7600'],
    caDigest: null,
  })

  const put = async (record: AppRecord, actor: string, type: string) => {
    const change = state.change().put('app', record.name, record)
    record.spec.services.forEach((service, index) => {
      const id = `${record.name}/${service.name}`
      if (!state.snapshot.get('service', id))
        change.put('service', id, aServiceRecord({ id, desired: service.replicas, ordinal: index + 1 }))
    })
    change.event({ actor, type, subject: record.name, message: `App ${record.name} changed.`, severity: 'info' })
    const outcome = await state.commit(change)
    if (outcome.kind === 'conflict') throw new ConflictError(outcome.detail)
    if (outcome.kind !== 'committed') throw new UnavailableError(outcome.kind)
  }
  const appOf = (name: string) => {
    const app = state.snapshot.get('app', name)
    if (!app) throw new NotFoundError(`There is no app ${name}.`)
    return app
  }

  const history = createMemoryHistory(clock)
  const deps: ApiDeps = {
    clock,
    logger: silentLogger(),
    ids,
    version: '0.1.0-test',
    state,
    observed,
    appSpecSchema,
    apps: {
      async deploy({ spec, source, actor, ifRevision }) {
        const present = state.snapshot.get('app', spec.name)
        if (ifRevision !== null && ifRevision !== (present?.revision ?? 0))
          throw new ConflictError(`The app is at revision ${present?.revision ?? 0}.`)
        const revision = (present?.revision ?? 0) + 1
        const history = present
          ? [
              {
                revision: present.revision,
                spec: present.spec,
                source: present.source,
                deployedAtMs: present.deployedAtMs,
              },
              ...present.history,
            ]
          : []
        await put(
          anAppRecord({ spec, source, revision, history, deployedBy: actor, deployedAtMs: clock.now() }),
          actor,
          'app.deployed',
        )
        return { revision, changed: true }
      },
      preview: async ({ spec }) => ({
        changes: spec.services.map(({ name }) => `add service ${name}`),
        placement: ['1 instance on n-1'],
        warnings: [],
      }),
      async rollback(name, revision, actor) {
        const app = appOf(name)
        const target = revision === null ? app.history[0] : app.history.find((entry) => entry.revision === revision)
        if (!target) throw new NotFoundError('no such revision')
        await put({ ...app, spec: target.spec, revision: app.revision + 1 }, actor, 'app.rolled-back')
        return { revision: app.revision + 1, changed: true }
      },
      async remove(name, actor) {
        appOf(name)
        const change = state
          .change()
          .delete('app', name)
          .event({ actor, type: 'app.removed', subject: name, message: `App ${name} was removed.`, severity: 'info' })
        await state.commit(change)
      },
      async scale(service, replicas, actor) {
        const record = state.snapshot.get('service', service)
        if (!record) throw new NotFoundError(`There is no service ${service}.`)
        const change = state
          .change()
          .put('service', service, { ...record, pinned: replicas, desired: replicas ?? record.desired })
          .event({ actor, type: 'service.pinned', subject: service, message: 'Pinned.', severity: 'info' })
        await state.commit(change)
      },
    },
    nodes: nodeActions(state, clock),
    keys: createKeys({ state, ids, random, clock }),
    operatorTokens,
    joining: {
      createToken: ({ labels, ttlMs, actor }) => joinTokens.create({ machineId: null, labels, lifeMs: ttlMs, actor }),
      join: (request, remoteAddress) => join(request, remoteAddress ?? ''),
    },
    hub: {
      async *logs(_instance, { tail }) {
        for (const line of logLines.slice(-tail)) yield line
      },
      keysProgress: () => ({ revision: 3, waitingFor: [...keysWaitingFor] }),
    },
    explain: {
      scaling: () => null,
      forecast: () => null,
      objective: () => null,
      decisions: () => [],
      turnsPerHour: () => 0,
      forecasters: () => [],
      placement: () => '0 of 1 node: 1 memory',
      asking: () => null,
      waitingFor: () => null,
    },
    fleet: {
      figures: () => ({ spentUsdThisMonth: 1.25, limitUsdPerMonth: 100 }),
      view: () => ({
        pools: [
          {
            name: 'small',
            provider: 'lab',
            priceUsdPerHour: 0.02,
            min: 0,
            max: 10,
            static: false,
            counts: { joined: 2, booting: 1 },
            cooling: { untilMs: clock.now() + 90_000, reason: 'sold out' },
            joinP90Ms: 42_000,
            lifeP90Ms: null,
          },
        ],
        spentUsd: 1.25,
        projectedUsd: 3.5,
        budgetUsdPerMonth: 100,
        reasons: [{ subject: 'n-1', code: 'young', text: 'is younger than 600 s' }],
      }),
    },
    past: ownPast(history),
    offeredPrice: (provider, offering) => (provider === 'lab' && offering === 'small' ? 0.02 : null),
    caPem: null,
    agentBinary: async (platform) =>
      platform === 'linux-x64'
        ? { open: () => new Blob([new Uint8Array([1, 2, 3])]).stream(), sha256: 'ab'.repeat(32), sizeBytes: 3 }
        : null,
    installScript: '#!/bin/sh\n',
    ...overrides,
  }
  const tokenOf = async (role: OperatorRole) =>
    (await operatorTokens.create({ name: role, role, expiresAtMs: null, actor: 'test' })).text
  const tokens = { admin: await tokenOf('admin'), operator: await tokenOf('operator'), viewer: await tokenOf('viewer') }
  const api = createApi(deps)

  return {
    api,
    deps,
    state,
    store,
    observed,
    clock,
    history,
    tokens,
    keysWaitingFor,
    logLines,
    async send(method, path, sent = {}) {
      const headers = new Headers(sent.headers)
      const role = sent.as === undefined ? 'admin' : sent.as
      if (role !== null && !headers.has('authorization')) headers.set('authorization', `Bearer ${tokens[role]}`)
      const body = sent.raw ?? (sent.body === undefined ? undefined : JSON.stringify(sent.body))
      if (body !== undefined && !headers.has('content-type')) headers.set('content-type', 'application/json')
      return api.request(path, { method, headers, ...(body === undefined ? {} : { body }) })
    },
    async seedApp(spec) {
      await put(anAppRecord({ spec }), 'operator:test', 'app.deployed')
    },
  }
}

function nodeActions(state: State, clock: VirtualClock): ApiDeps['nodes'] {
  const change = async (id: string, fields: Partial<NodeRecord>) => {
    const node = state.snapshot.get('node', id)
    if (!node) throw new NotFoundError(`There is no node ${id}.`)
    await state.commit(state.change().put('node', id, { ...node, ...fields }))
  }
  return {
    cordon: (id) => change(id, { availability: 'cordoned' }),
    uncordon: (id) => change(id, { availability: 'active', drain: null }),
    drain: (id, { reason, deadlineMs, deleteMachine, actor }) =>
      change(id, {
        availability: 'draining',
        drain: {
          reason,
          by: actor,
          startedAtMs: clock.now(),
          deadlineAtMs: clock.now() + (deadlineMs ?? 900_000),
          deleteMachine,
        },
      }),
    interrupt: (id, deadlineMs) =>
      change(id, {
        availability: 'draining',
        drain: {
          reason: 'interrupted',
          by: 'cloud',
          startedAtMs: clock.now(),
          deadlineAtMs: clock.now() + deadlineMs,
          deleteMachine: true,
        },
      }),
    async remove(id, { force }) {
      const held = state.snapshot.get('assignments', id)?.instances.length ?? 0
      if (held > 0 && !force) throw new ConflictError(`Node ${id} still has ${held} instances.`)
      await state.commit(state.change().delete('node', id).delete('assignments', id))
    },
  }
}
