/** The opposite of running: nothing of this node is left on the host. */
import { rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { type Clock, sleep } from '../shared/clock.ts'
import { messageOf, RetryableError } from '../shared/errors.ts'
import type { Files } from '../shared/files.ts'
import type { Logger } from '../shared/logger.ts'
import type { Random } from '../shared/random.ts'
import type { AgentConfig } from './config.ts'
import { fenceDirOf } from './fence/watchdog-process.ts'
import { machineId } from './host.ts'
import { forgetIdentity, loadIdentity } from './identity.ts'
import type { CatalogBackend } from './registrar/catalog-backend.ts'
import { createConsulBackend } from './registrar/consul-backend.ts'
import { destroyDockerNode } from './runtime/docker/docker-runtime.ts'
import { createProcessRuntime } from './runtime/process/process-runtime.ts'
import { readProcess } from './runtime/process/process-table.ts'

const AGENT_END_MS = 20_000

/** What is to be known of an earlier life: kept beside the identity. */
export interface Footprint {
  readonly engine: 'docker' | 'process'
  readonly dockerSocket: string
  readonly bindAddress: string
}

export interface World {
  readonly clock: Clock
  readonly random: Random
  readonly files: Files
  readonly logger: Logger
}

/** Ends everything of this node that runs here, takes it out of Consul, and forgets who it was. May be repeated. */
export async function destroyNode(config: AgentConfig, world: World): Promise<void> {
  const { clock, random, files, logger } = world
  const stateDir = resolve(config.stateDir)
  const loaded = await loadIdentity(files, stateDir, await machineId())
  if (loaded.kind !== 'known') {
    logger.info('this node never joined: nothing runs here')
    return
  }
  const { clusterId, nodeId } = loaded.identity
  await endRunningAgent(world, stateDir)
  // Without a lease the watchdog ends by itself.
  await rm(fenceDirOf(stateDir), { recursive: true, force: true })
  await leaveConsul(config, nodeId, logger)
  const footprint = await readFootprint(files, stateDir)
  const bindAddress = footprint?.bindAddress ?? '127.0.0.1'
  const processes = await createProcessRuntime({ stateDir, clusterId, nodeId, bindAddress, clock, random, files, logger })
  for (const container of await processes.list()) {
    await processes.stop(container.id, 2_000)
    await processes.remove(container.id)
  }
  if (footprint?.engine !== 'process') {
    const socketPath = footprint?.dockerSocket ?? config.dockerSocket
    await destroyDockerNode({ socketPath, clusterId, nodeId, clock, logger })
  }
  for (const part of ['link', 'processes', 'work', 'tokens.json', 'footprint.json', 'agent.pid'])
    await rm(join(stateDir, part), { recursive: true, force: true })
  await forgetIdentity(files, stateDir)
  logger.info('everything of this node was removed', { nodeId })
}

/** Leaves a mark by which `destroy` finds this very process. */
export async function markRunning(files: Files, stateDir: string): Promise<void> {
  await files.write(join(stateDir, 'agent.pid'), `${process.pid} ${readProcess(process.pid)?.startTicks ?? 0}\n`, 0o600)
}

/** An agent that still runs would start again what is removed here. Throws RetryableError when it does not end. */
async function endRunningAgent({ files, clock, logger }: World, stateDir: string): Promise<void> {
  const [pid = 0, startTicks = 0] = ((await files.read(join(stateDir, 'agent.pid'))) ?? '').split(' ').map(Number)
  const isAlive = () => {
    const found = pid > 1 && pid !== process.pid ? readProcess(pid) : null
    return found !== null && found.startTicks === startTicks && found.state !== 'Z'
  }
  if (!isAlive()) return
  logger.info('the agent of this node still runs and is asked to end', { pid })
  process.kill(pid, 'SIGTERM')
  for (let waitedMs = 0; isAlive(); waitedMs += 100) {
    if (waitedMs >= AGENT_END_MS) throw new RetryableError(`the agent of this node (process ${pid}) does not end`)
    await sleep(clock, 100)
  }
}

/** Nobody would keep those checks fresh any more. A Consul that is away does not hold up the removal: it forgets them by itself. */
async function leaveConsul(config: AgentConfig, nodeId: string, logger: Logger): Promise<void> {
  const consul = consulOf(config, nodeId)
  try {
    for (const { id } of (await consul?.list()) ?? []) await consul?.deregister(id)
  } catch (error) {
    logger.warn('services of this node stay registered in Consul until they are critical for 30 minutes', {
      error: messageOf(error),
    })
  }
}

/** The node's own Consul agent, where the settings name one. */
export function consulOf(config: AgentConfig, nodeId: string): CatalogBackend | null {
  if (config.consul === null) return null
  const { address, token } = config.consul
  return createConsulBackend({ host: address.host, port: address.port, secure: false, token, nodeId })
}

/** Keeps what a later start, and `destroy`, must know. */
export function saveFootprint(files: Files, stateDir: string, footprint: Footprint): Promise<void> {
  return files.write(join(stateDir, 'footprint.json'), `${JSON.stringify(footprint)}\n`, 0o600)
}

export async function readFootprint(files: Files, stateDir: string): Promise<Footprint | null> {
  const text = await files.read(join(stateDir, 'footprint.json'))
  return text === null ? null : (JSON.parse(text) as Footprint)
}
