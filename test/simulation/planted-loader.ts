/**
 * Loads modules of the product with a planted bug in them, in this process and in memory only: an import with `?bug=name` takes
 * its whole graph along, so each bug has modules of its own.
 */
import { readFileSync } from 'node:fs'
import { registerHooks } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { PLANTED_BUGS, type PlantedBug } from './planted-bugs.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const ROOT_URL = `${pathToFileURL(ROOT).href}/`

/** What is wrong with the bug's patches, or null: each text must be found exactly once. */
export function faultOf(bug: PlantedBug): string | null {
  for (const { file, from } of bug.patches) {
    const found = readFileSync(join(ROOT, file), 'utf8').split(from).length - 1
    if (found !== 1) return `${bug.name}: ${file} has its text ${found} times, not once: ${from}`
  }
  return null
}

/** From now on `import('…?bug=name')` gives modules with that bug. Throws for an unknown bug or a text that is not found. */
export function plantBugs(): void {
  registerHooks({
    resolve(specifier, context, next) {
      const resolved = next(specifier, context)
      const bug = bugOf(context.parentURL)
      const isOurs = resolved.url.startsWith(ROOT_URL) && !resolved.url.includes('/node_modules/')
      if (bug === null || !isOurs || bugOf(resolved.url) !== null) return resolved
      return { ...resolved, url: `${resolved.url}?bug=${bug}` }
    },
    load(url, context, next) {
      const name = bugOf(url)
      if (name === null) return next(url, context)
      const bug = PLANTED_BUGS.find((candidate) => candidate.name === name)
      const fault = bug ? faultOf(bug) : `there is no planted bug ${name}`
      if (!bug || fault !== null) throw new Error(fault ?? '')
      const plain = url.slice(0, url.indexOf('?'))
      const path = fileURLToPath(plain).slice(ROOT.length + 1)
      let source = readFileSync(join(ROOT, path), 'utf8')
      for (const { file, from, to } of bug.patches) if (file === path) source = source.replace(from, () => to)
      return { format: 'module-typescript', source, shortCircuit: true }
    },
  })
}

function bugOf(url: string | undefined): string | null {
  return url === undefined ? null : (/[?&]bug=([\w-]+)/.exec(url)?.[1] ?? null)
}
