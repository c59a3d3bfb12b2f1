/** Compose's merging of one service, or one file, over another (`extends`, several files). Pure; places are kept. */
import type { Located, LocatedEntry, LocatedMap } from './located.ts'

/** Lists that the later file replaces; every other list is added to. */
const REPLACED = new Set(['command', 'entrypoint', 'test', 'post_start', 'pre_stop'])
/** Maps that may also be written as lists of NAME=value. */
const PAIRS = new Set(['environment', 'labels', 'annotations', 'sysctls', 'args', 'driver_opts'])

/** `over` laid upon `base`. `key` is the key whose values they are. */
export function mergeTrees(base: Located, over: Located, key = ''): Located {
  if (over.tag === 'override' || REPLACED.has(key)) return over
  const left = normalise(base, key, over)
  const right = normalise(over, key, base)
  if (left.kind === 'map' && right.kind === 'map') return mergeMaps(left, right)
  if (left.kind === 'list' && right.kind === 'list') {
    const added = new Set(right.items.map((item) => identityOf(item, key)))
    return { ...right, items: [...left.items.filter((item) => !added.has(identityOf(item, key))), ...right.items] }
  }
  return right.kind === 'scalar' && right.value === null && left.kind !== 'scalar' ? left : right
}

/** The tree without what `!reset` removes. */
export function dropReset(node: Located): Located {
  if (node.kind === 'map')
    return {
      ...node,
      entries: node.entries
        .filter((entry) => entry.value.tag !== 'reset')
        .map((entry) => ({ ...entry, value: dropReset(entry.value) })),
    }
  if (node.kind === 'list') return { ...node, items: node.items.filter((item) => item.tag !== 'reset').map(dropReset) }
  return node
}

/** A map with an entry set or replaced. */
export function withEntry(map: LocatedMap, key: string, value: Located): LocatedMap {
  const exists = map.entries.some((entry) => entry.key === key)
  if (exists) return { ...map, entries: map.entries.map((entry) => (entry.key === key ? { ...entry, value } : entry)) }
  return { ...map, entries: [...map.entries, { key, at: value.at, value }] }
}

export function withoutEntry(map: LocatedMap, key: string): LocatedMap {
  return { ...map, entries: map.entries.filter((entry) => entry.key !== key) }
}

function mergeMaps(base: LocatedMap, over: LocatedMap): LocatedMap {
  const later = new Map(over.entries.map((entry) => [entry.key, entry]))
  const kept = base.entries.flatMap((entry): LocatedEntry[] => {
    const replacement = later.get(entry.key)
    if (replacement === undefined) return [entry]
    later.delete(entry.key)
    if (replacement.value.tag === 'reset') return []
    return [{ ...replacement, value: mergeTrees(entry.value, replacement.value, entry.key) }]
  })
  return { ...over, entries: [...kept, ...later.values()] }
}

function normalise(node: Located, key: string, other: Located): Located {
  if (node.kind === 'list' && PAIRS.has(key))
    return mapOf(node, (text) => [text.split('=', 1)[0] ?? '', text.includes('=') ? text.slice(text.indexOf('=') + 1) : null])
  if (node.kind === 'list' && other.kind === 'map' && (key === 'depends_on' || key === 'networks')) {
    const map = mapOf(node, (text) => [text, null])
    if (map.kind !== 'map' || key === 'networks') return map
    return {
      ...map,
      entries: map.entries.map((entry) => ({
        ...entry,
        value: {
          kind: 'map',
          at: entry.at,
          entries: [{ key: 'condition', at: entry.at, value: scalar(entry.at, 'service_started') }],
        },
      })),
    }
  }
  if (node.kind === 'scalar' && other.kind === 'list' && node.value !== null) return { kind: 'list', at: node.at, items: [node] }
  return node
}

function mapOf(node: Located, split: (text: string) => [string, string | null]): Located {
  if (node.kind !== 'list' || node.items.some((item) => item.kind !== 'scalar')) return node
  const entries = new Map<string, LocatedEntry>()
  for (const item of node.items) {
    if (item.kind !== 'scalar') continue
    const [key, value] = split(typeof item.value === 'string' ? item.value : item.text)
    if (key !== '__proto__') entries.set(key, { key, at: item.at, value: scalar(item.at, value) })
  }
  return { kind: 'map', at: node.at, entries: [...entries.values()] }
}

function scalar(at: Located['at'], value: string | null): Located {
  return { kind: 'scalar', at, value, text: value ?? '', plain: false }
}

/** What makes two items of a list the same: mounts by their target, others by their text. */
function identityOf(item: Located, key: string): string {
  if (item.kind === 'scalar') {
    if (key !== 'volumes') return `=${item.text}`
    const parts = item.text.split(':')
    return `target ${parts[1] ?? parts[0]}`
  }
  if (item.kind === 'list') return `list ${item.at.file}:${item.at.line}:${item.at.column}`
  const get = (name: string): string | undefined => {
    const value = item.entries.find((entry) => entry.key === name)?.value
    return value?.kind === 'scalar' ? value.text : undefined
  }
  if (key === 'volumes') return `target ${get('target')}`
  if (key === 'configs' || key === 'secrets') return `=${get('source')}`
  if (key === 'ports') return `port ${get('target')} ${get('published')} ${get('protocol')} ${get('host_ip')}`
  return `map ${item.at.file}:${item.at.line}:${item.at.column}`
}
