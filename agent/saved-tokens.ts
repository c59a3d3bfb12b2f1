/** Hashes of instance tokens on disk, so that processes go on pushing their load when the agent is restarted. */
import { join } from 'node:path'
import { messageOf } from '../shared/errors.ts'
import type { Files } from '../shared/files.ts'
import type { Logger } from '../shared/logger.ts'
import type { InstanceTokens } from './local-api/instance-tokens.ts'

export interface SavedTokens {
  read(): Promise<Readonly<Record<string, readonly string[]>>>
  /** Writes the present hashes soon, the newest last. */
  save(tokens: InstanceTokens): void
}

export function createSavedTokens(files: Files, stateDir: string, logger: Logger): SavedTokens {
  const path = join(stateDir, 'tokens.json')
  let writing: Promise<void> = Promise.resolve()
  return {
    async read() {
      const text = await files.read(path)
      try {
        return text === null ? {} : (JSON.parse(text) as Record<string, string[]>)
      } catch {
        logger.warn('the file of instance tokens is damaged; processes push no load until they are replaced', { path })
        return {}
      }
    },
    save(tokens) {
      writing = writing
        .then(() => files.write(path, JSON.stringify(tokens.snapshot()), 0o600))
        .catch((error: unknown) => logger.warn('instance tokens could not be saved', { error: messageOf(error) }))
    },
  }
}
