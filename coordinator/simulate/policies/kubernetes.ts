/**
 * The Horizontal Pod Autoscaler's rule with a fleet like the Cluster Autoscaler's.
 *
 * HPA (Kubernetes documentation "Horizontal Pod Autoscaling", autoscaling/v2 defaults): every 15 s the mean CPU use of the ready
 * pods over the target gives a ratio; within 10 % of 1 nothing happens; pods not ready count as idle when scaling up and are left
 * out of it; up at most by the larger of 100 % and 4 pods per 15 s; down to the largest recommendation of the last 300 s.
 * Cluster Autoscaler (its FAQ): scan every 10 s; pending pods buy nodes, nodes on their way count; a node below 50 % requested
 * whose pods fit elsewhere for 10 min goes, no sooner than 10 min after the last scale-up; empty nodes together, others one by one.
 *
 * Kinder than the original: metrics are never late, an evicted pod runs until its replacement is ready.
 */
import type { Policy } from '../policy.ts'
import type { SimMachine, World } from '../world.ts'
import { cheapestPool, packPending } from './packing.ts'

const SYNC_MS = 15_000
const TOLERANCE = 0.1
const DOWN_WINDOW_MS = 300_000
const SCAN_MS = 10_000
const UNNEEDED_MS = 600_000
const AFTER_ADD_MS = 600_000
const UTILIZATION_THRESHOLD = 0.5

/** `targetPercent`: targetAverageUtilization. */
export function hpa(targetPercent: number, id = 'hpa', title = `Kubernetes HPA at ${targetPercent} %`): Policy {
  return {
    id,
    title,
    source: 'Kubernetes documentation: HPA algorithm, Cluster Autoscaler FAQ',
    start({ world, rules }) {
      const fleet = createClusterAutoscaler(world)
      const least = Math.max(1, rules.min)
      const recommendations: { atMs: number; replicas: number }[] = []
      let loadSum = 0
      let ticks = 0
      let nextSyncMs = world.nowMs + SYNC_MS
      return {
        tick({ loadPercent }) {
          loadSum += loadPercent
          ticks += 1
          if (world.nowMs >= nextSyncMs) {
            nextSyncMs += SYNC_MS
            const wish = recommend(world, loadSum / ticks, targetPercent)
            loadSum = 0
            ticks = 0
            recommendations.push({ atMs: world.nowMs, replicas: wish })
            while ((recommendations[0]?.atMs ?? world.nowMs) <= world.nowMs - DOWN_WINDOW_MS) recommendations.shift()
            const stabilized = Math.max(wish, ...recommendations.map((each) => each.replicas))
            const current = world.wanted
            const limited = wish > current ? Math.min(wish, Math.max(2 * current, current + 4)) : Math.min(current, stabilized)
            const count = Math.min(Math.max(least, rules.max), Math.max(least, limited))
            if (count !== current) world.scaleTo(count, `mean use asks for ${wish} at a target of ${targetPercent} %`)
          }
          fleet.tick()
        },
      }
    },
  }
}

function recommend(world: World, loadPercent: number, targetPercent: number): number {
  const current = world.wanted
  const ready = world.ready
  if (ready === 0) return current
  const ratio = loadPercent / targetPercent
  const unready = Math.max(0, current - ready)
  if (unready === 0) return Math.abs(ratio - 1) <= TOLERANCE ? current : Math.ceil(ratio * current - 1e-9)
  if (ratio < 1) return Math.abs(ratio - 1) <= TOLERANCE ? current : Math.ceil(ratio * ready - 1e-9)
  // Pods that are not ready are taken to be idle, so that one burst is not answered twice.
  const damped = (loadPercent * ready) / current / targetPercent
  if (damped <= 1 + TOLERANCE) return current
  return Math.ceil(damped * current - 1e-9)
}

function createClusterAutoscaler(world: World): { tick(): void } {
  const pool = cheapestPool(world.pools)
  const unneededSince = new Map<string, number>()
  let nextScanMs = world.nowMs
  let lastAddMs = Number.NEGATIVE_INFINITY
  return {
    tick() {
      packPending(world, 'emptiest')
      if (world.nowMs < nextScanMs) return
      nextScanMs = world.nowMs + SCAN_MS
      const pending = world.pending().length
      const coming = world.machines
        .filter((machine) => machine.state === 'coming')
        .reduce((sum, { pool: { holds } }) => sum + holds, 0)
      if (pending > coming) {
        const missing = Math.ceil((pending - coming) / pool.holds)
        for (let count = 0; count < missing && world.machines.length < pool.max; count += 1)
          world.buy(pool, `${pending} pods are pending`)
        lastAddMs = world.nowMs
      }
      scaleDown()
    },
  }

  function scaleDown(): void {
    const joined = world.machines.filter((machine) => machine.state === 'joined')
    const free = (machine: SimMachine) => machine.pool.holds - machine.instances.size
    const room = joined.reduce((sum, machine) => sum + free(machine), 0)
    const unneeded: SimMachine[] = []
    for (const machine of joined) {
      const isUnneeded =
        machine.instances.size / machine.pool.holds < UTILIZATION_THRESHOLD && machine.instances.size <= room - free(machine)
      if (!isUnneeded) unneededSince.delete(machine.id)
      else {
        const since = unneededSince.get(machine.id) ?? world.nowMs
        unneededSince.set(machine.id, since)
        if (world.nowMs - since >= UNNEEDED_MS) unneeded.push(machine)
      }
    }
    if (unneeded.length === 0 || world.nowMs - lastAddMs < AFTER_ADD_MS) return
    const empty = unneeded.filter((machine) => machine.instances.size === 0).slice(0, joined.length - 1)
    const goes =
      empty.length > 0 ? empty : world.machines.some((machine) => machine.state === 'draining') ? [] : unneeded.slice(0, 1)
    for (const machine of goes) {
      world.drain(machine, 'below 50 % requested for 10 min')
      unneededSince.delete(machine.id)
    }
  }
}
