/** The watchdog as a real process over real processes: none of it is timed tightly, the machine may be busy. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { sleep, systemClock } from '../../shared/clock.ts'
import { diskFiles } from '../../shared/disk-files.ts'
import { silentLogger } from '../../shared/logger.ts'
import { systemRandom } from '../../shared/random.ts'
import { aContainerSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { processesOf } from '../runtime/docker/docker-fence.ts'
import { createProcessRuntime } from '../runtime/process/process-runtime.ts'
import { readBootId, readProcess } from '../runtime/process/process-table.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { encodeLease, type LeasedInstance } from './lease.ts'
import { leaseFile } from './lease-file.ts'
import { claimant, fenceDirOf, hostSteadyClock, leasePathOf, watchdogProcess } from './watchdog-process.ts'

const LOCK = 'lock/web/1/1'

describe('the steady clock of a host', () => {
  it('row 24: counts the time that it was suspended; what it cannot tell changes nothing', () => {
    const monotonicMs = () => Number(process.hrtime.bigint() / 1_000n) / 1_000
    let uptimeMs: () => number | null = () => monotonicMs() - 9
    const steadyMs = hostSteadyClock(() => uptimeMs())
    const aheadMs = () => Math.round((steadyMs() - monotonicMs()) / 100_000) * 100_000 + 0
    expect(aheadMs()).toBe(0)
    uptimeMs = () => monotonicMs() + 600_000
    expect(aheadMs()).toBe(600_000)
    // What is told in hundredths of a second makes the clock neither jump nor go back.
    const before = steadyMs()
    uptimeMs = () => monotonicMs() + 599_990
    expect(steadyMs()).toBeGreaterThanOrEqual(before)
    uptimeMs = () => null
    expect(aheadMs()).toBe(600_000)
    uptimeMs = () => 5_000
    expect(aheadMs()).toBe(600_000)
    expect(Math.abs(hostSteadyClock(() => 5_000)() - monotonicMs())).toBeLessThan(60_000)
  })

  it('is the same for all that read it', () => {
    const [one, other] = [hostSteadyClock(), hostSteadyClock()]
    const before = one()
    expect(other()).toBeGreaterThanOrEqual(before - 100)
  })
})

describe('the watchdog of a node', { timeout: 120_000 }, () => {
  const clock = systemClock()
  const hostSteadyMs = hostSteadyClock()
  let stateDir: string
  let runtime: Runtime
  beforeEach(async () => {
    stateDir = mkdtempSync(join(tmpdir(), 'rubato-fence-'))
    runtime = await createProcessRuntime({
      stateDir,
      clusterId: 'c',
      nodeId: 'n',
      bindAddress: '127.0.0.1',
      clock,
      random: systemRandom(),
      files: diskFiles(),
      logger: silentLogger(),
    })
  })
  afterEach(async () => {
    for (const { id } of await runtime.list()) await runtime.remove(id)
    leaseFile(leasePathOf(stateDir)).remove()
    await until(() => claimant(stateDir) === null, 'the watchdog to end')
    rmSync(stateDir, { recursive: true })
  })

  const until = async (condition: () => boolean | Promise<boolean>, what: string) => {
    const endMs = hostSteadyMs() + 60_000
    while (!(await condition())) {
      if (hostSteadyMs() > endMs) throw new Error(`waited 60 s for ${what}: ${logOf()}`)
      await sleep(clock, 50)
    }
  }
  const logOf = () => {
    try {
      return readFileSync(join(fenceDirOf(stateDir), 'log'), 'utf8')
    } catch {
      return ''
    }
  }
  const watchdog = () => watchdogProcess({ stateDir, engine: 'process', dockerSocket: '', clock })
  const begin = async (command: readonly string[]): Promise<string> => {
    const id = await runtime.create({
      instance: LOCK,
      specHash: 'h',
      spec: aContainerSpec({ entrypoint: [...command] }),
      unit: aUnitSpec({ runtime: 'process' }),
      ports: [],
      sharesNetworkOf: null,
      extraEnvironment: {},
      extraHosts: [],
    })
    await runtime.start(id)
    return id
  }
  const pidOf = (id: string): number =>
    (JSON.parse(readFileSync(join(stateDir, 'processes', `${id}.json`), 'utf8')) as { run: { pid: number } }).run.pid
  const runs = (pid: number) => !['Z', 'X', undefined].includes(readProcess(pid)?.state)
  const grant = (ids: readonly string[], contactMs: number, fields: Partial<LeasedInstance> = {}) =>
    leaseFile(leasePathOf(stateDir)).write(
      encodeLease({
        bootId: readBootId(),
        startedMs: contactMs,
        contactMs,
        instances: [{ instance: LOCK, runtime: 'process', afterMs: 3_000, stopGraceMs: 1_000, ids: [...ids], ...fields }],
      }),
    )

  it('row 24: ends a process when its lease has run out and not before, though nobody else lives who would', async () => {
    const id = await begin(['sleep', '1000'])
    const pid = pidOf(id)
    grant([id], hostSteadyMs(), { afterMs: 60_000 })
    await watchdog().start()
    const contactMs = hostSteadyMs()
    grant([id], contactMs, { afterMs: 5_000 })
    await sleep(clock, 2_000)
    // Contact: it may run for longer.
    grant([id], contactMs + 2_000, { afterMs: 5_000 })
    await until(() => !runs(pid), 'the process to end')
    expect(hostSteadyMs()).toBeGreaterThanOrEqual(contactMs + 7_000)
  })

  it('row 24: kills one that takes no notice of its stop signal, with its whole group, after its grace', async () => {
    const id = await begin(['sh', '-c', 'trap "" TERM; sleep 1000 & echo $! > child; while :; do sleep 1; done'])
    const pid = pidOf(id)
    await until(() => readProcess(pid) !== null, 'its start')
    const contactMs = hostSteadyMs()
    grant([id], contactMs)
    await watchdog().start()
    await until(() => !runs(pid), 'the process to be killed')
    expect(hostSteadyMs()).toBeGreaterThanOrEqual(contactMs + 4_000)
  })

  it('leaves a process alone that has taken the number of one of ours', async () => {
    const id = await begin(['sleep', '1000'])
    const pid = pidOf(id)
    const path = join(stateDir, 'processes', `${id}.json`)
    const record = JSON.parse(readFileSync(path, 'utf8')) as { run: { startTicks: number } }
    writeFileSync(path, JSON.stringify({ ...record, run: { ...record.run, startTicks: record.run.startTicks - 1 } }))
    grant([id], hostSteadyMs() - 10_000)
    await watchdog().start()
    await sleep(clock, 3_000)
    expect(runs(pid)).toBe(true)
    process.kill(pid, 'SIGKILL')
  })

  it('one per node: a new one takes over; signals do not end it; it ends with the lease', async () => {
    grant([], hostSteadyMs() + 1e9)
    await watchdog().start()
    const first = claimant(stateDir)?.pid ?? 0
    process.kill(first, 'SIGTERM')
    process.kill(first, 'SIGINT')
    await sleep(clock, 500)
    expect(claimant(stateDir)?.pid).toBe(first)
    await watchdog().start()
    const second = claimant(stateDir)?.pid ?? 0
    expect(second).not.toBe(first)
    await until(() => !runs(first), 'the first to end')
    leaseFile(leasePathOf(stateDir)).remove()
    await until(() => !runs(second), 'the second to end')
    expect(watchdog().isAlive()).toBe(false)
  })

  it('says so when it cannot be started', async () => {
    const broken = watchdogProcess({
      stateDir,
      engine: 'process',
      dockerSocket: '',
      clock,
      command: [process.execPath, join(stateDir, 'nothing.ts')],
    })
    await expect(broken.start()).rejects.toThrow('the watchdog does not start')
  })

  it('finds the processes of a container by its control group, and those of no other', () => {
    const id = 'f'.repeat(64)
    const procRoot = mkdtempSync(join(tmpdir(), 'rubato-proc-'))
    const put = (pid: number, cgroup: string, state = 'S') => {
      const directory = join(procRoot, String(pid))
      return Promise.all([
        diskFiles().write(join(directory, 'cgroup'), cgroup),
        diskFiles().write(join(directory, 'stat'), `${pid} (x) ${state} ${Array.from({ length: 40 }, (_, i) => i).join(' ')}`),
      ])
    }
    return Promise.all([
      put(10, `0::/system.slice/docker-${id}.scope\n`),
      put(11, `5:cpu:/docker/${id}\n0::/\n`),
      put(12, `0::/system.slice/docker-${'e'.repeat(64)}.scope\n`),
      put(13, `0::/system.slice/docker-${id}.scope\n`, 'Z'),
    ]).then(() => {
      expect(processesOf(id, procRoot).map(({ pid }) => pid)).toEqual([10, 11])
      expect(processesOf('', procRoot)).toEqual([])
      rmSync(procRoot, { recursive: true })
    })
  })
})
