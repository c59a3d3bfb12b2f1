/** `environment`, `env_file`, `labels` and `label_file` of a service. */
import { ENV_FILE_KEYS } from './compose-schema.ts'
import type { Context } from './context.ts'
import { parseEnvFile } from './env-file.ts'
import { child, children, type Cursor, isNull } from './located.ts'
import { joinPath } from './paths.ts'
import { shorten } from './report.ts'
import { fields, flag, oneOf, pairs, texts, word } from './values.ts'

/** The environment of the container: files in order, then `environment` over them. */
export async function readEnvironment(context: Context, service: Cursor): Promise<Record<string, string>> {
  const result = new Map<string, string>()
  const take = (name: string, value: string | null, cursor: Cursor): void => {
    const found = value ?? context.variables.get(name)
    if (found !== undefined) result.set(name, found)
    else {
      result.delete(name)
      context.report.warn(
        cursor,
        `the variable ${shorten(name)} is given without a value and is not set here: the container does not get it`,
      )
    }
  }
  for (const file of envFiles(context, service)) {
    const text = await context.readFile(context.relative(file.cursor.at, file.path))
    if (text === null) {
      if (file.required)
        context.report.fault(
          file.cursor,
          `the env_file "${shorten(file.path)}" cannot be read`,
          `looked for ${shorten(joinPath(context.directory, context.relative(file.cursor.at, file.path)), 200)}; "required: false" allows for its absence`,
        )
      else context.report.warn(file.cursor, `the env_file "${shorten(file.path)}" is not there; it is not required`)
      continue
    }
    const parsed = parseEnvFile(text, context.variables, file.format)
    for (const fault of parsed.faults)
      context.report.fault({ path: file.cursor.path, at: { file: file.path, line: fault.line, column: 1 } }, fault.message)
    for (const [name, value] of parsed.entries) take(name, value, file.cursor)
  }
  for (const pair of pairs(context.report, child(service, 'environment'), '"environment"')) {
    if (pair.value?.includes('\0')) context.report.fault(pair.cursor, `the value of ${shorten(pair.name)} contains a NUL`)
    else take(pair.name, pair.value, pair.cursor)
  }
  return Object.fromEntries(result)
}

export interface ReadLabel {
  readonly value: string
  readonly cursor: Cursor
}

/** Labels of the container: files in order, then `labels` over them. */
export async function readLabels(context: Context, service: Cursor): Promise<Map<string, ReadLabel>> {
  const labels = new Map<string, ReadLabel>()
  for (const file of texts(context.report, child(service, 'label_file'), '"label_file"')) {
    const text = await context.readFile(context.relative(file.cursor.at, file.value))
    if (text === null)
      context.report.fault(
        file.cursor,
        `the label_file "${shorten(file.value)}" cannot be read`,
        `looked for ${shorten(joinPath(context.directory, context.relative(file.cursor.at, file.value)), 200)}`,
      )
    else
      for (const [name, value] of parseEnvFile(text, context.variables).entries)
        labels.set(name, { value: value ?? '', cursor: file.cursor })
  }
  for (const pair of pairs(context.report, child(service, 'labels'), '"labels"'))
    labels.set(pair.name, { value: pair.value ?? '', cursor: pair.cursor })
  for (const [name, { cursor }] of labels)
    if (/^rubato\.(cluster|node|instance|spec-hash|container)$/.test(name)) {
      context.report.fault(cursor, `the label ${name} is Rubato's own`, 'remove it')
      labels.delete(name)
    }
  return labels
}

function envFiles(
  context: Context,
  service: Cursor,
): { path: string; required: boolean; format: 'compose' | 'raw'; cursor: Cursor }[] {
  const { report } = context
  const given = child(service, 'env_file')
  if (given === undefined || isNull(given.node)) return []
  const items = given.node.kind === 'list' ? children(given).map((item) => item.cursor) : [given]
  return items.flatMap((cursor) => {
    if (cursor.node.kind !== 'map') {
      const path = word(report, cursor, 'env_file', 4096)
      return path === undefined ? [] : [{ path, required: true, format: 'compose' as const, cursor }]
    }
    const file = fields(report, cursor, ENV_FILE_KEYS, 'an env_file')
    const path = word(report, file?.get('path'), 'path', 4096)
    if (file?.get('path') === undefined) report.fault(cursor, 'an env_file needs "path"')
    const format = oneOf(report, file?.get('format'), 'format', ['raw']) ?? 'compose'
    return path === undefined
      ? []
      : [{ path, required: flag(report, file?.get('required'), 'required') ?? true, format, cursor: file?.get('path') ?? cursor }]
  })
}
