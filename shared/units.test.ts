import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { canonicalJson, specHashOf } from './canonical.ts'
import { formatBytes, formatDuration, parseBytes, parseCpuMillis, parseDurationMs } from './units.ts'

describe('units as Compose writes them', () => {
  it('reads sizes', () => {
    expect(['128M', '1gb', '64k', '10', '1.5g', '0b'].map(parseBytes)).toEqual([134217728, 1073741824, 65536, 10, 1610612736, 0])
    expect(['', 'x', '-1', '1e3', '1 zb', '9999999999t'].map(parseBytes)).toEqual([null, null, null, null, null, null])
  })
  it('reads durations', () => {
    expect(['1m30s', '500ms', '2h', '0', '1.5s', '100us'].map(parseDurationMs)).toEqual([90_000, 500, 7_200_000, 0, 1500, 0])
    expect(['', '10', '5 s', 's', '1m x'].map(parseDurationMs)).toEqual([null, null, null, null, null])
  })
  it('reads CPU shares', () => {
    expect(['0.25', '2', '1.5'].map(parseCpuMillis)).toEqual([250, 2000, 1500])
    expect(['', '-1', 'a'].map(parseCpuMillis)).toEqual([null, null, null])
  })
  it('prints sizes and durations for people', () => {
    expect([0, 1536, 134217728].map(formatBytes)).toEqual(['0 B', '1.5 KiB', '128 MiB'])
    expect([850, 12_000, 190_000, 7_500_000, 349_200_000].map(formatDuration)).toEqual(['850ms', '12s', '3m10s', '2h5m', '4d1h'])
  })
})

describe('canonical JSON', () => {
  it('is the same for equal data whatever the order of keys, and valid JSON', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.jsonValue()), (value) => {
        const reversed = Object.fromEntries(Object.entries(value).reverse())
        expect(canonicalJson(reversed)).toBe(canonicalJson(value))
        expect(JSON.parse(canonicalJson(value))).toEqual(JSON.parse(JSON.stringify(value)))
      }),
    )
  })
  it('hashes to 16 hex characters and differs for different data', () => {
    expect(specHashOf({ a: 1 })).toMatch(/^[0-9a-f]{16}$/)
    expect(specHashOf({ a: 1 })).not.toBe(specHashOf({ a: 2 }))
  })
})
