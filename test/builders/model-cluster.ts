/**
 * A cluster small enough to reason about: the real state and services loop over a memory store and virtual time, with
 * placement and agents that simply do what they are told. A test drives it with faults and looks at what runs.
 */
import { createServicesLoop } from '../../coordinator/services/services-loop.ts'
import { deployApp } from '../../coordinator/services/deploy.ts'
import type { InstanceRecord } from '../../coordinator/state/objects.ts'
import { openState, type State } from '../../coordinator/state/state.ts'
import { silentLogger } from '../../shared/logger.ts'
import type { Loop } from '../../shared/loop.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import { serviceIdOf } from '../../shared/model/identity.ts'
import type { Availability } from '../../shared/model/node.ts'
import type { InstancePhase } from '../../shared/model/observation.ts'
import { emptyDisk, memoryStore } from '../fakes/memory-store.ts'
import { virtualClock, type VirtualClock } from '../fakes/virtual-clock.ts'
import { aNodeObservation, anInstanceObservation, type TestObserved, testObserved } from './observed.ts'
import { aDrainingNode, aNodeRecord } from './records.ts'

export interface ModelCluster {
  readonly clock: VirtualClock
  state: State
  observed: TestObserved
  /** Containers that run, node → instance → phase; they go on when the coordinator or the link is gone. */
  readonly running: Map<string, Map<string, InstancePhase>>
  /** Hashes whose instances fail instead of becoming ready. */
  readonly badHashes: Set<string>
  /** Called after each step. */
  watch: (() => void) | null
  deploy(spec: AppSpec): Promise<void>
  setNode(id: string, fields: { up?: boolean; availability?: Availability }): Promise<void>
  /** The agent gives the instance up. */
  fail(instance: string): void
  /** The instance's work ends with success. */
  finish(instance: string): void
  /** Nothing of it runs for `downMs`. */
  crashCoordinator(downMs?: number): Promise<void>
  /** Seconds of life: placement and agents act once each. */
  run(seconds: number): Promise<void>
  runs(service: string): InstanceRecord[]
  /** Ready containers of a service on reachable nodes. */
  ready(service: string): string[]
  stop(): Promise<void>
}

