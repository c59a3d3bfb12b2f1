/**
 * YAML text → located tree. Core schema, one document; size, depth and what aliases expand to are bounded, so that no text can
 * cost more than a moment. Aliases, merge keys and Compose's `!reset` and `!override` are resolved here.
 */
import {
  Composer,
  isAlias,
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  type ParsedNode,
  Parser,
  type YAMLError,
} from 'yaml'
import type { Located, LocatedEntry, MergeTag, Place } from './located.ts'
import type { Report } from './report.ts'
import { shorten } from './report.ts'

/** Larger than any app file that people write; parsing costs up to a second at this size. */
const MAX_YAML_BYTES = 256 * 1024
/** Deeper nesting is an attack or a mistake. */
const MAX_YAML_DEPTH = 32
/** What a document may expand to: an anchor bomb multiplies itself far beyond it. */
const MAX_YAML_NODES = 50_000
const MAX_SYNTAX_FAULTS = 20

const MERGE_TAGS: Readonly<Record<string, MergeTag>> = { '!reset': 'reset', '!override': 'override' }

/** The tree of one file; null when it is empty or could not be read (then the report has a fault). Never throws. */
export function readYaml(text: string, file: string, report: Report): Located | null {
  const whole = { path: '', at: { file, line: 1, column: 1 } }
  const bytes = Buffer.byteLength(text)
  if (bytes > MAX_YAML_BYTES) {
    report.fault(
      whole,
      `the file has ${bytes} bytes; at most ${MAX_YAML_BYTES} are read`,
      'split it with "include", or move data into "configs" files',
    )
    return null
  }
  const lines = new LineCounter()
  try {
    const tokens = [...new Parser(lines.addNewLine).parse(text)]
    const composer = new Composer({
      schema: 'core',
      merge: false,
      uniqueKeys: false,
      prettyErrors: false,
      logLevel: 'silent',
      intAsBigInt: false,
    })
    const documents = [...composer.compose(tokens)]
    const document = documents[0]
    if (document === undefined) return null
    for (const error of document.errors.slice(0, MAX_SYNTAX_FAULTS)) syntaxFault(error, file, lines, report)
    if (documents.length > 1)
      report.fault(whole, 'an app file is one YAML document; this has several', 'remove what follows the second "---"')
    if (document.errors.length > 0 || documents.length > 1 || document.contents === null) return null
    const converter = createConverter(file, lines, report)
    const tree = converter.convert(document.contents, '', 0)
    return converter.isCutShort() ? null : tree
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    report.fault(whole, `the file is nested too deeply; at most ${MAX_YAML_DEPTH} levels are read`)
    return null
  }
}

function syntaxFault(error: YAMLError, file: string, lines: LineCounter, report: Report): void {
  const { line, col } = lines.linePos(error.pos[0])
  const isAliasMistake = /unresolved alias/i.test(error.message)
  report.fault(
    { path: '', at: { file, line: Math.max(1, line), column: Math.max(1, col) } },
    `not valid YAML: ${shorten(error.message, 160)}`,
    isAliasMistake ? 'an alias must come after its anchor' : undefined,
  )
}

