/** Builds docs/reliability.md from the rows and the titles of the tests that name them: `node test/e2e/reliability-doc.ts` writes it. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { FAULT_ROWS, INPUT_ROWS } from './reliability-rows.ts'

const ROOT = join(import.meta.dirname, '..', '..')
export const DOCUMENT = join(ROOT, 'docs', 'reliability.md')
/** Their numbers are of the API's bad inputs, as far as they are not above those. */
const API_FILES: ReadonlySet<string> = new Set(['coordinator/api/bad-input.test.ts', 'coordinator/api/serve.test.ts'])
const API_ROWS = 11

export interface TitledTest {
  readonly file: string
  readonly title: string
}

/** Tests by the number of the fault row that their title names. */
export function testsByRow(): ReadonlyMap<number, readonly TitledTest[]> {
  const found = new Map<number, TitledTest[]>()
  for (const file of testFiles()) {
    const text = readFileSync(join(ROOT, file), 'utf8')
    for (const match of text.matchAll(/(?:\b(?:it|test)(?:\.\w+)?|\))\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/g)) {
      const title = match[2] ?? ''
      for (const row of rowsIn(title)) {
        if (API_FILES.has(file) && row <= API_ROWS) continue
        found.set(row, [...(found.get(row) ?? []), { file, title }])
      }
    }
  }
  return found
}

/** `row 12`, `rows 1 and 3`, `rows 1–3, 7`. */
export function rowsIn(title: string): readonly number[] {
  const rows = new Set<number>()
  for (const [, list] of title.matchAll(/\brows? (\d+(?:(?:–|, (?:row )?| and )\d+)*)/g))
    for (const [, from, to] of (list ?? '').matchAll(/(\d+)(?:–(\d+))?/g))
      for (let row = Number(from); row <= Number(to ?? from); row += 1) rows.add(row)
  return [...rows]
}

export function renderDocument(): string {
  const tests = testsByRow()
  const faults = FAULT_ROWS.map(({ row, fault, gap }) => {
    const named = (tests.get(row) ?? []).map(({ file, title }) => `${file} › ${clean(title)}`)
    return `| ${row} | ${fault} | ${cell(named, gap)} |`
  })
  const inputs = INPUT_ROWS.map(
    ({ surface, input, tests: named, gap }) =>
      `| ${surface} | ${input} | ${cell(
        named.map(([file, title]) => `${file} › ${title}`),
        gap,
      )} |`,
  )
  return `# Reliability

What goes wrong, and the tests that try it. The tables are made from the titles of the tests (\`node test/e2e/reliability-doc.ts\`), and
a test holds them to the truth. "Not yet" is what nothing tries so far.

The simulator (test/simulation, [its document](simulation.md)) runs the real coordinator and real agents over model clouds, engines and
networks under virtual time, and checks what must hold after every step. \`make test-simulation SEEDS=3000 FIRST_SEED=1\` tries as many
random lives of a cluster; the same with \`SEEDS=1\` shows one again.

## Faults

| row | fault | tests |
|---|---|---|
${faults.join('\n')}

## Bad input

| surface | input | tests |
|---|---|---|
${inputs.join('\n')}
`
}

/** A title as it stands in the table. */
export function clean(title: string): string {
  return title.replaceAll('\\', '').replaceAll('|', '/')
}

function cell(named: readonly string[], gap: string | undefined): string {
  const parts = [...named, ...(gap === undefined ? [] : [`*not yet: ${gap}*`])]
  return parts.join('<br>')
}

function testFiles(): readonly string[] {
  return ['agent', 'coordinator', 'shared', 'installer', 'test']
    .flatMap((part) => readdirSync(join(ROOT, part), { recursive: true, encoding: 'utf8' }).map((path) => join(part, path)))
    .filter((path) => /(\.test|\.real|-contract)\.ts$/.test(path))
    .sort()
}

if (process.argv[1] === import.meta.filename) writeFileSync(DOCUMENT, renderDocument())
