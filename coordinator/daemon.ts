/**
 * `rubato coordinator`: the coordinator in the real world. Opens the store, listens, runs until SIGTERM or SIGINT. What listens:
 * the API with the agents' link, the Consul-compatible catalog, DNS. Exit codes: 0 asked to stop, 78 bad settings, 1 anything else.
 */
import { rm } from 'node:fs/promises'
import { createReadStream } from 'node:fs'
import { createServer } from 'node:http'
import { Readable } from 'node:stream'
import { isSea } from 'node:sea'
import { dirname, join, resolve } from 'node:path'
import { createAdaptorServer } from '@hono/node-server'
import { renderUserData } from '../installer/cloud-init.ts'
import { type AgentArch, agentBinaries } from '../installer/agent-binaries.ts'
import { INSTALL_SCRIPT } from '../installer/install-script.ts'
import { systemClock } from '../shared/clock.ts'
import { diskFiles } from '../shared/disk-files.ts'
import { ConfigError, messageOf, RubatoError } from '../shared/errors.ts'
import { randomIds } from '../shared/ids.ts'
import type { Logger } from '../shared/logger.ts'
import { pinoLogger } from '../shared/pino-logger.ts'
import { systemRandom } from '../shared/random.ts'
import { describeSettings } from '../shared/settings.ts'
import { terminalLogger } from '../shared/terminal-logger.ts'
import { systemSettings } from '../shared/system-settings.ts'
import { VERSION } from '../shared/version.ts'
import { ensureTls, type TlsIdentity, tlsFromPem } from './access/ca.ts'
import { keepTlsFresh } from './access/tls-renewal.ts'
import { authenticateNode } from './access/node-credentials.ts'
import { createApi } from './api/create-api.ts'
import { requireFreePort, startHttpServer } from './api/serve.ts'
import { apiDeps } from './api-wiring.ts'
import { createConsulApi } from './catalog/consul-api.ts'
import { startDnsServer } from './catalog/dns-server.ts'
import {
  COORDINATOR_ENV_PREFIX,
  type CoordinatorConfig,
  coordinatorSettings,
  databasePath,
  historyPath,
  loadCoordinatorConfig,
} from './config.ts'
import { countObjects, createCoordinator } from './coordinator.ts'
import { offeredPrice } from './pool-settings.ts'
import { forecastMetrics } from './forecast/forecast-metrics.ts'
import { scalingMetrics } from './scaling/scaling-metrics.ts'
import { historyMetrics, prometheusMetrics } from './history/history-metrics.ts'
import { createPrometheusClient } from './history/prometheus/prometheus-client.ts'
import { openSqliteHistory } from './history/sqlite/sqlite-history.ts'
import { LIVENESS_RULES, type LivenessRules } from './hub/plan-liveness.ts'
import { attachLinkServer } from './hub/websocket-server.ts'
import { createProviders } from './providers/registry.ts'
import { openSchedulers } from './schedulers/open-schedulers.ts'
import { schedulerMetrics } from './schedulers/scheduler-metrics.ts'
import { systemProcesses } from './providers/system-processes.ts'
import { openSqliteStore } from './state/sqlite/sqlite-store.ts'

const EXIT_CONFIG = 78
const HELP = `rubato coordinator [--config FILE] [settings]   run the coordinator

Settings, as flag, as ${COORDINATOR_ENV_PREFIX}… variable, or in the file (see docs/configuration.md):
`
/** Name of the datacenter that Consul's clients see. */
const DATACENTER = 'dc1'

/** Runs until the signal aborts; resolves with the exit code, having said on standard error what was wrong. */
export async function runCoordinator(argv: readonly string[], signal: AbortSignal): Promise<number> {
  if (argv.includes('--help') || argv.includes('-h')) {
    process.stdout.write(`${HELP}${describeSettings(coordinatorSettings, COORDINATOR_ENV_PREFIX)}\n`)
    return 0
  }
  let config: CoordinatorConfig
  try {
    config = await loadCoordinatorConfig(systemSettings(argv))
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    process.stderr.write(`${error.message}\n`)
    return EXIT_CONFIG
  }
  const logger = process.stderr.isTTY
    ? terminalLogger({ level: config.logLevel, clock: systemClock(), write: (text) => void process.stderr.write(text) })
    : pinoLogger(config.logLevel, { program: 'rubato' })
  try {
    await serve(config, logger, signal)
    return 0
  } catch (error) {
    if (error instanceof ConfigError) {
      process.stderr.write(`${error.message}\n`)
      return EXIT_CONFIG
    }
    logger.error('the coordinator cannot go on', {
      error: messageOf(error),
      // A stack is for faults of ours; a port that is taken has none to look at.
      stack: error instanceof Error && !(error instanceof RubatoError) ? error.stack : undefined,
    })
    return 1
  }
}

