/** Randomness as a dependency: the real source for production, a seeded one for tests, the simulator and reproducible plans. */
import { randomBytes } from 'node:crypto'

export interface Random {
  /** Uniform in [0, 1). */
  next(): number
  /** `length` bytes. From the real source they are fit for secrets; from a seeded one they are not. */
  bytes(length: number): Uint8Array
}

/** Cryptographically strong randomness from the operating system. */
export function systemRandom(): Random {
  return {
    next: () => randomBytes(6).readUIntBE(0, 6) / 2 ** 48,
    bytes: (length) => randomBytes(length),
  }
}

/** A reproducible stream for one seed (mulberry32: 32 bits of state, good enough for jitter and sampling, never for secrets). */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
  return { next, bytes: (length) => Uint8Array.from({ length }, () => Math.floor(next() * 256)) }
}
