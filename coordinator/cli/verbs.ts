/** How a verb is added: its description, its options, and an action that gets a session and returns an exit code. */
import type { Command } from 'commander'
import { type GlobalFlags, openSession, type Session } from './session.ts'
import type { CliIo } from './io.ts'

export type Action<F> = (
  session: Session,
  args: readonly (string | undefined)[],
  flags: F,
  globals: GlobalFlags,
) => Promise<number>

export type Decorate = (command: Command) => Command

/** `add('ps [app]', 'list …', decorate…)(action)`. Variadic arguments are flattened. */
export type AddVerb = <F>(usage: string, description: string, ...decorate: readonly Decorate[]) => (action: Action<F>) => void

const OFFERS_CSV = 'offersCsv'

/** The verb takes `-o csv` too. */
export const offersCsv: Decorate = (command) => command.setOptionValue(OFFERS_CSV, true)

export function verbAdder(parent: Command, io: CliIo, finished: (exitCode: number) => void): AddVerb {
  return <F>(usage: string, description: string, ...decorate: readonly Decorate[]) =>
    (action: Action<F>) => {
      const command = parent.command(usage).description(description)
      for (const each of decorate) each(command)
      command.action(async (...given: unknown[]) => {
        // Commander passes the declared arguments, then the options, then the command.
        const args = given.slice(0, -2).flatMap((value) => value as string | undefined | readonly string[])
        const flags = command.opts() as F
        const globals = command.optsWithGlobals() as GlobalFlags
        finished(
          await action(
            openSession(io, globals, { csv: command.getOptionValue(OFFERS_CSV) === true }),
            args as readonly (string | undefined)[],
            flags,
            globals,
          ),
        )
      })
    }
}
