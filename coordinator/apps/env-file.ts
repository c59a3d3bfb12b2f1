/** `.env` and `env_file` files as Compose reads them. Pure. */
import { interpolate, type Variables } from './interpolate.ts'

export interface EnvFileResult {
  /** In order; a later one of the same name wins. null: named without a value, to be taken from the environment. */
  readonly entries: readonly (readonly [name: string, value: string | null])[]
  /** What could not be read; `line` is 1-based. */
  readonly faults: readonly { readonly line: number; readonly message: string }[]
}

const MAX_LINES = 10_000

/**
 * Names and values of a file. Values in double quotes and bare ones are interpolated with `variables` and with what the file
 * gave before; single-quoted ones are literal. `raw` (Compose `format: raw`) takes everything after "=" as it is.
 */
export function parseEnvFile(text: string, variables: Variables, format: 'compose' | 'raw' = 'compose'): EnvFileResult {
  const entries: [string, string | null][] = []
  const faults: { line: number; message: string }[] = []
  const known = new Map(variables)
  const lines = text.replace(/^\uFEFF/, '').split(/\r\n|\n|\r/)
  for (let index = 0; index < lines.length && index < MAX_LINES; index++) {
    const line = (lines[index] ?? '').trimStart()
    if (line === '' || line.startsWith('#')) continue
    const lineNumber = index + 1
    const match = /^(?:export[ \t]+)?([^\s=:#]+)[ \t]*(?:([=:])(.*))?$/s.exec(line)
    const name = match?.[1]
    if (match === null || name === undefined) {
      faults.push({ line: lineNumber, message: 'not of the form NAME=value' })
      continue
    }
    if (match[2] === undefined) {
      entries.push([name, null])
      continue
    }
    let value = match[3] ?? ''
    if (format === 'compose') {
      const quoted = readValue(value, lines, index)
      index = quoted.lastLine
      if (quoted.unterminated) faults.push({ line: lineNumber, message: `the quote of ${name} is never closed` })
      value = quoted.text
      if (quoted.interpolated) {
        const result = interpolate(value, known)
        if (result.error !== null) faults.push({ line: lineNumber, message: `${name}: ${result.error}` })
        value = result.text
      }
    }
    entries.push([name, value])
    // What the environment says wins over the file, also inside later values.
    if (!variables.has(name)) known.set(name, value)
  }
  return { entries, faults }
}

function readValue(
  raw: string,
  lines: readonly string[],
  index: number,
): { text: string; interpolated: boolean; lastLine: number; unterminated: boolean } {
  const value = raw.trimStart()
  const quote = value[0]
  if (quote !== '"' && quote !== "'") {
    const comment = /(^|\s)#/.exec(value)
    const bare = comment === null ? value : value.slice(0, comment.index)
    return { text: bare.trimEnd(), interpolated: true, lastLine: index, unterminated: false }
  }
  let text = ''
  let current = value
  let at = 1
  for (let line = index; ; ) {
    while (at < current.length) {
      const character = current[at] ?? ''
      if (character === quote) return { text, interpolated: quote === '"', lastLine: line, unterminated: false }
      if (character === '\\' && quote === '"') {
        const next = current[at + 1] ?? ''
        text += ESCAPES[next] ?? (next === '$' ? '$$' : `\\${next}`)
        at += 2
      } else if (character === '\\' && current[at + 1] === "'") {
        text += "'"
        at += 2
      } else {
        text += character
        at += 1
      }
    }
    line += 1
    const next = lines[line]
    if (next === undefined) return { text, interpolated: false, lastLine: index, unterminated: true }
    text += '\n'
    current = next
    at = 0
  }
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', '"': '"', '\\': '\\' }
