/**
 * Starts a program of Rubato under Node 26 from whatever Node (≥ 18) `npx` happens to run: finds the pinned one, hands over the
 * terminal, forwards signals, and ends as the program ended. Plain JavaScript, so that an old Node can run it.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const WANTED_MAJOR = 26
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP']

/** `entry` is a path below the checkout, like `coordinator/main.ts`. Never returns control to the caller's own work. */
export function launch(entry) {
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')
  if (!existsSync(join(root, 'node_modules'))) {
    stop(`Rubato's dependencies are not installed. Run: make -C ${root} setup`)
    return
  }
  const node = findNode(root)
  if (node === null) {
    stop(
      `Rubato needs Node ${WANTED_MAJOR}, this is ${process.version}, and the one from npm is missing. Run: make -C ${root} setup`,
    )
    return
  }
  const program = join(root, entry)
  if (!existsSync(program)) {
    stop(`${program} is missing: this checkout is not complete.`)
    return
  }
  // What was compiled once is read by the next run. A folder that cannot be written is passed over by Node.
  const env = { NODE_COMPILE_CACHE: join(root, 'node_modules', '.cache', 'rubato'), ...process.env }
  const child = spawn(node, ['--disable-warning=ExperimentalWarning', program, ...process.argv.slice(2)], {
    stdio: 'inherit',
    env,
  })
  const forward = (signal) => {
    // Ctrl-C reaches the whole foreground group; a second copy would count as the impatient second one.
    if (signal === 'SIGINT' && process.stdin.isTTY) return
    child.kill(signal)
  }
  for (const signal of FORWARDED) process.on(signal, forward)
  child.on('error', (error) => stop(`Cannot start ${node}: ${error.message}`))
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code === null ? 1 : code)
    process.exit(128 + (constants.signals[signal] || 0))
  })
}

/** The Node from npm, else the one that runs this when it is new enough. */
function findNode(root) {
  const name = `node-linux-${process.arch}`
  const beside = join(root, 'node_modules', name, 'bin', 'node')
  if (existsSync(beside)) return beside
  try {
    const found = join(dirname(createRequire(join(root, 'package.json')).resolve(`${name}/package.json`)), 'bin', 'node')
    if (existsSync(found)) return found
  } catch (error) {
    if (error.code !== 'MODULE_NOT_FOUND' && error.code !== 'ERR_PACKAGE_PATH_NOT_EXPORTED') throw error
  }
  return Number(process.versions.node.split('.')[0]) >= WANTED_MAJOR ? process.execPath : null
}

function stop(message) {
  process.stderr.write(`${message}\n`)
  process.exitCode = 1
}
