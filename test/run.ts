/**
 * `make test`: installs what the real tests need (as root on Debian or Ubuntu), runs the suites, and closes with one line
 * `N passed, N failed, N skipped`. Under CI nothing may be skipped: a skip is a failure there.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { installPackages } from './lab/packages.ts'

const ROOT = join(import.meta.dirname, '..')
const OUT = join(ROOT, '.cache')
const strict = process.env.CI === 'true'
const chosen = process.argv[2]
const suites = chosen === undefined ? ['unit', 'real'] : [chosen]

const totals = { passed: 0, failed: 0, skipped: 0 }
const skippedNames: string[] = []
let broken = false

mkdirSync(OUT, { recursive: true })
if (suites.includes('real') && !(await installPackages((line) => process.stdout.write(`${line}\n`)))) {
  process.stdout.write(
    'Real components cannot be installed here (needs root on Debian or Ubuntu): their tests are skipped by name.\n',
  )
}
for (const suite of suites) runSuite(suite)

for (const name of skippedNames) process.stdout.write(`skipped: ${name}\n`)
process.stdout.write(`${totals.passed} passed, ${totals.failed} failed, ${totals.skipped} skipped\n`)
process.exitCode = broken || totals.failed > 0 || totals.passed === 0 || (strict && totals.skipped > 0) ? 1 : 0

interface JsonReport {
  readonly success: boolean
  readonly numPassedTests: number
  readonly numFailedTests: number
  readonly numPendingTests: number
  readonly numTodoTests: number
  readonly testResults: readonly {
    readonly name: string
    readonly status: string
    readonly message?: string
    readonly assertionResults: readonly { readonly status: string; readonly fullName: string }[]
  }[]
}

function runSuite(suite: string): void {
  const file = join(OUT, `test-${suite}.json`)
  rmSync(file, { force: true })
  const result = spawnSync(
    process.execPath,
    [
      join(ROOT, 'node_modules/vitest/vitest.mjs'),
      'run',
      '--config',
      join(ROOT, 'test/vitest.config.ts'),
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${file}`,
    ],
    {
      cwd: ROOT,
      stdio: 'inherit',
      env: { ...process.env, RUBATO_TEST: suite, PATH: `${join(process.execPath, '..')}:${process.env.PATH ?? ''}` },
    },
  )
  let report: JsonReport
  try {
    report = JSON.parse(readFileSync(file, 'utf8')) as JsonReport
  } catch (error) {
    process.stdout.write(`suite ${suite} left no report (exit ${result.status}): ${String(error)}\n`)
    broken = true
    return
  }
  totals.passed += report.numPassedTests
  totals.failed += report.numFailedTests
  totals.skipped += report.numPendingTests + report.numTodoTests
  if (result.status !== 0 || !report.success) broken = true
  for (const testFile of report.testResults)
    for (const test of testFile.assertionResults)
      if (['pending', 'skipped', 'todo'].includes(test.status))
        skippedNames.push(`${testFile.name.slice(ROOT.length + 1)}: ${test.fullName}`)
}
