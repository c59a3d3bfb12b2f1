/**
 * The last sets that the coordinator sent, on disk (0600), so that an agent that starts without a coordinator still serves. A
 * file carries a checksum over its content; one that was truncated or changed gives way to the generation before it, and if that
 * is damaged too there is nothing: no keys admit nobody, and an unknown desired set stops nothing (fault row 41).
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { messageOf } from '../../shared/errors.ts'
import type { Files } from '../../shared/files.ts'
import type { Logger } from '../../shared/logger.ts'

export interface SavedSet<T> {
  readonly epoch: number
  readonly revision: number
  readonly value: T
}

export interface SavedSets {
  /** The newest readable generation, or null. Never rejects. */
  load(name: string): Promise<SavedSet<unknown> | null>
  /** Keeps the present generation as the one before, then replaces it. Rejects when the disk does. */
  save(name: string, set: SavedSet<unknown>): Promise<void>
}

const MODE = 0o600

export function createSavedSets(deps: { readonly files: Files; readonly directory: string; readonly logger: Logger }): SavedSets {
  const { files, logger } = deps
  const pathOf = (name: string) => join(deps.directory, `${name}.json`)
  const previousOf = (name: string) => join(deps.directory, `${name}.previous.json`)
  const read = async (path: string): Promise<{ set: SavedSet<unknown> | null; text: string | null }> => {
    try {
      const text = await files.read(path)
      if (text === null) return { set: null, text }
      const set = decode(text)
      if (set === null) logger.warn('a saved set is damaged and was not used', { path })
      return { set, text }
    } catch (error) {
      logger.warn('a saved set cannot be read', { path, error: messageOf(error) })
      return { set: null, text: null }
    }
  }
  return {
    async load(name) {
      return (await read(pathOf(name))).set ?? (await read(previousOf(name))).set
    },
    async save(name, set) {
      // Only a good file may become the generation to fall back on.
      const present = await read(pathOf(name))
      if (present.set && present.text !== null) await files.write(previousOf(name), present.text, MODE)
      await files.write(pathOf(name), encode(set), MODE)
    },
  }
}

/** First line: SHA-256 of the rest. */
function encode(set: SavedSet<unknown>): string {
  const body = JSON.stringify(set)
  return `${createHash('sha256').update(body).digest('hex')}\n${body}`
}

/** The set, or null when its checksum does not hold. */
function decode(text: string): SavedSet<unknown> | null {
  const cut = text.indexOf('\n')
  if (cut !== 64) return null
  const body = text.slice(cut + 1)
  if (createHash('sha256').update(body).digest('hex') !== text.slice(0, cut)) return null
  return JSON.parse(body) as SavedSet<unknown>
}
