/**
 * What must hold whatever happens (reliability plan §2), checked after every step of virtual time. A check is skipped when nothing
 * that it reads has changed. `unsettled` says what is still to be done: null is I10's "has converged".
 */
import { isRoutable } from '../../coordinator/state/observed.ts'
import { wantedCount } from '../../coordinator/services/service-plan.ts'
import { specHashOf } from '../../shared/canonical.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import { parseInstanceId, serviceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { SimCluster } from './cluster.ts'

export class InvariantViolation extends Error {
  readonly invariant: string
  constructor(invariant: string, message: string) {
    super(`${invariant}: ${message}`)
    this.name = 'InvariantViolation'
    this.invariant = invariant
  }
}

export interface Invariants {
  /** Throws InvariantViolation. */
  check(): void
  /** The cluster acknowledged this app: from now on it must never be without it (I5). */
  acknowledged(spec: AppSpec): void
  forgotten(app: string): void
  /** From now on at least that many instances of the service serve (I4); null ends it. Only for voluntary disruption. */
  keepServing(service: string, atLeast: number | null): void
  /** From now on no container may start or end (I9); `false` ends it. */
  freezeContainers(on: boolean): void
  /** Why the cluster is not yet as it shall be; null when it is. */
  unsettled(): string | null
  readonly checks: number
}

const UNDER_WAY: ReadonlySet<string> = new Set(['progressing', 'monitoring', 'rolling-back'])
/** More timers than this at once mean that something is not bounded (I11). */
const MAX_TIMERS = 20_000