/** A model with nodes `n-1` … `n-<nodes>`. Instances need `startSeconds` steps to become ready. */
export async function modelCluster(nodes: number, options: { readonly pullsAhead?: boolean } = {}): Promise<ModelCluster> {
  const clock = virtualClock()
  const disk = emptyDisk()
  const up = new Set<string>()
  let loop: Loop
  const boot = async () => {
    cluster.state = await openState(memoryStore(disk), clock)
    cluster.observed = testObserved()
    for (const id of cluster.state.snapshot.all('node').keys())
      cluster.observed.setNode(aNodeObservation({ nodeId: id, liveness: up.has(id) ? 'live' : 'unknown', connected: up.has(id) }))
    loop = createServicesLoop({ state: cluster.state, observed: cluster.observed, clock, logger: silentLogger(), ...options })
    loop.start()
    for (const id of up) report(id)
  }
  const report = (nodeId: string) => {
    for (const [instance, phase] of cluster.running.get(nodeId) ?? [])
      if (cluster.observed.instance(instance)?.phase !== phase || cluster.observed.instance(instance)?.nodeId !== nodeId)
        cluster.observed.setInstance(anInstanceObservation({ instance, nodeId, phase, observedAtMs: clock.now() }))
  }
  const place = async () => {
    const { snapshot } = cluster.state
    const taking = [...up].filter((id) => snapshot.get('node', id)?.availability === 'active').sort()
    for (const service of snapshot.all('service').values())
      for (const record of service.pending) {
        const count = (id: string) => snapshot.get('assignments', id)?.instances.length ?? 0
        const own = record.job?.key ?? ''
        const [target] = (taking.includes(own) ? [own] : [...taking]).sort((a, b) => count(a) - count(b) || (a < b ? -1 : 1))
        const present = snapshot.get('service', service.id)
        if (target === undefined || present === undefined || !present.pending.includes(record)) continue
        const placed = { ...record, nodeId: target, placedAtMs: clock.now() }
        const change = cluster.state.change()
        change.put('service', service.id, { ...present, pending: present.pending.filter((other) => other !== record) })
        change.put('assignments', target, {
          nodeId: target,
          instances: [...(snapshot.get('assignments', target)?.instances ?? []), placed],
        })
        await cluster.state.commit(change)
      }
  }
  const act = (nodeId: string) => {
    const here = cluster.running.get(nodeId) ?? new Map<string, InstancePhase>()
    cluster.running.set(nodeId, here)
    const wanted = cluster.state.snapshot.get('assignments', nodeId)?.instances ?? []
    const ids = new Set(wanted.map((record) => record.id))
    for (const id of [...here.keys()]) if (!ids.has(id)) here.delete(id)
    for (const record of wanted) {
      const phase = here.get(record.id)
      if (phase === 'failed' || phase === 'stopped') continue
      if (record.goal === 'stop') here.set(record.id, phase === undefined || phase === 'draining' ? 'stopped' : 'draining')
      else if (phase === undefined) here.set(record.id, 'starting')
      else if (phase === 'starting') here.set(record.id, cluster.badHashes.has(record.specHash) ? 'failed' : 'ready')
    }
    report(nodeId)
  }
  const cluster: ModelCluster = {
    clock,
    state: undefined as unknown as State,
    observed: testObserved(),
    running: new Map(),
    badHashes: new Set(),
    watch: null,
    async deploy(spec) {
      await cluster.state.commit(deployApp(cluster.state, { spec, source: '', by: 'operator:test' }, clock.now()).change)
    },
    async setNode(id, fields) {
      const availability = fields.availability ?? cluster.state.snapshot.get('node', id)?.availability ?? 'active'
      const build = availability === 'draining' ? aDrainingNode : aNodeRecord
      if (fields.availability !== undefined) {
        const drain = {
          reason: 'test',
          by: 'test',
          startedAtMs: clock.now(),
          deadlineAtMs: clock.now() + 9e9,
          deleteMachine: false,
        }
        await cluster.state.commit(
          cluster.state.change().put('node', id, build({ id, availability, drain: availability === 'draining' ? drain : null })),
        )
      }
      if (fields.up === true) {
        up.add(id)
        report(id)
        cluster.observed.setNode(aNodeObservation({ nodeId: id }))
      } else if (fields.up === false) {
        up.delete(id)
        cluster.observed.setNode(aNodeObservation({ nodeId: id, liveness: 'lost', connected: false }))
      }
    },
    fail(instance) {
      for (const id of up) {
        const here = cluster.running.get(id)
        if (here?.has(instance) && here.get(instance) !== 'stopped') here.set(instance, 'failed')
      }
    },
    finish(instance) {
      for (const here of cluster.running.values()) if (here.get(instance) === 'ready') here.set(instance, 'stopped')
    },
    async crashCoordinator(downMs = 0) {
      await loop.stop()
      await clock.advance(downMs)
      await boot()
    },
    async run(seconds) {
      for (let i = 0; i < seconds; i += 1) {
        await clock.advance(500)
        await place()
        await clock.advance(500)
        for (const id of [...up].sort()) act(id)
        cluster.watch?.()
      }
      await clock.advance(100)
    },
    runs: (service) => cluster.state.snapshot.instancesOf(service).filter((record) => record.goal === 'run'),
    ready(service) {
      const found: string[] = []
      for (const id of up)
        for (const [instance, phase] of cluster.running.get(id) ?? [])
          if (phase === 'ready' && serviceIdOf(instance) === service) found.push(instance)
      return found
    },
    stop: () => loop.stop(),
  }
  await boot()
  for (let i = 1; i <= nodes; i += 1) await cluster.setNode(`n-${i}`, { up: true, availability: 'active' })
  return cluster
}
