/**
 * Finds the cheapest of many nodes without looking at all of them. The upper part of the tree divides the nodes by profile (board.ts),
 * so that a search leaves out whole parts of the cluster that a rule excludes; below, nodes of one profile are a k-d tree over how
 * full they are. Every box keeps the least and most reserved share of what is in it, and what is free: bounds of the cost of
 * everything in it, so that a search goes only where something better may be. A node that fills stays in its leaf and only the boxes
 * above it change; when searches have looked at as much as a new layout costs, there is one.
 * Pure: holds no state but its own.
 */
import { type NodeTally, shortOf } from './filters.ts'
import type { Charge, ScoreWeights } from './model.ts'
import { share, stepsOf } from './scores.ts'

/** What a search asks for. */
export interface BoxQuery {
  readonly charge: Charge
  readonly packs: boolean
  /** Cost that every node has at least, beside what fullness and measured use cost. */
  readonly fixedCost: number
  /** Exact cost in steps of a node that has room. */
  price(index: number): number
}

/** Part of the cluster: entry `p + 1` less entry `p` is 1 when profile `p` belongs to it. */
export type ProfileSet = Int32Array

/** The best so far, updated by searches: least steps, then least index. */
export interface Best {
  steps: number
  index: number
}

export interface Shortages {
  slots: number
  memory: number
  cpu: number
  disk: number
  /** Nodes that lack nothing. */
  room: number
}

export interface BoxTree {
  /** To be called when a node's free resources changed, or it was hidden or shown. */
  refresh(index: number): void
  /** Replaces `best` by the cheapest node of these profiles with room for the charge, if that is better. */
  search(query: BoxQuery, profiles: ProfileSet, best: Best): void
  /** How many nodes of these profiles lack which resource for the charge (the first that is short counts). */
  shortages(charge: Charge, profiles: ProfileSet): Shortages
}

/** Nodes per leaf: a scan of so few costs less than the boxes it saves. */
const LEAF = 4
/** What laying out anew costs per node, in boxes looked at. */
const LAYOUT_WORK = 10
/** Far above rounding errors, far below a step. */
const SLACK = 1e-9

// Fields of a box.
const MIN_SHARE = 0 // cpu, memory, slots
const MAX_SHARE = 3
const MIN_MEASURED = 6
const MIN_SPREAD = 7
const MIN_PACK = 8
const MAX_FREE = 9 // slots, memory, cpu, disk
const MIN_FREE = 13
const MIN_INVERSE = 17 // 1 / capacity of cpu, memory, slots; 0 where there is none: whoever asks for it does not fit there
const MAX_INVERSE = 20
const MIN_INDEX = 23
const COUNT = 24
const FIELDS = 25

/**
 * Over all `tallies`, which are read again at each refresh; those whose `hidden` is set take no part. `profileOf` gives the profile
 * of each, from 0 to `profileCount` - 1.
 */
