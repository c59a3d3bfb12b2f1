/** One life of a coordinator in the model world: the real code over a model store and cloud, listening on the model network. */
import { JoinRefusedError } from '../../coordinator/access/join.ts'
import { authenticateNode } from '../../coordinator/access/node-credentials.ts'
import { type Coordinator, createCoordinator } from '../../coordinator/coordinator.ts'
import type { FleetConfig } from '../../coordinator/fleet/config.ts'
import type { HubSettings } from '../../coordinator/hub/hub.ts'
import type { Provider } from '../../coordinator/providers/provider.ts'
import type { Scheduler } from '../../coordinator/schedulers/scheduler.ts'
import { renderUserData } from '../../installer/cloud-init.ts'
import { InputError, messageOf } from '../../shared/errors.ts'
import { randomIds } from '../../shared/ids.ts'
import type { Pool } from '../../shared/model/node.ts'
import type { JoinRequest, JoinResponse } from '../../shared/protocol/join.ts'
import type { Random } from '../../shared/random.ts'
import { memoryFiles } from '../fakes/memory-files.ts'
import { type MemoryStoreDisk, memoryStore } from '../fakes/memory-store.ts'
import type { ModelNetwork } from '../fakes/model-network.ts'
import { type EffectListener, tellingConnection, tellingProvider } from './effects.ts'
import { type Life, newLife } from './life.ts'
import { modelStore, type StoreLevers } from './model-store.ts'
import type { MachineClock } from './process-clock.ts'
import type { Trace } from './trace.ts'

/** Loopback, so that a join token without TLS is accepted; which host is meant the model network knows by itself. */
export const COORDINATOR_URLS = ['http://127.0.0.1:7600', 'http://127.0.0.2:7600'] as const
export const STATE_DIR = '/state'

export interface CoordinatorProcess {
  readonly url: string
  readonly coordinator: Coordinator
  readonly clock: MachineClock
  readonly life: Life
  /** SIGKILL: what is on its way to agents arrives yet. */
  kill(): void
}

export interface CoordinatorParts {
  readonly url: string
  readonly clock: MachineClock
  readonly random: Random
  readonly storeRandom: Random
  readonly disk: MemoryStoreDisk
  readonly storeLevers: StoreLevers
  readonly provider: Provider
  readonly network: ModelNetwork
  readonly trace: Trace
  readonly pools: readonly Pool[]
  readonly hub: Partial<HubSettings>
  readonly fleet: Partial<FleetConfig>
  readonly schedulers: readonly Scheduler[]
  readonly pullAhead: boolean
  /** Called around each effect; a listener may kill the process there. */
  readonly tell: EffectListener
}

/** Resolves when it serves; never when it is killed before (`onLife` hands out what kills it). */
export async function startCoordinatorProcess(
  parts: CoordinatorParts,
  onLife: (life: Life) => void,
): Promise<CoordinatorProcess> {
  const { clock, network, trace, url } = parts
  const life = newLife(clock)
  onLife(life)
  const store = modelStore(memoryStore(parts.disk), {
    clock,
    random: parts.storeRandom,
    levers: parts.storeLevers,
    isAlive: () => life.alive,
    tell: parts.tell,
  })
  const coordinator = await createCoordinator(
    {
      store: life.own(store),
      clock: life.clock,
      random: parts.random,
      ids: randomIds(parts.random),
      logger: trace.logger('coordinator'),
      files: life.own(memoryFiles()),
      schedulers: parts.schedulers,
      providers: new Map([['fake', life.own(tellingProvider(parts.provider, parts.tell))]]),
      userData: async (_machine, _pool, joinToken) =>
        renderUserData({ kind: 'settings', urls: [...COORDINATOR_URLS], joinToken, agentSha256: {} }),
    },
    {
      stateDir: STATE_DIR,
      pools: parts.pools,
      hub: parts.hub,
      fleet: parts.fleet,
      fleetEnabled: true,
      strategy: 'spread',
      pullAhead: parts.pullAhead,
      forecastTimeZone: 'UTC',
      caDigest: null,
      urls: [...COORDINATOR_URLS],
    },
  )
  const close = network.listen(url, {
    authenticate: (credential) => authenticateNode(coordinator.state.snapshot, credential),
    accept: (connection, nodeId) => coordinator.hub.accept(tellingConnection(connection, nodeId, parts.tell), nodeId),
  })
  trace.line(`coordinator starts, epoch ${coordinator.state.epoch}`)
  coordinator.start()
  return {
    url,
    coordinator,
    clock,
    life,
    kill() {
      if (!life.alive) return
      trace.line(`coordinator of epoch ${coordinator.state.epoch} is killed`)
      life.end()
      close()
    },
  }
}

/** The API's answer to a request to join, as far as the agent looks at it. */
export async function askToJoin(
  coordinator: Coordinator,
  request: JoinRequest,
  address: string,
): Promise<{ status: number; body: string }> {
  try {
    const response: JoinResponse = await coordinator.join(request, address)
    return { status: 200, body: JSON.stringify(response) }
  } catch (error) {
    const status = error instanceof JoinRefusedError ? error.status : error instanceof InputError ? 422 : 503
    return { status, body: JSON.stringify({ detail: messageOf(error) }) }
  }
}
