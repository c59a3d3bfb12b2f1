import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readTrace } from './forecast-traces.ts'

describe('traces', () => {
  let folder = ''
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'rubato-traces-'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))
  const read = (...lines: string[]) => {
    const path = join(folder, 'a-trace.csv')
    writeFileSync(path, ['timestamp,value', ...lines, ''].join('\n'))
    return readTrace(path)
  }

  it('take times without a zone as they stand, and empty values as missing', () => {
    const series = read('2015-02-26T21:40:00,57', '2015-02-26T21:45:00,', '2015-02-26 21:50:00,0', '2015-02-26T21:55:00Z,3.5')
    expect(series).toMatchObject({ name: 'a-trace', stepMs: 300_000 })
    expect(series.points.map(({ value }) => value)).toEqual([57, null, 0, 3.5])
    expect(series.points[0]?.atMs).toBe(Date.UTC(2015, 1, 26, 21, 40))
  })

  it('fill short gaps as missing and long ones as closed', () => {
    const at = (hour: number, minute: number) =>
      `2015-02-26T${String(hour).padStart(2, '0')}:${String(minute).padStart(2, '0')}:00,1`
    const series = read(at(1, 0), at(1, 30), at(2, 0), at(3, 0), at(3, 30), at(6, 0))
    expect(series.points.map(({ value }) => value)).toEqual([1, 1, 1, null, 1, 1, 0, 0, 0, 0, 1])
  })

  it('gather steps of seconds into minutes', () => {
    const series = read(
      ...Array.from({ length: 12 }, (_, i) => `2015-02-26T00:0${Math.floor(i / 6)}:${(i % 6) * 10 || '00'},${i}`),
    )
    expect(series.points.map(({ value }) => value)).toEqual([2.5, 8.5])
  })

  it('name the line that is no row', () => {
    expect(() => read('2015-02-26T00:00:00,1', 'noon,2')).toThrow(/a-trace\.csv:3: "noon,2"/)
  })
})
