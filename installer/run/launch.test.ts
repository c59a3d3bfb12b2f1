/** The launchers, run as `npx` runs them. */
import { spawn } from 'node:child_process'
import { cp, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

const here = fileURLToPath(new URL('.', import.meta.url))
const modules = fileURLToPath(new URL('../../node_modules', import.meta.url))
let root = ''

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'rubato-launch-'))
  await mkdir(join(root, 'installer', 'run'), { recursive: true })
  await mkdir(join(root, 'coordinator'))
  for (const name of ['launch.mjs', 'rubato.mjs']) await cp(join(here, name), join(root, 'installer', 'run', name))
  await writeFile(join(root, 'package.json'), '{"type":"module"}')
})
afterEach(() => rm(root, { recursive: true }))

function start(args: readonly string[]) {
  const child = spawn(process.execPath, [join(root, 'installer', 'run', 'rubato.mjs'), ...args])
  let text = ''
  child.stdout.on('data', (chunk) => {
    text += String(chunk)
  })
  child.stderr.on('data', (chunk) => {
    text += String(chunk)
  })
  const exited = new Promise<{ code: number | null; text: string }>((resolve) =>
    child.on('close', (code) => resolve({ code, text })),
  )
  return { child, exited, text: () => text }
}

describe('launchers', () => {
  it('say what to do while nothing is installed', async () => {
    const { code, text } = await start([]).exited
    expect(code).toBe(1)
    expect(text).toContain('setup')
  })

  it('run TypeScript with all arguments under Node 26 and end with its exit code', async () => {
    await symlink(modules, join(root, 'node_modules'))
    await writeFile(
      join(root, 'coordinator', 'main.ts'),
      'const args: readonly string[] = process.argv.slice(2); console.log(process.version, JSON.stringify(args)); process.exitCode = 7',
    )
    const { code, text } = await start(['up', '--dry-run', 'a b']).exited
    expect(text).toMatch(/^v26\.\S+ \["up","--dry-run","a b"\]\n$/)
    expect(code).toBe(7)
  })

  it('forward signals, and end as the program ended', async () => {
    await symlink(modules, join(root, 'node_modules'))
    await writeFile(
      join(root, 'coordinator', 'main.ts'),
      "process.on('SIGTERM', () => process.exit(9)); console.log('up'); setInterval(() => {}, 1000)",
    )
    const run = start([])
    while (!run.text().includes('up')) await new Promise((resolve) => run.child.stdout.once('data', resolve))
    run.child.kill('SIGTERM')
    expect((await run.exited).code).toBe(9)
  })
})
