/**
 * Plain processes in place of containers: each in a process group of its own, detached, so that it outlives the agent. A small
 * record on disk (0600) and the kernel's start time let the next life know it again; how it ended is known only to the agent
 * that started it (exit code null otherwise).
 *
 * Not enforced: limits, read-only roots, capabilities, network isolation. Volumes are refused. A record is written before its
 * process is begun, and the process carries its id in its environment: an agent that dies between the two finds it there.
 */
import { spawn } from 'node:child_process'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { compare } from '../../../shared/compare.ts'
import { type Clock, sleep } from '../../../shared/clock.ts'
import { ConflictError, InputError, InvariantError, messageOf, NotFoundError, RetryableError } from '../../../shared/errors.ts'
import type { Files } from '../../../shared/files.ts'
import { randomIds } from '../../../shared/ids.ts'
import type { Logger } from '../../../shared/logger.ts'
import { containerName } from '../../../shared/model/identity.ts'
import type { Random } from '../../../shared/random.ts'
import type { Runtime, RuntimeEvent } from '../runtime.ts'
import { portsFor } from './free-ports.ts'
import { followLogs, openLogs, removeLogs, rotateLogs } from './process-logs.ts'
import { environmentOf, exitCodeOf, ID_VARIABLE, observedOf, recordOf, userOf } from './process-mapping.ts'
import { type ProcessRecord, parseRecord } from './process-record.ts'
import { findByEnvironment, type ProcessInfo, readBootId, readGroups, readIo, readProcess } from './process-table.ts'

export interface ProcessRuntimeOptions {
  /** Records, logs and work directories live below. One agent per directory. */
  readonly stateDir: string
  readonly clusterId: string
  readonly nodeId: string
  /** Where processes are told to listen (`HOST`), and where gateway and probes reach them. */
  readonly bindAddress: string
  readonly clock: Clock
  readonly random: Random
  readonly files: Files
  readonly logger: Logger
  /** What every process gets beside its own environment. Default: this process's PATH, LANG and TZ, and nothing else of it. */
  readonly baseEnvironment?: Readonly<Record<string, string>>
}

