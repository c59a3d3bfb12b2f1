/**
 * Composition of a coordinator from its parts, over whatever world it is handed: the real one by daemon.ts, a model by the
 * simulator. Every loop that runs is in the list `loops` below; nothing runs that is not in it.
 */
import type { Clock } from '../shared/clock.ts'
import type { Ids } from '../shared/ids.ts'
import type { Logger } from '../shared/logger.ts'
import type { Loop } from '../shared/loop.ts'
import type { InstanceId } from '../shared/model/identity.ts'
import type { MachineRecord, Pool } from '../shared/model/node.ts'
import type { Random } from '../shared/random.ts'
import type { Files } from '../shared/files.ts'
import { ensureCluster } from './access/cluster.ts'
import { commitChange } from './access/commit-change.ts'
import { createJoinHandler } from './access/join.ts'
import { createJoinTokens, type JoinTokens } from './access/join-tokens.ts'
import { createKeys, type Keys } from './access/keys.ts'
import { createOperatorTokens, type OperatorTokens } from './access/operator-tokens.ts'
import type { JoinRequest, JoinResponse } from '../shared/protocol/join.ts'
import { type Catalog, createCatalog } from './catalog/catalog.ts'
import type { FleetConfig } from './fleet/config.ts'
import { createFleetLoop, type FleetLoop } from './fleet/fleet-loop.ts'
import { countAhead, predictedInstances } from './fleet/predicted.ts'
import { steadyTime } from './fleet/steady-time.ts'
import { createMemoryHistory } from './history/memory-history.ts'
import { joinedPast, ownPast, type Past } from './history/past.ts'
import type { PrometheusClient } from './history/prometheus/prometheus-client.ts'
import { createPrometheusLoop } from './history/prometheus/prometheus-loop.ts'
import { createPrometheusPast, type PrometheusPast } from './history/prometheus/prometheus-past.ts'
import { createPublishedFigures, type PublishedFigures } from './history/prometheus/published-figures.ts'
import { createRecordingLoop } from './history/recording-loop.ts'
import type { HistoryBackend } from './history/series.ts'
import { createForecastLoop, type ForecastLoop } from './forecast/forecast-loop.ts'
import { leadOfOrder } from './forecast/horizon.ts'
import { createHub, type Hub, type HubSettings } from './hub/hub.ts'
import { feedLearnedUse } from './placement/feed-learned-use.ts'
import { createLearnedUse } from './placement/learned-use.ts'
import { createPlacementLoop, type PlacementLoop } from './placement/placement-loop.ts'
import { DEFAULT_WEIGHTS, type ScoreWeights, type Strategy } from './placement/model.ts'
import { createPullAheadLoop } from './placement/pull-ahead-loop.ts'
import { createSchedulerBook, type SchedulerBook } from './schedulers/scheduler-book.ts'
import type { Scheduler } from './schedulers/scheduler.ts'
import type { Provider } from './providers/provider.ts'
import { createScalingLoop, type ScalingLoop } from './scaling/scaling-loop.ts'
import { createServicesLoop } from './services/services-loop.ts'
import { type ClusterRecord, KINDS } from './state/objects.ts'
import { createIsolation } from './state/isolation.ts'
import { openState, type State } from './state/state.ts'
import type { Store } from './state/store.ts'

export interface CoordinatorDeps {
  readonly store: Store
  readonly clock: Clock
  readonly random: Random
  readonly ids: Ids
  readonly logger: Logger
  readonly files: Files
  readonly providers: ReadonlyMap<string, Provider>
  /** Closed by whoever made it. Absent: kept in memory. */
  readonly history?: HistoryBackend
  /** Answers for the past beside the history; closed by whoever made it. Absent: the history alone. */
  readonly prometheus?: { readonly client: PrometheusClient; readonly scrapeIntervalMs: number }
  /** Custom schedulers that app files may name; closed with the coordinator. Default none. */
  readonly schedulers?: readonly Scheduler[]
  /** What a new machine of that pool is told at its first boot; the token is for it alone. */
  userData(machine: MachineRecord, pool: Pool, joinToken: string): Promise<string>
}

