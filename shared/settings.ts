/**
 * Settings of a process from flags, environment, one YAML file and defaults, in this order of precedence. Read once, at the
 * start; every fault is reported at once, with key, file and line. Pure, but for the two reads that the caller hands in.
 *
 * A setting `fleet.minNodeAge` is the flag `--fleet-min-node-age`, the variable `<PREFIX>FLEET_MIN_NODE_AGE`, and `minNodeAge`
 * under `fleet` in the file. Secrets have no flag: the process list shows flags to everyone.
 */
import { isMap, isScalar, LineCounter, parseDocument, type Document } from 'yaml'
import { compare } from './compare.ts'
import { ConfigError, type Fault } from './errors.ts'
import { nearest } from './nearest.ts'

/** What became of a raw value: the value, or what is wrong with it (paths within the value, '' for all of it). */
export type Parsed<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly faults: readonly { readonly path: readonly (string | number)[]; readonly message: string }[] }

export interface Setting<T> {
  /** What a person may write: "duration such as 10m", "host:port". */
  readonly kind: string
  /** One sentence for `--help` and docs/configuration.md. */
  readonly doc: string
  /** Of the value as YAML, flag or variable give it (text from the latter two). */
  readonly parse: (raw: unknown) => Parsed<T>
  /** As a person would write it, for documents; null when there is none. */
  readonly defaultText: string | null
  /** Absent: the setting must be given. */
  readonly fallback?: { readonly value: T }
  /** Never printed; no flag; a file that holds it must have mode 0600. */
  readonly secret?: boolean
  /** A structure: only the file can give it. */
  readonly fileOnly?: boolean
}

export type SettingsTable = Readonly<Record<string, Setting<unknown>>>
export type SettingValues<S extends SettingsTable> = { readonly [K in keyof S]: S[K] extends Setting<infer T> ? T : never }
export type SettingSource = 'flag' | 'env' | 'file' | 'default'

export interface SettingsSources {
  /** Arguments after the verb. */
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  /** Text of a file, null when it does not exist. */
  readonly readFile: (path: string) => Promise<string | null>
  /** Permission bits of a file, null when it does not exist. */
  readonly fileMode: (path: string) => Promise<number | null>
}

export interface LoadedSettings<S extends SettingsTable> {
  readonly values: SettingValues<S>
  readonly sources: Readonly<Record<keyof S & string, SettingSource>>
  /** Where a key was given, for faults that only show later. */
  locate(key: keyof S & string, path?: readonly (string | number)[]): Pick<Fault, 'path' | 'file' | 'line'>
  /** Values for people, secrets replaced. */
  printable(): Readonly<Record<string, unknown>>
}

interface Given {
  readonly raw: unknown
  readonly source: SettingSource
}

/** Reads all settings. Throws ConfigError with every fault found. */
export async function loadSettings<S extends SettingsTable>(
  table: S,
  envPrefix: string,
  sources: SettingsSources,
): Promise<LoadedSettings<S>> {
  const faults: Fault[] = []
  const flags = readFlags(table, sources.argv, faults)
  const configPath = flags.config ?? sources.env[`${envPrefix}CONFIG`] ?? null
  const file = configPath === null ? null : await readConfigFile(configPath, table, sources, faults)
  const env = readEnv(table, envPrefix, sources.env, faults)

  const values: Record<string, unknown> = {}
  const used: Record<string, SettingSource> = {}
  const locate = (key: string, path: readonly (string | number)[] = []): Pick<Fault, 'path' | 'file' | 'line'> => {
    const name = [...key.split('.'), ...path]
    if (used[key] !== 'file' || !file)
      return { path: used[key] === 'env' ? envName(envPrefix, key) : used[key] === 'flag' ? flagName(key) : key }
    const line = file.lineOf(name)
    return { path: name.join('.'), file: file.path, ...(line === null ? {} : { line }) }
  }
  for (const [key, setting] of Object.entries(table)) {
    const given: Given | null =
      key in flags.values
        ? { raw: flags.values[key], source: 'flag' }
        : key in env
          ? { raw: env[key], source: 'env' }
          : file?.values.has(key)
            ? { raw: file.values.get(key), source: 'file' }
            : null
    used[key] = given?.source ?? 'default'
    if (!given) {
      if (setting.fallback) values[key] = setting.fallback.value
      else
        faults.push({ path: key, message: `${key} is not set.`, hint: `Set ${key} in the file or ${envName(envPrefix, key)}.` })
      continue
    }
    const parsed = setting.parse(given.raw)
    if (parsed.ok) values[key] = parsed.value
    else
      for (const fault of parsed.faults)
        faults.push({ ...locate(key, fault.path), message: fault.message, hint: `Expected: ${setting.kind}.` })
    if (setting.secret && given.source === 'file' && file) {
      const mode = await sources.fileMode(file.path)
      if (mode !== null && (mode & 0o077) !== 0)
        faults.push({
          ...locate(key),
          message: `The file holds a secret and can be read by others (mode ${octal(mode)}).`,
          hint: `chmod 600 ${file.path}`,
        })
    }
  }
  if (faults.length > 0) throw configError(faults)
  return {
    values: deepFreeze(values) as SettingValues<S>,
    sources: used as LoadedSettings<S>['sources'],
    locate,
    printable: () =>
      Object.fromEntries(
        Object.entries(values).map(([key, value]) => [key, table[key]?.secret && value !== null ? '(secret)' : redact(value)]),
      ),
  }
}

