/** Identifiers: short, lower-case, safe in file names, DNS labels, container names and URLs. */
import type { Random } from './random.ts'

export interface Ids {
  /** A fresh id `<prefix>-<10 characters of [a-z0-9]>` (about 51 bits). */
  next(prefix: string): string
}

const ALPHABET = 'abcdefghijklmnopqrstuvwxyz0123456789'

/** Ids drawn from `random`: unguessable enough for names, not for secrets. */
export function randomIds(random: Random): Ids {
  return { next: (prefix) => `${prefix}-${randomText(random, 10, ALPHABET)}` }
}

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'

/** A secret of `length` base62 characters (43 characters carry 256 bits), drawn without modulo bias. */
export function base62Secret(random: Random, length = 43): string {
  return randomText(random, length, BASE62)
}

function randomText(random: Random, length: number, alphabet: string): string {
  const limit = 256 - (256 % alphabet.length)
  let text = ''
  while (text.length < length)
    for (const byte of random.bytes(length)) if (byte < limit && text.length < length) text += alphabet[byte % alphabet.length]
  return text
}