export function createInvariants(world: () => SimCluster): Invariants {
  const promised = new Map<string, string>()
  const serving = new Map<string, number>()
  const strict = new Set<string>()
  /** Epoch and revision of the key set of each agent's disk. */
  const keysSeen = new Map<string, { epoch: number; revision: number }>()
  const epochSeen = new Map<string, number>()
  let frozen: string | null = null
  let checkedAt = ''
  let checks = 0

  const check = () => {
    const cluster = world()
    const mark = `${cluster.coordinator?.state.epoch}/${cluster.coordinator?.state.snapshot.revision}/${cluster.trace.count}`
    if (mark === checkedAt) return
    checkedAt = mark
    checks += 1
    oneContainer(cluster)
    bounds(cluster)
    durable(cluster)
    available(cluster)
    monotonic(cluster)
    if (frozen !== null && containersOf(cluster) !== frozen)
      throw new InvariantViolation('I9', `containers changed: ${frozen} became ${containersOf(cluster)}`)
    if (cluster.clock.pendingTimers > MAX_TIMERS)
      throw new InvariantViolation('I11', `${cluster.clock.pendingTimers} timers are pending`)
  }

  const oneContainer = (cluster: SimCluster) => {
    const names = new Map<string, string>()
    for (const host of cluster.hosts.values())
      for (const container of host.engine.containers.values()) {
        if (container.state !== 'running') continue
        const other = names.get(container.name)
        if (other !== undefined) throw new InvariantViolation('I2', `${container.name} runs on ${other} and on ${host.name}`)
        names.set(container.name, host.name)
      }
    oneStrictSingleton(cluster)
    const snapshot = cluster.coordinator?.state.snapshot
    if (!snapshot) return
    const places = new Map<string, string>()
    for (const { nodeId, instances } of snapshot.all('assignments').values())
      for (const { id } of instances) {
        const other = places.get(id)
        if (other !== undefined) throw new InvariantViolation('I2', `${id} is assigned to ${other} and to ${nodeId}`)
        places.set(id, nodeId)
      }
  }

  /** A strict singleton runs at most once per slot, cut off or not. */
  const oneStrictSingleton = (cluster: SimCluster) => {
    const slots = new Map<string, string>()
    for (const host of cluster.hosts.values())
      for (const { request, state } of host.engine.containers.values()) {
        if (state !== 'running' || request.sharesNetworkOf !== null || !strict.has(serviceIdOf(request.instance))) continue
        const slot = `${serviceIdOf(request.instance)}/${parseInstanceId(request.instance)?.slot}`
        const other = slots.get(slot)
        if (other !== undefined) throw new InvariantViolation('I2', `strict ${slot} runs as ${other} and as ${request.instance}`)
        slots.set(slot, request.instance)
      }
  }

  const bounds = (cluster: SimCluster) => {
    const snapshot = cluster.coordinator?.state.snapshot
    if (!snapshot) return
    for (const app of snapshot.all('app').values())
      for (const spec of app.spec.services) {
        const record = snapshot.get('service', serviceId(app.name, spec.name))
        if (!record || !spec.scale || app.removing) continue
        // `wantedCount` clamps what it reads; what is written must be within the bounds by itself.
        for (const count of [record.desired, record.pinned ?? record.desired])
          if (count < spec.scale.min || count > spec.scale.max)
            throw new InvariantViolation('I3', `${record.id} wants ${count}, allowed are ${spec.scale.min}–${spec.scale.max}`)
      }
    for (const pool of snapshot.all('pool').values()) {
      const live = cluster.provider.live().filter((vm) => vm.request.pool === pool.name && vm.state !== 'stopping').length
      if (live > pool.max) throw new InvariantViolation('I11', `${live} machines of pool ${pool.name}, allowed are ${pool.max}`)
    }
    const { greeting } = (cluster.coordinator as NonNullable<typeof cluster.coordinator>).hub.stats()
    if (greeting > 256) throw new InvariantViolation('I11', `${greeting} sessions are greeting`)
  }

  const durable = (cluster: SimCluster) => {
    const snapshot = cluster.coordinator?.state.snapshot
    if (!snapshot) return
    for (const [name, hash] of promised) {
      const app = snapshot.get('app', name)
      if (!app) throw new InvariantViolation('I5', `app ${name} was acknowledged and is gone`)
      const kept = [app.spec, ...app.history.map((entry) => entry.spec)]
      if (!kept.some((spec) => specHashOf(spec) === hash))
        throw new InvariantViolation('I5', `the acknowledged revision of ${name} is neither wanted nor in its history`)
    }
  }

  const available = (cluster: SimCluster) => {
    for (const [service, atLeast] of serving) {
      const count = servingOf(cluster, service)
      if (count < atLeast) throw new InvariantViolation('I4', `${count} instances of ${service} serve, promised are ${atLeast}`)
    }
  }

  const monotonic = (cluster: SimCluster) => {
    for (const host of cluster.hosts.values()) {
      for (const name of ['keys', 'desired', 'routes']) {
        const text = host.disk.get(`/state/link/${name}.json`)
        if (text === undefined) continue
        const key = `${host.name} ${name}`
        const head = /"epoch":(\d+),"revision":(\d+)/.exec(text.slice(0, 200))
        if (!head) continue
        const now = { epoch: Number(head[1]), revision: Number(head[2]) }
        const before = keysSeen.get(key)
        if (before && (now.epoch < before.epoch || (now.epoch === before.epoch && now.revision < before.revision)))
          throw new InvariantViolation(
            name === 'keys' ? 'I13' : 'I6',
            `${key} went from ${JSON.stringify(before)} back to ${JSON.stringify(now)}`,
          )
        keysSeen.set(key, now)
        if (now.epoch < (epochSeen.get(host.name) ?? 0) && name !== 'routes' && before && now.epoch !== before.epoch)
          throw new InvariantViolation('I6', `${host.name} took ${name} of epoch ${now.epoch} after ${epochSeen.get(host.name)}`)
        epochSeen.set(host.name, Math.max(epochSeen.get(host.name) ?? 0, now.epoch))
      }
    }
  }

  return {
    check,
    acknowledged(spec) {
      promised.set(spec.name, specHashOf(spec))
      for (const service of spec.services)
        if (service.unit.singletonStrictMs !== null) strict.add(serviceId(spec.name, service.name))
    },
    forgotten: (app) => void promised.delete(app),
    keepServing(service, atLeast) {
      if (atLeast === null) serving.delete(service)
      else serving.set(service, atLeast)
    },
    freezeContainers(on) {
      frozen = on ? containersOf(world()) : null
    },
    unsettled: () => unsettled(world()),
    get checks() {
      return checks
    },
  }
}