async function serve(config: CoordinatorConfig, logger: Logger, signal: AbortSignal): Promise<void> {
  const clock = systemClock()
  const random = systemRandom()
  const ids = randomIds(random)
  const files = diskFiles()
  const stateDir = resolve(config.stateDir)
  const failed = Promise.withResolvers<never>()
  // Shutting down before anybody waits for it must not count as an unhandled rejection.
  failed.promise.catch(() => undefined)

  await requireFreePort(config.listen)
  // First of all: one that cannot be used is found before anything is written. Closed by the coordinator.
  const schedulers = await openSchedulers(config.schedulers, { clock, logger })
  const tlsDeps = { files, stateDir, clock, random, logger }
  const tls = await tlsOf(config, tlsDeps)
  const store = await openSqliteStore({
    path: databasePath({ stateDir }),
    clock,
    logger,
    onFatal: (error) => failed.reject(error),
  })
  const cleanups: (() => Promise<void> | void)[] = [() => store.close()]
  const history = openSqliteHistory({
    path: historyPath({ stateDir }),
    clock,
    logger: logger.with({ part: 'history' }),
    maxBytes: config.history.maxBytes,
  })
  cleanups.push(() => history.close())
  const { prometheus } = config.history
  const client = prometheus === null ? null : createPrometheusClient({ ...prometheus, clock })
  if (client !== null) cleanups.push(() => client.close())
  try {
    const binaries = agentBinaries(config.agentBinaryDir ?? defaultBinaryDir())
    const providers = createProviders(config.providers, {
      stateDir,
      agentCommand: agentCommand(),
      processes: systemProcesses(clock, process.env),
      files,
      removeTree: (path) => rm(path, { recursive: true, force: true }),
      clock,
      logger,
    })
    const kinds = new Map(Object.entries(config.providers).map(([name, provider]) => [name, provider.kind]))
    const coordinator = await createCoordinator(
      {
        store,
        clock,
        random,
        ids,
        logger,
        files,
        providers,
        history,
        ...(prometheus === null || client === null
          ? {}
          : { prometheus: { client, scrapeIntervalMs: prometheus.scrapeIntervalMs } }),
        schedulers,
        async userData(_machine, pool, joinToken) {
          return renderUserData({
            kind: kinds.get(pool.provider) === 'local' ? 'settings' : pool.userData,
            urls: config.advertiseUrls,
            joinToken,
            agentSha256: await binaries.digests(),
            ...userDataSettings(pool.settings),
          })
        },
      },
      {
        stateDir,
        pools: config.pools,
        hub: {
          reportIntervalMs: config.liveness.reportIntervalMs,
          heartbeatMs: config.liveness.heartbeatMs,
          staleAfterMs: config.keysStaleAfterMs,
          liveness: livenessRules(config),
        },
        fleet: config.fleet,
        fleetEnabled: config.fleet.enabled,
        strategy: config.placement.strategy,
        evictedPercentPerHour: config.placement.evictedPercentPerHour,
        pullAhead: config.placement.pullAhead,
        weights: config.placement.weights,
        forecastTimeZone: config.forecast.timeZone,
        caDigest: tls?.caDigest ?? null,
        urls: config.advertiseUrls,
      },
    )
    const first = await coordinator.operatorTokens.ensureFirst()
    if (first)
      process.stderr.write(`The first operator token (role admin), shown once, is also in ${first.path}:\n  ${first.text}\n`)

    const { app } = createApiServer(coordinator, { clock, ids, logger, tls, binaries, config })
    const api = await startHttpServer({
      app,
      listen: config.listen,
      logger,
      ...(tls ? { tls: { keyPem: tls.keyPem, certPem: tls.certPem } } : {}),
    })
    cleanups.push(() => api.close())
    if (tls) {
      const renewal = keepTlsFresh(tls, {
        renew: async () => (await tlsOf(config, tlsDeps)) ?? tls,
        apply: (identity) => api.setCertificate(identity),
        clock,
        logger,
      })
      cleanups.push(() => renewal.stop())
    }
    const link = attachLinkServer(api.server, {
      clock,
      authenticate: (credential) => authenticateNode(coordinator.state.snapshot, credential),
      accept: (connection, nodeId) => coordinator.hub.accept(connection, nodeId),
    })
    cleanups.push(() => link.stop())
    cleanups.push(() => coordinator.stop())
    if (config.catalogListen) {
      const consul = createConsulApi({
        catalog: coordinator.catalog,
        random,
        datacenter: DATACENTER,
        version: VERSION,
        leader: `${config.listen.host}:${config.listen.port}`,
      })
      const server = createAdaptorServer({ fetch: consul.fetch, createServer })
      const { host, port } = config.catalogListen
      await new Promise<void>((resolveListen, reject) => {
        server.once('error', reject)
        server.listen(port, host, () => resolveListen())
      })
      cleanups.push(() => closeServer(server as ReturnType<typeof createServer>))
    }
    if (config.dnsListen) {
      const dns = await startDnsServer({
        catalog: coordinator.catalog,
        random,
        logger,
        datacenter: DATACENTER,
        host: config.dnsListen.host,
        port: config.dnsListen.port,
      })
      cleanups.push(() => dns.close())
    }
    coordinator.start()
    logger.info('coordinator runs', {
      version: VERSION,
      cluster: coordinator.cluster.id,
      epoch: coordinator.state.epoch,
      url: api.url,
      ...countObjects(coordinator.state),
    })
    await Promise.race([failed.promise, aborted(signal)])
    logger.info('coordinator stops')
  } finally {
    for (const clean of cleanups.reverse()) {
      try {
        await clean()
      } catch (error) {
        logger.warn('a part did not stop cleanly', { error: messageOf(error) })
      }
    }
  }
}

