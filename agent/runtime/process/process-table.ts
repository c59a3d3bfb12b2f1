/** Processes as the kernel shows them: who they are (a pid alone is used again one day), their groups, what they use. */
import { readdirSync, readFileSync } from 'node:fs'

export interface ProcessInfo {
  readonly pid: number
  readonly group: number
  /** Ticks since boot at its start: with pid and boot id unique for ever. */
  readonly startTicks: number
  /** Z: it ended and nobody has looked yet. */
  readonly state: string
  readonly cpuTotalMs: number
  readonly memoryBytes: number
}

/** Ticks of /proc per second on every Linux that we know. */
const TICKS_PER_S = 100
const PAGE_BYTES = 4096

/** null when there is no such process. */
export function readProcess(pid: number, procRoot = '/proc'): ProcessInfo | null {
  let text: string
  try {
    text = readFileSync(`${procRoot}/${pid}/stat`, 'utf8')
  } catch {
    return null
  }
  return parseStat(text)
}

/** One line of /proc/<pid>/stat. The name in parentheses may hold anything, parentheses too. */
function parseStat(text: string): ProcessInfo | null {
  const open = text.indexOf('(')
  const close = text.lastIndexOf(')')
  if (open === -1 || close === -1) return null
  const fields = text.slice(close + 2).split(' ')
  const number = (index: number) => Number(fields[index] ?? 0)
  return {
    pid: Number(text.slice(0, open)),
    state: fields[0] ?? '?',
    group: number(2),
    // Its own and that of children it has waited for, so that the sum does not fall when they end.
    cpuTotalMs: ((number(11) + number(12) + number(13) + number(14)) * 1000) / TICKS_PER_S,
    startTicks: number(19),
    memoryBytes: number(21) * PAGE_BYTES,
  }
}

/** Every process by its group. */
export function readGroups(procRoot = '/proc'): Map<number, ProcessInfo[]> {
  const groups = new Map<number, ProcessInfo[]>()
  for (const name of readdirSync(procRoot)) {
    if (!/^\d+$/.test(name)) continue
    const info = readProcess(Number(name), procRoot)
    if (info === null) continue
    const group = groups.get(info.group)
    if (group) group.push(info)
    else groups.set(info.group, [info])
  }
  return groups
}

/** The group leader that carries this `NAME=value` in its environment. */
export function findByEnvironment(entry: string): ProcessInfo | null {
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      if (!readFileSync(`/proc/${name}/environ`, 'utf8').split('\0').includes(entry)) continue
    } catch {
      continue
    }
    const info = readProcess(Number(name))
    if (info !== null && info.group === info.pid && info.state !== 'Z') return info
  }
  return null
}

/** Different after each boot of the machine; '' where the kernel has none. */
export function readBootId(procRoot = '/proc'): string {
  try {
    return readFileSync(`${procRoot}/sys/kernel/random/boot_id`, 'utf8').trim()
  } catch {
    return ''
  }
}

/** Read and written bytes of a process; zeros where that is not ours to see. */
export function readIo(pid: number, procRoot = '/proc'): { blockReadBytes: number; blockWriteBytes: number } {
  try {
    const text = readFileSync(`${procRoot}/${pid}/io`, 'utf8')
    const of = (name: string) => Number(new RegExp(`^${name}: (\\d+)`, 'm').exec(text)?.[1] ?? 0)
    return { blockReadBytes: of('read_bytes'), blockWriteBytes: of('write_bytes') }
  } catch {
    return { blockReadBytes: 0, blockWriteBytes: 0 }
  }
}
