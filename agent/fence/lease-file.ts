/**
 * The lease on disk (0600): written in place, since a full disk must not keep a node from saying that it has contact. It grows
 * before it is written, so that a growth that fails leaves what was there. Synchronous: what was said is there when this returns.
 */
import { closeSync, constants, fstatSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

export interface LeaseFile {
  /** The text, or null when there is none. */
  read(): string | null
  /** Throws when it cannot be written; then the text of before stands. */
  write(text: string): void
  remove(): void
}

export function leaseFile(path: string): LeaseFile {
  return {
    read() {
      try {
        return readFileSync(path, 'utf8')
      } catch (error) {
        if ((error as { code?: unknown }).code === 'ENOENT') return null
        throw error
      }
    },
    write(text) {
      mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
      const file = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600)
      try {
        const bytes = Buffer.from(text)
        const { size } = fstatSync(file)
        writeAll(file, Buffer.alloc(Math.max(0, bytes.length - size), ' '), size)
        writeAll(file, bytes, 0)
      } finally {
        closeSync(file)
      }
    },
    remove: () => rmSync(path, { force: true }),
  }
}

function writeAll(file: number, bytes: Buffer, position: number): void {
  for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done, bytes.length - done, position + done)
}
