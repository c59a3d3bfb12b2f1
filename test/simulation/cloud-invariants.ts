/** What must hold of machines whatever happens: I1, and the rate of purchases (I11). */
import { CLUSTER_TAG } from '../../coordinator/providers/provider.ts'
import type { MachineRecord } from '../../shared/model/node.ts'
import type { SimCluster } from './cluster.ts'
import type { Effect } from './effects.ts'
import { InvariantViolation } from './violation.ts'

export interface CloudInvariants {
  check(cluster: SimCluster): void
  effect(effect: Effect): void
}

/** The executor waits a second at least, by the fastest clock (1.5). */
const CREATE_AGAIN_MS = 1_000 / 1.5

/** Machines only go forward. */
const ORDER: readonly MachineRecord['phase'][] = ['requested', 'booting', 'joining', 'joined', 'terminating', 'gone', 'lost']

export function createCloudInvariants(world: () => SimCluster): CloudInvariants {
  /** When each machine was last asked for, and by which coordinator. */
  const asked = new Map<string, { atMs: number; epoch: number }>()
  const foreign = new Map<string, string>()
  const phases = new Map<string, MachineRecord['phase']>()
  const joined = new Set<string>()

  /** Machines that are not ours exist until somebody at the console removes them. */
  const leftAlone = (cluster: SimCluster) => {
    const live = cluster.provider.live()
    const clusterId = cluster.coordinator?.cluster.id
    for (const vm of live) if (clusterId !== undefined && vm.tags[CLUSTER_TAG] !== clusterId) foreign.set(vm.id, vm.name)
    for (const [id, name] of foreign)
      if (!live.some((vm) => vm.id === id && vm.state !== 'stopping'))
        throw new InvariantViolation('I1', `machine ${name}, which is not ours, was deleted`)
  }

  /** What is written off does not exist, and what is being deleted does not become a node (rows 5–8). */
  const writtenOff = (cluster: SimCluster) => {
    const snapshot = cluster.coordinator?.state.snapshot
    if (!snapshot) return
    for (const machine of snapshot.all('machine').values()) {
      const before = phases.get(machine.id)
      if (before === machine.phase) continue
      if (before !== undefined && ORDER.indexOf(machine.phase) < ORDER.indexOf(before))
        throw new InvariantViolation('I1', `machine ${machine.id} went from ${before} back to ${machine.phase}`)
      phases.set(machine.id, machine.phase)
      if (machine.phase !== 'gone' && machine.phase !== 'lost') continue
      if (cluster.provider.live().some((vm) => vm.name === machine.name))
        throw new InvariantViolation('I1', `machine ${machine.id} is written off as ${machine.phase}, and exists`)
    }
    for (const node of snapshot.all('node').values()) {
      if (node.machineId === null || joined.has(node.id)) continue
      joined.add(node.id)
      const phase = snapshot.get('machine', node.machineId)?.phase
      if (phase === 'terminating' || phase === 'gone' || phase === 'lost')
        throw new InvariantViolation('I1', `${node.id} joined from machine ${node.machineId}, which is ${phase}`)
    }
  }

  return {
    check(cluster) {
      leftAlone(cluster)
      writtenOff(cluster)
    },
    effect(effect) {
      if (effect.kind !== 'cloud' || effect.when !== 'before' || !effect.what.startsWith('create ')) return
      const cluster = world()
      const atMs = cluster.clock.monotonicMs()
      const epoch = cluster.coordinator?.state.epoch ?? 0
      const last = asked.get(effect.what)
      if (last && last.epoch === epoch && atMs - last.atMs < CREATE_AGAIN_MS)
        throw new InvariantViolation('I11', `${effect.what} again after ${Math.round(atMs - last.atMs)} ms`)
      asked.set(effect.what, { atMs, epoch })
    },
  }
}
