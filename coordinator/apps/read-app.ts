/**
 * App file → AppSpec: reads, interpolates and merges the files, checks every key, and reports every fault at once with its
 * place. Pure but for the files that the app file names, which come through `readFile`.
 */
import type { Fault } from '../../shared/errors.ts'
import type { AppSpec, AppWarning } from '../../shared/model/app.ts'
import { NAME_PATTERN, SERVICE_NAME_PATTERN } from '../../shared/model/identity.ts'
import { NETWORK_KEYS, TOP_LEVEL_KEYS } from './compose-schema.ts'
import { type AppPolicy, type Context, SAFE_POLICY } from './context.ts'
import { parseEnvFile } from './env-file.ts'
import { interpolate } from './interpolate.ts'
import { child, children, type Cursor, isNull, rootCursor } from './located.ts'
import { linkServices } from './link-services.ts'
import { type Directories, loadFiles } from './load-files.ts'
import { directoryOf, joinPath } from './paths.ts'
import { checkFiles } from './read-files.ts'
import { profilesOf, readService, type ReadService } from './read-service.ts'
import { checkVolumes } from './read-volumes.ts'
import { readYaml } from './read-yaml.ts'
import { createReport, type Report, shorten } from './report.ts'
import { type Fields, fields, text } from './values.ts'
import { messageOf } from '../../shared/errors.ts'

const MAX_SERVICES = 500

export interface ReadAppInput {
  /** The file as it is. */
  readonly text: string
  /** Its path, absolute where it is known: bind mounts count from its directory, and it names the app if nothing else does. */
  readonly fileName: string
  /** Further files laid over the first one, in order (`-f a -f b`). Their paths count from the first file's directory. */
  readonly overrides?: readonly { readonly text: string; readonly fileName: string }[]
  /** Wins over every other way to name the app. */
  readonly appName?: string
  /** For interpolation and for variables named without a value; wins over `.env`. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Text of a file, its path relative to the app file's directory (or absolute); null when there is none. */
  readonly readFile: (path: string) => Promise<string | null>
  /** Profiles asked for; `*` is all of them. Default: COMPOSE_PROFILES. */
  readonly profiles?: readonly string[]
  /** What runs services that do not say it themselves. Default docker. */
  readonly runtime?: 'docker' | 'process'
  readonly policy?: Partial<AppPolicy>
}

export type ReadAppResult =
  | { readonly kind: 'ok'; readonly app: AppSpec; readonly warnings: readonly AppWarning[]; readonly source: string }
  | { readonly kind: 'refused'; readonly faults: readonly Fault[]; readonly warnings: readonly AppWarning[] }

/** Reads an app file. Never rejects: whatever is wrong with the input is in `faults`. `source` is the text as given, with no variable put in. */
export async function readApp(input: ReadAppInput): Promise<ReadAppResult> {
  const report = createReport()
  const app = await readAll(input, report)
  const faults = report.faults()
  const warnings = report.warnings()
  if (app === null || faults.length > 0) return { kind: 'refused', faults, warnings }
  return { kind: 'ok', app, warnings, source: input.text }
}

async function readAll(input: ReadAppInput, report: Report): Promise<AppSpec | null> {
  const directory = directoryOf(input.fileName)
  const whole = { path: '', at: { file: input.fileName, line: 1, column: 1 } }
  const readFile = async (path: string): Promise<string | null> => {
    try {
      return await input.readFile(path)
    } catch (error) {
      report.fault(whole, `the file "${shorten(path)}" cannot be read: ${shorten(messageOf(error), 160)}`)
      return null
    }
  }
  const variables = await readVariables(input, readFile, report)
  const name = appNameOf(input, variables)
  if (!NAME_PATTERN.test(name)) {
    report.fault(
      whole,
      `"${shorten(name)}" is no name for an app`,
      'a name has lower-case letters, digits and "-", at most 63: set "name:" in the file, or give one',
    )
    return null
  }
  if (!variables.has('COMPOSE_PROJECT_NAME')) variables.set('COMPOSE_PROJECT_NAME', name)
  const directories: Directories = new Map()
  const sources = [input, ...(input.overrides ?? [])].map((source) => ({
    text: source.text,
    file: source.fileName,
    directory: '',
  }))
  const root = await loadFiles({ report, readFile }, sources, variables, directories)
  if (root === null) {
    if (report.faults().length === 0) report.fault(whole, 'the file is empty', 'an app file is a map with "services"')
    return null
  }
  const top = fields(report, rootCursor(root), TOP_LEVEL_KEYS, 'the app file')
  if (top === undefined) return null
  checkVersion(report, top)
  const context: Context = {
    report,
    app: name,
    variables,
    policy: { ...SAFE_POLICY, ...input.policy },
    runtime: input.runtime ?? 'docker',
    directory,
    relative: (place, path) => joinPath(directories.get(place.file) ?? '', path),
    readFile,
    volumes: section(report, rootCursor(root), 'volumes'),
    configs: section(report, rootCursor(root), 'configs'),
    secrets: section(report, rootCursor(root), 'secrets'),
    networks: section(report, rootCursor(root), 'networks'),
  }
  checkNetworks(context)
  checkVolumes(context)
  checkFiles(context)
  const services = await readServices(context, input, top, whole)
  if (services === null) return null
  const specs = linkServices(context, services.active, services.inactive)
  return { name, services: specs }
}

