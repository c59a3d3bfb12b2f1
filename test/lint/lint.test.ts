/**
 * Every lint rule of ours is broken on purpose, in a tree of its own beside a copy of the real configuration, and biome must say so;
 * the same place with honest code must stay silent. A rule that no longer bites is worse than none: people trust it.
 */
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const ROOT = join(import.meta.dirname, '..', '..')

interface Case {
  readonly title: string
  /** One file can be broken in one way only per tree. Default `base`. */
  readonly tree?: string
  readonly path: string
  readonly source: string
  /** Rule, or part of the message, that must be reported; null: nothing at all. */
  readonly reported: string | null
}

const imports = (what: string) => `import { x } from '${what}'\n\nexport const y = x\n`
const use = (expression: string) => `export const y = () => ${expression}\n`
const IMPORT = 'noRestrictedImports'
const GLOBAL = 'noRestrictedGlobals'
const PLUGIN = 'plugin'

/** The files whose purity is checked by name besides `plan-*.ts`. */
const PURE = [
  'coordinator/services/plan-broken.ts',
  'agent/reconcile/plan-broken.ts',
  'coordinator/placement/filters.ts',
  'coordinator/placement/scores.ts',
  'coordinator/placement/cost-heap.ts',
  'coordinator/placement/explain.ts',
  'coordinator/placement/requests.ts',
  'coordinator/fleet/calendar.ts',
  'coordinator/fleet/machine-states.ts',
  'coordinator/fleet/fleet-view.ts',
  'coordinator/services/choose-victims.ts',
  'agent/gateway/policy.ts',
  'agent/gateway/builtin/balance.ts',
  'agent/runtime/docker/docker-mapping.ts',
]

const CASES: readonly Case[] = [
  {
    title: 'an agent may not import the coordinator',
    path: 'agent/a1.ts',
    source: imports('../coordinator/x.ts'),
    reported: IMPORT,
  },
  {
    title: 'the coordinator may not import an agent',
    path: 'coordinator/a2.ts',
    source: imports('../agent/x.ts'),
    reported: IMPORT,
  },
  { title: 'shared may not import an agent', path: 'shared/a3.ts', source: imports('../agent/x.ts'), reported: IMPORT },
  {
    title: 'shared may not import the coordinator',
    path: 'shared/a4.ts',
    source: imports('../coordinator/x.ts'),
    reported: IMPORT,
  },
  { title: 'product code may not import test code', path: 'agent/a5.ts', source: imports('../test/x.ts'), reported: IMPORT },
  { title: 'an agent may import shared', path: 'agent/a6.ts', source: imports('../shared/x.ts'), reported: null },
  { title: 'dockerode stays in its folder', path: 'agent/reconcile/a7.ts', source: imports('dockerode'), reported: IMPORT },
  {
    title: 'the coordinator does not see dockerode',
    path: 'coordinator/hub/a8.ts',
    source: imports('dockerode'),
    reported: IMPORT,
  },
  {
    title: 'dockerode is at home in agent/runtime/docker',
    path: 'agent/runtime/docker/a9.ts',
    source: imports('dockerode'),
    reported: null,
  },
  {
    title: 'the Docker driver may not import the coordinator',
    path: 'agent/runtime/docker/a10.ts',
    source: imports('../../../coordinator/x.ts'),
    reported: IMPORT,
  },
  { title: 'the Consul client stays in its folder', path: 'agent/link/a11.ts', source: imports('consul'), reported: IMPORT },
  {
    title: 'the Consul client is at home in agent/registrar',
    path: 'agent/registrar/a12.ts',
    source: imports('consul'),
    reported: null,
  },
  {
    title: 'systeminformation stays in its folder',
    path: 'agent/link/a13.ts',
    source: imports('systeminformation'),
    reported: IMPORT,
  },
  {
    title: 'systeminformation is at home in agent/metering',
    path: 'agent/metering/a14.ts',
    source: imports('systeminformation'),
    reported: null,
  },
  ...PURE.flatMap((path): Case[] => [
    { title: `${path} may not read the clock`, tree: 'date', path, source: use('Date.now()'), reported: GLOBAL },
    { title: `${path} may not be random`, tree: 'random', path, source: use('Math.random()'), reported: PLUGIN },
    { title: `${path} may not touch files`, tree: 'fs', path, source: imports('node:fs'), reported: IMPORT },
    { title: `${path} may set no timers`, tree: 'timer', path, source: use('setTimeout(() => {}, 1)'), reported: GLOBAL },
    { title: `${path} may compute`, tree: 'pure', path, source: use('Math.max(1, 2)'), reported: null },
  ]),
  { title: 'product code does not read the clock', path: 'coordinator/hub/b1.ts', source: use('Date.now()'), reported: PLUGIN },
  { title: 'product code is not random by itself', path: 'agent/link/b2.ts', source: use('Math.random()'), reported: PLUGIN },
  {
    title: 'product code sets no timers by itself',
    path: 'shared/b3.ts',
    source: use('setTimeout(() => {}, 1)'),
    reported: PLUGIN,
  },
  { title: 'nor repeated ones', path: 'agent/health/b4.ts', source: use('setInterval(() => {}, 1)'), reported: PLUGIN },
  {
    title: 'main.ts may, it constructs the real clock',
    path: 'agent/main.ts',
    source: use('setTimeout(() => {}, 1)'),
    reported: null,
  },
  { title: 'so may shared/clock.ts', path: 'shared/clock.ts', source: use('Date.now()'), reported: null },
  { title: 'and shared/random.ts', path: 'shared/random.ts', source: use('Math.random()'), reported: null },
  { title: 'and the adapters named system-*', path: 'coordinator/cli/system-io.ts', source: use('Date.now()'), reported: null },
  {
    title: 'a clock that is handed in is no offence',
    path: 'coordinator/hub/b5.ts',
    source: 'export const y = (clock: { now(): number }) => clock.now()\n',
    reported: null,
  },
  { title: 'any is refused', path: 'shared/c1.ts', source: 'export const y = (x: any) => x\n', reported: 'noExplicitAny' },
  {
    title: 'the non-null ! is refused',
    path: 'shared/c2.ts',
    source: 'export const y = (x: string | null) => x!.length\n',
    reported: 'noNonNullAssertion',
  },
  { title: 'default exports are refused', path: 'shared/c3.ts', source: 'export default 1\n', reported: 'noDefaultExport' },
  {
    title: 'floating promises are refused',
    path: 'shared/c4.ts',
    source: 'const f = async () => 1\nexport const y = () => {\n  f()\n}\n',
    reported: 'noFloatingPromises',
  },
  {
    title: 'the console is refused',
    path: 'coordinator/c5.ts',
    source: "export const y = () => console.log('x')\n",
    reported: 'noConsole',
  },
]

