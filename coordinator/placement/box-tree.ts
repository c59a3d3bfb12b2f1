/**
 * Finds the cheapest of many nodes without looking at all of them: a k-d tree over how full nodes are and how much of them an
 * ordinary instance would take. Every box keeps the least and most reserved share of what is in it, and what is free: bounds of
 * the cost of everything in it, so that a search goes only where something better may be. Where a rule leaves few profiles (board.ts), boxes
 * that hold none of their nodes are left out; which those are is found once per set of profiles and layout. A node that fills stays
 * in its leaf and only the boxes above it change; when searches have looked at as much as a new layout costs, there is one.
 * Pure: holds no state but its own.
 */
import type { NodeTally } from './filters.ts'
import type { Charge, ScoreWeights } from './model.ts'
import { share, stepsOf } from './scores.ts'
import { selectLeast } from './select-least.ts'

/** What a search asks for, about nodes that hold neither the service nor anything that it wants near or away. */
export interface BoxQuery {
  readonly charge: Charge
  readonly packs: boolean
  /** How many images no node in the tree has. */
  readonly absentImages: number
  /** For each further image, by index of the node, whether it is there (1). */
  readonly images: readonly Uint8Array[]
  /** How many preferred neighbours are absent. */
  readonly absentNeighbours: number
}

/** Profiles that are a place for some request, or for one zone of it. */
export interface ProfileSet {
  /** By profile; 1 where it belongs to the set. */
  readonly has: Uint8Array
  /** How many profiles before the index belong to it; one entry more than profiles. */
  readonly before: Int32Array
}

/** The best so far, updated by searches: least steps, then least index. */
export interface Best {
  steps: number
  index: number
}

export interface BoxTree {
  /** To be called when a node's free resources changed, or it was hidden or shown. */
  refresh(index: number): void
  /** Replaces `best` by the cheapest node of these profiles with room for the charge, if that is better. */
  search(query: BoxQuery, profiles: ProfileSet, best: Best): void
}

/** Nodes per leaf: a scan of so few costs less than the boxes it saves. */
const LEAF = 8
/** What laying out anew costs per node, in boxes looked at. */
const LAYOUT_WORK = 10
/** Far above rounding errors, far below a step. */
const SLACK = 1e-9
/** Sets of profiles whose boxes are remembered; beyond that all are found anew, which costs time and no memory. */
const MOST_REMEMBERED = 64

// Fields of a box. Those that a search for spread reads come first: they share cache lines.
const MAX_FREE = 0 // slots, memory, cpu, disk
const MIN_MEASURED = 4
const MIN_SPREAD = 5
const MIN_SHARE = 6 // cpu, memory, slots
const MIN_INVERSE = 9 // 1 / capacity of cpu, memory, slots; 0 where there is none: whoever asks for it does not fit there
const MIN_INDEX = 12
const MIN_PACK = 13
const MAX_SHARE = 14
const MAX_INVERSE = 17
const FIELDS = 20

/** Axes of the layout: weighted reserved share of cpu, memory and slots, measured use, and what a usual charge adds to each share. */
const AXES = 7

/** Whether boxes hold a node of the set of profiles: not known yet, none, some. */
const UNKNOWN = 0
const NONE = 1
const SOME = 2

/**
 * Over all `tallies`, which are read again at each refresh; those whose `hidden` is set take no part. `profileOf` gives the
 * profile of each. `usual`: a charge as most requests have; it shapes the layout and changes no answer.
 */