export function boxTree(
  tallies: readonly NodeTally[],
  profileOf: Int32Array,
  profileCount: number,
  hidden: Uint8Array,
  weights: ScoreWeights,
): BoxTree {
  const { items, starts } = byProfile(profileOf, profileCount)
  const values = new Float64Array(items.length)
  const leafOf = new Int32Array(items.length)
  // Boxes in order of creation: a parent before its children. The left child of an inner box is `left`, the right one `left + 1`.
  const from: number[] = []
  const to: number[] = []
  const parent: number[] = []
  const left: number[] = []
  const firstProfile: number[] = []
  const endProfile: number[] = []
  let boxes = new Float64Array(0)
  /** Changes, and boxes and nodes looked at, since the last layout. */
  let moves = 0
  let work = 0

  /** Four axes per node: reserved share of cpu, memory and slots, and weighted measured use. */
  const axes = new Float64Array(4 * items.length)
  const measure = (index: number) => {
    const { node, cpuMillis, memoryBytes, slots } = tallies[index] as NodeTally
    const { capacity } = node
    const at = 4 * index
    axes[at] = share(capacity.cpuMillis - cpuMillis, capacity.cpuMillis)
    axes[at + 1] = share(capacity.memoryBytes - memoryBytes, capacity.memoryBytes)
    axes[at + 2] = share(capacity.slots - slots, capacity.slots)
    axes[at + 3] = weights.measuredUse * (node.measuredUse ?? 0)
  }
  for (let index = 0; index < items.length; index += 1) measure(index)

  const fillLeaf = (box: number) => {
    const at = box * FIELDS
    clear(boxes, at)
    for (let position = from[box] ?? 0; position < (to[box] ?? 0); position += 1) {
      const index = items[position] ?? 0
      if (hidden[index]) continue
      const tally = tallies[index] as NodeTally
      const { capacity } = tally.node
      const cpu = axes[4 * index] ?? 0
      const memory = axes[4 * index + 1] ?? 0
      const slots = axes[4 * index + 2] ?? 0
      const measured = axes[4 * index + 3] ?? 0
      const scarcest = weights.use * Math.max(cpu, memory, slots)
      both(boxes, at + MIN_SHARE, at + MAX_SHARE, cpu)
      both(boxes, at + MIN_SHARE + 1, at + MAX_SHARE + 1, memory)
      both(boxes, at + MIN_SHARE + 2, at + MAX_SHARE + 2, slots)
      low(boxes, at + MIN_MEASURED, measured)
      low(boxes, at + MIN_SPREAD, scarcest + measured)
      low(boxes, at + MIN_PACK, measured - scarcest)
      both(boxes, at + MIN_FREE, at + MAX_FREE, tally.slots)
      both(boxes, at + MIN_FREE + 1, at + MAX_FREE + 1, tally.memoryBytes)
      both(boxes, at + MIN_FREE + 2, at + MAX_FREE + 2, tally.cpuMillis)
      both(boxes, at + MIN_FREE + 3, at + MAX_FREE + 3, tally.diskBytes)
      both(boxes, at + MIN_INVERSE, at + MAX_INVERSE, inverse(capacity.cpuMillis))
      both(boxes, at + MIN_INVERSE + 1, at + MAX_INVERSE + 1, inverse(capacity.memoryBytes))
      both(boxes, at + MIN_INVERSE + 2, at + MAX_INVERSE + 2, inverse(capacity.slots))
      low(boxes, at + MIN_INDEX, index)
      boxes[at + COUNT] = (boxes[at + COUNT] ?? 0) + 1
    }
  }
  const fillInner = (box: number) => {
    const at = box * FIELDS
    const first = (left[box] ?? 0) * FIELDS
    const second = first + FIELDS
    for (let field = 0; field < COUNT; field += 1) {
      const a = boxes[first + field] ?? 0
      const b = boxes[second + field] ?? 0
      boxes[at + field] = isMax(field) ? Math.max(a, b) : Math.min(a, b)
    }
    boxes[at + COUNT] = (boxes[first + COUNT] ?? 0) + (boxes[second + COUNT] ?? 0)
  }

  const profileAt = (position: number) => profileOf[items[position] ?? 0] ?? 0
  /** Where to divide: between two profiles as near the middle as may be; within one profile at the median of its widest axis. */
  const divide = (low: number, high: number): number => {
    const middle = (low + high) >> 1
    if (profileAt(low) !== profileAt(high - 1)) {
      const before = starts[profileAt(middle)] ?? 0
      const after = starts[profileAt(middle) + 1] ?? high
      return before > low && (middle - before < after - middle || after >= high) ? before : after
    }
    let widest = -1
    let width = 0
    for (let axis = 0; axis < 4; axis += 1) {
      let min = Number.POSITIVE_INFINITY
      let max = Number.NEGATIVE_INFINITY
      for (let position = low; position < high; position += 1) {
        const value = axes[4 * (items[position] ?? 0) + axis] ?? 0
        if (value < min) min = value
        if (value > max) max = value
      }
      if (max - min <= width) continue
      width = max - min
      widest = axis
    }
    for (let position = low; position < high; position += 1)
      values[position] = widest < 0 ? 0 : (axes[4 * (items[position] ?? 0) + widest] ?? 0)
    select(items, values, low, high, middle)
    return middle
  }
  const build = () => {
    moves = 0
    work = 0
    from.length = to.length = parent.length = left.length = firstProfile.length = endProfile.length = 0
    const add = (low: number, high: number, above: number) => {
      from.push(low)
      to.push(high)
      parent.push(above)
      left.push(-1)
      firstProfile.push(profileAt(low))
      endProfile.push(profileAt(high - 1) + 1)
    }
    add(0, items.length, -1)
    for (let box = 0; box < from.length; box += 1) {
      const low = from[box] ?? 0
      const high = to[box] ?? 0
      if (high - low <= 1 || (high - low <= LEAF && profileAt(low) === profileAt(high - 1))) {
        for (let position = low; position < high; position += 1) leafOf[items[position] ?? 0] = box
        continue
      }
      const middle = divide(low, high)
      left[box] = from.length
      add(low, middle, box)
      add(middle, high, box)
    }
    if (boxes.length < from.length * FIELDS) boxes = new Float64Array(from.length * FIELDS)
    for (let box = from.length - 1; box >= 0; box -= 1) {
      if ((left[box] ?? -1) < 0) fillLeaf(box)
      else fillInner(box)
    }
  }
  build()

  // The running search: kept here so that the recursion passes two numbers only.
  let charge: Charge = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0 }
  let query: BoxQuery
  let wanted: ProfileSet
  let best: Best
  const boundOf = (box: number): number => {
    const at = box * FIELDS
    const hasRoom =
      (boxes[at + MAX_FREE] ?? 0) >= 1 &&
      (boxes[at + MAX_FREE + 1] ?? 0) >= charge.memoryBytes &&
      (boxes[at + MAX_FREE + 2] ?? 0) >= charge.cpuMillis &&
      (boxes[at + MAX_FREE + 3] ?? 0) >= charge.diskBytes
    if (!hasRoom || inSet(wanted, box) === 0) return Number.POSITIVE_INFINITY
    const measured = boxes[at + MIN_MEASURED] ?? 0
    let bound: number
    if (query.packs) {
      const cpu = charge.cpuMillis * (boxes[at + MAX_INVERSE] ?? 0)
      const memory = charge.memoryBytes * (boxes[at + MAX_INVERSE + 1] ?? 0)
      const slots = boxes[at + MAX_INVERSE + 2] ?? 0
      const fullest = Math.max(
        (boxes[at + MAX_SHARE] ?? 0) + cpu,
        (boxes[at + MAX_SHARE + 1] ?? 0) + memory,
        (boxes[at + MAX_SHARE + 2] ?? 0) + slots,
      )
      // What has room is not more than full afterwards.
      const most = weights.use * Math.min(1, fullest)
      bound = Math.max(measured - most, (boxes[at + MIN_PACK] ?? 0) - weights.use * Math.max(cpu, memory, slots))
    } else {
      const cpu = charge.cpuMillis * (boxes[at + MIN_INVERSE] ?? 0)
      const memory = charge.memoryBytes * (boxes[at + MIN_INVERSE + 1] ?? 0)
      const slots = boxes[at + MIN_INVERSE + 2] ?? 0
      const emptiest = Math.max(
        (boxes[at + MIN_SHARE] ?? 0) + cpu,
        (boxes[at + MIN_SHARE + 1] ?? 0) + memory,
        (boxes[at + MIN_SHARE + 2] ?? 0) + slots,
      )
      const least = weights.use * Math.min(cpu, memory, slots)
      bound = Math.max(measured + weights.use * emptiest, (boxes[at + MIN_SPREAD] ?? 0) + least)
    }
    return stepsOf(bound + query.fixedCost - SLACK)
  }
  /** How many profiles of the set may be in the box. */
  const inSet = (profiles: ProfileSet, box: number): number =>
    (profiles[endProfile[box] ?? 0] ?? 0) - (profiles[firstProfile[box] ?? 0] ?? 0)
  const visit = (box: number, bound: number): void => {
    if (bound >= best.steps) return
    const first = left[box] ?? -1
    work += 1
    if (first < 0) {
      for (let position = from[box] ?? 0; position < (to[box] ?? 0); position += 1) {
        const index = items[position] ?? 0
        if (hidden[index] || shortOf(charge, tallies[index] as NodeTally) !== null) continue
        work += 1
        const steps = query.price(index)
        if (steps > best.steps || (steps === best.steps && index >= best.index)) continue
        best.steps = steps
        best.index = index
      }
      return
    }
    const second = first + 1
    const firstBound = boundOf(first)
    const secondBound = boundOf(second)
    const inOrder =
      firstBound < secondBound ||
      (firstBound === secondBound && (boxes[first * FIELDS + MIN_INDEX] ?? 0) < (boxes[second * FIELDS + MIN_INDEX] ?? 0))
    if (inOrder) visit(first, firstBound)
    visit(second, secondBound)
    if (!inOrder) visit(first, firstBound)
  }

  return {
    refresh(index) {
      // Boxes of nodes that moved apart bound little: once searches have wasted what a new layout costs, there is one.
      measure(index)
      moves += 1
      if (work > LAYOUT_WORK * items.length && moves > items.length >> 2) {
        build()
        return
      }
      let box = leafOf[index] ?? 0
      fillLeaf(box)
      for (box = parent[box] ?? -1; box >= 0; box = parent[box] ?? -1) fillInner(box)
    },
    search(next, profiles, into) {
      if (items.length === 0) return
      query = next
      charge = next.charge
      wanted = profiles
      best = into
      visit(0, boundOf(0))
    },
    shortages(asked, profiles) {
      const result: Shortages = { slots: 0, memory: 0, cpu: 0, disk: 0, room: 0 }
      const needs = [1, asked.memoryBytes, asked.cpuMillis, asked.diskBytes]
      const names = ['slots', 'memory', 'cpu', 'disk'] as const
      // A box of which all have enough of the first resources, and none enough of the next, is counted whole.
      const count = (box: number, enough: number) => {
        const at = box * FIELDS
        const within = inSet(profiles, box)
        if (within === 0 || boxes[at + COUNT] === 0) return
        const first = left[box] ?? -1
        let field = enough
        if (within === (endProfile[box] ?? 0) - (firstProfile[box] ?? 0)) {
          while (field < 4 && (boxes[at + MIN_FREE + field] ?? 0) >= (needs[field] ?? 0)) field += 1
          const name = names[field]
          if (name === undefined || (boxes[at + MAX_FREE + field] ?? 0) < (needs[field] ?? 0)) {
            result[name ?? 'room'] += boxes[at + COUNT] ?? 0
            return
          }
        }
        if (first >= 0) {
          count(first, field)
          count(first + 1, field)
          return
        }
        for (let position = from[box] ?? 0; position < (to[box] ?? 0); position += 1) {
          const index = items[position] ?? 0
          if (!hidden[index]) result[shortOf(asked, tallies[index] as NodeTally) ?? 'room'] += 1
        }
      }
      if (items.length > 0) count(0, 0)
      return result
    },
  }
}