function createConverter(file: string, lines: LineCounter, report: Report) {
  const anchors = new Map<string, ParsedNode>()
  const expanding = new Set<ParsedNode>()
  let nodes = 0
  let given = false

  const placeOf = (node: Node | null): Place => {
    const { line, col } = lines.linePos(node?.range?.[0] ?? 0)
    return { file, line: Math.max(1, line), column: Math.max(1, col) }
  }
  const nothing = (at: Place): Located => ({ kind: 'scalar', at, value: null, text: '', plain: true })
  const tooMuch = (at: Place, path: string, message: string, hint?: string): Located => {
    if (!given) report.fault({ path, at }, message, hint)
    given = true
    return nothing(at)
  }

  const convert = (node: ParsedNode, path: string, depth: number): Located => {
    const at = placeOf(node)
    if (given) return nothing(at)
    nodes += 1
    if (depth > MAX_YAML_DEPTH) return tooMuch(at, path, `nested too deeply; at most ${MAX_YAML_DEPTH} levels are read`)
    if (nodes > MAX_YAML_NODES)
      return tooMuch(
        at,
        path,
        `the file expands to more than ${MAX_YAML_NODES} values`,
        'aliases that contain aliases multiply; write them out less often',
      )
    if (isAlias(node)) {
      const target = anchors.get(node.source)
      if (target === undefined) return fault(at, path, `alias "*${shorten(node.source)}" has no anchor before it`)
      if (expanding.has(target)) return fault(at, path, `alias "*${shorten(node.source)}" stands inside its own anchor`)
      expanding.add(target)
      const result = convert(target, path, depth)
      expanding.delete(target)
      return { ...result, at }
    }
    if (node.anchor !== undefined) anchors.set(node.anchor, node)
    return withTag(node, path, convertValue(node, at, path, depth))
  }

  const fault = (at: Place, path: string, message: string): Located => {
    report.fault({ path, at }, message)
    return nothing(at)
  }

  const withTag = (node: ParsedNode, path: string, result: Located): Located => {
    const tag = node.tag
    if (tag === undefined || tag.startsWith('tag:yaml.org,2002:')) return result
    const mergeTag = MERGE_TAGS[tag]
    if (mergeTag !== undefined) return { ...result, tag: mergeTag }
    report.fault({ path, at: result.at }, `the YAML tag "${shorten(tag)}" is not known`, 'Compose knows "!reset" and "!override"')
    return result
  }

  const convertValue = (node: ParsedNode, at: Place, path: string, depth: number): Located => {
    if (isSeq(node)) {
      const items = node.items.map((item, index) =>
        isPair(item) ? nothing(at) : convert(item as ParsedNode, `${path}/${index}`, depth + 1),
      )
      return { kind: 'list', at, items }
    }
    if (isMap(node))
      return convertMap(node as unknown as { items: { key: ParsedNode | null; value: ParsedNode | null }[] }, at, path, depth)
    if (!isScalar(node)) return nothing(at)
    const plain = node.type === 'PLAIN' || node.type === undefined
    const value = scalarValue(node.value)
    const text = plain ? (node.source ?? '') : typeof value === 'string' ? value : String(value ?? '')
    return { kind: 'scalar', at, value, text: value === null ? '' : text, plain }
  }

  const convertMap = (
    node: { items: { key: ParsedNode | null; value: ParsedNode | null }[] },
    at: Place,
    path: string,
    depth: number,
  ): Located => {
    const entries = new Map<string, LocatedEntry>()
    const merged: Located[] = []
    for (const pair of node.items) {
      if (given) break
      const keyAt = placeOf(pair.key)
      if (pair.key !== null && !isScalar(pair.key)) {
        report.fault({ path, at: keyAt }, 'a key must be plain text')
        continue
      }
      const key = pair.key === null ? '' : keyText(pair.key)
      const childPath = `${path}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`
      const value = pair.value === null ? nothing(keyAt) : convert(pair.value, childPath, depth + 1)
      if (key === '<<' && pair.key !== null && isScalar(pair.key) && pair.key.type === 'PLAIN') {
        for (const source of value.kind === 'list' ? value.items : [value]) {
          if (source.kind === 'map') merged.push(source)
          else report.fault({ path: childPath, at: keyAt }, 'a merge key "<<" takes a map, or a list of maps')
        }
      } else if (key === '__proto__') report.fault({ path: childPath, at: keyAt }, 'the key "__proto__" is not allowed')
      else if (entries.has(key))
        report.fault(
          { path: childPath, at: keyAt },
          `the key "${shorten(key)}" is given twice`,
          `it was first given in line ${entries.get(key)?.at.line}; keep one of them`,
        )
      else entries.set(key, { key, at: keyAt, value })
    }
    for (const source of merged)
      if (source.kind === 'map')
        for (const entry of source.entries)
          if (!entries.has(entry.key)) {
            nodes += 1
            entries.set(entry.key, entry)
          }
    return { kind: 'map', at, entries: [...entries.values()] }
  }

  return { convert, isCutShort: () => given }
}

function keyText(key: ParsedNode): string {
  if (!isScalar(key)) return ''
  if ((key.type === 'PLAIN' || key.type === undefined) && typeof key.source === 'string') return key.source
  return String(key.value ?? '')
}

function scalarValue(value: unknown): string | number | boolean | null {
  if (value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value
  return value === undefined ? null : String(value)
}
