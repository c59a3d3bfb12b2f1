/** A coordinator's hub with its state, and real links of model agents, over a model network under virtual time. */
import { createHub, type Hub, type HubSettings } from '../../coordinator/hub/hub.ts'
import type { Change, State } from '../../coordinator/state/state.ts'
import { openState } from '../../coordinator/state/state.ts'
import { createLink, type Link } from '../../agent/link/link.ts'
import type { KeyRing } from '../../agent/gateway/key-ring.ts'
import type { InstanceStatus } from '../../shared/model/observation.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { Assignment, ImageToPull, Route } from '../../shared/protocol/frames.ts'
import { seededRandom } from '../../shared/random.ts'
import { memoryFiles } from '../fakes/memory-files.ts'
import { emptyDisk, memoryStore } from '../fakes/memory-store.ts'
import { modelNetwork, type ModelNetwork } from '../fakes/model-network.ts'
import { virtualClock, type VirtualClock } from '../fakes/virtual-clock.ts'
import { aNodeRecord } from './records.ts'

export const URL_A = 'http://coordinator-a:7600'

export interface ModelAgent {
  readonly id: string
  readonly link: Link
  /** Every full desired set handed over, newest last. */
  readonly desired: (readonly Assignment[])[]
  readonly routes: (readonly Route[])[]
  readonly loads: Readonly<Record<string, number>>[]
  /** Every list of images to pull ahead that it was told. */
  readonly pullAhead: (readonly ImageToPull[])[]
  readonly keyRevisions: number[]
  readonly inventory: Map<string, InstanceStatus>
  readonly left: string[]
  readonly disk: Map<string, string>
}

export interface LinkBed {
  readonly clock: VirtualClock
  readonly network: ModelNetwork
  /** The present coordinator. */
  readonly state: State
  readonly hub: Hub
  commit(edit: (change: Change) => Change): Promise<void>
  addNode(id: string): Promise<void>
  /** A running agent; `disk` survives a restart. */
  agent(
    id: string,
    options?: { disk?: Map<string, string>; host?: string; urls?: readonly string[]; pullsAhead?: boolean },
  ): Promise<ModelAgent>
  /** Stops the coordinator without a word and starts another on the same store. */
  restartCoordinator(): Promise<void>
  stop(): Promise<void>
}

export function aStatus(instance: string, fields: Partial<InstanceStatus> = {}): InstanceStatus {
  return {
    instance,
    specHash: 'hash',
    phase: 'ready',
    healthy: true,
    restarts: 0,
    crashLooping: false,
    ports: [{ containerPort: 80, protocol: 'http', gatewayPort: 20_000 }],
    startedAtMs: 1,
    readyAtMs: 1,
    containerId: 'c',
    message: '',
    ...fields,
  }
}

export async function linkBed(settings: Partial<HubSettings> = {}, seed = 1): Promise<LinkBed> {
  const clock = virtualClock()
  const random = seededRandom(seed)
  const network = modelNetwork({ clock, random })
  const disk = emptyDisk()
  const agents: ModelAgent[] = []
  const start = async () => {
    const state = await openState(memoryStore(disk), clock)
    const hub = createHub({ state, clock, logger: silentLogger(), settings })
    hub.start()
    const close = network.listen(URL_A, {
      authenticate: (credential) => (state.snapshot.get('node', credential) ? credential : null),
      accept: (connection, nodeId) => hub.accept(connection, nodeId),
    })
    return { state, hub, close }
  }
  let present = await start()
  const commit = async (edit: (change: Change) => Change) => {
    const outcome = await present.state.commit(edit(present.state.change()))
    if (outcome.kind !== 'committed') throw new Error(`${outcome.kind}: ${outcome.detail}`)
  }
  await commit((change) => change.put('cluster', 'cluster', { id: 'c1', createdAtMs: 0, meshSecret: 'c2VjcmV0' }))
  return {
    clock,
    network,
    get state() {
      return present.state
    },
    get hub() {
      return present.hub
    },
    commit,
    addNode: (id) =>
      commit((change) => change.put('node', id, aNodeRecord({ id, hostname: id, address: `10.0.0.${id.length}`, labels: {} }))),
    async agent(id, options = {}) {
      const files = memoryFiles(options.disk ?? new Map())
      const inventory = new Map<string, InstanceStatus>()
      const record = present.state.snapshot.get('node', id) ?? aNodeRecord({ id })
      const agent: Omit<ModelAgent, 'link'> = {
        id,
        desired: [],
        routes: [],
        loads: [],
        pullAhead: [],
        keyRevisions: [],
        inventory,
        left: [],
        disk: options.disk ?? new Map(),
      }
      const link = createLink({
        dialer: network.dialer(options.host ?? id),
        urls: options.urls ?? [URL_A],
        credential: id,
        clock,
        random,
        logger: silentLogger(),
        files,
        stateDir: '/state',
        identity: () => ({
          clusterId: 'c1',
          nodeId: id,
          bootId: `boot-${options.host ?? id}`,
          agentVersion: '1',
          hostname: id,
          address: record.address,
          platform: record.platform,
          runtimes: [...record.runtimes],
          capacity: record.capacity,
          labels: { ...record.labels },
          engineLabels: { ...record.engineLabels },
          ...(options.pullsAhead === undefined ? {} : { pullsAhead: options.pullsAhead }),
        }),
        inventory: () => [...inventory.values()],
        onDesired: (set) => void agent.desired.push(set),
        onKeys: (ring: KeyRing) => void agent.keyRevisions.push(ring.revision),
        onRoutes: (set) => void agent.routes.push(set),
        onLoads: (loads) => void agent.loads.push(loads),
        onPullAhead: (images) => void agent.pullAhead.push(images),
        onLogsRequest: (request) => {
          if (!request.cancel)
            link.sendLog(request.request, [{ atMs: 1, stream: 'stdout', text: `hello from ${request.instance}` }], true)
        },
        onLeave: (reason) => void agent.left.push(reason),
      })
      await link.start()
      const made: ModelAgent = { ...agent, link }
      agents.push(made)
      return made
    },
    async restartCoordinator() {
      present.close()
      await present.hub.stop()
      present = await start()
    },
    async stop() {
      for (const agent of agents) await agent.link.stop()
      await present.hub.stop()
    },
  }
}
