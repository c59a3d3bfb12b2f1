import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Block, pack, rounded, unpack } from './block.ts'

const SIZE = 90
const steps = fc.array(
  fc.record({
    step: fc.integer({ min: 0, max: SIZE - 1 }),
    value: fc.oneof(fc.integer({ min: -9000, max: 9000 }), fc.double({ noNaN: true, noDefaultInfinity: true }), fc.constant(0)),
  }),
  { maxLength: 200 },
)

function blockOf(samples: readonly { readonly step: number; readonly value: number }[]): Block {
  const block = new Block(SIZE)
  for (const { step, value } of samples) block.add(step, value, 1, value)
  return block
}

describe('block', () => {
  it('comes back from its packed form: same steps and counts, means and maxima within 2⁻¹³', () => {
    fc.assert(
      fc.property(steps, (samples) => {
        const block = blockOf(samples.map(({ step, value }) => ({ step, value: Math.max(-1e30, Math.min(1e30, value)) })))
        const back = new Block(SIZE)
        unpack(pack(block), back)
        expect([...back.count]).toEqual([...block.count])
        for (let i = 0; i < SIZE; i += 1) {
          const count = block.count[i] ?? 0
          if (count === 0) continue
          const mean = (block.sum[i] ?? 0) / count
          // Below 1e-37 float32 has fewer digits.
          expect(Math.abs((back.sum[i] ?? 0) / count - mean)).toBeLessThanOrEqual(Math.abs(mean) * 2 ** -13 + 1e-37)
          expect(Math.abs((back.max[i] ?? 0) - (block.max[i] ?? 0))).toBeLessThanOrEqual(
            Math.max(Math.abs(block.max[i] ?? 0), Math.abs(mean)) * 2 ** -13 + 1e-37,
          )
        }
      }),
    )
  })

  it('does not drift: what came from a packed block packs to the same bytes', () => {
    fc.assert(
      fc.property(steps, (samples) => {
        const once = pack(blockOf(samples))
        const back = new Block(SIZE)
        unpack(once, back)
        const again = new Block(SIZE)
        unpack(pack(back), again)
        expect([...again.max]).toEqual([...back.max])
      }),
    )
  })

  it('is exact for whole numbers up to 8,192, so counts of instances are', () => {
    for (let count = 0; count <= 8192; count += 1) expect(rounded(count)).toBe(count)
    expect(rounded(-3)).toBe(-3)
    expect(rounded(Number.MAX_VALUE)).toBeLessThan(Number.POSITIVE_INFINITY)
  })

  it('is a few bytes when nothing changes, and about four a step when everything does', () => {
    const quiet = new Block(SIZE)
    const noisy = new Block(SIZE)
    for (let i = 0; i < SIZE; i += 1) {
      quiet.add(i, 15, 5, 3)
      noisy.add(i, 5 * (300 + 40 * Math.sin(i * i)), 5, 345 + (i % 7))
    }
    expect(pack(quiet).length).toBeLessThan(10)
    expect(pack(noisy).length).toBeLessThan(SIZE * 4.5)
    expect(pack(new Block(SIZE))).toHaveLength(0)
  })

  it('never reads past damaged bytes: it fails or gives some block, and does not hang', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        try {
          unpack(bytes, new Block(SIZE))
        } catch (error) {
          expect(error).toBeInstanceOf(RangeError)
        }
      }),
    )
  })
})
