/** Reading the kernel's accounting files. Pure: text in, numbers out; what is missing counts as 0. */

/** Controller → path, from /proc/<pid>/cgroup; '' is the unified hierarchy. */
export function parseCgroupPaths(text: string): Map<string, string> {
  const paths = new Map<string, string>()
  for (const line of text.split('\n')) {
    const match = /^\d+:([^:]*):(.*)$/.exec(line)
    if (match) for (const controller of (match[1] ?? '').split(',')) paths.set(controller, match[2] ?? '')
  }
  return paths
}

/** Memory that cannot be dropped at once: use less inactive file cache, as the engine's own tools show it. */
export function memoryBytesOf(usage: string, stat: string): number {
  const inactive = field(stat, 'total_inactive_file') ?? field(stat, 'inactive_file') ?? 0
  return Math.max(0, numberOf(usage) - inactive)
}

/** CPU time in ms from version 2's cpu.stat. */
export function cpuTotalMsOf(stat: string): number {
  return (field(stat, 'usage_usec') ?? 0) / 1000
}

/** Bytes received and sent over all interfaces but loopback, from net/dev. */
export function networkOf(text: string): { rxBytes: number; txBytes: number } {
  let rxBytes = 0
  let txBytes = 0
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':')
    if (colon === -1 || line.slice(0, colon).trim() === 'lo') continue
    const columns = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
    rxBytes += numberOf(columns[0] ?? '')
    txBytes += numberOf(columns[8] ?? '')
  }
  return { rxBytes, txBytes }
}

/** Version 1: `8:0 Read 123`. */
export function sumBlockIo(text: string): { blockReadBytes: number; blockWriteBytes: number } {
  let blockReadBytes = 0
  let blockWriteBytes = 0
  for (const [, kind, bytes] of text.matchAll(/^\d+:\d+ (Read|Write) (\d+)$/gm))
    if (kind === 'Read') blockReadBytes += Number(bytes)
    else blockWriteBytes += Number(bytes)
  return { blockReadBytes, blockWriteBytes }
}

/** Version 2: `8:0 rbytes=1 wbytes=2 …`. */
export function sumIoStat(text: string): { blockReadBytes: number; blockWriteBytes: number } {
  const sum = (name: string) => {
    let total = 0
    for (const [, bytes] of text.matchAll(new RegExp(`\\b${name}=(\\d+)`, 'g'))) total += Number(bytes)
    return total
  }
  return { blockReadBytes: sum('rbytes'), blockWriteBytes: sum('wbytes') }
}

function field(text: string, name: string): number | null {
  const start = text.startsWith(`${name} `) ? 0 : text.indexOf(`\n${name} `) + 1
  if (start === 0 && !text.startsWith(`${name} `)) return null
  return numberOf(text.slice(start + name.length + 1))
}

function numberOf(text: string): number {
  const value = Number.parseInt(text, 10)
  return Number.isFinite(value) ? value : 0
}
