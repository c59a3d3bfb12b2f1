/**
 * What must hold whatever happens (reliability plan §2), checked after every step of virtual time. A check is skipped when nothing
 * that it reads has changed. `unsettled` says what is still to be done: null is I10's "has converged".
 */
import type { Link } from '../../agent/link/link.ts'
import { specHashOf } from '../../shared/canonical.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import { parseInstanceId, serviceId, serviceIdOf } from '../../shared/model/identity.ts'
import { createCloudInvariants } from './cloud-invariants.ts'
import type { SimCluster } from './cluster.ts'
import type { Effect } from './effects.ts'
import type { Host } from './host-process.ts'
import { unsettled } from './settled.ts'
import { InvariantViolation } from './violation.ts'

export interface Invariants {
  /** Throws InvariantViolation. */
  check(): void
  /** The cluster acknowledged this app: from now on it must never be without it (I5). */
  acknowledged(spec: AppSpec): void
  forgotten(app: string): void
  /** The cluster acknowledged the revocation: within seconds no agent that hears of it has the key (I7). */
  revoked(key: string): void
  /** Every effect goes through here too: purchases must not be hammered (I11). */
  effect(effect: Effect): void
  /** From now on at least that many instances of the service serve (I4); null ends it. Only for voluntary disruption. */
  keepServing(service: string, atLeast: number | null): void
  /** From now on no container may start or end (I9); `false` ends it. */
  freezeContainers(on: boolean): void
  /** Why the cluster is not yet as it shall be; null when it is. */
  unsettled(): string | null
  readonly checks: number
}

/** More timers than this at once mean that something is not bounded (I11). */
const MAX_TIMERS = 20_000
/** I7, with what the slowest clock (0.8) adds. */
const REVOKED_WITHIN_MS = 5_000 / 0.8

