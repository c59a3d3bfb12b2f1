/** `rubato doctor`: what is wrong between here and a working cluster, each failing line with its next step. */
import { messageOf } from '../../shared/errors.ts'
import type { StatusView } from '../api/schemas.ts'
import { clientOf, configPath, type Connection, resolveConnection } from './connection.ts'
import { CliError, EXIT } from './io.ts'
import type { GlobalFlags, Session } from './session.ts'
import type { AddVerb } from './verbs.ts'

interface Check {
  readonly name: string
  readonly outcome: 'ok' | 'warning' | 'failed'
  readonly text: string
  readonly next?: string
}

const MAX_SKEW_MS = 5000
const COORDINATOR_PORTS = [7600, 7650, 7653]
const AGENT_PORTS = [7700]

export function addDoctor(add: AddVerb): void {
  add(
    'doctor',
    'check the coordinator, the clock, TLS, the engine and the ports',
  )(async (session, _args, _flags, globals) => {
    const checks = [...(await checkCoordinator(session, globals)), ...(await checkHost(session))]
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
  const checks: Check[] = [
    connection.configured
      ? { name: 'configuration', outcome: 'ok', text: connection.url }
      : {
          name: 'configuration',
          outcome: 'warning',
          text: `nothing names a coordinator; trying ${connection.url}`,
          next: `set RUBATO_URL, or url: in ${configPath(io)}`,
        },
  ]
  let status: StatusView
  try {
    status = await clientOf(io, connection).get<StatusView>('/v1/status')
  } catch (error) {
    return [...checks, failure('coordinator', error)]
  }
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
  return checks
}

async function checkHost({ io }: Session): Promise<readonly Check[]> {
  const docker = await io.probe.dockerVersion()
  const checks: Check[] = [
    docker.ok
      ? { name: 'docker', outcome: 'ok', text: docker.text }
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
