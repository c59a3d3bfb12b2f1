import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatJoinToken, hashSecret, newCredential, parseCredential, parseJoinToken, secretMatches } from './credentials.ts'
import { seededRandom } from './random.ts'

describe('credentials', () => {
  it('are read back, and match only their own hash', () => {
    const { text, secretHash } = newCredential('rbt', 'k-abc', seededRandom(1))
    const read = parseCredential('rbt', text)
    expect(read?.id).toBe('k-abc')
    expect(secretMatches(read?.secret ?? '', secretHash)).toBe(true)
    expect(secretMatches('other', secretHash)).toBe(false)
    expect(secretMatches('other', 'zz')).toBe(false)
  })
  it('of another kind are refused', () => {
    const { text } = newCredential('rbto', 'o-1', seededRandom(2))
    expect(parseCredential('rbt', text)).toBeNull()
  })
  it('with any single character changed are refused', () => {
    const { text } = newCredential('rbt', 'k-abc', seededRandom(3))
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.constantFrom('a', 'Z', '0', '_', '-'), (at, character) => {
        fc.pre(text[at] !== character)
        expect(parseCredential('rbt', text.slice(0, at) + character + text.slice(at + 1))).toBeNull()
      }),
    )
  })
  it('of arbitrary text never throw', () => {
    fc.assert(fc.property(fc.string(), (text) => parseCredential('rbt', text) === null || true))
    fc.assert(fc.property(fc.string(), (text) => parseJoinToken(text) === null))
  })
  it('join tokens carry the digest of the authority, or say that there is none', () => {
    const caDigest = hashSecret('ca')
    expect(parseJoinToken(formatJoinToken({ id: 'j-1', secret: 's', caDigest }))).toEqual({ id: 'j-1', secret: 's', caDigest })
    expect(parseJoinToken(formatJoinToken({ id: 'j-1', secret: 's', caDigest: null }))?.caDigest).toBeNull()
    expect(parseJoinToken('rbtj_a_b_c')).toBeNull()
  })
})