const POLL_MS = 50
/** How soon the end of a process is seen that an earlier life of the agent began. */
const ADOPTED_POLL_MS = 1_000
/** Reads the records of this cluster's node and knows what of it still runs. */
export async function createProcessRuntime(options: ProcessRuntimeOptions): Promise<Runtime> {
  const { clock, files, logger, clusterId, nodeId, stateDir, bindAddress, random } = options
  const ids = randomIds(random)
  const recordDir = join(stateDir, 'processes')
  const bootId = readBootId()
  const records = new Map<string, ProcessRecord>()
  /** Runs that this agent began and whose end it will be told. */
  const children = new Map<string, Promise<void>>()
  const listeners = new Set<(event: RuntimeEvent) => void>()
  const base = options.baseEnvironment ?? pick(process.env, ['PATH', 'LANG', 'TZ'])

  const pathOf = (id: string) => join(recordDir, `${id}.json`)
  const workDirOf = (id: string) => join(stateDir, 'work', id)
  const logsOf = (id: string) => join(stateDir, 'logs', id)
  const save = async (record: ProcessRecord) => {
    records.set(record.id, record)
    await files.write(pathOf(record.id), JSON.stringify(record))
  }
  const tell = (instance: string) => {
    for (const listener of listeners) listener({ kind: 'changed', instance })
  }
  const find = (id: string): ProcessRecord => {
    const record = records.get(id)
    if (record === undefined) throw new NotFoundError(`no process ${id}`)
    return record
  }
  /** The process of the record's run while it lives. */
  const alive = ({ run }: ProcessRecord): ProcessInfo | null => {
    if (run === null || run.ended || run.bootId !== bootId) return null
    const info = readProcess(run.pid)
    return info !== null && info.startTicks === run.startTicks && info.state !== 'Z' && info.state !== 'X' ? info : null
  }
  const markEnded = async (id: string, exitCode: number | null) => {
    const record = records.get(id)
    if (!record?.run || record.run.ended) return
    await save({ ...record, run: { ...record.run, ended: true, exitCode, exitedAtMs: clock.now() } })
    tell(record.instance)
  }
  /** Notices runs of earlier lives that are over. */
  const settle = async () => {
    for (const record of [...records.values()])
      if (record.run && !record.run.ended && !children.has(record.id) && alive(record) === null) {
        killGroup(record.run.pid, 'SIGKILL')
        await markEnded(record.id, null)
      }
  }
  /** Signals the group, unless its number belongs to a stranger by now. */
  const killGroup = (pid: number, signal: NodeJS.Signals) => {
    if (pid <= 1) return
    const leader = readProcess(pid)
    const record = [...records.values()].find((item) => item.run?.pid === pid)
    if (record?.run?.bootId !== bootId) return
    if (leader !== null && leader.startTicks !== record.run.startTicks) return
    try {
      process.kill(-pid, signal)
    } catch {
      // The group is empty.
    }
  }

  for (const name of await files.list(recordDir)) {
    const record = parseRecord((await files.read(join(recordDir, name))) ?? '')
    if (record === null) {
      logger.warn('a process record cannot be read and is left aside', { file: name })
      continue
    }
    if (record.cluster !== clusterId || record.node !== nodeId) continue
    records.set(record.id, record)
    if (record.run !== null && !record.run.ended && record.run.pid === 0) {
      // The last agent died while it began this one: it runs, or it never did.
      const info = record.run.bootId === bootId ? findByEnvironment(`${ID_VARIABLE}=${record.id}`) : null
      await save({
        ...record,
        run: info
          ? { ...record.run, pid: info.pid, startTicks: info.startTicks }
          : { ...record.run, ended: true, exitedAtMs: clock.now() },
      })
    }
  }
  await settle()

  const takenPorts = (except: string) =>
    new Set([...records.values()].flatMap((record) => (record.id === except ? [] : Object.values(record.portMap))))

  const begin = async (id: string) => {
    let record = find(id)
    if (record.run && !record.run.ended) {
      if (children.has(id) || alive(record)) return
      await settle()
    }
    record = find(id)
    record = { ...record, portMap: await portsFor(record.portMap, bindAddress, takenPorts(id), random) }
    const startedAtMs = clock.now()
    await save({ ...record, run: { pid: 0, startTicks: 0, bootId, startedAtMs, exitedAtMs: null, exitCode: null, ended: false } })
    const [file = '', ...args] = record.argv
    const output = openLogs(logsOf(id))
    const ended = Promise.withResolvers<void>()
    try {
      const child = spawn(file, args, {
        cwd: record.workingDir,
        env: environmentOf(record, base, bindAddress),
        detached: true,
        stdio: ['ignore', output.stdout, output.stderr],
        ...userOf(record),
      })
      await new Promise<void>((resolve, reject) => {
        child.once('spawn', resolve)
        child.once('error', reject)
      })
      const { pid } = child
      if (pid === undefined) throw new InvariantError('a spawned process has no pid')
      children.set(id, ended.promise)
      let exit: { code: number | null; signal: string | null } | null = null
      let known = false
      const onEnd = () => {
        if (exit === null || !known) return
        const { code, signal } = exit
        // What it left in its group dies with it, as in a container.
        killGroup(pid, 'SIGKILL')
        markEnded(id, exitCodeOf(code, signal))
          .catch((error) => logger.error('the end of a process could not be recorded', { id, error: messageOf(error) }))
          .finally(() => {
            children.delete(id)
            ended.resolve()
          })
      }
      child.once('exit', (code, signal) => {
        exit = { code, signal }
        onEnd()
      })
      child.unref()
      const info = readProcess(pid)
      const run = { pid, startTicks: info?.startTicks ?? 0, bootId, startedAtMs, exitedAtMs: null, exitCode: null, ended: false }
      await save({ ...record, run })
      known = true
      onEnd()
      tell(record.instance)
    } catch (error) {
      if (children.has(id)) throw error
      await save({ ...record, run: record.run })
      throw new InputError(`${file} cannot be started: ${messageOf(error)}`)
    } finally {
      output.close()
    }
  }

  const end = async (id: string, graceMs: number) => {
    const record = records.get(id)
    const run = record?.run
    if (!record || !run || run.ended) return
    const isOver = () => records.get(id)?.run?.ended === true || (!children.has(id) && alive(record) === null)
    const waitUntilOver = async (limitMs: number) => {
      const untilMs = clock.monotonicMs() + limitMs
      while (!isOver() && clock.monotonicMs() < untilMs) await sleep(clock, POLL_MS)
    }
    if (graceMs > 0) {
      killGroup(run.pid, record.stopSignal as NodeJS.Signals)
      await waitUntilOver(graceMs)
    }
    if (!isOver()) killGroup(run.pid, 'SIGKILL')
    await waitUntilOver(10_000)
    if (!isOver()) throw new RetryableError(`process ${run.pid} does not end even when killed`)
    await children.get(id)
    await settle()
  }

  const discard = async (id: string) => {
    await end(id, 0)
    removeLogs(logsOf(id))
    rmSync(workDirOf(id), { recursive: true, force: true })
    // Last, so that a death on the way leaves something to repeat.
    await files.remove(pathOf(id))
    records.delete(id)
  }

  return {
    name: 'process',
    bridgeAddress: bindAddress,
    async list() {
      await settle()
      return [...records.values()].sort((a, b) => compare(a.id, b.id)).map((record) => observedOf(record, bindAddress))
    },
    hasImage: async () => true,
    pull: async () => {},
    async create(request) {
      const name = containerName(request.instance, request.sharesNetworkOf === null ? undefined : request.spec.name)
      const there = [...records.values()].find((record) => record.name === name)
      if (there?.specHash === request.specHash) return there.id
      if (there) await discard(there.id)
      const id = ids.next('p')
      const workDir = workDirOf(id)
      const main = request.sharesNetworkOf === null ? undefined : records.get(request.sharesNetworkOf)
      const record = recordOf(request, { id, name, clusterId, nodeId, workDir, main })
      mkdirSync(workDir, { recursive: true, mode: 0o755 })
      for (const file of request.spec.files) {
        const path = join(workDir, posix.resolve('/', file.target))
        mkdirSync(dirname(path), { recursive: true })
        writeFileSync(path, Buffer.from(file.contentBase64, 'base64'), { mode: file.mode })
      }
      await save(record)
      tell(request.instance)
      return id
    },
    start: begin,
    stop: (id, graceMs) => end(id, graceMs),
    async remove(id) {
      const record = records.get(id)
      if (!record) return
      await discard(id)
      tell(record.instance)
    },
    async stats(wanted) {
      const groups = readGroups()
      return wanted.flatMap((id) => {
        const record = records.get(id)
        if (!record?.run || alive(record) === null) return []
        const members = groups.get(record.run.pid) ?? []
        const sum = (of: (info: ProcessInfo) => number) => members.reduce((total, info) => total + of(info), 0)
        const io = members.map((info) => readIo(info.pid))
        return [
          {
            id,
            cpuTotalMs: sum((info) => info.cpuTotalMs),
            memoryBytes: sum((info) => info.memoryBytes),
            rxBytes: 0,
            txBytes: 0,
            blockReadBytes: io.reduce((total, item) => total + item.blockReadBytes, 0),
            blockWriteBytes: io.reduce((total, item) => total + item.blockWriteBytes, 0),
          },
        ]
      })
    },
    async exec(id, argv, timeoutMs) {
      const record = find(id)
      if (alive(record) === null) throw new ConflictError(`process ${id} does not run`)
      const [file = '', ...args] = argv
      const child = spawn(file, args, {
        cwd: record.workingDir,
        env: environmentOf(record, base, bindAddress),
        detached: true,
        stdio: 'ignore',
        ...userOf(record),
      })
      let late = false
      const timer = clock.setTimer(timeoutMs, () => {
        late = true
        if (child.pid !== undefined)
          try {
            process.kill(-child.pid, 'SIGKILL')
          } catch {
            // It ended at this moment.
          }
      })
      try {
        return await new Promise<number>((resolve, reject) => {
          child.once('error', (error) => reject(new InputError(`${file} cannot be run: ${error.message}`)))
          child.once('exit', (code, signal) =>
            late
              ? reject(new RetryableError(`the command did not end within ${timeoutMs} ms`))
              : resolve(exitCodeOf(code, signal)),
          )
        })
      } finally {
        timer.cancel()
      }
    },
    logs(id, logOptions, signal) {
      const record = find(id)
      return followLogs(logsOf(id), logOptions, clock, signal, () => {
        const run = records.get(record.id)?.run
        return run !== undefined && run !== null && !run.ended
      })
    },
    async *events(signal) {
      const queue: RuntimeEvent[] = []
      let wake = () => {}
      const listener = (event: RuntimeEvent) => {
        queue.push(event)
        wake()
      }
      listeners.add(listener)
      const onAbort = () => wake()
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        while (!signal.aborted) {
          const event = queue.shift()
          if (event) {
            yield event
            continue
          }
          const waiting = Promise.withResolvers<void>()
          wake = waiting.resolve
          const timer = clock.setTimer(ADOPTED_POLL_MS, waiting.resolve)
          await waiting.promise
          timer.cancel()
          if (signal.aborted) break
          await settle().catch((error) => logger.warn('the state of processes could not be saved', { error: messageOf(error) }))
          for (const record of records.values()) if (record.run && !record.run.ended) rotateLogs(logsOf(record.id))
        }
      } finally {
        listeners.delete(listener)
        signal.removeEventListener('abort', onAbort)
      }
    },
    foreign: async () => [],
  }
}

function pick(from: Readonly<Record<string, string | undefined>>, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.flatMap((name) => (from[name] === undefined ? [] : [[name, from[name]]])))
}