describe('the lint rules', () => {
  const bed = mkdtempSync(join(tmpdir(), 'rubato-lint-'))
  const trees = ['base', 'date', 'random', 'fs', 'timer', 'pure']
  const reports = new Map<string, string>()

  beforeAll(() => {
    for (const tree of trees) {
      cpSync(join(ROOT, '.biome.json'), join(bed, tree, 'biome.json'))
      cpSync(join(ROOT, 'test', 'lint'), join(bed, tree, 'test', 'lint'), { recursive: true })
      for (const part of ['agent', 'coordinator', 'shared']) mkdirSync(join(bed, tree, part))
    }
    for (const { tree = 'base', path, source } of CASES) {
      mkdirSync(dirname(join(bed, tree, path)), { recursive: true })
      writeFileSync(join(bed, tree, path), source)
    }
    for (const tree of trees) for (const [path, text] of lint(join(bed, tree))) reports.set(join(tree, path), text)
  }, 120_000)
  afterAll(() => rmSync(bed, { recursive: true, force: true }))

  for (const { title, tree = 'base', path, reported } of CASES)
    it(title, () => {
      const found = reports.get(join(tree, path)) ?? ''
      if (reported === null) expect(found).toBe('')
      else expect(found).toContain(reported)
    })

  it('name only pure files that exist', () => {
    const config = JSON.parse(readFileSync(join(ROOT, '.biome.json'), 'utf8')) as { overrides: { includes: string[] }[] }
    const named = config.overrides
      .flatMap(({ includes }) => includes)
      .filter((path) => /^[a-z]/.test(path) && !path.includes('*'))
    expect(named.filter((path) => !existsSync(join(ROOT, path)))).toEqual([])
  })
})

/** Categories and messages by file. */
function lint(directory: string): Map<string, string> {
  const biome = join(ROOT, 'node_modules', '.bin', 'biome')
  let output: string
  try {
    output = execFileSync(biome, ['lint', '--reporter=json', '--max-diagnostics=none', 'agent', 'coordinator', 'shared'], {
      cwd: directory,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      maxBuffer: 2 ** 26,
    })
  } catch (error) {
    output = (error as { stdout?: string }).stdout ?? ''
  }
  const report = JSON.parse(output.slice(output.indexOf('{'))) as {
    diagnostics: { category: string; location?: { path?: string | { file?: string } | null } }[]
  }
  const byFile = new Map<string, string>()
  for (const diagnostic of report.diagnostics) {
    const { path } = diagnostic.location ?? {}
    const file = typeof path === 'string' ? path : (path?.file ?? '')
    byFile.set(file, `${byFile.get(file) ?? ''}${JSON.stringify(diagnostic)}\n`)
  }
  return byFile
}
