/**
 * A YAML tree that remembers where each of its parts was written, so that every fault can point at file, line and column.
 * Trees are immutable; merging and interpolation build new ones out of the parts of old ones.
 */

/** Where something was written; line and column are 1-based. */
export interface Place {
  readonly file: string
  readonly line: number
  readonly column: number
}

export interface LocatedScalar {
  readonly kind: 'scalar'
  readonly at: Place
  readonly value: string | number | boolean | null
  /** As it was written (for a plain `0440` or `1.10` more than its value tells), after interpolation. */
  readonly text: string
  /** Written without quotes. */
  readonly plain: boolean
}

export interface LocatedList {
  readonly kind: 'list'
  readonly at: Place
  readonly items: readonly Located[]
}

export interface LocatedEntry {
  readonly key: string
  readonly at: Place
  readonly value: Located
}

export interface LocatedMap {
  readonly kind: 'map'
  readonly at: Place
  /** In written order; keys are unique. */
  readonly entries: readonly LocatedEntry[]
}

/** `!reset` and `!override` of Compose override files. */
export type MergeTag = 'reset' | 'override'

export type Located = (LocatedScalar | LocatedList | LocatedMap) & { readonly tag?: MergeTag }

/** A part of a tree together with its JSON Pointer; `at` is where a fault about it should point. */
export interface Cursor {
  readonly path: string
  readonly at: Place
  readonly node: Located
}

/** The pointer of a child of `path`. */
export function pointerTo(path: string, key: string | number): string {
  return `${path}/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`
}

export function rootCursor(node: Located): Cursor {
  return { path: '', at: node.at, node }
}

/** The value of `key`, or undefined when the node is no map or has no such key. A fault about it points at the value. */
export function child(cursor: Cursor, key: string): Cursor | undefined {
  if (cursor.node.kind !== 'map') return undefined
  const entry = cursor.node.entries.find((candidate) => candidate.key === key)
  if (entry === undefined) return undefined
  return { path: pointerTo(cursor.path, key), at: placeOf(entry), node: entry.value }
}

/** Every child: of a map with its key, of a list with its index as key. */
export function children(cursor: Cursor): { readonly key: string; readonly keyAt: Place; readonly cursor: Cursor }[] {
  if (cursor.node.kind === 'map')
    return cursor.node.entries.map((entry) => ({
      key: entry.key,
      keyAt: entry.at,
      cursor: { path: pointerTo(cursor.path, entry.key), at: placeOf(entry), node: entry.value },
    }))
  if (cursor.node.kind === 'list')
    return cursor.node.items.map((item, index) => ({
      key: String(index),
      keyAt: item.at,
      cursor: { path: pointerTo(cursor.path, index), at: item.at, node: item },
    }))
  return []
}

/** True for an empty value (`key:` with nothing after it) or an explicit null. */
export function isNull(node: Located): boolean {
  return node.kind === 'scalar' && node.value === null
}

/** Plain JSON of a tree; plain scalars that interpolation produced are read again as YAML would. */
export function toPlain(node: Located): unknown {
  if (node.kind === 'list') return node.items.map(toPlain)
  if (node.kind === 'map') return Object.fromEntries(node.entries.map((entry) => [entry.key, toPlain(entry.value)]))
  if (typeof node.value === 'string' && node.plain) return reread(node.value)
  return node.value
}

/** The cursor at a path of keys and indexes, or the deepest part of it that exists. */
export function descend(cursor: Cursor, path: readonly PropertyKey[]): Cursor {
  let current = cursor
  for (const key of path) {
    const next = children(current).find((candidate) => candidate.key === String(key))
    if (next === undefined) return current
    current = next.cursor
  }
  return current
}

function placeOf(entry: LocatedEntry): Place {
  return isNull(entry.value) ? entry.at : entry.value.at
}

function reread(text: string): string | number | boolean {
  if (text === 'true') return true
  if (text === 'false') return false
  return /^-?\d+(\.\d+)?$/.test(text) && text.length < 16 ? Number(text) : text
}
