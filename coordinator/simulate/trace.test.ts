import { describe, expect, it } from 'vitest'
import { InputError } from '../../shared/errors.ts'
import { demandOf, unitFor } from './demand.ts'
import { parseTrace } from './trace.ts'

const parse = (text: string, gaps?: 'zero' | 'interpolate') => parseTrace(text, { name: 'demand.csv', ...(gaps ? { gaps } : {}) })
const faultOf = (text: string): string => {
  try {
    parse(text)
  } catch (error) {
    const [fault] = error instanceof InputError ? error.faults : []
    return `${fault?.path}: ${fault?.message}; ${fault?.hint}`
  }
  return 'no fault'
}
const minutes = (...values: readonly (number | string)[]) =>
  `timestamp,value\n${values.map((value, index) => `2026-03-01T00:${String(index).padStart(2, '0')}:00,${value}`).join('\n')}\n`

describe('parseTrace', () => {
  it('reads ISO times without a zone as UTC, seconds since 1970, a header or none, and CRLF', () => {
    expect(parse(minutes(1, 2, 3))).toMatchObject({ startMs: Date.UTC(2026, 2, 1), stepMs: 60_000 })
    expect([...parse('1700000000,5\r\n1700000300,6\r\n1700000600,7').values]).toEqual([5, 6, 7])
  })

  it('reads what spreadsheets and exporters write: a byte-order mark, quotes, headers in any script, words for "no value"', () => {
    expect([...parse('\uFEFF1700000000,5\n1700000300,6\n1700000600,7').values]).toEqual([5, 6, 7])
    expect([...parse('"время","значение"\n"1700000000","5"\n"1700000300","NaN"\n"1700000600","7"').values]).toEqual([5, 6, 7])
    expect([...parse('time,p95\n1700000000,1e300\n1700000300,null\n1700000600,1e300').values]).toEqual([1e300, 1e300, 1e300])
  })

  it('fills gaps of up to three steps, and asks what longer ones mean', () => {
    expect([...parse(minutes(1, '', 3, 4)).values]).toEqual([1, 2, 3, 4])
    const gap = '2026-03-01T00:00:00,1\n2026-03-01T00:01:00,1\n2026-03-01T00:02:00,1\n2026-03-01T00:09:00,8'
    expect(faultOf(gap)).toMatch(/demand.csv:3: is followed by a gap of 6 steps .*--gaps zero/)
    expect([...parse(gap, 'zero').values]).toEqual([1, 1, 1, 0, 0, 0, 0, 0, 0, 8])
    expect([...parse(gap, 'interpolate').values].slice(3, 5)).toEqual([2, 3])
  })

  it.each([
    ['nothing', '', /demand.csv:1: holds 0 values; at least 3/],
    ['a negative value', minutes(1, -2, 3), /demand.csv:3: -2 is negative/],
    ['text for a number', minutes(1, 'two', 3), /demand.csv:3: "two" is no number/],
    ['too many columns', minutes(1, '2,9', 3), /demand.csv:3: has 3 columns, not 2/],
    ['no time', 'a,1\n2026-03-01,1\nsoon,2', /demand.csv:3: "soon" is no time; write ISO 8601/],
    ['times out of order', '2026-03-02,1\n2026-03-01,1\n2026-03-03,2', /demand.csv:2: is not later/],
    [
      'unequal steps',
      '1700000000,1\n1700000060,1\n1700000120,1\n1700000150,1\n1700000180,1',
      /demand.csv:4: lies between the steps of 60 s/,
    ],
  ])('refuses %s with the line and how to mend it', (_what, text, message) => {
    expect(faultOf(text)).toMatch(message)
  })
})

describe('a file full of gaps', () => {
  it('is refused with ten of them, at a cost that grows with its length', () => {
    const lines: string[] = []
    for (let at = 1_700_000_000; lines.length < 200_000; at += 360) lines.push(`${at},1`, `${at + 60},1`)
    let faults = 0
    try {
      parse(lines.join('\n'))
    } catch (error) {
      if (error instanceof InputError) faults = error.faults.length
    }
    expect(faults).toBe(10)
  })
})

describe('demand between the steps', () => {
  it('is linear from middle to middle, in instances’ worth', () => {
    const demand = demandOf(parse(minutes(10, 20, 30)), 10)
    expect(demand.at(Date.UTC(2026, 2, 1, 0, 0, 30))).toBe(1)
    expect(demand.at(Date.UTC(2026, 2, 1, 0, 1, 0))).toBe(1.5)
    expect(demand.at(Date.UTC(2026, 2, 1, 9))).toBe(3)
  })

  it('is scaled by the 99th percentile of its values above zero', () => {
    const trace = parse(minutes(...Array.from({ length: 50 }, (_, index) => (index % 2 === 0 ? 0 : 100))))
    expect(unitFor(trace, 20)).toBe(5)
  })
})