function createApiServer(
  coordinator: Awaited<ReturnType<typeof createCoordinator>>,
  parts: {
    clock: ReturnType<typeof systemClock>
    ids: ReturnType<typeof randomIds>
    logger: Logger
    tls: TlsIdentity | null
    binaries: ReturnType<typeof agentBinaries>
    config: CoordinatorConfig
  },
) {
  const app = createApi(
    apiDeps({
      coordinator,
      clock: parts.clock,
      ids: parts.ids,
      logger: parts.logger.with({ part: 'api' }),
      caPem: parts.tls?.caPem ?? null,
      installScript: INSTALL_SCRIPT,
      offeredPrice: (provider, offering) => offeredPrice(parts.config.providers, provider, offering),
      operatorMaxPriority: parts.config.placement.operatorMaxPriority,
      async agentBinary(platform) {
        const arch = /^linux-(x64|arm64)$/.exec(platform)?.[1]
        const binary = arch === undefined ? null : await parts.binaries.get(arch as AgentArch)
        return binary === null
          ? null
          : {
              sha256: binary.sha256,
              sizeBytes: binary.sizeBytes,
              open: () => Readable.toWeb(createReadStream(binary.path)) as ReadableStream<Uint8Array>,
            }
      },
      extraMetrics: () =>
        linkMetrics(coordinator.hub.stats()) +
        coordinator.publishedFigures.text() +
        historyMetrics(coordinator.history.status()) +
        (coordinator.prometheus === null ? '' : prometheusMetrics(coordinator.prometheus.status())) +
        forecastMetrics(coordinator.forecasts.all()) +
        scalingMetrics(coordinator.scaling.figures()) +
        schedulerMetrics(coordinator.schedulers.figures()),
    }),
  )
  return { app }
}

/** Figures of the link in Prometheus text form. */
function linkMetrics(
  stats: Readonly<Record<keyof ReturnType<Awaited<ReturnType<typeof createCoordinator>>['hub']['stats']>, number>>,
): string {
  return Object.entries(stats)
    .map(([name, value]) => {
      const metric = `rubato_link_${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`
      return `# TYPE ${metric} gauge\n${metric} ${value}\n`
    })
    .join('')
}

async function tlsOf(config: CoordinatorConfig, deps: Parameters<typeof ensureTls>[0]): Promise<TlsIdentity | null> {
  switch (config.tls.kind) {
    case 'off':
      return null
    case 'auto':
      return ensureTls(deps, config.tls.hosts)
    case 'files':
      return tlsFromPem(config.tls.certPem, config.tls.keyPem, config.tls.caPem)
  }
}

function livenessRules({ liveness }: CoordinatorConfig): LivenessRules {
  return {
    ...LIVENESS_RULES,
    suspectAfterMs: liveness.suspectMs,
    lostAfterMs: liveness.lostMs,
    unknownForMs: liveness.unknownForMs,
  }
}

/** What a pool's settings say about user data. */
function userDataSettings(settings: Readonly<Record<string, unknown>>) {
  return {
    ...(settings.installDocker === true ? { installDocker: true } : {}),
    ...(settings.engine === 'docker'
      ? { engine: 'docker' as const }
      : settings.engine === 'process'
        ? { engine: 'process' as const }
        : {}),
  }
}

/** The agent of this installation: the executable beside ours, or the source under the same Node. */
function agentCommand(): readonly string[] {
  if (isSea()) return [join(dirname(process.execPath), 'rubato-agent')]
  return [process.execPath, join(import.meta.dirname, '..', 'agent', 'main.ts')]
}

function defaultBinaryDir(): string {
  return isSea() ? dirname(process.execPath) : join(import.meta.dirname, '..', 'dist')
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolveAbort) => {
    if (signal.aborted) resolveAbort()
    else signal.addEventListener('abort', () => resolveAbort(), { once: true })
  })
}

function closeServer(server: ReturnType<typeof createServer>): Promise<void> {
  return new Promise((resolveClose) => {
    server.close(() => resolveClose())
    server.closeAllConnections()
  })
}
