/** Shell completion of verbs and options, generated from the commands themselves. */
import type { Command } from 'commander'
import { CliError, EXIT } from './io.ts'

export function completionScript(program: Command, shell: string): string {
  if (shell !== 'bash' && shell !== 'zsh')
    throw new CliError(EXIT.refused, `There is no completion for "${shell}".`, 'bash and zsh are known.')
  const words = (command: Command) =>
    [
      ...command.commands.map((each) => each.name()),
      ...command.options.map((option) => option.long ?? ''),
      ...program.options.map((option) => option.long ?? ''),
    ]
      .filter((word, index, all) => word !== '' && all.indexOf(word) === index)
      .join(' ')
  const cases = program.commands.map((command) => `    ${command.name()}) words="${words(command)}" ;;`)
  const body = `_rubato() {
  local words
  case "\${COMP_WORDS[1]}" in
${cases.join('\n')}
    *) words="${words(program)}" ;;
  esac
  [ "$COMP_CWORD" -eq 1 ] && words="${words(program)}"
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _rubato rubato
`
  return shell === 'bash' ? body : `autoload -U +X bashcompinit && bashcompinit\n${body}`
}
