import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { editDistance, nearest } from './nearest.ts'

describe('suggestions', () => {
  it('the near word is found in whatever case it is written, and none when nothing is near', () => {
    expect(nearest('enviroment', ['env_file', 'environment'])).toBe('environment')
    expect(nearest('dependsOn', ['depends_on'])).toBe('depends_on')
    expect(nearest('prots', ['ports', 'profiles'])).toBe('ports')
    expect(nearest('zzzz', ['ports'])).toBeNull()
    expect(nearest('x'.repeat(65), ['x'.repeat(65)])).toBeNull()
  })

  it('the distance is 0 only for equal words, and the same both ways', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (a, b) => {
        expect(editDistance(a, b) === 0).toBe(a === b)
        expect(editDistance(a, b)).toBe(editDistance(b, a))
      }),
    )
  })
})
