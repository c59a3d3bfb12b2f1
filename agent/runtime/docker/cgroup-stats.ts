/**
 * Use of containers read from the kernel: a handful of small files each, two orders of magnitude cheaper than asking the
 * engine. Reads are synchronous on purpose: these files never wait for a disk, and a thread-pool round trip costs ten times more.
 */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { join } from 'node:path'
import type { ContainerUse } from '../runtime.ts'
import { cpuTotalMsOf, memoryBytesOf, networkOf, parseCgroupPaths, sumBlockIo, sumIoStat } from './plan-cgroup.ts'

export interface CgroupReader {
  /** Use of the container whose first process is `pid`; null when it is gone or cannot be read here. */
  read(id: string, pid: number, ownNetwork: boolean): ContainerUse | null
}

interface Mount {
  readonly point: string
  readonly root: string
}

/** Reads through the hierarchies mounted here, of version 1 or 2. `procRoot` is for tests. */
export function createCgroupReader(procRoot = '/proc'): CgroupReader {
  const mounts = readMounts(procRoot)
  const buffer = Buffer.alloc(64 * 1024)
  const paths = new Map<string, { readonly pid: number; readonly of: ReadonlyMap<string, string> }>()

  const text = (path: string): string => {
    const fd = openSync(path, 'r')
    try {
      return buffer.toString('utf8', 0, readSync(fd, buffer, 0, buffer.length, 0))
    } finally {
      closeSync(fd)
    }
  }
  const optional = (path: string): string => {
    try {
      return text(path)
    } catch {
      return ''
    }
  }
  const directoryOf = (controller: string, path: string): string | null => {
    const mount = mounts.get(controller)
    if (!mount) return null
    const below = mount.root !== '/' && path.startsWith(mount.root) ? path.slice(mount.root.length) : path
    return join(mount.point, below)
  }

  return {
    read(id, pid, ownNetwork) {
      try {
        let known = paths.get(id)
        if (known?.pid !== pid) {
          known = { pid, of: parseCgroupPaths(text(`${procRoot}/${pid}/cgroup`)) }
          // A process id is used again one day: the group's name must be this container's.
          if (![...known.of.values()].some((path) => path.includes(id))) return null
          paths.set(id, known)
          if (paths.size > 4096) paths.clear()
        }
        const network = ownNetwork ? networkOf(text(`${procRoot}/${pid}/net/dev`)) : { rxBytes: 0, txBytes: 0 }
        const unified = known.of.get('')
        const cpuPath = known.of.get('cpuacct')
        const memoryPath = known.of.get('memory')
        if (cpuPath !== undefined && memoryPath !== undefined) {
          const cpu = directoryOf('cpuacct', cpuPath)
          const memory = directoryOf('memory', memoryPath)
          if (cpu === null || memory === null) return null
          const blockPath = known.of.get('blkio')
          const block = blockPath === undefined ? null : directoryOf('blkio', blockPath)
          return {
            id,
            cpuTotalMs: Number(text(join(cpu, 'cpuacct.usage'))) / 1e6,
            memoryBytes: memoryBytesOf(text(join(memory, 'memory.usage_in_bytes')), text(join(memory, 'memory.stat'))),
            ...network,
            ...sumBlockIo(block === null ? '' : optional(join(block, 'blkio.throttle.io_service_bytes'))),
          }
        }
        const directory = unified === undefined ? null : directoryOf('', unified)
        if (directory === null) return null
        return {
          id,
          cpuTotalMs: cpuTotalMsOf(text(join(directory, 'cpu.stat'))),
          memoryBytes: memoryBytesOf(text(join(directory, 'memory.current')), text(join(directory, 'memory.stat'))),
          ...network,
          ...sumIoStat(optional(join(directory, 'io.stat'))),
        }
      } catch {
        // Gone between two reads, or not readable here: the caller has another way.
        paths.delete(id)
        return null
      }
    },
  }
}

/** Controllers and where they are mounted; '' is version 2. */
function readMounts(procRoot: string): ReadonlyMap<string, Mount> {
  const found = new Map<string, Mount>()
  let lines: string[]
  try {
    lines = readFileSync(`${procRoot}/self/mountinfo`, 'utf8').split('\n')
  } catch {
    return found
  }
  for (const line of lines) {
    const [before, after] = line.split(' - ')
    const fields = before?.split(' ') ?? []
    const [kind, , options] = after?.split(' ') ?? []
    const root = fields[3]
    const point = fields[4]
    if (root === undefined || point === undefined) continue
    if (kind === 'cgroup2') found.set('', { point, root })
    if (kind === 'cgroup')
      for (const option of options?.split(',') ?? []) if (!found.has(option)) found.set(option, { point, root })
  }
  return found
}
