/**
 * Credentials in text form. One shape for all: `<prefix>_<id>_<secret>[_<crc>]`; only the secret is secret.
 *
 *   rbt_<id>_<secret>_<crc32>          API key of a user or service (bearer)
 *   rbto_<id>_<secret>_<crc32>         operator token
 *   rbtn_<node id>_<secret>_<crc32>    node credential for the link
 *   rbtj_<id>_<secret>_<ca digest>     join token; `plain` stands for a coordinator without TLS (loopback only)
 *
 * Ids hold no underscore. The checksum lets a mistyped key be told from an unknown one without asking anyone.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { crc32 } from 'node:zlib'
import { base62Secret } from './ids.ts'
import type { Random } from './random.ts'

export type CredentialPrefix = 'rbt' | 'rbto' | 'rbtn'

export interface Credential {
  readonly id: string
  readonly secret: string
}

/** A fresh credential for `id`: its text (shown once) and the hash to keep. */
export function newCredential(prefix: CredentialPrefix, id: string, random: Random): { text: string; secretHash: string } {
  const secret = base62Secret(random)
  const body = `${prefix}_${id}_${secret}`
  return { text: `${body}_${checksum(body)}`, secretHash: hashSecret(secret) }
}

/** The parts of a credential with that prefix, or null when shape or checksum are wrong. */
export function parseCredential(prefix: CredentialPrefix, text: string): Credential | null {
  if (text.length > 300) return null
  const parts = text.split('_')
  const [head, id, secret, crc] = parts
  if (parts.length !== 4 || head !== prefix || !id || !secret || !crc) return null
  return checksum(`${head}_${id}_${secret}`) === crc ? { id, secret } : null
}

/** SHA-256 as hex. Enough for random 256-bit secrets, which cannot be guessed from a list. */
export function hashSecret(secret: string): string {
  return createHash('sha256').update(secret).digest('hex')
}

/** Whether `secret` hashes to `secretHash`, in constant time. */
export function secretMatches(secret: string, secretHash: string): boolean {
  const given = createHash('sha256').update(secret).digest()
  const wanted = Buffer.from(secretHash, 'hex')
  return wanted.length === given.length && timingSafeEqual(given, wanted)
}

export interface JoinToken extends Credential {
  /** SHA-256 (hex) of the coordinator's certificate authority in DER; null for a coordinator without TLS. */
  readonly caDigest: string | null
}

export function formatJoinToken(token: JoinToken): string {
  return `rbtj_${token.id}_${token.secret}_${token.caDigest ?? 'plain'}`
}

/** The parts of a join token, or null when the text is none. */
export function parseJoinToken(text: string): JoinToken | null {
  const [head, id, secret, digest, ...rest] = text.trim().split('_')
  if (head !== 'rbtj' || !id || !secret || !digest || rest.length > 0) return null
  if (digest !== 'plain' && !/^[0-9a-f]{64}$/.test(digest)) return null
  return { id, secret, caDigest: digest === 'plain' ? null : digest }
}

function checksum(text: string): string {
  return (crc32(text) >>> 0).toString(16).padStart(8, '0')
}
