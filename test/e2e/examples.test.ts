/** Examples and documents that name settings are read by the code that reads them in production. */
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadCoordinatorConfig } from '../../coordinator/config.ts'

const ROOT = join(import.meta.dirname, '..', '..')

describe('examples', () => {
  it('examples/rubato.yaml is a coordinator configuration', async () => {
    const config = await loadCoordinatorConfig({
      argv: ['--config', join(ROOT, 'examples', 'rubato.yaml')],
      env: {},
      readFile: (path) => readFile(path, 'utf8'),
      fileMode: async (path) => (await stat(path)).mode & 0o777,
    })
    expect(config.pools).toMatchObject([{ name: 'small', provider: 'local', min: 1, max: 4 }])
    expect(config.fleet.budgetUsdPerMonth).toBe(50)
  })
  it('every file that the README links to exists', async () => {
    const readme = await readFile(join(ROOT, 'README.md'), 'utf8')
    const links = [...readme.matchAll(/\]\(([^)#]+)(?:#[^)]*)?\)/g)].map((match) => match[1] ?? '')
    expect(links.length).toBeGreaterThan(5)
    for (const link of links) await expect(stat(join(ROOT, link)), link).resolves.toBeTruthy()
  })
  it('every make target and example that the README names exists', async () => {
    const readme = await readFile(join(ROOT, 'README.md'), 'utf8')
    const makefile = await readFile(join(ROOT, 'Makefile'), 'utf8')
    for (const [, target] of readme.matchAll(/\bmake ([a-z-]+)/g)) expect(makefile).toContain(`\n${target}:`)
    for (const [, path] of readme.matchAll(/\b(examples\/[\w./-]+)/g))
      await expect(stat(join(ROOT, path ?? '')), path).resolves.toBeTruthy()
  })
})
