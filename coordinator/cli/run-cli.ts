/** `rubato <verb>`: parses the arguments, runs one verb, and turns whatever happens into an exit code and a next step. */
import { Command, CommanderError } from 'commander'
import { messageOf, RubatoError } from '../../shared/errors.ts'
import { addKeyCommands, addTokenCommands } from './commands-access.ts'
import { addAppCommands } from './commands-apps.ts'
import { addFleetCommands, addFleetStatus, addMigrateCommand, addNodeCommands } from './commands-fleet.ts'
import { addHistoryCommand } from './commands-history.ts'
import { addWatchCommands } from './commands-watch.ts'
import { completionScript } from './completion.ts'
import { addDoctor } from './doctor.ts'
import { CliError, type CliIo, EXIT } from './io.ts'
import { paintWith } from './table.ts'
import { type AddVerb, verbAdder } from './verbs.ts'

/** The simulator is most of what there is to load; where none of these words is given, its verb needs a name only. */
const SIMULATOR_WORDS: ReadonlySet<string> = new Set(['simulate', 'completion'])

/** All verbs; actions report their exit code to `finished`. Without `addSimulate` that verb is listed, without its options. */
export function buildProgram(
  io: CliIo,
  version: string,
  finished: (exitCode: number) => void,
  addSimulate: (add: AddVerb) => void = nameSimulate,
): Command {
  const program = new Command('rubato')
    .description('An elastic orchestrator for containers on virtual machines.')
    .version(version, '-V, --version')
    .option('--url <url>', 'coordinator; else RUBATO_URL, else the config file, else http://127.0.0.1:7600')
    .option('--token-file <file>', 'file with the operator token; else RUBATO_TOKEN, else the config file')
    .option('--ca <file>', 'trust only this authority (PEM); else RUBATO_CA, else the config file')
    .option('-o, --output <form>', 'json or table (history: csv too)', 'table')
    .showHelpAfterError('("rubato --help" lists the verbs.)')
    .exitOverride()
    .configureOutput({ writeOut: (text) => io.out(text), writeErr: (text) => io.err(text) })
  const add = verbAdder(program, io, finished)
  program
    .command('coordinator')
    .description('run a coordinator; its own options follow ("rubato coordinator --help")')
    .helpOption(false)
    .allowUnknownOption()
    .allowExcessArguments()
    .argument('[options...]')
    .action(async (options: string[]) => finished(await io.runCoordinator(options)))
  addAppCommands(add)
  addWatchCommands(add)
  addHistoryCommand(add)
  addFleetCommands(add)
  addMigrateCommand(add)
  const group = (name: string, description: string) => verbAdder(program.command(name).description(description), io, finished)
  addNodeCommands(group('node', 'act on nodes'))
  addFleetStatus(group('fleet', 'what is bought, and why'))
  addKeyCommands(group('keys', 'keys of users and services'))
  addTokenCommands(group('token', 'tokens for hosts and operators'))
  addSimulate(add)
  addDoctor(add)
  add(
    'completion <shell>',
    'print a completion script for bash or zsh',
  )(async (session, [shell = '']) => {
    session.io.out(completionScript(program, shell))
    return EXIT.ok
  })
  return program
}

function nameSimulate(add: AddVerb): void {
  add('simulate', 'replay a demand series against scaling policies, machines and prices')(async () => EXIT.refused)
}

/** Runs one command line (without the program's name). Resolves with the exit code; never rejects. */
export async function runCli(argv: readonly string[], io: CliIo, version = '0.1.0'): Promise<number> {
  let exitCode: number = EXIT.ok
  try {
    // `coordinator` has options of its own, some of the same name as ours.
    if (argv[0] === 'coordinator') return await io.runCoordinator(argv.slice(1))
    const simulator = argv.some((word) => SIMULATOR_WORDS.has(word)) ? await import('./commands-simulate.ts') : null
    const finished = (code: number) => {
      exitCode = code
    }
    const program = buildProgram(io, version, finished, simulator?.addSimulate)
    await program.parseAsync(argv.length === 0 ? ['--help'] : [...argv], { from: 'user' })
    return exitCode
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.refused
    return report(io, error)
  }
}

function report(io: CliIo, error: unknown): number {
  const paint = paintWith(io.stderrIsTty && !io.env.NO_COLOR && io.env.TERM !== 'dumb')
  io.err(`${paint('bad', messageOf(error))}\n`)
  if (error instanceof CliError) {
    if (error.hint !== null) io.err(`→ ${error.hint}\n`)
    return error.exitCode
  }
  if (error instanceof RubatoError) {
    for (const fault of error.faults) io.err(`  ${fault.path}: ${fault.message}${fault.hint ? ` (${fault.hint})` : ''}\n`)
    return error.code === 'input-invalid' || error.code === 'config-invalid' ? EXIT.refused : EXIT.failed
  }
  if (io.env.RUBATO_DEBUG === '1' && error instanceof Error) io.err(`${error.stack}\n`)
  else io.err('→ This is a fault of rubato itself; RUBATO_DEBUG=1 shows where.\n')
  return EXIT.failed
}
