/** What an SQLite error means for us. Pure. */

/**
 * `full`: nothing was written, reads still work. `io`: the disk broke a promise (failed write or fsync); nothing after it may
 * be trusted. `locked`: another process holds the file. `damaged`: the file is no database or fails its own checks.
 */
export type SqliteFault = 'full' | 'io' | 'locked' | 'damaged' | 'readonly' | 'other'

/** Primary result codes by their low byte; extended codes (1034 is "fsync failed") keep it. */
const FAULT_OF_CODE: Readonly<Record<number, SqliteFault>> = {
  5: 'locked',
  6: 'locked',
  8: 'readonly',
  10: 'io',
  11: 'damaged',
  13: 'full',
  14: 'io',
  26: 'damaged',
}

/** The kind of fault of anything that node:sqlite throws. */
export function sqliteFaultOf(error: unknown): SqliteFault {
  const code = error !== null && typeof error === 'object' && 'errcode' in error ? Number(error.errcode) : Number.NaN
  return Number.isInteger(code) ? (FAULT_OF_CODE[code & 0xff] ?? 'other') : 'other'
}