export function boxTree(
  tallies: readonly NodeTally[],
  profileOf: Int32Array,
  hidden: Uint8Array,
  weights: ScoreWeights,
  usual: Charge,
): BoxTree {
  const count = tallies.length
  const items = Int32Array.from({ length: count }, (_, index) => index)
  const values = new Float64Array(count)
  const leafOf = new Int32Array(count)
  // Boxes in order of creation: a parent before its children. The left child of an inner box is `left`, the right one `left + 1`.
  const mostBoxes = 2 * count + 1
  const from = new Int32Array(mostBoxes)
  const to = new Int32Array(mostBoxes)
  const parent = new Int32Array(mostBoxes)
  const left = new Int32Array(mostBoxes)
  const boxes = new Float64Array(mostBoxes * FIELDS)
  let boxCount = 0
  /** Changes, and boxes and nodes looked at, since the last layout. */
  let moves = 0
  let work = 0
  const marksOf = new Map<ProfileSet, Uint8Array>()

  // The nodes as numbers, so that a search touches no objects. Free: slots, memory, cpu, disk. Capacity: cpu, memory, slots.
  const free = new Float64Array(4 * count)
  const capacity = new Float64Array(3 * count)
  const measured = new Float64Array(count)
  const axes = new Float64Array(AXES * count)
  const measure = (index: number) => {
    const { cpuMillis, memoryBytes, diskBytes, slots } = tallies[index] as NodeTally
    free[4 * index] = slots
    free[4 * index + 1] = memoryBytes
    free[4 * index + 2] = cpuMillis
    free[4 * index + 3] = diskBytes
    const cpuCapacity = capacity[3 * index] ?? 0
    const memoryCapacity = capacity[3 * index + 1] ?? 0
    const slotCapacity = capacity[3 * index + 2] ?? 0
    const at = AXES * index
    axes[at] = weights.use * share(cpuCapacity - cpuMillis, cpuCapacity)
    axes[at + 1] = weights.use * share(memoryCapacity - memoryBytes, memoryCapacity)
    axes[at + 2] = weights.use * share(slotCapacity - slots, slotCapacity)
  }
  for (let index = 0; index < count; index += 1) {
    const { node } = tallies[index] as NodeTally
    capacity[3 * index] = node.capacity.cpuMillis
    capacity[3 * index + 1] = node.capacity.memoryBytes
    capacity[3 * index + 2] = node.capacity.slots
    measured[index] = weights.measuredUse * (node.measuredUse ?? 0)
    const at = AXES * index
    axes[at + 3] = measured[index] ?? 0
    axes[at + 4] = weights.use * usual.cpuMillis * inverse(node.capacity.cpuMillis)
    axes[at + 5] = weights.use * usual.memoryBytes * inverse(node.capacity.memoryBytes)
    axes[at + 6] = weights.use * inverse(node.capacity.slots)
    measure(index)
  }

  const low = (at: number, value: number) => {
    if (value < (boxes[at] ?? 0)) boxes[at] = value
  }
  const high = (at: number, value: number) => {
    if (value > (boxes[at] ?? 0)) boxes[at] = value
  }
  const fillLeaf = (box: number) => {
    const at = box * FIELDS
    for (let field = 0; field < FIELDS; field += 1)
      boxes[at + field] = isMax(field) ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
    for (let position = from[box] ?? 0; position < (to[box] ?? 0); position += 1) {
      const index = items[position] ?? 0
      if (hidden[index]) continue
      const cpuCapacity = capacity[3 * index] ?? 0
      const memoryCapacity = capacity[3 * index + 1] ?? 0
      const slotCapacity = capacity[3 * index + 2] ?? 0
      const cpu = share(cpuCapacity - (free[4 * index + 2] ?? 0), cpuCapacity)
      const memory = share(memoryCapacity - (free[4 * index + 1] ?? 0), memoryCapacity)
      const slots = share(slotCapacity - (free[4 * index] ?? 0), slotCapacity)
      const used = measured[index] ?? 0
      const scarcest = weights.use * Math.max(cpu, memory, slots)
      for (let resource = 0; resource < 4; resource += 1) high(at + MAX_FREE + resource, free[4 * index + resource] ?? 0)
      low(at + MIN_MEASURED, used)
      low(at + MIN_SPREAD, scarcest + used)
      low(at + MIN_PACK, used - scarcest)
      low(at + MIN_SHARE, cpu)
      high(at + MAX_SHARE, cpu)
      low(at + MIN_SHARE + 1, memory)
      high(at + MAX_SHARE + 1, memory)
      low(at + MIN_SHARE + 2, slots)
      high(at + MAX_SHARE + 2, slots)
      for (let resource = 0; resource < 3; resource += 1) {
        const inverted = inverse(capacity[3 * index + resource] ?? 0)
        low(at + MIN_INVERSE + resource, inverted)
        high(at + MAX_INVERSE + resource, inverted)
      }
      low(at + MIN_INDEX, index)
    }
  }
  /** Whether anything changed. */
  const fillInner = (box: number): boolean => {
    const at = box * FIELDS
    const first = (left[box] ?? 0) * FIELDS
    const second = first + FIELDS
    let changed = false
    for (let field = 0; field < FIELDS; field += 1) {
      const a = boxes[first + field] ?? 0
      const b = boxes[second + field] ?? 0
      const value = isMax(field) === a > b ? a : b
      if (value === boxes[at + field]) continue
      boxes[at + field] = value
      changed = true
    }
    return changed
  }

  /** At the median of the axis on which the nodes differ most; puts them in order around it. */
  const divide = (start: number, end: number): number => {
    const middle = (start + end) >> 1
    let widest = 0
    let width = 0
    for (let axis = 0; axis < AXES; axis += 1) {
      let min = Number.POSITIVE_INFINITY
      let max = Number.NEGATIVE_INFINITY
      for (let position = start; position < end; position += 1) {
        const value = axes[AXES * (items[position] ?? 0) + axis] ?? 0
        if (value < min) min = value
        if (value > max) max = value
      }
      if (max - min <= width) continue
      width = max - min
      widest = axis
    }
    for (let position = start; position < end; position += 1)
      values[position] = width === 0 ? 0 : (axes[AXES * (items[position] ?? 0) + widest] ?? 0)
    selectLeast(items, values, start, end, middle)
    return middle
  }
  const build = () => {
    moves = 0
    work = 0
    marksOf.clear()
    boxCount = 0
    const add = (start: number, end: number, above: number) => {
      from[boxCount] = start
      to[boxCount] = end
      parent[boxCount] = above
      left[boxCount] = -1
      boxCount += 1
    }
    add(0, count, -1)
    for (let box = 0; box < boxCount; box += 1) {
      const start = from[box] ?? 0
      const end = to[box] ?? 0
      if (end - start <= LEAF) {
        for (let position = start; position < end; position += 1) leafOf[items[position] ?? 0] = box
        continue
      }
      const middle = divide(start, end)
      left[box] = boxCount
      add(start, middle, box)
      add(middle, end, box)
    }
    for (let box = boxCount - 1; box >= 0; box -= 1) {
      if ((left[box] ?? -1) < 0) fillLeaf(box)
      else fillInner(box)
    }
  }
  build()

  // The running search: kept here so that the recursion passes two numbers only.
  let query: BoxQuery
  let charge: Charge = { cpuMillis: 0, memoryBytes: 0, diskBytes: 0 }
  let fixedCost = 0
  let best: Best
  let wanted: Uint8Array
  let marks: Uint8Array = new Uint8Array(0)
  /** Whether the box holds a node of the profiles asked for, hidden or not. */
  const holdsWanted = (box: number): boolean => {
    const known = marks[box] ?? UNKNOWN
    if (known !== UNKNOWN) return known === SOME
    const first = left[box] ?? -1
    let holds = false
    if (first >= 0) holds = holdsWanted(first) || holdsWanted(first + 1)
    else
      for (let position = from[box] ?? 0; position < (to[box] ?? 0) && !holds; position += 1)
        holds = wanted[profileOf[items[position] ?? 0] ?? 0] === 1
    marks[box] = holds ? SOME : NONE
    return holds
  }
  const boundOf = (box: number): number => {
    const at = box * FIELDS
    const hasRoom =
      (boxes[at + MAX_FREE] ?? 0) >= 1 &&
      (boxes[at + MAX_FREE + 1] ?? 0) >= charge.memoryBytes &&
      (boxes[at + MAX_FREE + 2] ?? 0) >= charge.cpuMillis &&
      (boxes[at + MAX_FREE + 3] ?? 0) >= charge.diskBytes
    if (!hasRoom || !holdsWanted(box)) return Number.POSITIVE_INFINITY
    const used = boxes[at + MIN_MEASURED] ?? 0
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
      bound = Math.max(used - most, (boxes[at + MIN_PACK] ?? 0) - weights.use * Math.max(cpu, memory, slots))
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
      bound = Math.max(used + weights.use * emptiest, (boxes[at + MIN_SPREAD] ?? 0) + least)
    }
    return stepsOf(bound + fixedCost - SLACK)
  }
  const hasRoom = (index: number): boolean =>
    (free[4 * index] ?? 0) >= 1 &&
    (free[4 * index + 1] ?? 0) >= charge.memoryBytes &&
    (free[4 * index + 2] ?? 0) >= charge.cpuMillis &&
    (free[4 * index + 3] ?? 0) >= charge.diskBytes
  /** What `nodeCost` says of a node that is not special to the request, added in the same order. */
  const priceOf = (index: number): number => {
    const cpuCapacity = capacity[3 * index] ?? 0
    const memoryCapacity = capacity[3 * index + 1] ?? 0
    const slotCapacity = capacity[3 * index + 2] ?? 0
    const cpu = share(cpuCapacity - (free[4 * index + 2] ?? 0) + charge.cpuMillis, cpuCapacity)
    const memory = share(memoryCapacity - (free[4 * index + 1] ?? 0) + charge.memoryBytes, memoryCapacity)
    const slots = share(slotCapacity - (free[4 * index] ?? 0) + 1, slotCapacity)
    const use = weights.use * Math.max(cpu, memory, slots)
    let cost = (query.packs ? -use : use) + (measured[index] ?? 0)
    let absent = query.absentImages
    for (const image of query.images) if (image[index] !== 1) absent += 1
    for (; absent > 0; absent -= 1) cost += weights.imageAbsent
    for (let missing = query.absentNeighbours; missing > 0; missing -= 1) cost += weights.affinity
    return stepsOf(cost)
  }
  const visit = (box: number, bound: number): void => {
    if (bound >= best.steps) return
    const first = left[box] ?? -1
    work += 1
    if (first < 0) {
      for (let position = from[box] ?? 0; position < (to[box] ?? 0); position += 1) {
        const index = items[position] ?? 0
        if (hidden[index] || wanted[profileOf[index] ?? 0] !== 1 || !hasRoom(index)) continue
        work += 1
        const steps = priceOf(index)
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
  const marksFor = (profiles: ProfileSet): Uint8Array => {
    const known = marksOf.get(profiles)
    if (known) return known
    if (marksOf.size >= MOST_REMEMBERED) marksOf.clear()
    const made = new Uint8Array(boxCount)
    marksOf.set(profiles, made)
    return made
  }

  return {
    refresh(index) {
      measure(index)
      moves += 1
      // Boxes of nodes that moved apart bound little: once searches have wasted what a new layout costs, there is one.
      if (work > LAYOUT_WORK * count && moves > count >> 2) {
        build()
        return
      }
      let box = leafOf[index] ?? 0
      fillLeaf(box)
      for (box = parent[box] ?? -1; box >= 0 && fillInner(box); box = parent[box] ?? -1);
    },
    search(next, profiles, into) {
      if (count === 0) return
      query = next
      charge = next.charge
      fixedCost = next.absentImages * weights.imageAbsent + next.absentNeighbours * weights.affinity
      wanted = profiles.has
      marks = marksFor(profiles)
      best = into
      visit(0, boundOf(0))
    },
  }
}

function isMax(field: number): boolean {
  return field < MIN_MEASURED || field >= MAX_SHARE
}

function inverse(capacity: number): number {
  return capacity > 0 ? 1 / capacity : 0
}
