import { describe, expect, it } from 'vitest'
import { fakeKeyRing } from '../../test/fakes/key-ring.ts'
import { authorize, authorizeConnection, isUnder, type RequestFacts } from './policy.ts'
import { createProofChecker, createProofMinter } from './proof.ts'
import { createVerifier, presentedCredential } from './verifier.ts'

const NOW = 1_800_000_000_000
const OPEN = { public: true, sameApp: true, allow: [], roles: [], anyKey: false, methods: [], pathPrefixes: [] }
const CLOSED = { ...OPEN, public: false }

function bed() {
  const keys = fakeKeyRing(NOW)
  const verify = createVerifier(keys)
  const facts = (fields: Partial<RequestFacts> = {}): RequestFacts => ({
    method: 'GET',
    path: '/',
    credential: null,
    callerService: null,
    service: 'shop/web',
    ...fields,
  })
  const ask = (fields: Partial<RequestFacts>, policy: typeof OPEN | undefined, nowMs = NOW) =>
    authorize(facts(fields), policy, { verify, confirmedAtMs: keys.confirmedAtMs }, nowMs, 60_000)
  return { keys, verify, ask }
}

describe('authorize (M11, M13)', () => {
  it('admits keys by name, by role or any, and services by app or by name', () => {
    const { keys, ask } = bed()
    const alice = keys.issue('alice', { roles: ['operator'] })
    expect(ask({ credential: alice }, CLOSED)).toMatchObject({ status: 403 })
    expect(ask({ credential: alice }, { ...CLOSED, anyKey: true })).toEqual({ allow: true, caller: 'alice' })
    expect(ask({ credential: alice }, { ...CLOSED, allow: ['alice'] } as never)).toEqual({ allow: true, caller: 'alice' })
    expect(ask({ credential: alice }, { ...CLOSED, roles: ['operator'] } as never)).toEqual({ allow: true, caller: 'alice' })
    expect(ask({ callerService: 'shop/front' }, CLOSED)).toEqual({ allow: true, caller: 'shop/front' })
    expect(ask({ callerService: 'shop2/front' }, CLOSED)).toMatchObject({ status: 403 })
    expect(ask({ callerService: 'shop2/front' }, { ...CLOSED, allow: ['shop2/front'] } as never)).toMatchObject({ allow: true })
    expect(ask({ callerService: 'shop/front' }, { ...CLOSED, sameApp: false })).toMatchObject({ status: 403 })
  })

  it('a presented key that is bad is not made good by the place it comes from', () => {
    expect(bed().ask({ credential: 'rbt_x_y_z', callerService: 'shop/front' }, CLOSED)).toMatchObject({ status: 401 })
  })

  it('I7: remembers what it proved, but never beyond revocation, replacement or expiry', () => {
    const { keys, ask } = bed()
    const text = keys.issue('bob', { expiresAtMs: NOW + 10 })
    const policy = { ...CLOSED, anyKey: true }
    expect(ask({ credential: text }, policy)).toMatchObject({ allow: true })
    expect(ask({ credential: text }, policy)).toMatchObject({ allow: true })
    expect(ask({ credential: text }, policy, NOW + 10)).toMatchObject({ status: 401 })
    const bob = keys.keys.get('bob')
    keys.keys.delete('bob')
    expect(ask({ credential: text }, policy)).toMatchObject({ status: 401 })
    if (bob) keys.keys.set('bob', { ...bob, secretHash: 'f'.repeat(64) })
    expect(ask({ credential: text }, policy)).toMatchObject({ status: 401 })
  })

  it('row 39: fails closed with 503 when keys were never or too long ago confirmed, or no policy is known', () => {
    const { keys, ask } = bed()
    expect(ask({}, undefined)).toMatchObject({ status: 503, code: 'keyset-stale' })
    expect(ask({ callerService: 'shop/front' }, CLOSED, NOW + 60_001)).toMatchObject({ status: 503 })
    keys.confirmedAtMs = null
    expect(ask({}, CLOSED)).toMatchObject({ status: 503 })
    expect(ask({}, OPEN)).toEqual({ allow: true, caller: null })
  })

  it('matches path prefixes at segment boundaries', () => {
    expect(isUnder('/api', '/api')).toBe(true)
    expect(isUnder('/api/x', '/api')).toBe(true)
    expect(isUnder('/apix', '/api')).toBe(false)
    expect(isUnder('/x', '/')).toBe(true)
  })

  it('connections without HTTP: the public, or proven services', () => {
    const facts = (callerService: string | null) => ({ callerService, service: 'shop/db' })
    expect(authorizeConnection(facts(null), OPEN, null, NOW, 1)).toBe(true)
    expect(authorizeConnection(facts(null), { ...CLOSED, anyKey: true }, NOW, NOW, 1)).toBe(false)
    expect(authorizeConnection(facts('shop/api'), CLOSED, NOW, NOW, 1)).toBe(true)
    expect(authorizeConnection(facts('shop/api'), CLOSED, NOW - 2, NOW, 1)).toBe(false)
  })
})

describe('presented credentials', () => {
  it('takes only ours, keeps them from upstream, and leaves others alone', () => {
    expect(presentedCredential('Bearer rbt_a_b_c', null)).toMatchObject({ credential: 'rbt_a_b_c', authorization: null })
    expect(presentedCredential('Bearer rbto_a_b_c', null)).toMatchObject({ credential: 'rbto_a_b_c', authorization: null })
    expect(presentedCredential('Basic eA==', 'mine')).toEqual({
      credential: null,
      ambiguous: false,
      authorization: 'Basic eA==',
      apiKey: 'mine',
    })
    expect(presentedCredential('Bearer rbt_a_b_c', 'rbt_d_e_f')).toMatchObject({ ambiguous: true })
  })
})

describe('proofs between gateways', () => {
  it('are good for one instance and half a minute, with any mistake for nobody', () => {
    const secret = Buffer.from('secret')
    const text = createProofMinter('n-1', () => secret).mint('shop/a', 'shop/web/1/1', NOW) ?? ''
    const checker = createProofChecker(() => secret)
    expect(checker.check(text, 'shop/web/1/1', NOW)).toBe('shop/a')
    expect(checker.check(text, 'shop/web/2/1', NOW)).toBeNull()
    expect(checker.check(text, 'shop/web/1/1', NOW + 60_001)).toBeNull()
    expect(checker.check(text, 'shop/web/1/1', NOW - 60_001)).toBeNull()
    expect(checker.check(`${text}x`, 'shop/web/1/1', NOW)).toBeNull()
    expect(createProofChecker(() => Buffer.from('other')).check(text, 'shop/web/1/1', NOW)).toBeNull()
    expect(createProofChecker(() => null).check(text, 'shop/web/1/1', NOW)).toBeNull()
    for (let index = 0; index < text.length; index += 7) {
      const mutated = `${text.slice(0, index)}${text[index] === 'A' ? 'B' : 'A'}${text.slice(index + 1)}`
      if (mutated !== text) expect(checker.check(mutated, 'shop/web/1/1', NOW)).toBeNull()
    }
  })
})
