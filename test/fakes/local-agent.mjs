/**
 * Stands in for rubato-agent under the local provider. Run: writes its arguments and environment keys beside its state directory
 * and stays. `destroy`: marks that it was called, or fails while `<home>/fail-destroy` exists.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

const argv = process.argv.slice(2)
const stateDir = argv[argv.indexOf('--state-dir') + 1]
const home = dirname(stateDir)
if (argv[0] === 'destroy') {
  if (existsSync(join(home, 'fail-destroy'))) {
    process.stderr.write('a container is stuck\n')
    process.exit(1)
  }
  writeFileSync(`${home}.destroyed`, '')
} else {
  mkdirSync(stateDir, { recursive: true })
  writeFileSync(join(home, 'seen.json'), JSON.stringify({ argv, pid: process.pid }))
  setInterval(() => undefined, 60_000)
}