/** Reads a secret from a file that must be readable by its owner alone. Adds to `faults` and gives null when it cannot. */
export async function readSecretFile(
  path: string,
  at: Pick<Fault, 'path' | 'file' | 'line'>,
  sources: Pick<SettingsSources, 'readFile' | 'fileMode'>,
  faults: Fault[],
): Promise<string | null> {
  const mode = await sources.fileMode(path)
  if (mode === null) {
    faults.push({ ...at, message: `The file ${path} does not exist.` })
    return null
  }
  if ((mode & 0o077) !== 0) {
    faults.push({
      ...at,
      message: `The file ${path} holds a secret and can be read by others (mode ${octal(mode)}).`,
      hint: `chmod 600 ${path}`,
    })
    return null
  }
  const text = (await sources.readFile(path))?.trim() ?? ''
  if (text === '') faults.push({ ...at, message: `The file ${path} is empty.` })
  return text === '' ? null : text
}

/** One error of several faults, its message readable without them. */
export function configError(faults: readonly Fault[]): ConfigError {
  const lines = faults.map((fault) => {
    const place =
      fault.file === undefined ? fault.path : `${fault.file}${fault.line === undefined ? '' : `:${fault.line}`}: ${fault.path}`
    return `  ${place}: ${fault.message}${fault.hint === undefined ? '' : ` ${fault.hint}`}`
  })
  return new ConfigError(`The configuration cannot be used:\n${lines.join('\n')}`, faults)
}

export function flagName(key: string): string {
  return `--${dashed(key)}`
}

export function envName(prefix: string, key: string): string {
  return `${prefix}${dashed(key).replaceAll('-', '_').toUpperCase()}`
}

/** Lines of `--help`: each setting with its flag or file key, kind, default and meaning. */
export function describeSettings(table: SettingsTable, envPrefix: string): string {
  return Object.entries(table)
    .map(([key, setting]) => {
      const name = setting.fileOnly ? `${key} (file only)` : setting.secret ? envName(envPrefix, key) : flagName(key)
      return `  ${name}\n      ${setting.doc} ${setting.kind}${setting.defaultText === null ? '' : `; default ${setting.defaultText}`}`
    })
    .join('\n')
}

function dashed(key: string): string {
  return key
    .replaceAll('.', '-')
    .replace(/([a-z0-9])([A-Z])/g, '$1-$2')
    .toLowerCase()
}

function octal(mode: number): string {
  return `0${(mode & 0o777).toString(8)}`
}

function readFlags(
  table: SettingsTable,
  argv: readonly string[],
  faults: Fault[],
): { config: string | null; values: Record<string, unknown> } {
  const byFlag = new Map(
    Object.entries(table)
      .filter(([, setting]) => !setting.secret && !setting.fileOnly)
      .map(([key]) => [flagName(key), key]),
  )
  const secrets = new Map(
    Object.entries(table)
      .filter(([, setting]) => setting.secret)
      .map(([key]) => [flagName(key), key]),
  )
  const values: Record<string, unknown> = {}
  let config: string | null = null
  for (let index = 0; index < argv.length; index += 1) {
    const argument = argv[index] ?? ''
    const equals = argument.indexOf('=')
    const name = equals < 0 ? argument : argument.slice(0, equals)
    if (!name.startsWith('--')) {
      faults.push({ path: argument.slice(0, 60), message: 'An argument without a flag is not expected here.' })
      continue
    }
    const key = byFlag.get(name)
    const secretKey = secrets.get(name)
    if (key === undefined && name !== '--config') {
      const hint = suggestion(name, [...byFlag.keys(), '--config'])
      faults.push({
        path: name,
        message:
          secretKey === undefined
            ? 'There is no such flag.'
            : 'A secret is not given by a flag: every process on the host could read it.',
        ...(secretKey === undefined ? hint : { hint: 'Use a file of mode 0600.' }),
      })
      if (equals < 0 && argv[index + 1]?.startsWith('--') === false) index += 1
      continue
    }
    let value = equals < 0 ? argv[index + 1] : argument.slice(equals + 1)
    const isBoolean = key !== undefined && table[key]?.kind === 'true or false'
    if (equals < 0 && isBoolean && value !== 'true' && value !== 'false') value = 'true'
    else if (equals < 0) index += 1
    if (value === undefined || value === '' || (equals < 0 && value.startsWith('--')))
      faults.push({ path: name, message: 'The flag needs a value.' })
    else if (key === undefined) config = value
    else if (key in values) faults.push({ path: name, message: 'The flag is given twice.' })
    else values[key] = value
  }
  return { config, values }
}

/**
 * Variables with our prefix. An empty one is a fault (somebody meant to set it). An unknown one is a fault when it looks like a
 * mistyped setting; other programs' variables may share the prefix.
 */
