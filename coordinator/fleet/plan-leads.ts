/**
 * What machines of a pool taught us: how long from the order until it joined (the lead time that scaling ahead has to bridge),
 * and how long one is kept. From the records of machines, so that a new coordinator knows it too. Pure.
 */
import { compare } from '../../shared/compare.ts'
import type { MachineRecord } from '../../shared/model/node.ts'

export interface PoolLead {
  /** p90 of order → joined over the latest machines; null until enough have joined. */
  readonly joinP90Ms: number | null
  /** p90 of order → gone over the latest that ended; null until enough have. */
  readonly lifeP90Ms: number | null
}

/** Fewer than this say nothing about a p90. */
const JOINS_TO_LEARN_FROM = 3
const LIVES_TO_LEARN_FROM = 5
/** Older ones are forgotten: images and clouds change. */
const LATEST = 50

const UNKNOWN: PoolLead = { joinP90Ms: null, lifeP90Ms: null }

/** By pool; pools without machines are left out. One pass over the machines. */
export function learnLeads(machines: Iterable<MachineRecord>): ReadonlyMap<string, PoolLead> {
  const pools = new Map<string, MachineRecord[]>()
  for (const machine of machines) {
    if (machine.joinedAtMs === null) continue
    const list = pools.get(machine.pool)
    if (list) list.push(machine)
    else pools.set(machine.pool, [machine])
  }
  const leads = new Map<string, PoolLead>()
  for (const [pool, joined] of pools) {
    joined.sort((a, b) => b.requestedAtMs - a.requestedAtMs || compare(a.id, b.id))
    const ended = joined.filter((machine) => machine.goneAtMs !== null)
    leads.set(pool, {
      joinP90Ms: p90(joined, JOINS_TO_LEARN_FROM, (machine) => (machine.joinedAtMs ?? 0) - machine.requestedAtMs),
      lifeP90Ms: p90(ended, LIVES_TO_LEARN_FROM, (machine) => (machine.goneAtMs ?? 0) - machine.requestedAtMs),
    })
  }
  return leads
}

export function leadOf(leads: ReadonlyMap<string, PoolLead>, pool: string): PoolLead {
  return leads.get(pool) ?? UNKNOWN
}

/** Nearest-rank p90 of the first `LATEST`; times set back by a clock count as 0. */
function p90(machines: readonly MachineRecord[], atLeast: number, msOf: (machine: MachineRecord) => number): number | null {
  if (machines.length < atLeast) return null
  const values = machines
    .slice(0, LATEST)
    .map((machine) => Math.max(0, msOf(machine)))
    .sort((a, b) => a - b)
  return values[Math.ceil(values.length * 0.9) - 1] ?? null
}
