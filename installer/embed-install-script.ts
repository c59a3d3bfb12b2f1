/** Writes install-script.ts from install.sh, so that a single executable carries it. Run after changing install.sh. */
import { readFileSync, writeFileSync } from 'node:fs'

const source = new URL('install.sh', import.meta.url)
const target = new URL('install-script.ts', import.meta.url)

/** Text of the module that carries this script. */
export function installScriptModule(script: string): string {
  const lines = script.split('\n').map((line) => `  ${JSON.stringify(line)},`)
  return `/* Made from install.sh by embed-install-script.ts; change that file, not this one. */\n// biome-ignore-all lint/suspicious/noTemplateCurlyInString: these are a shell's\n\n// biome-ignore format: generated\nconst LINES = [\n${lines.join('\n')}\n]\n\n/** The installer as a POSIX shell script: served at /install.sh and part of every machine's user data. */\nexport const INSTALL_SCRIPT: string = LINES.join('\\n')\n`
}

if (import.meta.main) writeFileSync(target, installScriptModule(readFileSync(source, 'utf8')))
