/**
 * Small state files on a real disk. A write is whole or not there at all, whatever instant the machine dies at: it goes to a
 * file aside, is flushed, takes the old one's place by rename, and the directory is flushed too.
 */
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Files } from './files.ts'

/** Files of the machine's own file system. Directories are made (0700) when a write needs them. */
export function diskFiles(): Files {
  let serial = 0
  return {
    async read(path) {
      try {
        return await readFile(path, 'utf8')
      } catch (error) {
        if (isAbsent(error)) return null
        throw error
      }
    },
    async write(path, text, mode = 0o600) {
      const directory = dirname(path)
      await mkdir(directory, { recursive: true, mode: 0o700 })
      // Hidden, so that `list` never shows a half-written one.
      const aside = join(directory, `.${basename(path)}.${process.pid}.${serial++}.part`)
      try {
        const handle = await open(aside, 'wx', mode)
        try {
          await handle.writeFile(text, 'utf8')
          // The umask may have taken bits away.
          await handle.chmod(mode)
          await handle.sync()
        } finally {
          await handle.close()
        }
        await rename(aside, path)
      } catch (error) {
        await rm(aside, { force: true })
        throw error
      }
      await syncDirectory(directory)
    },
    async remove(path) {
      await rm(path, { force: true })
    },
    async list(directory) {
      try {
        return (await readdir(directory)).filter((name) => !name.startsWith('.')).sort()
      } catch (error) {
        if (isAbsent(error)) return []
        throw error
      }
    },
  }
}

async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

function isAbsent(error: unknown): boolean {
  const code = (error as { code?: unknown }).code
  return code === 'ENOENT' || code === 'ENOTDIR'
}