async function readServices(
  context: Context,
  input: ReadAppInput,
  top: Fields,
  whole: { path: string; at: Cursor['at'] },
): Promise<{ active: ReadService[]; inactive: Set<string> } | null> {
  const { report, variables } = context
  const cursor = top.get('services')
  if (cursor === undefined) {
    report.fault(whole, 'the file has no "services"')
    return null
  }
  if (cursor.node.kind !== 'map') {
    report.fault(cursor, '"services" must be a map of services')
    return null
  }
  const all = children(cursor).filter(({ key }) => !key.startsWith('x-'))
  if (all.length > MAX_SERVICES) {
    report.fault(cursor, `the app has ${all.length} services; at most ${MAX_SERVICES} are possible`)
    return null
  }
  const profiles = new Set(
    input.profiles ?? (variables.get('COMPOSE_PROFILES') ?? '').split(',').filter((profile) => profile !== ''),
  )
  const active: ReadService[] = []
  const inactive = new Set<string>()
  for (const { key, keyAt, cursor: service } of all) {
    const spot = { path: service.path, at: keyAt }
    if (!SERVICE_NAME_PATTERN.test(key)) {
      report.fault(spot, `"${shorten(key)}" is no name for a service`, 'letters, digits, ".", "_" and "-", at most 63')
      continue
    }
    if (service.node.kind !== 'map') {
      report.fault(spot, `service "${shorten(key)}" must be a map of keys`)
      continue
    }
    const wanted = profilesOf(report, service)
    if (wanted.length === 0 || profiles.has('*') || wanted.some((profile) => profiles.has(profile)))
      active.push(await readService(context, key, { ...service, at: keyAt }))
    else inactive.add(key)
  }
  if (active.length === 0 && report.faults().length === 0) {
    report.fault(
      cursor,
      inactive.size > 0 ? 'every service has a profile, and none of them is asked for' : 'the file has no services',
    )
    return null
  }
  return { active, inactive }
}

async function readVariables(
  input: ReadAppInput,
  readFile: (path: string) => Promise<string | null>,
  report: Report,
): Promise<Map<string, string>> {
  const given = new Map(Object.entries(input.environment).filter((entry): entry is [string, string] => entry[1] !== undefined))
  const text = await readFile('.env')
  if (text === null) return given
  const parsed = parseEnvFile(text, given)
  for (const fault of parsed.faults) report.fault({ path: '', at: { file: '.env', line: fault.line, column: 1 } }, fault.message)
  const result = new Map<string, string>()
  for (const [name, value] of parsed.entries) if (value !== null) result.set(name, value)
  for (const [name, value] of given) result.set(name, value)
  return result
}

/** Given, else COMPOSE_PROJECT_NAME, else `name:`, else the directory's name, else the file's. */
function appNameOf(input: ReadAppInput, variables: ReadonlyMap<string, string>): string {
  if (input.appName !== undefined) return input.appName
  const fromEnvironment = variables.get('COMPOSE_PROJECT_NAME')
  if (fromEnvironment) return normalise(fromEnvironment)
  for (const source of [input, ...(input.overrides ?? [])].reverse()) {
    // Faults of the text are told when it is read for good.
    const root = readYaml(source.text, source.fileName, createReport())
    const name = root === null ? undefined : child(rootCursor(root), 'name')
    if (name?.node.kind === 'scalar' && typeof name.node.value === 'string')
      return normalise(interpolate(name.node.value, variables).text)
  }
  const directory = directoryOf(input.fileName)
  const base = directory === '' || directory === '/' ? input.fileName.replace(/\.(ya?ml)$/i, '') : directory
  return normalise(base.slice(base.lastIndexOf('/') + 1)) || 'app'
}

function normalise(name: string): string {
  return name
    .toLowerCase()
    .replaceAll(/[^a-z0-9-]+/g, '-')
    .replaceAll(/^-+|-+$/g, '')
    .slice(0, 63)
}

function checkVersion(report: Report, top: Fields): void {
  const cursor = top.get('version')
  const version = text(report, cursor, 'version')
  if (cursor !== undefined && version !== undefined && !/^[23](\.\d+)?$/.test(version))
    report.fault(cursor, `version "${shorten(version)}" is not supported`, 'leave it away: it changes nothing')
}

function section(report: Report, root: Cursor, name: string): Map<string, Cursor> {
  const cursor = child(root, name)
  const result = new Map<string, Cursor>()
  if (cursor === undefined || isNull(cursor.node)) return result
  if (cursor.node.kind !== 'map') {
    report.fault(cursor, `"${name}" must be a map`)
    return result
  }
  for (const { key, keyAt, cursor: value } of children(cursor))
    if (!key.startsWith('x-')) result.set(key, isNull(value.node) ? { ...value, at: keyAt } : value)
  return result
}

function checkNetworks(context: Context): void {
  const { report, networks } = context
  for (const [name, cursor] of networks) fields(report, cursor, NETWORK_KEYS, `network "${shorten(name)}"`)
  const own = [...networks].filter(([name]) => name !== 'default')
  const first = own[0]
  if (first !== undefined && own.length > 1)
    report.warn(
      first[1],
      `${own.length} networks do not separate the services of this app from each other: apps are separated, and x-rubato.access says who may call`,
    )
}
