/** `rubato doctor`: what is wrong between here and a working cluster, and in the cluster; each failing line with its next step. */
import { messageOf } from '../../shared/errors.ts'
import type { FleetStatus, InstanceView, NodeView, ServiceView, StatusView } from '../api/schemas.ts'
import { type Check, checkCluster } from './check-cluster.ts'
import type { ApiClient } from './client.ts'
import { clientOf, configPath, type Connection, resolveConnection } from './connection.ts'
import { CliError, EXIT } from './io.ts'
import type { GlobalFlags, Session } from './session.ts'
import type { AddVerb } from './verbs.ts'

const MAX_SKEW_MS = 5000
const COORDINATOR_PORTS = [7600, 7650, 7653]
const AGENT_PORTS = [7700]

export function addDoctor(add: AddVerb): void {
  add(
    'doctor',
    'check the coordinator, the clock, TLS, what is amiss in the cluster, the engine and the ports here',
  )(async (session, _args, _flags, globals) => {
    const found = await checkCoordinator(session, globals)
    const isReached = found.some(({ name, outcome }) => name === 'token' && outcome === 'ok')
    const checks = [...found, ...(await checkHost(session, isReached))]
    session.print(checks, () =>
      checks.flatMap(({ name, outcome, text, next }) => {
        const style = outcome === 'ok' ? 'good' : outcome === 'warning' ? 'warn' : 'bad'
        const line = `${session.paint(style, outcome.padEnd(7))}  ${name}: ${text}`
        return next === undefined ? [line] : [line, `         → ${next}`]
      }),
    )
    return checks.some(({ outcome }) => outcome === 'failed') ? EXIT.failed : EXIT.ok
  })
}

async function checkCoordinator(session: Session, globals: GlobalFlags): Promise<readonly Check[]> {
  const { io } = session
  let connection: Connection
  try {
    connection = await resolveConnection(io, globals)
  } catch (error) {
    return [failure('configuration', error)]
  }
  const named = connection.configured ? '' : ' (nothing names one: this is the default)'
  const checks: Check[] = []
  let status: StatusView
  let client: ApiClient
  try {
    client = clientOf(io, connection)
    status = await client.get<StatusView>('/v1/status')
  } catch (error) {
    const unnamed: Check = {
      name: 'configuration',
      outcome: 'warning',
      text: `nothing names a coordinator; tried ${connection.url}`,
      next: `set RUBATO_URL, or url: in ${configPath(io)}`,
    }
    return [
      connection.configured ? { name: 'configuration', outcome: 'ok', text: connection.url } : unnamed,
      failure('coordinator', error),
    ]
  }
  checks.push({ name: 'configuration', outcome: 'ok', text: `${connection.url}${named}` })
  checks.push({
    name: 'coordinator',
    outcome: status.frozen ? 'warning' : 'ok',
    text: `version ${status.version}, cluster ${status.clusterId ?? '?'}, ${status.counts.liveNodes} of ${status.counts.nodes} nodes live${status.frozen ? `; frozen: ${status.frozen.reason}` : ''}`,
    ...(status.frozen ? { next: 'see "rubato nodes"; it ends by itself when two thirds report again' } : {}),
  })
  checks.push({ name: 'token', outcome: 'ok', text: `${status.operator?.name ?? '?'} (${status.operator?.role ?? '?'})` })
  const skewMs = status.nowMs - io.clock.now()
  checks.push(
    Math.abs(skewMs) <= MAX_SKEW_MS
      ? { name: 'clock', outcome: 'ok', text: `within ${MAX_SKEW_MS / 1000} s of the coordinator` }
      : {
          name: 'clock',
          outcome: 'failed',
          text: `the coordinator's clock is ${Math.round(Math.abs(skewMs) / 1000)} s ${skewMs > 0 ? 'ahead' : 'behind'}`,
          next: 'run a time service (chrony, systemd-timesyncd) on both',
        },
  )
  const encrypted = connection.url.startsWith('https:')
  checks.push(
    encrypted && connection.caPem === null
      ? {
          name: 'tls',
          outcome: 'warning',
          text: 'the certificate is trusted by the system, not pinned',
          next: 'pin it with --ca FILE or RUBATO_CA',
        }
      : { name: 'tls', outcome: 'ok', text: encrypted ? 'pinned to the given authority' : 'plain HTTP on this host' },
  )
  if (status.counts.nodes === 0) {
    checks.push({
      name: 'nodes',
      outcome: 'warning',
      text: 'no node has joined',
      next: 'make a host a node with "rubato token join", or configure a pool',
    })
  }
  return [...checks, ...(await lookAtCluster(client, status.nowMs))]
}

async function lookAtCluster(client: ApiClient, nowMs: number): Promise<readonly Check[]> {
  try {
    const [services, instances, nodes, fleet] = await Promise.all([
      client.list<ServiceView>('/v1/services'),
      client.list<InstanceView>('/v1/instances'),
      client.list<NodeView>('/v1/nodes'),
      client.get<FleetStatus>('/v1/fleet'),
    ])
    return checkCluster({ services, instances, nodes, fleet, nowMs })
  } catch (error) {
    return [failure('cluster', error)]
  }
}

/** `isReached`: the cluster runs elsewhere or here already; then no engine is needed on this host. */
async function checkHost({ io }: Session, isReached: boolean): Promise<readonly Check[]> {
  const docker = await io.probe.dockerVersion()
  const checks: Check[] = [
    docker.ok
      ? { name: 'docker', outcome: 'ok', text: docker.text }
      : isReached
        ? { name: 'docker', outcome: 'ok', text: `${docker.text} (needed only where an agent shall run containers)` }
        : {
            name: 'docker',
            outcome: 'warning',
            text: docker.text,
            next: 'start a Docker engine, or run processes instead of containers (engine: process)',
          },
  ]
  for (const port of [...COORDINATOR_PORTS, ...AGENT_PORTS]) {
    const free = await io.probe.portIsFree(port)
    const of = AGENT_PORTS.includes(port) ? 'an agent' : 'a coordinator'
    checks.push({ name: `port ${port}`, outcome: 'ok', text: free ? `free for ${of}` : `in use (fine when ${of} runs here)` })
  }
  return checks
}

function failure(name: string, error: unknown): Check {
  const next = error instanceof CliError ? error.hint : null
  return { name, outcome: 'failed', text: messageOf(error), ...(next === null ? {} : { next }) }
}
