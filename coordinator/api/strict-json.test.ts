import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseStrictJson } from './strict-json.ts'

describe('strict JSON', () => {
  it('reads whatever JSON.stringify writes, equal to JSON.parse', () => {
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 6 }), (value) => {
        const text = JSON.stringify(value)
        if (text.includes('"__proto__"')) return
        expect(parseStrictJson(text)).toEqual({ kind: 'ok', value: JSON.parse(text) })
      }),
    )
  })

  it('never throws on any text', () => {
    fc.assert(fc.property(fc.string(), (text) => void parseStrictJson(text)))
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('{', '}', '[', ']', '"', ':', ',', '\\', 'a', '1') }),
        (text) => void parseStrictJson(text),
      ),
    )
  })

  it('finds a duplicate at any depth and after any escape', () => {
    for (const text of ['{"a":1,"a":1}', '[{"x":{"\\u0061":1,"a":2}}]', '{"a":"}","b":["{"],"a":0}', '{"":1,"":2}']) {
      expect(parseStrictJson(text).kind, text).toBe('malformed')
    }
    expect(parseStrictJson('{"a":{"a":[{"a":1},{"a":2}]},"b":"a"}').kind).toBe('ok')
  })

  it('names the place of __proto__', () => {
    expect(parseStrictJson('{"a":[0,{"__proto__":1}]}')).toMatchObject({ kind: 'refused', faults: [{ path: '/a/1/__proto__' }] })
    expect(parseStrictJson('{"a":"__proto__"}').kind).toBe('ok')
  })
})
