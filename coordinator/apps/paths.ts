/** Paths as Compose files write them. Pure. */
import { posix } from 'node:path'

/** The directory part of a file's path; '' for a bare name. */
export function directoryOf(file: string): string {
  const directory = posix.dirname(file)
  return directory === '.' ? '' : directory
}

/** A path relative to `directory`; absolute ones stay. */
export function joinPath(directory: string, path: string): string {
  return path.startsWith('/') || directory === '' ? posix.normalize(path) : posix.join(directory, path)
}

/** `~` and `~/x` with the home directory, where it is known. */
export function expandHome(path: string, home: string | undefined): string {
  if (home === undefined || home === '') return path
  if (path === '~') return home
  return path.startsWith('~/') ? posix.join(home, path.slice(2)) : path
}
