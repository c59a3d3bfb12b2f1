/** A root file system with nothing but Node, the libraries that it needs, and one script: an image built here, pulled from nowhere. */
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

/** Writes the tar to `output`. The image's command is `['/usr/bin/node', '/app.mjs']`. */
export function writeNodeRootfs(output: string, script: string): void {
  const root = mkdtempSync(join(tmpdir(), 'rubato-image-'))
  try {
    for (const file of [process.execPath, ...librariesOf(process.execPath)]) {
      const target = join(root, file === process.execPath ? '/usr/bin/node' : file)
      mkdirSync(dirname(target), { recursive: true })
      cpSync(realpathSync(file), target)
    }
    mkdirSync(join(root, 'tmp'))
    cpSync(script, join(root, 'app.mjs'))
    execFileSync('tar', ['-C', root, '-cf', output, '.'])
  } finally {
    rmSync(root, { recursive: true, force: true })
  }
}

export const NODE_IMAGE_COMMAND = ['/usr/bin/node', '/app.mjs'] as const

/** Shared libraries of a binary, with the loader, as `ldd` lists them. */
function librariesOf(binary: string): readonly string[] {
  return execFileSync('ldd', [binary], { encoding: 'utf8' })
    .split('\n')
    .map((line) => /=>\s*(\/\S+)/.exec(line)?.[1] ?? /^\s*(\/\S+)/.exec(line)?.[1])
    .filter((path) => path !== undefined)
}
