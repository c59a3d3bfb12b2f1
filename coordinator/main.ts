#!/usr/bin/env node
/**
 * Entry of the program `rubato`: `rubato coordinator` runs the coordinator, every other verb is the command line. The only file
 * of the coordinator that constructs the real world for the command line; daemon.ts does it for the coordinator.
 */
import { VERSION } from '../shared/version.ts'
import { runCli } from './cli/run-cli.ts'
import { systemIo } from './cli/system-io.ts'

const interrupted = new AbortController()
let signals = 0
for (const name of ['SIGINT', 'SIGTERM'] as const)
  process.on(name, () => {
    signals += 1
    // The second one means it: whatever hangs is left to the next start.
    if (signals > 1) process.exit(130)
    interrupted.abort()
  })
// A reader that went away (`rubato ps | head`) ends the program quietly.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

process.exitCode = await runCli(
  process.argv.slice(2),
  systemIo({
    signal: interrupted.signal,
    // Loaded when asked for: other verbs answer faster without them.
    readApp: async (request) => (await import('./cli/read-app-file.ts')).readAppFile(request),
    runCoordinator: async (argv) => (await import('./daemon.ts')).runCoordinator(argv, interrupted.signal),
  }),
  VERSION,
)
