/** What the kernel says about the host, out of /proc and cgroups: two small reads a second cost less than any library. */
import { readFile, statfs } from 'node:fs/promises'

export interface ProcReader {
  /** Text of a file, or null when it cannot be read. */
  read(path: string): Promise<string | null>
  /** Size and use of the file system at `path`, or null. */
  disk(path: string): Promise<{ readonly totalBytes: number; readonly usedBytes: number } | null>
}

export function systemProc(): ProcReader {
  return {
    async read(path) {
      try {
        return await readFile(path, 'utf8')
      } catch {
        return null // not on this kernel, or not for us: the caller knows what to do without
      }
    },
    async disk(path) {
      try {
        const { blocks, bfree, bsize } = await statfs(path)
        return { totalBytes: blocks * bsize, usedBytes: (blocks - bfree) * bsize }
      } catch {
        return null
      }
    },
  }
}

/** Busy and total CPU time of all cores in clock ticks (/proc/stat), or null. */
export function parseCpuTicks(stat: string): { readonly busy: number; readonly total: number; readonly cores: number } | null {
  const line = /^cpu +([\d ]+)$/m.exec(stat)
  if (line === null) return null
  // user nice system idle iowait irq softirq steal; guest time is in user already.
  const ticks = (line[1] as string).trim().split(/ +/).map(Number).slice(0, 8)
  const total = ticks.reduce((sum, value) => sum + value, 0)
  const idle = (ticks[3] ?? 0) + (ticks[4] ?? 0)
  return { busy: total - idle, total, cores: (stat.match(/^cpu\d+ /gm) ?? []).length || 1 }
}

/** Total and used bytes (/proc/meminfo; what can be reclaimed is not used), or null. */
export function parseMemory(meminfo: string): { readonly totalBytes: number; readonly usedBytes: number } | null {
  const kib = (name: string): number | null => {
    const match = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(meminfo)
    return match === null ? null : Number(match[1])
  }
  const total = kib('MemTotal')
  const available = kib('MemAvailable') ?? kib('MemFree')
  if (total === null || available === null) return null
  return { totalBytes: total * 1024, usedBytes: Math.max(0, total - available) * 1024 }
}

/** Bytes received and sent over all real interfaces (/proc/net/dev): loopback, bridges and veths would count traffic twice. */
export function parseNetwork(netDev: string): { readonly rxBytes: number; readonly txBytes: number } {
  let rxBytes = 0
  let txBytes = 0
  for (const line of netDev.split('\n')) {
    const match = /^\s*([^:\s]+):\s*(.*)$/.exec(line)
    if (match === null || /^(?:lo|veth.*|br-.*|docker.*|rubato.*|virbr.*|tap.*|tun.*)$/.test(match[1] as string)) continue
    const fields = (match[2] as string).split(/\s+/).map(Number)
    rxBytes += fields[0] ?? 0
    txBytes += fields[8] ?? 0
  }
  return { rxBytes, txBytes }
}
