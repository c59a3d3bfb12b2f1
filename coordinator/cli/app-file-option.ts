/** The app file that `-f` names, or the one that lies here: found, read, and its faults told with the name that the user gave it. */
import { basename, resolve } from 'node:path'
import type { Command } from 'commander'
import { type Fault, InputError, RubatoError } from '../../shared/errors.ts'
import { CliError, EXIT, type ReadAppResult } from './io.ts'
import type { Session } from './session.ts'

const FILE_NAMES = ['compose.yaml', 'compose.yml', 'docker-compose.yaml', 'docker-compose.yml']

export interface FileFlags {
  readonly file?: readonly string[]
  readonly name?: string
  readonly profile?: readonly string[]
}

/** Adds the options that choose an app file. */
export function withAppFile(command: Command): Command {
  return command
    .option(
      '-f, --file <file>',
      'app file (a Compose file); default: compose.yaml here; more of them are laid over the first',
      collect,
    )
    .option('-p, --name <name>', 'name of the app; default: the file’s name, else its directory’s')
    .option('--profile <profile...>', 'Compose profiles to include')
}

/** The app file, with every warning printed: nothing is ignored in silence. */
export async function readChosenApp(session: Session, flags: FileFlags): Promise<ReadAppResult> {
  const { io } = session
  const [first, ...more] = flags.file ?? []
  const file = first === undefined ? await defaultFile(session) : resolve(io.cwd, first)
  const shownAs = first ?? basename(file)
  const overrides = more.map((name) => resolve(io.cwd, name))
  try {
    const app = await io.readApp({ file, overrides, name: flags.name ?? null, profiles: flags.profile ?? [], env: io.env })
    for (const warning of app.warnings) {
      const where = warning.line === undefined ? shownAs : `${shownAs}:${warning.line}:${warning.column ?? 1}`
      session.note(`${where}: warning: ${warning.message}`)
    }
    return app
  } catch (error) {
    if (error instanceof InputError && error.faults.length > 0) {
      throw new CliError(EXIT.refused, error.faults.map((fault) => faultLine(fault, file, shownAs)).join('\n'))
    }
    if (error instanceof RubatoError && error.code === 'not-found') throw new CliError(EXIT.refused, error.message)
    throw error
  }
}

/** `FILE:LINE:COL: message (hint)`, the app file named as the user named it. */
function faultLine(fault: Fault, file: string, shownAs: string): string {
  const place = fault.line === undefined ? '' : `:${fault.line}:${fault.column ?? 1}`
  const at = fault.line === undefined && fault.path !== '' ? `${fault.path}: ` : ''
  return `${fault.file === undefined || fault.file === file ? shownAs : fault.file}${place}: ${at}${fault.message}${fault.hint === undefined ? '' : ` (${fault.hint})`}`
}

async function defaultFile({ io }: Session): Promise<string> {
  for (const name of FILE_NAMES) {
    const file = resolve(io.cwd, name)
    if ((await io.modeOf(file)) !== null) return file
  }
  throw new CliError(EXIT.refused, `There is no ${FILE_NAMES[0]} in ${io.cwd}.`, 'Name the app file with -f FILE.')
}

function collect(file: string, earlier: readonly string[] | undefined): readonly string[] {
  return [...(earlier ?? []), file]
}
