/** Where a program's settings come from in the real world: its arguments, its environment and files. */
import { readFile, stat } from 'node:fs/promises'
import type { SettingsSources } from './settings.ts'

/** Files that do not exist read as null; every other failure to read rejects. */
export function systemSettings(argv: readonly string[]): SettingsSources {
  const absent = (error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return null
    throw error
  }
  return {
    argv,
    env: process.env,
    readFile: (path) => readFile(path, 'utf8').catch(absent),
    fileMode: (path) => stat(path).then((found) => found.mode & 0o777, absent),
  }
}
