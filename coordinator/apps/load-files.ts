/** Reads an app file and every file that it includes or extends, interpolated and merged into one tree. */
import { EXTENDS_KEYS, INCLUDE_KEYS } from './compose-schema.ts'
import { parseEnvFile } from './env-file.ts'
import { interpolateTree, type Variables } from './interpolate.ts'
import { child, children, type Cursor, isNull, type Located, type LocatedMap, pointerTo, rootCursor } from './located.ts'
import { dropReset, mergeTrees, withEntry, withoutEntry } from './merge-trees.ts'
import { directoryOf, joinPath } from './paths.ts'
import { readYaml } from './read-yaml.ts'
import { type Report, shorten } from './report.ts'
import { nearest } from '../../shared/nearest.ts'
import { fields, texts, word } from './values.ts'

const MAX_FILES = 50
const MAX_NESTING = 10
const SECTIONS = ['services', 'volumes', 'networks', 'configs', 'secrets']

export interface LoadDeps {
  readonly report: Report
  readFile(path: string): Promise<string | null>
}

export interface FileSource {
  readonly text: string
  /** How faults name it. */
  readonly file: string
  /** Directory against which its paths count, relative to the main file's; '' for the main file. */
  readonly directory: string
}

/** Directories of the files read, by the names that places carry. */
export type Directories = Map<string, string>

/** The merged tree of the main file and of files laid over it; null when there is nothing to read (then there are faults). */
export async function loadFiles(
  deps: LoadDeps,
  sources: readonly FileSource[],
  variables: Variables,
  directories: Directories,
): Promise<LocatedMap | null> {
  const loader = createLoader(deps, directories)
  return await loader.load(sources, variables, 0)
}

