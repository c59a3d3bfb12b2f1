import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { diskFiles } from '../../shared/disk-files.ts'
import { createProcessRuntime } from '../../agent/runtime/process/process-runtime.ts'
import { readProcess } from '../../agent/runtime/process/process-table.ts'
import type { CreateContainer } from '../../agent/runtime/runtime.ts'
import { sleep, systemClock } from '../../shared/clock.ts'
import { InputError } from '../../shared/errors.ts'
import { silentLogger } from '../../shared/logger.ts'
import { systemRandom } from '../../shared/random.ts'
import { aContainerSpec, aUnitSpec } from '../builders/specs.ts'
import { realAdvance, runtimeContract } from './runtime-contract.ts'

const clock = systemClock()
const open = (stateDir: string) =>
  createProcessRuntime({
    stateDir,
    clusterId: 'c',
    nodeId: 'n-1',
    bindAddress: '127.0.0.1',
    clock,
    random: systemRandom(),
    files: diskFiles(),
    logger: silentLogger(),
  })

async function subject() {
  const dir = mkdtempSync(join(tmpdir(), 'rb-process-'))
  const runtime = await open(dir)
  return {
    dir,
    runtime,
    reopen: () => open(dir),
    clock,
    advance: realAdvance(clock),
    image: '',
    runsCommands: true,
    async close() {
      for (const { id } of await runtime.list()) await runtime.remove(id)
      const last = await open(dir)
      for (const { id } of await last.list()) await last.remove(id)
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

runtimeContract('process', subject)

describe('the process runtime', () => {
  const requestOf = (fields: Partial<CreateContainer['spec']>, specHash = 'hash-1'): CreateContainer => ({
    instance: 'shop/web/1/1',
    specHash,
    spec: aContainerSpec({ image: '', ...fields }),
    unit: aUnitSpec({ runtime: 'process' }),
    ports: [
      { containerPort: 8080, protocol: 'http' },
      { containerPort: 9090, protocol: 'tcp' },
    ],
    sharesNetworkOf: null,
    extraEnvironment: { EXTRA: 'yes' },
    extraHosts: [],
  })
  const linesOf = async (runtime: Awaited<ReturnType<typeof open>>, id: string) => {
    const lines: string[] = []
    for await (const line of runtime.logs(id, { follow: false, tail: 100 }, new AbortController().signal)) lines.push(line.text)
    return lines
  }

  it("tells a process its ports, its host and its files, and nothing of the agent's own environment", async () => {
    const it = await subject()
    process.env.RUBATO_TEST_SECRET = 'hush'
    try {
      const script =
        'echo "$PORT $RUBATO_PORT_8080 $RUBATO_PORT_9090 $HOST $EXTRA [$RUBATO_TEST_SECRET]"; cat run/secrets/token; sleep 60'
      const id = await it.runtime.create(
        requestOf({
          command: ['/bin/sh', '-c', script],
          files: [
            { target: '/run/secrets/token', mode: 0o400, contentBase64: Buffer.from('top\n').toString('base64'), secret: true },
          ],
        }),
      )
      await it.runtime.start(id)
      await sleep(clock, 300)
      const [observed] = await it.runtime.list()
      const { 8080: http, 9090: tcp } = observed?.portMap ?? {}
      expect(http).not.toBe(tcp)
      expect(await linesOf(it.runtime, id)).toEqual([`${http} ${http} ${tcp} 127.0.0.1 yes []`, 'top'])
    } finally {
      delete process.env.RUBATO_TEST_SECRET
      await it.close()
    }
  })

  it('stops the whole group, and what a process left behind when it ended by itself', async () => {
    const it = await subject()
    try {
      const id = await it.runtime.create(requestOf({ command: ['/bin/sh', '-c', 'sleep 987 & echo $!; exit 0'] }))
      await it.runtime.start(id)
      await sleep(clock, 500)
      expect((await it.runtime.list())[0]).toMatchObject({ state: 'exited', exitCode: 0 })
      const child = Number((await linesOf(it.runtime, id))[0])
      // Nobody may have looked at its end yet (Z), but it runs no more.
      expect([undefined, 'Z']).toContain(readProcess(child)?.state)
    } finally {
      await it.close()
    }
  })

  it('row 15: knows a process of an earlier life, and says null for an exit code that nobody saw', async () => {
    const it = await subject()
    try {
      const id = await it.runtime.create(requestOf({ command: ['/bin/sh', '-c', 'sleep 60'] }))
      await it.runtime.start(id)
      const next = await it.reopen()
      const [before] = await next.list()
      expect(before).toMatchObject({ id, state: 'running' })
      await next.stop(id, 2_000)
      expect((await next.list())[0]).toMatchObject({ state: 'exited', exitCode: null })
    } finally {
      await it.close()
    }
  })

  it('row 16: finds a process whose start was not recorded any more', async () => {
    const it = await subject()
    try {
      const id = await it.runtime.create(requestOf({ command: ['/bin/sh', '-c', 'sleep 60'] }))
      await it.runtime.start(id)
      const files = diskFiles()
      const path = join(it.dir, 'processes', `${id}.json`)
      const record = JSON.parse((await files.read(path)) ?? '')
      // As it is on the disk between the record's write and the process's.
      await files.write(path, JSON.stringify({ ...record, run: { ...record.run, pid: 0, startTicks: 0 } }))
      const next = await it.reopen()
      expect((await next.list())[0]).toMatchObject({ id, state: 'running' })
      await next.stop(id, 1_000)
      expect([undefined, 'Z']).toContain(readProcess(record.run.pid)?.state)
      await files.write(path, JSON.stringify({ ...record, run: { ...record.run, pid: 0, startTicks: 0 } }))
      expect((await (await it.reopen()).list())[0]).toMatchObject({ id, state: 'exited' })
    } finally {
      await it.close()
    }
  })

  it('does not touch a stranger that has the pid by now', async () => {
    const it = await subject()
    try {
      const id = await it.runtime.create(requestOf({ command: ['/bin/sh', '-c', 'sleep 60'] }))
      await it.runtime.start(id)
      const files = diskFiles()
      const path = join(it.dir, 'processes', `${id}.json`)
      const record = JSON.parse((await files.read(path)) ?? '')
      await files.write(path, JSON.stringify({ ...record, run: { ...record.run, startTicks: record.run.startTicks - 5 } }))
      const next = await it.reopen()
      expect((await next.list())[0]).toMatchObject({ state: 'exited', exitCode: null })
      await next.stop(id, 100)
      expect(process.kill(record.run.pid, 0)).toBe(true)
    } finally {
      await it.close()
    }
  })

  it.runIf(process.getuid?.() === 0)('runs probes as the user of the process, whom its environment cannot name', async () => {
    const it = await subject()
    try {
      const id = await it.runtime.create(requestOf({ command: ['sleep', '60'], workingDir: '/', user: '65534:65534' }))
      await it.runtime.start(id)
      const test = (script: string) => it.runtime.exec(id, ['/bin/sh', '-c', script], 5_000)
      expect(await test('test "$(id -u):$(id -g)" = 65534:65534')).toBe(0)
      const other = {
        ...requestOf({ command: ['sleep', '60'], workingDir: '/', environment: { RUBATO_UID: '1', RUBATO_GID: '1' } }),
      }
      const root = await it.runtime.create({ ...other, instance: 'shop/web/2/1' })
      await it.runtime.start(root)
      expect(await it.runtime.exec(root, ['/bin/sh', '-c', 'test "$(id -u):$(id -g)" = 0:0'], 5_000)).toBe(0)
    } finally {
      await it.close()
    }
  })

  it('refuses mounts, named users and an empty command, and says what cannot be started', async () => {
    const it = await subject()
    try {
      const volume = { kind: 'volume', source: 'data', target: '/data', readOnly: false } as const
      await expect(it.runtime.create(requestOf({ command: ['x'], mounts: [volume] }))).rejects.toBeInstanceOf(InputError)
      await expect(it.runtime.create(requestOf({ command: ['x'], user: 'www-data' }))).rejects.toBeInstanceOf(InputError)
      await expect(it.runtime.create(requestOf({}))).rejects.toThrow('web has no command')
      const id = await it.runtime.create(requestOf({ command: ['/no/such/program'] }))
      await expect(it.runtime.start(id)).rejects.toThrow('/no/such/program cannot be started')
      expect((await it.runtime.list())[0]?.state).toBe('created')
    } finally {
      await it.close()
    }
  })

  it('a record that was cut off is left aside and the rest is served', async () => {
    const it = await subject()
    try {
      await it.runtime.create(requestOf({ command: ['/bin/sleep', '60'] }))
      await diskFiles().write(join(it.dir, 'processes', 'p-broken.json'), '{"version":1,"id":')
      expect(await (await it.reopen()).list()).toHaveLength(1)
    } finally {
      await it.close()
    }
  })
})
