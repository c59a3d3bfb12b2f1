/** The agent's executable that new machines fetch in real tests: that of the present sources, built when it is older. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

const ROOT = join(import.meta.dirname, '..', '..')
const BINARY = join(ROOT, 'dist', 'rubato-agent-linux-x64')

/** Builds it where it is missing or stale, which takes half a minute; gives its path. */
export function buildAgentIfStale(say: (line: string) => void): string {
  const newest = (folder: string): number =>
    Math.max(
      ...readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))
        .map((name) => statSync(join(ROOT, folder, name)).mtimeMs),
    )
  if (existsSync(BINARY) && statSync(BINARY).mtimeMs >= Math.max(newest('agent'), newest('shared'))) return BINARY
  say('building the agent …')
  execFileSync(process.execPath, [join(ROOT, 'installer', 'build-binaries.ts'), '--native'], { cwd: ROOT, stdio: 'inherit' })
  return BINARY
}
