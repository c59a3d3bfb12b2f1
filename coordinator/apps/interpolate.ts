/**
 * Compose's variable interpolation: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`,
 * `${NAME?message}`, `${NAME:+replacement}`, `${NAME+replacement}`, `$$`. Defaults may contain variables; values are never read
 * again, so nothing can grow without bound. Pure.
 */
import type { Cursor, Located, LocatedScalar } from './located.ts'
import { pointerTo } from './located.ts'
import type { Report } from './report.ts'
import { shorten } from './report.ts'

const MAX_NESTING = 16
/** A single value longer than this is refused. */
const MAX_VALUE_LENGTH = 64 * 1024
const NAME = /[A-Za-z_][A-Za-z0-9_]*/y

export type Variables = ReadonlyMap<string, string>

export interface Interpolation {
  readonly text: string
  /** Variables without value and default, in order; '' stands in for each. */
  readonly missing: readonly string[]
  /** Why the text cannot be used, if so. */
  readonly error: string | null
  readonly hint?: string
}

/** The text with its variables replaced. Never throws. */
export function interpolate(text: string, variables: Variables): Interpolation {
  if (!text.includes('$')) return { text, missing: [], error: null }
  const missing: string[] = []
  try {
    const result = expand(text, 0, false, variables, missing, 0)
    if (result.text.length > MAX_VALUE_LENGTH)
      return { text: '', missing, error: `the value grows beyond ${MAX_VALUE_LENGTH} characters` }
    return { text: result.text, missing, error: null }
  } catch (error) {
    if (!(error instanceof BadTemplate)) throw error
    return { text: '', missing, error: error.message, ...(error.hint === undefined ? {} : { hint: error.hint }) }
  }
}

/** The tree with every scalar interpolated; keys stay as they are. `skip` names paths that are left alone. */
export function interpolateTree(cursor: Cursor, variables: Variables, report: Report, skip: (path: string) => boolean): Located {
  const { node, path } = cursor
  if (skip(path)) return node
  if (node.kind === 'list')
    return {
      ...node,
      items: node.items.map((item, index) =>
        interpolateTree({ node: item, path: pointerTo(path, index), at: item.at }, variables, report, skip),
      ),
    }
  if (node.kind === 'map')
    return {
      ...node,
      entries: node.entries.map((entry) => ({
        ...entry,
        value: interpolateTree(
          { node: entry.value, path: pointerTo(path, entry.key), at: entry.value.at },
          variables,
          report,
          skip,
        ),
      })),
    }
  return interpolateScalar(node, cursor, variables, report)
}

function interpolateScalar(node: LocatedScalar, cursor: Cursor, variables: Variables, report: Report): Located {
  if (typeof node.value !== 'string' || !node.value.includes('$')) return node
  const result = interpolate(node.value, variables)
  if (result.error !== null) report.fault(cursor, result.error, result.hint)
  for (const name of new Set(result.missing)) report.warn(cursor, `the variable ${shorten(name)} is not set; it counts as empty`)
  return { ...node, value: result.text, text: result.text }
}

class BadTemplate extends Error {
  readonly hint: string | undefined
  constructor(message: string, hint?: string) {
    super(message)
    this.hint = hint
  }
}

/** Expands from `start`; inside braces it stops before the closing brace. */
function expand(
  text: string,
  start: number,
  inBraces: boolean,
  variables: Variables,
  missing: string[],
  depth: number,
): { text: string; end: number } {
  if (depth > MAX_NESTING) throw new BadTemplate(`variables are nested more than ${MAX_NESTING} deep`)
  let result = ''
  let at = start
  while (at < text.length) {
    if (result.length > MAX_VALUE_LENGTH) throw new BadTemplate(`the value grows beyond ${MAX_VALUE_LENGTH} characters`)
    const character = text[at]
    if (inBraces && character === '}') return { text: result, end: at }
    if (character !== '$') {
      result += character
      at += 1
    } else if (text[at + 1] === '$') {
      result += '$'
      at += 2
    } else if (text[at + 1] === '{') {
      const braced = expandBraced(text, at + 2, variables, missing, depth)
      result += braced.text
      at = braced.end
    } else {
      const name = nameAt(text, at + 1)
      if (name === null)
        throw new BadTemplate('a "$" that starts no variable', `write "$$" for a dollar sign, "\${NAME}" for a variable`)
      result += lookUp(name, variables, missing)
      at += 1 + name.length
    }
  }
  if (inBraces) throw new BadTemplate(`"\${" without its "}"`, 'write "$$" for a dollar sign')
  return { text: result, end: at }
}

function expandBraced(
  text: string,
  start: number,
  variables: Variables,
  missing: string[],
  depth: number,
): { text: string; end: number } {
  const name = nameAt(text, start)
  if (name === null)
    throw new BadTemplate(`"\${" is not followed by a variable name`, `write "$$" for a dollar sign, "\${NAME}" for a variable`)
  const value = variables.get(name)
  let at = start + name.length
  if (text[at] === '}') return { text: lookUp(name, variables, missing), end: at + 1 }
  const whenEmptyToo = text[at] === ':'
  if (whenEmptyToo) at += 1
  const operator = text[at]
  if (operator !== '-' && operator !== '?' && operator !== '+')
    throw new BadTemplate(
      `"\${${shorten(name)}" is followed by something that is no operator`,
      'use ":-default", ":?message" or ":+replacement"',
    )
  const present = value !== undefined && !(whenEmptyToo && value === '')
  // What is not used is read only to find its end: its missing variables are nobody's concern.
  const used = operator === '-' ? !present : operator === '+' ? present : !present
  const rest = expand(text, at + 1, true, variables, used ? missing : [], depth + 1)
  const end = rest.end + 1
  if (operator === '-') return { text: present ? value : rest.text, end }
  if (operator === '+') return { text: present ? rest.text : '', end }
  if (!present)
    throw new BadTemplate(
      `the variable ${shorten(name)} is required${rest.text === '' ? '' : `: ${shorten(rest.text, 200)}`}`,
      `set ${shorten(name)} in the environment or in .env`,
    )
  return { text: value, end }
}

function nameAt(text: string, at: number): string | null {
  NAME.lastIndex = at
  return NAME.exec(text)?.[0] ?? null
}

function lookUp(name: string, variables: Variables, missing: string[]): string {
  const value = variables.get(name)
  if (value === undefined) missing.push(name)
  return value ?? ''
}
