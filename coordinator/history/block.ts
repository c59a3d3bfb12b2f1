/**
 * A block: consecutive steps of one series at one level, each with the sum, number and maximum of its samples. Merging adds, so
 * the order in which samples, late samples and parts of a step arrive does not matter.
 *
 * Packed form (little, and quick to read): mean and maximum are rounded to 13 significant bits (relative error ≤ 2⁻¹³; whole
 * numbers up to 8,192 exact) by cutting their float32 form, whose bits, read as a whole number, order and roughly measure values
 * on a logarithmic scale. A stream of LEB128 numbers follows, the low two bits of the first of each group saying what it is:
 *   0 the next n steps repeat the step before · 1 a step: zigzag difference of the mean to the one before, then maximum less mean
 *   2 the same, then the number of samples, which is else as before · 3 n steps without samples.
 */

const MANTISSA_CUT = 11
const REPEAT = 0
const STEP = 1
const COUNTED_STEP = 2
const GAP = 3

const float = new Float32Array(1)
const bits = new Uint32Array(float.buffer)
const MAX_FLOAT32 = 3.4028234663852886e38
/** The code of the largest value. */
const MAX_CODE = 0x7f7fffff >>> MANTISSA_CUT

export class Block {
  readonly size: number
  readonly sum: Float64Array
  readonly count: Float64Array
  readonly max: Float64Array

  constructor(size: number) {
    this.size = size
    this.sum = new Float64Array(size)
    this.count = new Float64Array(size)
    this.max = new Float64Array(size)
  }

  clear(): void {
    this.sum.fill(0)
    this.count.fill(0)
    this.max.fill(0)
  }

  /** Adds `count` (≥ 1) samples to a step. */
  add(step: number, sum: number, count: number, max: number): void {
    const before = this.count[step] ?? 0
    this.max[step] = before === 0 ? max : Math.max(this.max[step] ?? 0, max)
    this.sum[step] = (this.sum[step] ?? 0) + sum
    this.count[step] = before + count
  }

  /** Adds what `fine` holds: its step `i` belongs to step `offset + ⌊i / ratio⌋` here. */
  fold(fine: Block, offset: number, ratio: number): void {
    for (let i = 0; i < fine.size; i += 1) {
      const count = fine.count[i] ?? 0
      if (count > 0) this.add(offset + Math.floor(i / ratio), fine.sum[i] ?? 0, count, fine.max[i] ?? 0)
    }
  }
}

/** Order-preserving whole number of a value; see above. */
function codeOf(value: number): number {
  float[0] = Math.min(Math.abs(value), MAX_FLOAT32)
  const code = Math.min(((bits[0] ?? 0) + (1 << (MANTISSA_CUT - 1))) >>> MANTISSA_CUT, MAX_CODE)
  return value < 0 ? -code : code
}

function valueOfCode(code: number): number {
  bits[0] = Math.abs(code) << MANTISSA_CUT
  const value = float[0] ?? 0
  return code < 0 ? -value : value
}

/** The value as it comes back from a packed block. */
export function rounded(value: number): number {
  return valueOfCode(codeOf(value))
}

/** Reused between calls: nothing here is entered twice at a time. Grows to the largest block ever packed. */
let out = new Uint8Array(4096)
let length = 0

function write(number: number): void {
  let rest = number
  while (rest >= 0x80) {
    out[length] = (rest & 0x7f) | 0x80
    length += 1
    rest = Math.floor(rest / 128)
  }
  out[length] = rest
  length += 1
}

/** The packed form, a copy of its own; empty for a block without samples. */
export function pack(block: Block): Uint8Array {
  // At most 4 groups of at most 8 bytes a step.
  if (out.length < block.size * 32) out = new Uint8Array(block.size * 32)
  length = 0
  let mean = 0
  let above = 0
  let count = 1
  let repeats = 0
  let gap = 0
  let isFirst = true
  const endRun = () => {
    if (repeats > 0) write(repeats * 4 + REPEAT)
    repeats = 0
  }
  for (let i = 0; i < block.size; i += 1) {
    const samples = block.count[i] ?? 0
    if (samples === 0) {
      endRun()
      gap += 1
      continue
    }
    const nextMean = codeOf((block.sum[i] ?? 0) / samples)
    const nextAbove = Math.max(0, codeOf(block.max[i] ?? 0) - nextMean)
    if (gap === 0 && !isFirst && nextMean === mean && nextAbove === above && samples === count) {
      repeats += 1
      continue
    }
    endRun()
    if (gap > 0) write(gap * 4 + GAP)
    gap = 0
    const difference = nextMean - mean
    const zigzag = difference < 0 ? -2 * difference - 1 : 2 * difference
    write(zigzag * 4 + (samples === count ? STEP : COUNTED_STEP))
    write(nextAbove)
    if (samples !== count) write(samples)
    mean = nextMean
    above = nextAbove
    count = samples
    isFirst = false
  }
  endRun()
  return out.slice(0, length)
}

/** Adds the packed block's steps to `into`, its step `i` at `offset + ⌊i / ratio⌋`; steps outside of `into` are left out. Throws RangeError on damage. */
export function unpack(packed: Uint8Array, into: Block, offset = 0, ratio = 1): void {
  let at = 0
  const read = () => {
    let number = 0
    let factor = 1
    for (;;) {
      const byte = packed[at]
      if (byte === undefined || factor > 2 ** 49) throw new RangeError('a block of the history is cut off or damaged')
      at += 1
      number += (byte & 0x7f) * factor
      if (byte < 0x80) return number
      factor *= 128
    }
  }
  let step = 0
  let mean = 0
  let above = 0
  let count = 1
  let value = 0
  let max = 0
  const put = () => {
    const target = offset + Math.floor(step / ratio)
    if (target >= 0 && target < into.size) into.add(target, value * count, count, max)
    step += 1
  }
  while (at < packed.length) {
    const head = read()
    const kind = head % 4
    const amount = Math.floor(head / 4)
    if (kind === GAP) {
      step += amount
      continue
    }
    if (kind === REPEAT) {
      if (amount > 100_000) throw new RangeError('a block of the history is damaged')
      for (let i = 0; i < amount; i += 1) put()
      continue
    }
    mean += amount % 2 === 1 ? -(amount + 1) / 2 : amount / 2
    above = read()
    if (kind === COUNTED_STEP) count = read()
    if (Math.abs(mean) > MAX_CODE || Math.abs(mean + above) > MAX_CODE) throw new RangeError('a block of the history is damaged')
    value = valueOfCode(mean)
    max = valueOfCode(mean + above)
    put()
  }
}
