/**
 * Finds the end of a chunked body in a stream of buffers and checks every byte of its framing, so that the next hop cannot
 * see another end than we do. Bytes are passed on as they came; nothing is decoded.
 */

const SIZE = 0
const EXTENSION = 1
const SIZE_LF = 2
const DATA = 3
const DATA_CR = 4
const DATA_LF = 5
const TRAILER_START = 6
const TRAILER = 7
const TRAILER_LF = 8
const END_LF = 9
const DONE = 10
const BAD = 11

const MAX_SIZE_DIGITS = 8
const MAX_TRAILER_BYTES = 8_192

export interface ChunkScanner {
  /** Offset in `buffer` after the last byte that belongs to the body (everything before it was checked). */
  scan(buffer: Uint8Array, from: number): number
  readonly done: boolean
  /** The framing is broken; nothing after the returned offset may be passed on. */
  readonly bad: boolean
}

/** `strict` (requests): chunk extensions and trailers are faults, for they are where parsers disagree. */
export function createChunkScanner(strict: boolean): ChunkScanner {
  let state = SIZE
  let digits = 0
  let left = 0
  let trailerBytes = 0
  return {
    scan(buffer, from) {
      let at = from
      const length = buffer.length
      while (at < length && state < DONE) {
        if (state === DATA) {
          const step = Math.min(left, length - at)
          at += step
          left -= step
          if (left === 0) state = DATA_CR
          continue
        }
        const byte = buffer[at] as number
        const next = advance(byte)
        if (next === BAD) {
          state = BAD
          return at
        }
        state = next
        at += 1
      }
      return at
    },
    get done() {
      return state === DONE
    },
    get bad() {
      return state === BAD
    },
  }

  function advance(byte: number): number {
    switch (state) {
      case SIZE: {
        const value = hexValue(byte)
        if (value >= 0) {
          digits += 1
          left = left * 16 + value
          return digits > MAX_SIZE_DIGITS ? BAD : SIZE
        }
        if (digits === 0) return BAD
        if (byte === 13) return SIZE_LF
        return !strict && (byte === 59 || byte === 32 || byte === 9) ? EXTENSION : BAD
      }
      case EXTENSION:
        if (byte === 13) return SIZE_LF
        trailerBytes += 1
        return byte === 10 || byte === 0 || trailerBytes > MAX_TRAILER_BYTES ? BAD : EXTENSION
      case SIZE_LF:
        if (byte !== 10) return BAD
        digits = 0
        return left === 0 ? TRAILER_START : DATA
      case DATA_CR:
        return byte === 13 ? DATA_LF : BAD
      case DATA_LF:
        return byte === 10 ? SIZE : BAD
      case TRAILER_START:
        if (byte === 13) return END_LF
        return strict || byte === 10 || byte === 0 ? BAD : TRAILER
      case TRAILER:
        if (byte === 13) return TRAILER_LF
        trailerBytes += 1
        return byte === 10 || byte === 0 || trailerBytes > MAX_TRAILER_BYTES ? BAD : TRAILER
      case TRAILER_LF:
        return byte === 10 ? TRAILER_START : BAD
      case END_LF:
        return byte === 10 ? DONE : BAD
      default:
        return BAD
    }
  }
}

function hexValue(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48
  const lower = byte | 32
  return lower >= 97 && lower <= 102 ? lower - 87 : -1
}
