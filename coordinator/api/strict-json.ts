/**
 * JSON as a stranger may send it: duplicate keys, `__proto__` and bottomless nesting are refused before anything looks at the
 * value (JSON.parse would silently keep the last duplicate). Pure.
 */
import type { Fault } from '../../shared/errors.ts'

export type StrictJson =
  | { readonly kind: 'ok'; readonly value: unknown }
  /** No JSON at all, or a key given twice (HTTP 400). */
  | { readonly kind: 'malformed'; readonly detail: string }
  /** JSON that no schema of ours can mean (HTTP 422). */
  | { readonly kind: 'refused'; readonly faults: readonly Fault[] }

/** Deeper nesting than any body of ours needs only serves to exhaust a stack. */
const MAX_JSON_DEPTH = 64

/** Parses `text`; never throws. */
export function parseStrictJson(text: string): StrictJson {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    return { kind: 'malformed', detail: error instanceof SyntaxError ? withoutInput(error.message) : 'not JSON' }
  }
  return scan(text) ?? { kind: 'ok', value }
}

interface Level {
  readonly keys: Set<string> | null
  key: string
  index: number
}

/** Walks valid JSON once, without recursion. */
function scan(text: string): StrictJson | null {
  const levels: Level[] = []
  let at = 0
  let expectKey = false
  while (at < text.length) {
    const char = text[at]
    if (char === '"') {
      const end = stringEnd(text, at)
      const level = levels.at(-1)
      if (expectKey && level?.keys) {
        const key = JSON.parse(text.slice(at, end)) as string
        if (level.keys.has(key)) return { kind: 'malformed', detail: `the key ${pointer(levels, key)} is given twice` }
        if (key === '__proto__') {
          return { kind: 'refused', faults: [{ path: pointer(levels, key), message: 'this key is not allowed' }] }
        }
        level.keys.add(key)
        level.key = key
        expectKey = false
      }
      at = end
      continue
    }
    if (char === '{' || char === '[') {
      if (levels.length >= MAX_JSON_DEPTH) {
        return { kind: 'refused', faults: [{ path: '', message: `nested deeper than ${MAX_JSON_DEPTH} levels` }] }
      }
      levels.push({ keys: char === '{' ? new Set() : null, key: '', index: 0 })
      expectKey = char === '{'
    } else if (char === '}' || char === ']') {
      levels.pop()
      expectKey = false
    } else if (char === ',') {
      const level = levels.at(-1)
      if (level?.keys) expectKey = true
      else if (level) level.index += 1
    }
    at += 1
  }
  return null
}

function stringEnd(text: string, start: number): number {
  let at = start + 1
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at + 1
}

function pointer(levels: readonly Level[], key: string): string {
  const path = levels.slice(0, -1).map((level) => (level.keys ? level.key : String(level.index)))
  return jsonPointer([...path, key])
}

/** RFC 6901 text of a path. */
export function jsonPointer(path: readonly (string | number)[]): string {
  return path.map((part) => `/${String(part).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
}

/** V8 quotes the input in its message; a body may hold secrets. Keeps only the position. */
function withoutInput(message: string): string {
  const position = /position (\d+)/.exec(message)
  return position ? `not JSON at character ${position[1]}` : 'not JSON'
}
