/**
 * Small state files on a real disk. A write is whole or not there at all, whatever instant the machine dies at: it goes to a
 * file aside, is flushed, takes the old one's place by rename, and the directory is flushed too. What a process that was killed in
 * between left aside goes with the first write of its successor, or when the file is removed.
 */
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Files } from './files.ts'

/** Files of the machine's own file system. Directories are made (0700) when a write needs them. */
export function diskFiles(): Files {
  let serial = 0
  /** Paths that were written in this life. */
  const written = new Set<string>()
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
      if (!written.has(path)) await removeAsides(path)
      written.add(path)
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
      await removeAsides(path)
      written.delete(path)
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

/** Removes half-written files of other lives for `path`; those of this process may be under way. */
async function removeAsides(path: string): Promise<void> {
  const directory = dirname(path)
  const names = await readdir(directory).catch((error: unknown) => {
    if (isAbsent(error)) return []
    throw error
  })
  const prefix = `.${basename(path)}.`
  for (const name of names) {
    const [pid = '', , ending] = name.startsWith(prefix) ? name.slice(prefix.length).split('.') : []
    if (ending === 'part' && /^\d+$/.test(pid) && pid !== String(process.pid)) await rm(join(directory, name), { force: true })
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
