/** The table of planted bugs in docs/simulation.md: `node test/simulation/planted-doc.ts` writes it from the bugs and their corpus. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { PLANTED_BUGS } from './planted-bugs.ts'
import { type Catch, readCorpus } from './planted-runner.ts'

export const DOCUMENT = join(import.meta.dirname, '..', '..', 'docs', 'simulation.md')
const BEGIN = '<!-- planted bugs: made by test/simulation/planted-doc.ts -->\n'
const END = '<!-- end of planted bugs -->\n'

/** The document's text with the table as it shall be. */
export function withTable(text: string): string {
  const begin = text.indexOf(BEGIN)
  const end = text.indexOf(END)
  if (begin < 0 || end < begin) throw new Error(`${DOCUMENT} has no place for the table of planted bugs`)
  const corpus = readCorpus()
  const rows = PLANTED_BUGS.map(
    ({ name, mistake }) => `| ${name} | ${mistake} | ${caughtBy(corpus[name])} | ${seedOf(corpus[name])} |`,
  )
  const table = [
    '| bug | what it does wrong | caught by the story | first seed that catches it |',
    '|---|---|---|---|',
    ...rows,
  ].join('\n')
  return `${text.slice(0, begin + BEGIN.length)}\n${table}\n\n${text.slice(end)}`
}

function caughtBy(known: Catch | undefined): string {
  if (!known) return '*not yet known*'
  if (known.story === null) return '—'
  const crash = known.effect === undefined ? '' : `, with a crash of ${known.victim} after effect ${known.effect}`
  return `${known.story}${crash}: ${known.violation.replaceAll('|', '\\|')}`
}

function seedOf(known: Catch | undefined): string {
  if (!known) return '*not yet known*'
  if (known.seed === null && known.seedsTried === 0) return 'not tried'
  if (known.seed === null) return `none of ${known.seedsTried}`
  return known.story === null ? `${known.seed}: ${known.violation.replaceAll('|', '\\|')}` : String(known.seed)
}

if (process.argv[1] === import.meta.filename) writeFileSync(DOCUMENT, withTable(readFileSync(DOCUMENT, 'utf8')))
