import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createChunkScanner } from './chunks.ts'

/** Feeds the text in pieces and returns how many bytes were taken. */
function feed(text: string, cuts: readonly number[], strict = true) {
  const scanner = createChunkScanner(strict)
  const bytes = Buffer.from(text, 'latin1')
  let taken = 0
  const places = [...new Set([0, ...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length])].sort((a, b) => a - b)
  for (let index = 1; index < places.length; index += 1) {
    const from = places[index - 1] as number
    const end = scanner.scan(bytes.subarray(from, places[index]), 0)
    taken = from + end
    if (scanner.done || scanner.bad) break
  }
  return { taken, done: scanner.done, bad: scanner.bad }
}

describe('chunk scanner', () => {
  it('finds the end of any well-formed body, however it is cut, and takes nothing after it', () => {
    const chunks = fc.array(fc.string({ minLength: 1, maxLength: 30, unit: 'grapheme-ascii' }), { maxLength: 6 })
    fc.assert(
      fc.property(chunks, fc.array(fc.nat(), { maxLength: 10 }), fc.string({ unit: 'grapheme-ascii' }), (parts, cuts, after) => {
        const body = `${parts.map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('')}0\r\n\r\n`
        expect(feed(body + after, cuts)).toEqual({ taken: body.length, done: true, bad: false })
      }),
    )
  })

  it('refuses sizes, extensions, line ends and trailers that parsers read differently', () => {
    for (const body of [
      '0x5\r\nabcde\r\n0\r\n\r\n',
      '5;a=b\r\nabcde\r\n',
      '5\nabcde\r\n',
      ' 5\r\n',
      '+5\r\n',
      '-1\r\n',
      '\r\n',
      '5\r\nabcdeXX',
      '000000000005\r\n',
      '0\r\nA: b\r\n\r\n',
      '0\r\n\n',
    ])
      expect(feed(body, []).bad, JSON.stringify(body)).toBe(true)
    expect(feed('5;a=b\r\nabcde\r\n0\r\nA: b\r\n\r\n', [], false)).toMatchObject({ done: true, bad: false })
  })
})