export function createInvariants(world: () => SimCluster): Invariants {
  const promised = new Map<string, string>()
  /** Specs never change once they are stored: each is hashed once. */
  const hashes = new WeakMap<AppSpec, string>()
  const hashOf = (spec: AppSpec) => {
    const known = hashes.get(spec) ?? specHashOf(spec)
    hashes.set(spec, known)
    return known
  }
  const serving = new Map<string, number>()
  /** `service image` of what was deployed as a strict singleton: every revision that the simulator deploys has an image of its own. */
  const strict = new Set<string>()
  /** Epoch and revision of each set on each agent's disk. */
  const setsSeen = new Map<string, { epoch: number; revision: number }>()
  /** Epochs of what each life of an agent held at the last check. */
  const heldBefore = new WeakMap<object, ReturnType<Link['held']>>()
  const revocations = new Map<string, number>()
  /** Since when each agent is connected and nothing disturbs its link. */
  const steadySince = new Map<string, number>()
  const cloud = createCloudInvariants(world)
  let frozen: string | null = null
  /** Pairs seen at the last check: whether each began as a move off a draining node. */
  let movesBefore: ReadonlyMap<string, boolean> = new Map()
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
    forgotKeys(cluster)
    cloud.check(cluster)
    drainBudget(cluster)
    if (cluster.trace.leaks.length > 0) throw new InvariantViolation('I12', `a secret was logged: ${cluster.trace.leaks[0]}`)
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

  /**
   * Beside what was begun as a strict singleton nothing later of its slot runs, cut off or not, whatever was deployed since. What was
   * begun as none may run on in a cut: its node was told of no end.
   */
  const oneStrictSingleton = (cluster: SimCluster) => {
    const slots = new Map<string, { readonly instance: string; readonly generation: number; readonly isStrict: boolean }>()
    for (const host of cluster.hosts.values())
      for (const { request, state } of host.engine.containers.values()) {
        if (state !== 'running' || request.sharesNetworkOf !== null) continue
        const service = serviceIdOf(request.instance)
        const { slot, generation = 0 } = parseInstanceId(request.instance) ?? {}
        const here = { instance: request.instance, generation, isStrict: strict.has(`${service} ${request.spec.image}`) }
        const other = slots.get(`${service}/${slot}`)
        slots.set(`${service}/${slot}`, here)
        if (other !== undefined && (other.generation < generation ? other : here).isStrict)
          throw new InvariantViolation('I2', `strict ${service}/${slot} runs as ${other.instance} and as ${request.instance}`)
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
      if (!kept.some((spec) => hashOf(spec) === hash))
        throw new InvariantViolation('I5', `the acknowledged revision of ${name} is neither wanted nor in its history`)
    }
  }

  const available = (cluster: SimCluster) => {
    for (const [service, atLeast] of serving) {
      const count = servingOf(cluster, service)
      if (count < atLeast) throw new InvariantViolation('I4', `${count} instances of ${service} serve, promised are ${atLeast}`)
    }
  }

  /** Instances that move off draining nodes are at most a quarter of their service at once, over all nodes together (row 42). */
  const drainBudget = (cluster: SimCluster) => {
    const snapshot = cluster.coordinator?.state.snapshot
    if (!snapshot) return
    const draining = new Set<string>()
    // What a lost node ran is replaced at once, drain or not.
    for (const node of snapshot.all('node').values())
      if (node.availability === 'draining' && cluster.coordinator?.hub.observed.node(node.id)?.liveness !== 'lost')
        draining.add(node.id)
    const moves = new Map<string, boolean>()
    const moving = new Map<string, number>()
    const begun = new Set<string>()
    const count = new Map<string, number>()
    const all = snapshot.instances()
    for (const record of all.values()) {
      if (record.goal !== 'run') continue
      const service = serviceIdOf(record.id)
      count.set(service, (count.get(service) ?? 0) + 1)
      const before = record.replaces === null ? undefined : all.get(record.replaces)
      const isMove = before?.goal === 'run' && before.nodeId !== null && draining.has(before.nodeId)
      // What was begun for another reason (its node was lost, it ran an old revision) stays what it was when the node is back.
      const began = movesBefore.get(record.id) ?? (isMove && before.specHash === record.specHash)
      if (before !== undefined) moves.set(record.id, began)
      if (!isMove || !began) continue
      moving.set(service, (moving.get(service) ?? 0) + 1)
      if (!movesBefore.has(record.id)) begun.add(service)
    }
    for (const [service, number] of moving) {
      // Those that move are there twice.
      const wanted = snapshot.get('service', service)?.desired ?? 0
      const most = Math.max(1, Math.ceil(Math.max(wanted, (count.get(service) ?? 0) - number) / 4))
      // Fewer may be wanted meanwhile: what moves already goes on, and no other begins.
      if (number > most && begun.has(service))
        throw new InvariantViolation('I4', `${number} instances of ${service} move at once, at most ${most} may`)
    }
    movesBefore = moves
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
        const before = setsSeen.get(key)
        if (before && (now.epoch < before.epoch || (now.epoch === before.epoch && now.revision < before.revision)))
          throw new InvariantViolation(
            name === 'keys' ? 'I13' : 'I6',
            `${key} went from ${JSON.stringify(before)} back to ${JSON.stringify(now)}`,
          )
        setsSeen.set(key, now)
      }
      taken(host)
    }
  }

  /** What an agent takes is of the highest epoch that it has heard of. What it took may reach a full disk much later. */
  const taken = (host: Host) => {
    const { agent } = host
    if (!agent) return
    const { highestEpoch, sets } = agent.link.held()
    const before = heldBefore.get(agent)
    for (const [name, epoch] of Object.entries(sets)) {
      const epochBefore = before?.sets[name as keyof typeof sets] ?? epoch
      if (before && epoch !== epochBefore && epoch < before.highestEpoch)
        throw new InvariantViolation('I6', `${host.name} took ${name} of epoch ${epoch} after ${before.highestEpoch}`)
    }
    heldBefore.set(agent, { highestEpoch, sets })
  }

  const forgotKeys = (cluster: SimCluster) => {
    const nowMs = cluster.clock.monotonicMs()
    for (const host of cluster.hosts.values()) {
      if (!isSteady(cluster, host)) {
        steadySince.delete(host.name)
        continue
      }
      const sinceMs = steadySince.get(host.name) ?? nowMs
      steadySince.set(host.name, sinceMs)
      for (const [id, atMs] of revocations)
        if (nowMs - Math.max(atMs, sinceMs) > REVOKED_WITHIN_MS && host.agent?.view.keys.key(id) !== undefined)
          throw new InvariantViolation('I7', `${host.name} has key ${id}, ${Math.round(nowMs - atMs)} ms after its revocation`)
    }
  }

  return {
    check,
    effect: cloud.effect,
    revoked: (key) => void revocations.set(key, world().clock.monotonicMs()),
    acknowledged(spec) {
      promised.set(spec.name, specHashOf(spec))
      for (const service of spec.services)
        if (service.unit.singletonStrictMs !== null)
          strict.add(`${serviceId(spec.name, service.name)} ${service.unit.containers[0]?.image}`)
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

function isSteady(cluster: SimCluster, host: Host): boolean {
  if (!host.agent || !host.life?.alive || host.nodeId === null || !cluster.network.isCalm(host.name)) return false
  return cluster.coordinator?.hub.observed.node(host.nodeId)?.connected === true && host.agent.link.connected()
}