function createLoader(deps: LoadDeps, directories: Directories) {
  const { report } = deps
  let filesRead = 0

  const load = async (sources: readonly FileSource[], variables: Variables, depth: number): Promise<LocatedMap | null> => {
    let merged: LocatedMap | null = null
    for (const source of sources) {
      const root = parse(source, variables)
      if (root === null) continue
      const services = child(rootCursor(root), 'services')
      const extended =
        services?.node.kind === 'map' ? withEntry(root, 'services', await extendAll(services.node, source, variables)) : root
      const next: Located = merged === null ? extended : mergeTrees(merged, extended)
      merged = next.kind === 'map' ? next : merged
    }
    if (merged === null) return null
    const clean = dropReset(merged)
    return clean.kind === 'map' ? await include(clean, variables, depth) : null
  }

  const parse = (source: FileSource, variables: Variables): LocatedMap | null => {
    directories.set(source.file, source.directory)
    const root = readYaml(source.text, source.file, report)
    if (root === null) return null
    if (root.kind !== 'map') {
      report.fault({ path: '', at: root.at }, 'an app file is a map with "services"')
      return null
    }
    const result = interpolateTree(
      rootCursor(root),
      variables,
      report,
      (path) => /^\/x-/.test(path) || /^\/services\/[^/]+\/x-(?!rubato(\/|$))/.test(path),
    )
    return result.kind === 'map' ? result : null
  }

  /** Another file, or null with a fault at `use`. */
  const open = async (path: string, directory: string, use: Cursor, what: string): Promise<FileSource | null> => {
    if (/^[a-z][a-z0-9+.-]*:/i.test(path) || /^git@/.test(path)) {
      report.fault(use, `${what} from "${shorten(path)}" is not fetched`, 'copy it into a local file')
      return null
    }
    filesRead += 1
    if (filesRead > MAX_FILES) {
      report.fault(use, `more than ${MAX_FILES} files are read for one app`)
      return null
    }
    const file = joinPath(directory, path)
    const text = await deps.readFile(file)
    if (text !== null) return { text, file, directory: directoryOf(file) }
    report.fault(
      use,
      `the file "${shorten(path)}" cannot be read`,
      `looked for ${shorten(file, 200)} from the app file's directory`,
    )
    return null
  }

  const extendAll = async (services: LocatedMap, source: FileSource, variables: Variables): Promise<LocatedMap> => {
    const entries = []
    for (const entry of services.entries) {
      const path = pointerTo('/services', entry.key)
      entries.push({
        ...entry,
        value: await extend({ node: entry.value, path, at: entry.at }, services, source, variables, [entry.key]),
      })
    }
    return { ...services, entries }
  }

  const extend = async (
    service: Cursor,
    siblings: LocatedMap,
    source: FileSource,
    variables: Variables,
    trail: readonly string[],
  ): Promise<Located> => {
    const given = child(service, 'extends')
    if (service.node.kind !== 'map' || given === undefined || isNull(given.node)) return service.node
    const own = withoutEntry(service.node, 'extends')
    const long = given.node.kind === 'map' ? fields(report, given, EXTENDS_KEYS, 'extends') : undefined
    const name = word(report, given.node.kind === 'map' ? long?.get('service') : given, 'extends', 255)
    const file = word(report, long?.get('file'), 'file', 4096)
    if (name === undefined) {
      if (given.node.kind === 'map' && long?.get('service') === undefined) report.fault(given, 'extends needs "service"')
      return own
    }
    const other = file === undefined ? source : await open(file, source.directory, long?.get('file') ?? given, 'a service')
    if (other === null) return own
    const root = file === undefined ? null : parse(other, variables)
    const candidates = file === undefined ? siblings : root === null ? undefined : child(rootCursor(root), 'services')?.node
    const base = candidates?.kind === 'map' ? candidates.entries.find((entry) => entry.key === name) : undefined
    if (candidates?.kind !== 'map' || base === undefined) {
      if (file !== undefined && root === null) return own
      const near =
        candidates?.kind === 'map'
          ? nearest(
              name,
              candidates.entries.map((entry) => entry.key),
            )
          : null
      report.fault(
        long?.get('service') ?? given,
        `there is no service "${shorten(name)}" to extend${file === undefined ? '' : ` in ${shorten(file)}`}`,
        near === null ? undefined : `did you mean "${near}"?`,
      )
      return own
    }
    const step = file === undefined ? name : `${other.file}#${name}`
    if (trail.includes(step) || trail.length > MAX_NESTING) {
      report.fault(
        given,
        trail.includes(step)
          ? `services extend each other in a circle: ${shorten([...trail, step].join(' → '), 200)}`
          : `services extend each other more than ${MAX_NESTING} deep`,
      )
      return own
    }
    const inherited = await extend({ node: base.value, path: service.path, at: base.at }, candidates, other, variables, [
      ...trail,
      step,
    ])
    const merged = mergeTrees(inherited, own)
    // What the base alone says is looked at under the name of the service that extends it; its profiles stay its own.
    return merged
  }

  const include = async (root: LocatedMap, variables: Variables, depth: number): Promise<LocatedMap> => {
    const given = child(rootCursor(root), 'include')
    if (given === undefined || isNull(given.node)) return withoutEntry(root, 'include')
    const items = given.node.kind === 'list' ? children(given).map((item) => item.cursor) : [given]
    if (depth >= MAX_NESTING) {
      report.fault(given, `files include each other more than ${MAX_NESTING} deep, or in a circle`)
      return withoutEntry(root, 'include')
    }
    let result = withoutEntry(root, 'include')
    for (const item of items) {
      const included = await includeOne(item, variables, depth)
      if (included !== null) result = addSections(result, included, item)
    }
    return result
  }

  const includeOne = async (item: Cursor, variables: Variables, depth: number): Promise<LocatedMap | null> => {
    const directory = directories.get(item.at.file) ?? ''
    const long = item.node.kind === 'map' ? fields(report, item, INCLUDE_KEYS, 'include') : undefined
    const pathCursor = item.node.kind === 'map' ? long?.get('path') : item
    const paths = texts(report, pathCursor, 'include')
    if (paths.length === 0) {
      if (item.node.kind === 'map' && pathCursor === undefined) report.fault(item, 'include needs "path"')
      return null
    }
    const project = word(report, long?.get('project_directory'), 'project_directory', 4096)
    const sources: FileSource[] = []
    for (const path of paths) {
      const source = await open(path.value, directory, path.cursor, 'a file')
      if (source !== null) sources.push(source)
    }
    const first = sources[0]
    if (first === undefined) return null
    const base = project === undefined ? first.directory : joinPath(directory, project)
    const envFiles = texts(report, long?.get('env_file'), 'env_file')
    const own = new Map<string, string>()
    for (const [path, cursor] of envFiles.length > 0
      ? envFiles.map((file) => [joinPath(directory, file.value), file.cursor] as const)
      : [[joinPath(base, '.env'), null] as const]) {
      const text = await deps.readFile(path)
      if (text === null && cursor !== null) report.fault(cursor, `the env_file "${shorten(path)}" cannot be read`)
      for (const [name, value] of text === null ? [] : parseEnvFile(text, variables).entries)
        if (value !== null) own.set(name, value)
    }
    return await load(
      sources.map((source) => ({ ...source, directory: base })),
      new Map([...own, ...variables]),
      depth + 1,
    )
  }

  const addSections = (root: LocatedMap, included: LocatedMap, use: Cursor): LocatedMap => {
    let result = root
    for (const section of SECTIONS) {
      const theirs = included.entries.find((entry) => entry.key === section)?.value
      if (theirs?.kind !== 'map') continue
      const ours = result.entries.find((entry) => entry.key === section)?.value
      const existing = ours?.kind === 'map' ? ours : null
      for (const entry of theirs.entries)
        if (existing?.entries.some((own) => own.key === entry.key) && section === 'services')
          report.fault(
            use,
            `the included file declares the service "${shorten(entry.key)}" again`,
            'rename one of them, or merge files with a second -f',
          )
      const added = theirs.entries.filter((entry) => !existing?.entries.some((own) => own.key === entry.key))
      result = withEntry(result, section, { ...theirs, entries: [...(existing?.entries ?? []), ...added] })
    }
    return result
  }

  return { load }
}
