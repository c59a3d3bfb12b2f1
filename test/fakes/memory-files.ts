/** Files in memory. The map is the disk: hand the same one to the next life of an agent and it finds what it wrote. */
import type { Files } from '../../shared/files.ts'

export interface MemoryFiles extends Files {
  readonly disk: Map<string, string>
  /** Failure lever: the next writes reject with this error and change nothing (disk full, I/O error). */
  failNextWrites(error: Error, times?: number): void
}

export function memoryFiles(disk: Map<string, string> = new Map()): MemoryFiles {
  const failures: Error[] = []
  return {
    disk,
    failNextWrites(error, times = 1) {
      for (let i = 0; i < times; i += 1) failures.push(error)
    },
    async read(path) {
      return disk.get(path) ?? null
    },
    async write(path, text) {
      const failure = failures.shift()
      if (failure) throw failure
      disk.set(path, text)
    },
    async remove(path) {
      disk.delete(path)
    },
    async list(directory) {
      const prefix = directory.endsWith('/') ? directory : `${directory}/`
      const names = new Set<string>()
      for (const path of disk.keys()) if (path.startsWith(prefix)) names.add(path.slice(prefix.length).split('/')[0] ?? '')
      return [...names].sort()
    },
  }
}