export interface CoordinatorSettings {
  readonly stateDir: string
  /** Pools of the configuration; they replace stored pools of the same name. */
  readonly pools: readonly Pool[]
  readonly hub: Partial<HubSettings>
  readonly fleet: Partial<FleetConfig>
  readonly fleetEnabled: boolean
  readonly strategy: Strategy
  /** See preemption.ts; absent: its default. */
  readonly evictedPercentPerHour?: number
  /** Images are pulled before an instance needs them. Default true. */
  readonly pullAhead?: boolean
  /** Of placement's costs; default `DEFAULT_WEIGHTS`. */
  readonly weights?: ScoreWeights
  /** IANA zone in whose days and weeks demand repeats. */
  readonly forecastTimeZone: string
  /** SHA-256 of the CA; null without TLS. */
  readonly caDigest: string | null
  /** URLs at which agents reach this coordinator, best first. */
  readonly urls: readonly string[]
}

export interface Coordinator {
  readonly cluster: ClusterRecord
  readonly state: State
  readonly hub: Hub
  readonly placement: PlacementLoop
  readonly schedulers: SchedulerBook
  readonly scaling: ScalingLoop
  readonly fleet: FleetLoop
  readonly forecasts: ForecastLoop
  readonly catalog: Catalog
  readonly history: HistoryBackend
  /** What those read who can wait: the history, and the Prometheus that was named. */
  readonly past: Past
  /** null: none was named. */
  readonly prometheus: PrometheusPast | null
  readonly publishedFigures: PublishedFigures
  readonly keys: Keys
  readonly operatorTokens: OperatorTokens
  readonly joinTokens: JoinTokens
  /** Steady time of this coordinator: what deadlines are measured with. */
  steadyNowMs(): number
  join(request: JoinRequest, remoteAddress: string | null): Promise<JoinResponse>
  start(): void
  /** Ends every loop and session; what was committed is durable already. The store stays open. */
  stop(): Promise<void>
}

