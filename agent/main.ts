#!/usr/bin/env node
/** Entry of the program `rubato-agent`: runs the agent, or (`destroy`) removes everything of it from this host. */
import { describeSettings } from '../shared/settings.ts'
import { VERSION } from '../shared/version.ts'
import { AGENT_ENV_PREFIX, agentSettings } from './config.ts'

const HELP = `rubato-agent [--config FILE] [settings]   run the agent of this host
rubato-agent destroy [--state-dir DIR]    end everything of this node that runs here, and forget it
rubato-agent --version

Settings, as flag, as ${AGENT_ENV_PREFIX}… variable, or in the file (see docs/configuration.md):
`

const argv = process.argv.slice(2)
// The watchdog is small and must not end with its agent: it loads nothing else, and signals mean nothing to it.
const isWatchdog = argv[0] === 'fence'
const stopped = new AbortController()
let signals = 0
for (const name of ['SIGINT', 'SIGTERM'] as const)
  process.on(name, () => {
    if (isWatchdog) return
    signals += 1
    if (signals > 1) process.exit(130)
    stopped.abort(new Error(name))
  })

if (argv.includes('--version')) process.stdout.write(`${VERSION}\n`)
else if (argv.includes('--help') || argv.includes('-h'))
  process.stdout.write(`${HELP}${describeSettings(agentSettings, AGENT_ENV_PREFIX)}\n`)
else if (isWatchdog) process.exit(await (await import('./fence/watchdog.ts')).runWatchdog(argv.slice(1)))
else {
  const { destroyAgent, runAgent } = await import('./daemon.ts')
  if (argv[0] === 'destroy') process.exit(await destroyAgent(argv.slice(1)))
  process.exit(await runAgent(argv[0] === 'run' ? argv.slice(1) : argv, stopped.signal))
}
