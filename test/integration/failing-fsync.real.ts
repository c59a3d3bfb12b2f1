/** A disk that cannot keep what it took: every fsync of a running coordinator fails (strace injects EIO into its system calls). */
import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { type CoordinatorProcess, startCoordinator } from '../lab/coordinator.ts'
import { until } from '../lab/hosts.ts'
import { installPackages, isRootOnDebian } from '../lab/packages.ts'

describe.skipIf(!isRootOnDebian())('a coordinator whose disk fails', () => {
  const dir = mkdtempSync(join(tmpdir(), 'rubato-fsync-'))
  let coordinator: CoordinatorProcess | null = null

  afterAll(async () => {
    await coordinator?.stop()
    rmSync(dir, { recursive: true, force: true })
  })

  it('row 34: fsync gives EIO: the write is not acknowledged, the coordinator ends, and its next life has every write that was', async () => {
    await installPackages((line) => process.stdout.write(`${line}\n`), ['strace'])
    const running = await startCoordinator({
      dir: join(dir, 'coordinator'),
      host: '127.88.0.34',
      port: 18_634,
      catalogPort: 18_635,
      dnsPort: 18_636,
    })
    coordinator = running
    const create = (name: string) => running.send('POST', '/v1/keys', { name, roles: ['user'] })
    const names = async () => (await running.get<{ items: { name: string }[] }>('/v1/keys')).items.map(({ name }) => name)
    await create('kept')
    const { pid } = running
    const inject = 'inject=fsync,fdatasync,sync_file_range:error=EIO'
    const strace = spawn('strace', [
      '-f',
      '-qq',
      '-o',
      '/dev/null',
      '-e',
      'trace=fsync,fdatasync,sync_file_range',
      '-e',
      inject,
      '-p',
      `${pid}`,
    ])
    const ended = new Promise((resolve) => strace.once('close', resolve))
    await until(() => threadsOf(pid).every(isTraced), 'strace to hold every thread')

    await expect(create('lost')).rejects.toThrow()
    await until(() => threadsOf(pid).length === 0, 'the coordinator to end by itself', 30_000)
    await ended
    expect(readFileSync(running.log, 'utf8')).toMatch(/EIO|disk I\/O error/i)

    await running.start()
    expect(await names()).toContain('kept')
    await create('after')
    expect(await names()).toContain('after')
  })
})

/** Thread ids of a process that lives; none when it has ended, a zombie included. */
function threadsOf(pid: number): readonly string[] {
  try {
    if (/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) return []
    return readdirSync(`/proc/${pid}/task`).map((tid) => `/proc/${pid}/task/${tid}`)
  } catch {
    return []
  }
}

function isTraced(task: string): boolean {
  try {
    return !/^TracerPid:\s+0$/m.test(readFileSync(`${task}/status`, 'utf8'))
  } catch {
    return true // It ended meanwhile.
  }
}