/** Every running container with its start time: equal texts mean that nothing was touched. */
export function containersOf(cluster: SimCluster): string {
  const lines: string[] = []
  for (const host of cluster.hosts.values())
    for (const container of host.engine.containers.values())
      if (container.state === 'running') lines.push(`${host.name} ${container.id} ${container.name} ${container.startedAtMs}`)
  return lines.sort().join('; ')
}

/** Instances whose container runs and whose agent has it ready and healthy, not on its way out. */
function servingOf(cluster: SimCluster, service: string): number {
  let count = 0
  for (const host of cluster.hosts.values())
    for (const status of host.agent?.reconciler.inventory() ?? [])
      if (
        serviceIdOf(status.instance) === service &&
        status.phase === 'ready' &&
        status.healthy &&
        host.engine.running(status.instance).length > 0
      )
        count += 1
  return count
}

function unsettled(cluster: SimCluster): string | null {
  const { coordinator } = cluster
  if (!coordinator) return 'no coordinator runs'
  const { snapshot } = coordinator.state
  const { observed } = coordinator.hub
  const wantedContainers = new Set<string>()
  for (const host of cluster.hosts.values()) {
    if (host.left) continue
    if (!host.nodeId || !host.agent) return `${host.name} has no agent`
    const node = observed.node(host.nodeId)
    if (!node?.connected) return `${host.name} is not connected`
    if (node.liveness !== 'live') return `${host.name} is ${node.liveness}`
  }
  for (const node of snapshot.all('node').values()) {
    if (node.availability === 'draining') return `node ${node.id} drains`
    if (observed.node(node.id)?.liveness !== 'live') return `node ${node.id} is ${observed.node(node.id)?.liveness}`
  }
  for (const machine of snapshot.all('machine').values())
    if (['requested', 'booting', 'joining', 'terminating'].includes(machine.phase))
      return `machine ${machine.id} is ${machine.phase}`
  for (const vm of cluster.provider.live()) {
    const known = [...snapshot.all('machine').values()].find((machine) => machine.name === vm.name)
    if (known?.phase !== 'joined') return `VM ${vm.name} exists, its machine is ${known?.phase ?? 'unknown'}`
  }
  for (const app of snapshot.all('app').values()) {
    if (app.removing) return `app ${app.name} is being removed`
    for (const spec of app.spec.services) {
      const id = serviceId(app.name, spec.name)
      const record = snapshot.get('service', id)
      if (!record) return `service ${id} has no record`
      if (record.rollout !== null && UNDER_WAY.has(record.rollout.phase)) return `${id}: rollout is ${record.rollout.phase}`
      const instances = snapshot.instancesOf(id)
      const active = [...snapshot.all('node').values()].filter((node) => node.availability === 'active').length
      const wanted = spec.mode === 'global' ? active : wantedCount(spec, record)
      if (instances.length !== wanted) return `${id} has ${instances.length} instances, wanted are ${wanted}`
      for (const instance of instances) {
        if (instance.goal !== 'run') return `${instance.id} shall stop`
        if (instance.specHash !== spec.specHash) return `${instance.id} has an old spec`
        const seen = observed.instance(instance.id)
        if (!seen || !isRoutable(seen, observed.node(seen.nodeId))) return `${instance.id} is ${seen?.phase ?? 'not observed'}`
        wantedContainers.add(instance.id)
      }
    }
  }
  for (const record of snapshot.all('service').values()) {
    const name = record.id.split('/')[0] ?? ''
    if (!snapshot.get('app', name)) return `service ${record.id} has no app`
  }
  for (const host of cluster.hosts.values())
    for (const container of host.engine.containers.values()) {
      if (!wantedContainers.has(container.request.instance)) return `${container.name} on ${host.name} is left over`
      if (container.state !== 'running') return `${container.name} on ${host.name} is ${container.state}`
      const record = snapshot.instances().get(container.request.instance)
      if (record?.nodeId !== host.nodeId) return `${container.name} runs on ${host.name}, its place is ${record?.nodeId}`
      wantedContainers.add(container.request.instance)
    }
  const runs = cluster.running()
  for (const id of wantedContainers) if (!runs.has(id)) return `${id} does not run`
  for (const id of runs.keys()) if (parseInstanceId(id) === null) return `${id} is no instance`
  return null
}
