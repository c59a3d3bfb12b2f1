/** Reads an app file and the files it names from this machine's disk, for `up`, `diff` and `up --dry-run`. */
import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { readApp } from '../apps/read-app.ts'
import { InputError, NotFoundError } from '../../shared/errors.ts'
import type { ReadAppRequest, ReadAppResult } from './io.ts'

/** Throws NotFoundError when the file is absent and InputError with every fault, positions included, when it is refused. */
export async function readAppFile(request: ReadAppRequest): Promise<ReadAppResult> {
  const text = await orNull(request.file)
  if (text === null) throw new NotFoundError(`There is no file ${request.file}.`)
  const directory = dirname(request.file)
  const overrides = []
  for (const fileName of request.overrides ?? []) {
    const overrideText = await orNull(fileName)
    if (overrideText === null) throw new NotFoundError(`There is no file ${fileName}.`)
    overrides.push({ text: overrideText, fileName })
  }
  const result = await readApp({
    text,
    fileName: request.file,
    overrides,
    environment: request.env,
    readFile: (path) => orNull(resolve(directory, path)),
    ...(request.name === null ? {} : { appName: request.name }),
    ...(request.profiles.length === 0 ? {} : { profiles: request.profiles }),
  })
  if (result.kind === 'refused') throw new InputError(`${request.file} cannot be deployed`, result.faults)
  return { spec: result.app, source: result.source, warnings: result.warnings }
}

async function orNull(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ENOTDIR') return null
    if (code === 'EISDIR') throw new NotFoundError(`${path} is a directory, not a file.`)
    if (code === 'EACCES') throw new NotFoundError(`${path} may not be read by this user.`)
    throw error
  }
}