function readEnv(table: SettingsTable, prefix: string, env: SettingsSources['env'], faults: Fault[]): Record<string, string> {
  const byName = new Map(
    Object.entries(table)
      .filter(([, setting]) => !setting.fileOnly)
      .map(([key]) => [envName(prefix, key), key]),
  )
  const values: Record<string, string> = {}
  for (const [name, value] of Object.entries(env).sort(([a], [b]) => compare(a, b))) {
    if (!name.startsWith(prefix) || value === undefined) continue
    const key = byName.get(name)
    if (key === undefined && name !== `${prefix}CONFIG`) {
      const hint = suggestion(name, [...byName.keys()])
      if (hint.hint !== undefined) faults.push({ path: name, message: 'There is no such variable.', ...hint })
    } else if (value === '')
      faults.push({ path: name, message: 'The variable is set, but empty.', hint: 'Give it a value or unset it.' })
    else if (key !== undefined) values[key] = value
  }
  return values
}

interface ConfigFile {
  readonly path: string
  readonly values: ReadonlyMap<string, unknown>
  lineOf(path: readonly (string | number)[]): number | null
}

async function readConfigFile(
  path: string,
  table: SettingsTable,
  sources: SettingsSources,
  faults: Fault[],
): Promise<ConfigFile | null> {
  const text = await sources.readFile(path)
  if (text === null) {
    faults.push({ path: '--config', message: `The file ${path} does not exist.` })
    return null
  }
  const counter = new LineCounter()
  const document = parseDocument(text, { lineCounter: counter, version: '1.2' })
  for (const error of document.errors)
    faults.push({
      path: '',
      file: path,
      line: error.linePos?.[0].line ?? 1,
      message: error.message.split('\n')[0]?.replace(/:$/, '') ?? 'not YAML',
    })
  if (document.errors.length > 0) return null
  const lineOf = (key: readonly (string | number)[]) => lineIn(document, counter, key)
  let root: unknown
  try {
    root = document.toJS({ maxAliasCount: 100 })
  } catch (error) {
    faults.push({ path: '', file: path, message: `The file expands too far: ${String(error)}` })
    return null
  }
  const values = new Map<string, unknown>()
  if (root !== null && root !== undefined) {
    if (isPlainObject(root)) collect(root, [], table, values, (fault) => faults.push({ file: path, ...fault }), lineOf)
    else faults.push({ path: '', file: path, line: 1, message: 'The file must hold keys and values.' })
  }
  return { path, values, lineOf }
}

function collect(
  node: Readonly<Record<string, unknown>>,
  prefix: readonly string[],
  table: SettingsTable,
  values: Map<string, unknown>,
  report: (fault: Fault) => void,
  lineOf: (path: readonly string[]) => number | null,
): void {
  const depth = prefix.length
  const known = Object.keys(table).filter((key) => prefix.every((part, index) => key.split('.')[index] === part))
  for (const [name, value] of Object.entries(node)) {
    const path = [...prefix, name]
    const key = path.join('.')
    const line = lineOf(path)
    const at = { path: key, ...(line === null ? {} : { line }) }
    if (Object.hasOwn(table, key)) {
      if (value === null) report({ ...at, message: 'The key has no value.', hint: 'Give it a value or remove it.' })
      else values.set(key, value)
    } else if (known.some((candidate) => candidate.split('.')[depth] === name)) {
      if (isPlainObject(value)) collect(value, path, table, values, report, lineOf)
      else report({ ...at, message: 'Keys and values are expected here.' })
    } else
      report({
        ...at,
        message: 'There is no such key.',
        ...suggestion(name, [...new Set(known.map((k) => k.split('.')[depth] ?? ''))]),
      })
  }
}

function lineIn(document: Document, counter: LineCounter, path: readonly (string | number)[]): number | null {
  let node: unknown = document.contents
  let offset: number | null = null
  for (const part of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(part))
      if (!pair) break
      if (isScalar(pair.key) && pair.key.range) offset = pair.key.range[0]
      node = pair.value
    } else {
      const next = document.getIn(path.slice(0, path.indexOf(part) + 1), true) as { range?: readonly number[] } | undefined
      if (next?.range?.[0] === undefined) break
      offset = next.range[0]
      node = next
    }
  }
  return offset === null ? null : counter.linePos(offset).line
}

function suggestion(name: string, candidates: readonly string[]): { hint?: string } {
  const found = nearest(name, candidates)
  return found === null ? {} : { hint: `Did you mean ${found}?` }
}

function isPlainObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}

const SECRET_NAME = /secret|token|password|credential|apikey|privatekey/i

function redact(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(redact)
  if (!isPlainObject(value)) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [
      key,
      SECRET_NAME.test(key) && typeof item === 'string' && !/file$/i.test(key) ? '(secret)' : redact(item),
    ]),
  )
}

function deepFreeze<T>(value: T): T {
  if (value !== null && typeof value === 'object' && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const item of Object.values(value)) deepFreeze(item)
  }
  return value
}
