/**
 * Part of `make setup`: fetches native packages of this platform that are in the lock file and that npm left out (older npm under an older
 * Node drops optional packages that ask for a newer Node, though ours runs them). Each is checked against the lock's digest.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..', '..')
const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'))
const isMusl = process.report.getReport().header.glibcVersionRuntime === undefined

for (const [path, entry] of Object.entries(packages)) {
  const fits =
    entry.os?.includes(process.platform) &&
    entry.cpu?.includes(process.arch) &&
    (!entry.libc || entry.libc.includes(isMusl ? 'musl' : 'glibc'))
  if (!entry.optional || !fits || existsSync(join(root, path))) continue
  const name = path.slice('node_modules/'.length)
  process.stdout.write(`fetching ${name}@${entry.version}, which npm left out …\n`)
  const work = mkdtempSync(join(tmpdir(), 'rubato-native-'))
  try {
    const file = execFileSync('npm', ['pack', `${name}@${entry.version}`, '--silent', '--pack-destination', work], {
      encoding: 'utf8',
    })
      .trim()
      .split('\n')
      .at(-1)
    const archive = join(work, file)
    const digest = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`
    if (entry.integrity && entry.integrity !== digest)
      throw new Error(`${name}@${entry.version} is not what package-lock.json names`)
    mkdirSync(join(root, path), { recursive: true })
    execFileSync('tar', ['-xzf', archive, '-C', join(root, path), '--strip-components=1'])
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}
