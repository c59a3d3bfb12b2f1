/**
 * The node's own network on the engine: `rubato-<node>`, no traffic between containers, and nothing forwarded to them from
 * elsewhere (row 45: engines of this age let neighbours of the host route to container addresses).
 */
import { createHash } from 'node:crypto'
import type Docker from 'dockerode'
import type { Clock } from '../../../shared/clock.ts'
import { ConflictError, messageOf, NotFoundError, UnavailableError } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/logger.ts'
import { LABEL } from './docker-mapping.ts'
import { engineCall } from './docker-call.ts'
import { chooseSubnet, gatewayOf } from './plan-subnet.ts'

export interface NetworkSettings {
  /** Addresses to cut node networks from. Default `10.210.0.0/16`. */
  readonly pool?: string
  /** Size of a node's network. Default 24: 253 containers. */
  readonly prefixLength?: number
  /** Ranges in use on this host beside the engine's networks (`10.0.0.0/8` …), never to be overlapped. */
  readonly usedSubnets?: readonly string[]
}

export interface NodeNetwork {
  readonly name: string
  readonly bridge: string
  readonly subnet: string
  readonly gateway: string
}

/** Runs a command of the host; never rejects. */
export type RunCommand = (argv: readonly string[]) => Promise<{ readonly code: number; readonly stderr: string }>

export interface NetworkDeps {
  readonly docker: Docker
  readonly clock: Clock
  readonly logger: Logger
  readonly clusterId: string
  readonly nodeId: string
  readonly settings: NetworkSettings
  readonly run: RunCommand
}

/** The network of this node, or null when there is none. Throws ConflictError when someone else has its name. */
export async function findNetwork(
  deps: Pick<NetworkDeps, 'docker' | 'clock' | 'clusterId' | 'nodeId'>,
): Promise<NodeNetwork | null> {
  return ownAmong(await engineCall(deps.clock, (abortSignal) => deps.docker.listNetworks({ abortSignal })), deps)
}

function ownAmong(
  networks: Awaited<ReturnType<Docker['listNetworks']>>,
  { clusterId, nodeId }: Pick<NetworkDeps, 'clusterId' | 'nodeId'>,
): NodeNetwork | null {
  const name = networkNameOf(nodeId)
  const own = networks.find((network) => network.Name === name)
  if (own === undefined) return null
  if (own.Labels?.[LABEL.cluster] !== clusterId || own.Labels?.[LABEL.node] !== nodeId)
    throw new ConflictError(`the network ${name} exists and is not this node's`)
  const config = own.IPAM?.Config?.[0]
  const subnet = config?.Subnet
  if (!subnet) throw new ConflictError(`the network ${name} has no subnet`)
  const bridge = own.Options?.['com.docker.network.bridge.name'] ?? bridgeNameOf(clusterId, nodeId)
  return { name, bridge, subnet, gateway: config?.Gateway ?? gatewayOf(subnet) }
}

/** Interface names hold 15 characters; derived, so that rules are found again after a restart. */
function bridgeNameOf(clusterId: string, nodeId: string): string {
  return `rb-${createHash('sha256').update(`${clusterId}/${nodeId}`).digest('hex').slice(0, 12)}`
}

/** The network of this node: found again by name and labels, else made. Throws ConflictError when someone else has its name. */
export async function ensureNetwork(deps: NetworkDeps): Promise<NodeNetwork> {
  const { docker, clock, clusterId, nodeId, settings } = deps
  const name = networkNameOf(nodeId)
  const bridge = bridgeNameOf(clusterId, nodeId)
  for (let attempt = 0; attempt < 20; attempt += 1) {
    const networks = await engineCall(clock, (abortSignal) => docker.listNetworks({ abortSignal }))
    const own = ownAmong(networks, deps)
    if (own !== null) return own
    const used = [
      ...networks.flatMap((network) => (network.IPAM?.Config ?? []).flatMap((item) => (item.Subnet ? [item.Subnet] : []))),
      ...(settings.usedSubnets ?? []),
    ]
    const subnet = chooseSubnet(
      settings.pool ?? '10.210.0.0/16',
      settings.prefixLength ?? 24,
      used,
      `${clusterId}/${nodeId}`,
      attempt,
    )
    if (subnet === null)
      throw new ConflictError(`no free subnet is left in ${settings.pool ?? '10.210.0.0/16'} for the network ${name}`)
    try {
      await engineCall(clock, (abortSignal) =>
        docker.createNetwork({
          Name: name,
          CheckDuplicate: true,
          Driver: 'bridge',
          IPAM: { Driver: 'default', Config: [{ Subnet: subnet, Gateway: gatewayOf(subnet) }] },
          Options: { 'com.docker.network.bridge.enable_icc': 'false', 'com.docker.network.bridge.name': bridge },
          Labels: { [LABEL.cluster]: clusterId, [LABEL.node]: nodeId },
          abortSignal,
        }),
      )
    } catch (error) {
      if (error instanceof UnavailableError) throw error
      // Another agent of this engine took the subnet meanwhile, or a route overlaps it: look again, then try the next.
      deps.logger.info('a subnet was refused, trying the next one', { subnet, error: messageOf(error) })
    }
  }
  throw new ConflictError(`the engine refused every subnet for the network ${name}`)
}

function networkNameOf(nodeId: string): string {
  return `rubato-${nodeId}`
}

/** Drops what is forwarded to containers from elsewhere, and their way to a cloud's metadata. Warns once when it cannot. */
export async function ensureFirewall(deps: NetworkDeps, network: NodeNetwork): Promise<boolean> {
  for (const rule of rulesOf(network)) {
    const there = await deps.run(['iptables', '-w', '5', '-t', 'raw', '-C', 'PREROUTING', ...rule])
    if (there.code === 0) continue
    const made = await deps.run(['iptables', '-w', '5', '-t', 'raw', '-I', 'PREROUTING', ...rule])
    if (made.code !== 0) {
      deps.logger.warn('container addresses are not shielded from neighbours of this host: iptables (and root) is needed', {
        network: network.name,
        error: made.stderr.slice(0, 300),
      })
      return false
    }
  }
  return true
}

/** Removes rules and network; absent ones are fine. Throws ConflictError while containers are in it. */
export async function destroyNetwork(deps: NetworkDeps, network: NodeNetwork): Promise<void> {
  try {
    await engineCall(deps.clock, (abortSignal) => deps.docker.getNetwork(network.name).remove({ abortSignal }))
  } catch (error) {
    if (!(error instanceof NotFoundError)) throw error
  }
  // An engine that was killed forgets that it made the bridge, and leaves it.
  await deps.run(['ip', 'link', 'del', network.bridge])
  for (const rule of rulesOf(network)) await deps.run(['iptables', '-w', '5', '-t', 'raw', '-D', 'PREROUTING', ...rule])
}

/**
 * In `raw`, before address translation: answers to what containers ask for still carry the host's address here, and what the
 * host itself sends does not come this way. So everything that matches was addressed to a container from elsewhere.
 */
function rulesOf({ name, bridge, subnet }: NodeNetwork): string[][] {
  const comment = ['-m', 'comment', '--comment', name.slice(0, 200)]
  return [
    ['-d', subnet, '!', '-i', bridge, ...comment, '-j', 'DROP'],
    ['-d', '169.254.169.254/32', '-i', bridge, ...comment, '-j', 'DROP'],
  ]
}
