import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { clean, DOCUMENT, renderDocument, rowsIn, testsByRow } from './reliability-doc.ts'
import { FAULT_ROWS, INPUT_ROWS } from './reliability-rows.ts'

const ROOT = join(import.meta.dirname, '..', '..')

describe('docs/reliability.md', () => {
  it('names only tests that are there, and every row (node test/e2e/reliability-doc.ts writes it anew)', () => {
    const written = readFileSync(DOCUMENT, 'utf8')
    const there = [...testsByRow().entries()]
    for (const line of written.split('\n')) {
      const row = /^\| (\d+) \|/.exec(line)?.[1]
      if (row === undefined) continue
      for (const [, file, title] of line.matchAll(/(?:\| |<br>)([\w./-]+\.ts) › (.*?)(?=<br>| \|$)/g))
        expect(
          there.some(
            ([number, tests]) =>
              number === Number(row) && tests.some((test) => test.file === file && clean(test.title) === title),
          ),
          `row ${row}: ${file} › ${title}`,
        ).toBe(true)
    }
    const rows = (text: string) =>
      text
        .split('\n')
        .filter((line) => line.startsWith('| '))
        .map((line) => line.split(' | ').slice(0, 2).join())
    expect(rows(written)).toEqual(rows(renderDocument()))
  })

  it('has all 48 faults, each with a test or with what is missing', () => {
    expect(FAULT_ROWS.map(({ row }) => row)).toEqual(Array.from({ length: 48 }, (_, index) => index + 1))
    const tests = testsByRow()
    expect(FAULT_ROWS.filter(({ row, gap }) => gap === undefined && !tests.has(row))).toEqual([])
    expect([...tests.keys()].filter((row) => row < 1 || row > 48)).toEqual([])
  })

  it('names for bad inputs only tests that are there', () => {
    for (const { input, tests, gap } of INPUT_ROWS) {
      expect(tests.length > 0 || gap !== undefined, input).toBe(true)
      for (const [file, title] of tests) {
        expect(existsSync(join(ROOT, file)), file).toBe(true)
        expect(readFileSync(join(ROOT, file), 'utf8'), input).toContain(title)
      }
    }
  })

  it('reads numbers in every way that titles write them', () => {
    expect(rowsIn('row 7: x')).toEqual([7])
    expect(rowsIn('rows 16 and 21, I2: x')).toEqual([16, 21])
    expect(rowsIn('row 23, row 25: x')).toEqual([23, 25])
    expect(rowsIn('for seeds (rows 1–3, 15)')).toEqual([1, 2, 3, 15])
    expect(rowsIn('rows of a table, row Proxy: x')).toEqual([])
  })
})
