/**
 * How many nodes lack which resource, for explanations of refusals, without looking at every node: nodes in order of their profiles and, within one,
 * of their free memory, in a tree of boxes that know the least and most that is free in them. A box of which all are short of the
 * same resource counts whole. It is brought up to date only when it is asked. Pure: holds no state but its own.
 */
import type { ProfileSet } from './box-tree.ts'
import { type NodeTally, shortOf } from './filters.ts'
import type { Charge } from './model.ts'

export interface Shortages {
  slots: number
  memory: number
  cpu: number
  disk: number
  /** Nodes that lack nothing. */
  room: number
}

export interface ShortageTree {
  /** To be called when a node's free resources changed, or it was hidden or shown. Costs nothing until something is asked. */
  changed(index: number): void
  /** How many nodes of these profiles lack which resource for the charge (the first that is short counts). */
  shortages(charge: Charge, profiles: ProfileSet): Shortages
}

const LEAF = 4
/** Slots, memory, cpu, disk: least free, then most free of each. */
const MOST = 4
const FIELDS = 8
const NAMES = ['slots', 'memory', 'cpu', 'disk'] as const

/** Over all `tallies`, read again when they changed; those whose `hidden` is set are not counted. */
export function shortageTree(
  tallies: readonly NodeTally[],
  profileOf: Int32Array,
  profileCount: number,
  hidden: Uint8Array,
): ShortageTree {
  const count = tallies.length
  const items = Int32Array.from({ length: count }, (_, index) => index)
  const memory = (index: number) => (tallies[index] as NodeTally).memoryBytes
  // Positions of leaves are whole multiples of LEAF, and boxes are numbered as in a heap, so that the layout needs no pointers.
  const leaves = 2 ** Math.ceil(Math.log2(Math.max(1, Math.ceil(count / LEAF))))
  const leafOf = new Int32Array(count)
  const boxes = new Float64Array(2 * leaves * FIELDS)
  const counts = new Int32Array(2 * leaves)
  const firstProfile = new Int32Array(2 * leaves)
  const endProfile = new Int32Array(2 * leaves)
  const stale = new Set<number>()
  let isLaidOut = false

  const fillLeaf = (box: number) => {
    const at = box * FIELDS
    boxes.fill(Number.POSITIVE_INFINITY, at, at + MOST)
    boxes.fill(Number.NEGATIVE_INFINITY, at + MOST, at + FIELDS)
    counts[box] = 0
    const from = (box - leaves) * LEAF
    for (let position = from; position < Math.min(count, from + LEAF); position += 1) {
      const index = items[position] ?? 0
      if (hidden[index]) continue
      counts[box] = (counts[box] ?? 0) + 1
      const { slots, memoryBytes, cpuMillis, diskBytes } = tallies[index] as NodeTally
      const free = [slots, memoryBytes, cpuMillis, diskBytes]
      free.forEach((amount, resource) => {
        boxes[at + resource] = Math.min(boxes[at + resource] ?? 0, amount)
        boxes[at + MOST + resource] = Math.max(boxes[at + MOST + resource] ?? 0, amount)
      })
    }
  }
  const fillInner = (box: number) => {
    const at = box * FIELDS
    const first = 2 * at
    for (let field = 0; field < FIELDS; field += 1) {
      const a = boxes[first + field] ?? 0
      const b = boxes[first + FIELDS + field] ?? 0
      boxes[at + field] = field < MOST ? Math.min(a, b) : Math.max(a, b)
    }
    counts[box] = (counts[2 * box] ?? 0) + (counts[2 * box + 1] ?? 0)
  }
  const layOut = () => {
    isLaidOut = true
    items.sort((a, b) => (profileOf[a] ?? 0) - (profileOf[b] ?? 0) || memory(a) - memory(b) || a - b)
    items.forEach((index, position) => {
      leafOf[index] = leaves + Math.floor(position / LEAF)
    })
    for (let box = 2 * leaves - 1; box > 0; box -= 1) {
      if (box >= leaves) {
        const from = (box - leaves) * LEAF
        const isEmpty = from >= count
        firstProfile[box] = isEmpty ? profileCount : (profileOf[items[from] ?? 0] ?? 0)
        endProfile[box] = isEmpty ? profileCount : (profileOf[items[Math.min(count, from + LEAF) - 1] ?? 0] ?? 0) + 1
        fillLeaf(box)
      } else {
        firstProfile[box] = firstProfile[2 * box] ?? 0
        endProfile[box] = endProfile[2 * box + 1] ?? 0
        fillInner(box)
      }
    }
  }
  const bringUpToDate = () => {
    // Where much has changed the order has no use any more.
    if (!isLaidOut || stale.size > count >> 2) layOut()
    else
      for (const index of stale) {
        let box = leafOf[index] ?? 0
        fillLeaf(box)
        for (box >>= 1; box > 0; box >>= 1) fillInner(box)
      }
    stale.clear()
  }

  return {
    changed(index) {
      if (isLaidOut) stale.add(index)
    },
    shortages(charge, profiles) {
      bringUpToDate()
      const result: Shortages = { slots: 0, memory: 0, cpu: 0, disk: 0, room: 0 }
      const needs = [1, charge.memoryBytes, charge.cpuMillis, charge.diskBytes]
      /** The first `enough` resources suffice in the whole box. */
      const add = (box: number, enough: number) => {
        if (counts[box] === 0) return
        const first = firstProfile[box] ?? 0
        const end = endProfile[box] ?? 0
        const within = (profiles.before[end] ?? 0) - (profiles.before[first] ?? 0)
        if (within === 0) return
        const at = box * FIELDS
        let field = enough
        if (within === end - first) {
          while (field < NAMES.length && (boxes[at + field] ?? 0) >= (needs[field] ?? 0)) field += 1
          const name = NAMES[field]
          if (name === undefined || (boxes[at + MOST + field] ?? 0) < (needs[field] ?? 0)) {
            result[name ?? 'room'] += counts[box] ?? 0
            return
          }
        }
        if (box < leaves) {
          add(2 * box, field)
          add(2 * box + 1, field)
          return
        }
        const from = (box - leaves) * LEAF
        for (let position = from; position < Math.min(count, from + LEAF); position += 1) {
          const index = items[position] ?? 0
          if (hidden[index] || profiles.has[profileOf[index] ?? 0] !== 1) continue
          result[shortOf(charge, tallies[index] as NodeTally) ?? 'room'] += 1
        }
      }
      add(1, 0)
      return result
    },
  }
}
