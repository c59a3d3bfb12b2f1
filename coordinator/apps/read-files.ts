/** `configs` and `secrets`: small files that are carried to the instance. */
import type { FileMount } from '../../shared/model/unit.ts'
import { CONFIG_KEYS, FILE_MOUNT_KEYS, SECRET_KEYS } from './compose-schema.ts'
import type { Context } from './context.ts'
import { child, children, type Cursor, isNull } from './located.ts'
import { joinPath } from './paths.ts'
import { shorten } from './report.ts'
import { nearest } from '../../shared/nearest.ts'
import { fields, fileMode, flag, text, word } from './values.ts'

/** A spec travels to agents and is kept with its history; larger data belongs into an image or a volume. */
const MAX_FILE_BYTES = 100 * 1024
const DEFAULT_MODE = 0o444

/** Files of a service: its configs, then its secrets. */
export async function readFiles(context: Context, service: Cursor): Promise<FileMount[]> {
  return [...(await readKind(context, service, 'config')), ...(await readKind(context, service, 'secret'))]
}

/** Checks the declarations at the top of the file that no service uses. */
export function checkFiles(context: Context): void {
  for (const cursor of context.configs.values()) fields(context.report, cursor, CONFIG_KEYS, 'a config')
  for (const cursor of context.secrets.values()) fields(context.report, cursor, SECRET_KEYS, 'a secret')
}

async function readKind(context: Context, service: Cursor, kind: 'config' | 'secret'): Promise<FileMount[]> {
  const { report } = context
  const list = child(service, `${kind}s`)
  if (list === undefined || isNull(list.node)) return []
  if (list.node.kind !== 'list') {
    report.fault(list, `"${kind}s" of a service must be a list`)
    return []
  }
  const files: FileMount[] = []
  for (const { cursor } of children(list)) {
    const item = cursor.node.kind === 'map' ? fields(report, cursor, FILE_MOUNT_KEYS, `a ${kind}`) : undefined
    const name = word(report, item === undefined ? cursor : item.get('source'), `the name of a ${kind}`, 255)
    if (item !== undefined && item.get('source') === undefined) report.fault(cursor, `a ${kind} needs "source": its name`)
    if (name === undefined) continue
    const target = word(report, item?.get('target'), 'target', 4096) ?? name
    for (const id of ['uid', 'gid'])
      if (item?.get(id) !== undefined && !['0', undefined].includes(text(report, item.get(id), id)))
        report.warn(item.get(id) ?? cursor, `the file belongs to root, whatever "${id}" says; its mode lets others read it`)
    const mode = fileMode(report, item?.get('mode'), 'mode') ?? DEFAULT_MODE
    const content = await contentOf(context, item?.get('source') ?? cursor, kind, name)
    if (content !== null)
      files.push({
        target: targetPath(kind, target),
        mode,
        contentBase64: Buffer.from(content).toString('base64'),
        secret: kind === 'secret',
      })
  }
  return files
}

function targetPath(kind: 'config' | 'secret', target: string): string {
  if (target.startsWith('/')) return target
  return kind === 'secret' ? `/run/secrets/${target}` : `/${target}`
}

async function contentOf(context: Context, use: Cursor, kind: 'config' | 'secret', name: string): Promise<string | null> {
  const { report } = context
  const all = kind === 'config' ? context.configs : context.secrets
  const declared = all.get(name)
  if (declared === undefined) {
    const near = nearest(name, all.keys())
    report.fault(
      use,
      `the ${kind} "${shorten(name)}" is not declared`,
      near === null ? `declare it under the top-level "${kind}s:"` : `did you mean "${near}"?`,
    )
    return null
  }
  const given = fields(report, declared, kind === 'config' ? CONFIG_KEYS : SECRET_KEYS, `a ${kind}`)
  const external = given?.get('external')
  if (external !== undefined && (external.node.kind === 'map' || flag(report, external, 'external') === true)) {
    report.fault(
      external,
      `the ${kind} "${shorten(name)}" is external: Rubato keeps none of its own`,
      'give it with "file" or "environment"',
    )
    return null
  }
  const variable = text(report, given?.get('environment'), 'environment')
  const path = word(report, given?.get('file'), 'file', 4096)
  const inline = kind === 'config' ? text(report, given?.get('content'), 'content') : undefined
  const ways = [variable, path, inline].filter((way) => way !== undefined)
  if (ways.length !== 1) {
    if (given === undefined || (given.get('file') ?? given.get('environment') ?? given.get('content')) === undefined)
      report.fault(
        declared,
        `the ${kind} "${shorten(name)}" has no content`,
        `give it with "file"${kind === 'config' ? ', "content"' : ''} or "environment"`,
      )
    else if (ways.length > 1)
      report.fault(declared, `the ${kind} "${shorten(name)}" has content of several kinds`, 'keep one of them')
    return null
  }
  const content = await load(context, {
    variable,
    path: path === undefined ? undefined : context.relative(declared.at, path),
    inline,
  })
  if (content === null) {
    if (path !== undefined)
      report.fault(
        given?.get('file') ?? declared,
        `the file "${shorten(path)}" of the ${kind} "${shorten(name)}" cannot be read`,
        `looked for ${shorten(joinPath(context.directory, context.relative(declared.at, path)), 200)}`,
      )
    else
      report.fault(
        given?.get('environment') ?? declared,
        `the variable ${shorten(variable ?? '')} of the ${kind} "${shorten(name)}" is not set`,
        'set it in the environment or in .env',
      )
    return null
  }
  if (Buffer.byteLength(content) > MAX_FILE_BYTES) {
    report.fault(
      declared,
      `the ${kind} "${shorten(name)}" is larger than ${MAX_FILE_BYTES / 1024} KiB`,
      'put large files into an image or a volume',
    )
    return null
  }
  return content
}

async function load(
  context: Context,
  from: { variable: string | undefined; path: string | undefined; inline: string | undefined },
): Promise<string | null> {
  if (from.inline !== undefined) return from.inline
  if (from.variable !== undefined) return context.variables.get(from.variable) ?? null
  return from.path === undefined ? null : await context.readFile(from.path)
}