/** Opens the state (raising the epoch) and builds every part; nothing runs before `start`. */
export async function createCoordinator(deps: CoordinatorDeps, settings: CoordinatorSettings): Promise<Coordinator> {
  const { clock, random, ids, logger, store } = deps
  const state = await openState(store, clock)
  const cluster = await ensureCluster(state, ids, random, clock)
  await storePools(state, settings.pools)
  const hub = createHub({ state, clock, logger: logger.with({ part: 'hub' }), settings: settings.hub })
  const { observed } = hub
  const kept = deps.history ?? createMemoryHistory(clock)
  const publishedFigures = createPublishedFigures({
    cluster: cluster.id,
    observed,
    services: () => state.snapshot.all('service').keys(),
    exists: (id) => state.snapshot.get('service', id) !== undefined,
    clock,
  })
  const history = publishedFigures.over(kept)
  const prometheus =
    deps.prometheus === undefined
      ? null
      : createPrometheusPast({ ...deps.prometheus, cluster: cluster.id, clock, logger: logger.with({ part: 'prometheus' }) })
  const past = prometheus === null ? ownPast(history) : joinedPast(prometheus, ownPast(history))
  const access = { state, ids, random, clock }
  const keys = createKeys(access)
  const operatorTokens = createOperatorTokens({ ...access, files: deps.files, stateDir: settings.stateDir })
  const joinTokens = createJoinTokens({ ...access, caDigest: settings.caDigest })
  const steadyNowMs = steadyTime(clock)
  const join = createJoinHandler({
    ...access,
    steadyNowMs,
    logger: logger.with({ part: 'access' }),
    urls: settings.urls,
    caDigest: settings.caDigest,
  })
  const pullsAhead = settings.pullAhead ?? true
  const services = createServicesLoop({ state, observed, clock, logger, steadyNowMs, pullsAhead })
  const learnedUse = createLearnedUse()
  const charges = { chargeOf: learnedUse.chargeOf, onChargeChange: learnedUse.onChange }
  const nothingBoughtFor = (instance: InstanceId): boolean =>
    !settings.fleetEnabled || (fleet.waitingFor(instance) === null && fleet.noteFor(instance) !== null)
  const schedulers = createSchedulerBook({ schedulers: deps.schedulers ?? [], state, clock, logger })
  const weights = settings.weights ?? DEFAULT_WEIGHTS
  const placement = createPlacementLoop({
    schedulers,
    steadyNowMs,
    state,
    observed,
    clock,
    logger,
    config: { strategy: settings.strategy, weights },
    ...charges,
    nothingBoughtFor,
    ...(settings.evictedPercentPerHour === undefined ? {} : { evictedPercentPerHour: settings.evictedPercentPerHour }),
  })
  const scaling = createScalingLoop({
    state,
    observed,
    clock,
    logger,
    forecastOf: (id, horizonMs) => forecasts.forecastOf(id, horizonMs),
    machineLeadMs: () => fleet.machineLeadMs(),
  })
  const isolation = createIsolation({ state, clock, logger, part: 'fleet' })
  const fleet = createFleetLoop({
    ...charges,
    state,
    observed,
    providers: deps.providers,
    placement,
    clock,
    random,
    ids,
    logger,
    config: settings.fleet,
    weights,
    steadyNowMs,
    predicted: () =>
      predictedInstances({
        snapshot: state.snapshot,
        forecast: () => forecasts.all(),
        forecastOf: (id, horizonMs) => forecasts.forecastOf(id, horizonMs),
        startTimeMs: (id) => scaling.startTimeMs(id),
        attempt: isolation.attempt,
        machineLeadMs: () => fleet.machineLeadMs(),
        rulesOf: (id) => scaling.rulesNow(id),
        uselessOf: (id) => scaling.decision(id)?.excluded ?? 0,
      }),
    async userDataFor(machine, pool) {
      const token = await joinTokens.create({ machineId: machine.id, labels: {}, actor: 'fleet' })
      return deps.userData(machine, pool, token.text)
    },
  })
  // Consul's clients remember an index; beginning above every index of earlier lives keeps them from waiting for the past.
  const catalog = createCatalog({ state, observed, clock, logger, startIndex: state.epoch * 1_000_000 })

  const recording = createRecordingLoop({ history, state, observed, nodes: () => placement.nodes(), clock, logger })

  const forecasts = createForecastLoop({
    state,
    history,
    ...(prometheus === null ? {} : { past }),
    clock,
    logger,
    timeZone: settings.forecastTimeZone,
    // Where machines are bought, the next instance may need one.
    leadTimeMs: (id) => leadOfOrder({ startMs: scaling.startTimeMs(id), machineMs: fleet.machineLeadMs() }),
  })

  const pullAhead = createPullAheadLoop({
    state,
    observed,
    clock,
    logger,
    options: { strategy: settings.strategy, weights },
    nodes: () => placement.nodes(),
    rulesOf: (id) => scaling.rulesNow(id),
    aheadOf(id, rules) {
      const forecast = forecasts.current(id)
      return forecast === null ? null : countAhead(forecast, rules, scaling.decision(id)?.excluded ?? 0)
    },
    chargeOf: learnedUse.chargeOf,
    tell: (wanted) => hub.pullAhead(wanted),
  })

  const loops: readonly Loop[] = [
    // Before `services`, so that an update finds its images asked for.
    ...(pullsAhead ? [pullAhead] : []),
    services,
    placement,
    scaling,
    recording,
    forecasts,
    ...(settings.fleetEnabled ? [fleet] : []),
    ...(prometheus === null ? [] : [createPrometheusLoop({ past: prometheus, state, clock, logger })]),
  ]

  let endLearning = () => {}
  return {
    cluster,
    state,
    hub,
    placement,
    schedulers,
    scaling,
    fleet,
    forecasts,
    catalog,
    history,
    past,
    prometheus,
    publishedFigures,
    keys,
    operatorTokens,
    joinTokens,
    steadyNowMs,
    join,
    start() {
      hub.start()
      catalog.start()
      publishedFigures.start()
      endLearning = feedLearnedUse(learnedUse, { state, observed, clock })
      for (const loop of loops) loop.start()
    },
    async stop() {
      for (const loop of loops) await loop.stop()
      await schedulers.close()
      endLearning()
      publishedFigures.stop()
      catalog.stop()
      await hub.stop()
    },
  }
}

/** Makes the stored pools of these names what the configuration says; others stay (the API made them). */
async function storePools(state: State, pools: readonly Pool[]): Promise<void> {
  for (const pool of pools) {
    if (JSON.stringify(state.snapshot.get('pool', pool.name)) === JSON.stringify(pool)) continue
    await commitChange(state, (change) => {
      change.put('pool', pool.name, pool).event({
        actor: 'config',
        type: 'pool.changed',
        subject: pool.name,
        message: 'as the configuration says',
        severity: 'info',
      })
    })
  }
}

/** Objects by kind, for a log line at the start. */
export function countObjects(state: State): Readonly<Record<string, number>> {
  return Object.fromEntries(KINDS.map((kind) => [kind, state.snapshot.all(kind).size]))
}