function isMax(field: number): boolean {
  return (
    (field >= MAX_SHARE && field < MIN_MEASURED) ||
    (field >= MAX_FREE && field < MIN_FREE) ||
    (field >= MAX_INVERSE && field < MIN_INDEX)
  )
}

function clear(boxes: Float64Array, at: number): void {
  for (let field = 0; field < COUNT; field += 1)
    boxes[at + field] = isMax(field) ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
  boxes[at + COUNT] = 0
}

function low(boxes: Float64Array, at: number, value: number): void {
  if (value < (boxes[at] ?? 0)) boxes[at] = value
}

function high(boxes: Float64Array, at: number, value: number): void {
  if (value > (boxes[at] ?? 0)) boxes[at] = value
}

function both(boxes: Float64Array, lowAt: number, highAt: number, value: number): void {
  low(boxes, lowAt, value)
  high(boxes, highAt, value)
}

function inverse(capacity: number): number {
  return capacity > 0 ? 1 / capacity : 0
}

/** Indexes in order of their profiles, and where each profile begins (with one entry more for the end). */
function byProfile(profileOf: Int32Array, profileCount: number): { items: Int32Array; starts: Int32Array } {
  const starts = new Int32Array(profileCount + 1)
  for (const profile of profileOf) starts[profile + 1] = (starts[profile + 1] ?? 0) + 1
  for (let profile = 0; profile < profileCount; profile += 1)
    starts[profile + 1] = (starts[profile + 1] ?? 0) + (starts[profile] ?? 0)
  const next = starts.slice()
  const items = new Int32Array(profileOf.length)
  profileOf.forEach((profile, index) => {
    const position = next[profile] ?? 0
    items[position] = index
    next[profile] = position + 1
  })
  return { items, starts }
}

/** Puts the least items, by value and then by index, before `middle` (Hoare's selection, pivot in the middle). */
function select(items: Int32Array, values: Float64Array, from: number, to: number, middle: number): void {
  let low = from
  let high = to - 1
  while (low < high) {
    const pivot = (low + high) >> 1
    const value = values[pivot] ?? 0
    const index = items[pivot] ?? 0
    let i = low
    let j = high
    while (i <= j) {
      while ((values[i] ?? 0) < value || (values[i] === value && (items[i] ?? 0) < index)) i += 1
      while ((values[j] ?? 0) > value || (values[j] === value && (items[j] ?? 0) > index)) j -= 1
      if (i > j) break
      const otherValue = values[i] ?? 0
      const otherIndex = items[i] ?? 0
      values[i] = values[j] ?? 0
      items[i] = items[j] ?? 0
      values[j] = otherValue
      items[j] = otherIndex
      i += 1
      j -= 1
    }
    if (middle <= j) high = j
    else if (middle >= i) low = i
    else return
  }
}
