/**
 * How much of what an agent says its node has is believed. A machine that was bought has what was ordered, give or take what clouds
 * and kernels round: its agent may say less, never much more, or it would draw every instance to itself. Nodes that nobody ordered
 * (static pools, joined by hand) are believed. Pure.
 */
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import type { Capacity } from '../../shared/model/resources.ts'

/** GB for GiB is 7 %, and some clouds give a little more than they sell. */
export const MORE_BELIEVED = 0.1
/** Pools seldom say how large the disk is (20 GiB unless they do), and agents how many they look after: beyond these nobody means it. */
const MORE_DISK_BELIEVED = 10
const SLOTS_BELIEVED = 600
/** The most that an agent can be told to look after. */
const MOST_SLOTS = 10_000
/** Firmware and kernel keep a tenth of a small machine's memory; what lacks more than this is another machine. */
export const LESS_EXPECTED = 0.2

export interface BelievedCapacity {
  readonly capacity: Capacity
  /** A sentence for people when it differs by more than can be explained; null when it does not. */
  readonly difference: string | null
}

/** What the machine of a node was ordered as; null when nobody did. A pool that was corrected since counts as well as the order. */
export function promisedCapacity(machine: MachineRecord | undefined, pool: Pool | undefined): Capacity | null {
  if (machine === undefined || pool?.static === true) return null
  const { capacity } = machine
  if (pool === undefined) return capacity
  return {
    cpuMillis: Math.max(capacity.cpuMillis, pool.capacity.cpuMillis),
    memoryBytes: Math.max(capacity.memoryBytes, pool.capacity.memoryBytes),
    diskBytes: Math.max(capacity.diskBytes, pool.capacity.diskBytes),
    slots: Math.max(capacity.slots, pool.capacity.slots),
  }
}

/** Disk and slots are the agent's to say, within reason: its file system, and how many it cares to look after. */
export function believedCapacity(claimed: Capacity, promised: Capacity | null): BelievedCapacity {
  if (promised === null) return { capacity: { ...claimed, slots: Math.min(claimed.slots, MOST_SLOTS) }, difference: null }
  const differences: string[] = []
  const believed = (key: 'cpuMillis' | 'memoryBytes', show: (amount: number) => string) => {
    const [said, ordered] = [claimed[key], promised[key]]
    // 0: the pool does not say.
    if (ordered <= 0) return said
    const isMore = said > ordered * (1 + MORE_BELIEVED)
    if (isMore || said < ordered * (1 - LESS_EXPECTED))
      differences.push(`${show(said)} instead of ${show(ordered)}${isMore ? ', of which it counts for the latter' : ''}`)
    return isMore ? ordered : said
  }
  const atMost = (said: number, most: number, show: (amount: number) => string) => {
    if (said > most) differences.push(`${show(said)}, of which ${show(most)} count`)
    return Math.min(said, most)
  }
  const gib = (amount: number) => `${(amount / 2 ** 30).toFixed(2)} GiB`
  const mostDisk = promised.diskBytes > 0 ? promised.diskBytes * MORE_DISK_BELIEVED : Number.POSITIVE_INFINITY
  const capacity = {
    cpuMillis: believed('cpuMillis', (amount) => `${amount / 1000} CPUs`),
    memoryBytes: believed('memoryBytes', gib),
    diskBytes: atMost(claimed.diskBytes, mostDisk, (amount) => `${gib(amount)} of disk`),
    slots: atMost(claimed.slots, Math.max(SLOTS_BELIEVED, promised.slots), (amount) => `${amount} slots`),
  }
  return { capacity, difference: differences.length === 0 ? null : `says that it has ${differences.join(' and ')}` }
}
