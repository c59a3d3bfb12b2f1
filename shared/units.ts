/** Parsing and printing of sizes, durations and CPU shares as Compose writes them. Pure. */

const SIZE = /^(\d+(?:\.\d+)?)\s*(b|k|kb|kib|m|mb|mib|g|gb|gib|t|tb|tib)?$/i
const SIZE_FACTOR: Readonly<Record<string, number>> = { b: 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 }

/** Bytes of a Compose byte value ("128M", "1gb", 1024; all units are binary), or null when it is none. */
export function parseBytes(value: string | number): number | null {
  if (typeof value === 'number') return Number.isInteger(value) && value >= 0 ? value : null
  const match = SIZE.exec(value.trim())
  if (!match) return null
  const factor = SIZE_FACTOR[(match[2] ?? 'b').toLowerCase().charAt(0)] ?? 1
  const bytes = Math.round(Number(match[1]) * factor)
  return Number.isSafeInteger(bytes) ? bytes : null
}

const DURATION_PART = /(\d+(?:\.\d+)?)(us|µs|ms|s|m|h|d)/gy
const DURATION_MS: Readonly<Record<string, number>> = {
  us: 0.001,
  µs: 0.001,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
}

/** Milliseconds of a Compose duration ("1m30s", "500ms", "2h"), or null when it is none. A bare number is no duration. */
export function parseDurationMs(value: string): number | null {
  const text = value.trim()
  if (text === '') return null
  if (text === '0') return 0
  let total = 0
  DURATION_PART.lastIndex = 0
  while (DURATION_PART.lastIndex < text.length) {
    const match = DURATION_PART.exec(text)
    if (!match) return null
    total += Number(match[1]) * (DURATION_MS[match[2] ?? ''] ?? 0)
  }
  return Math.round(total)
}

/** Thousandths of a CPU of a Compose CPU value ("0.25", 2), or null when it is none. */
export function parseCpuMillis(value: string | number): number | null {
  const cpus = typeof value === 'number' ? value : /^\d+(\.\d+)?$/.test(value.trim()) ? Number(value) : Number.NaN
  return Number.isFinite(cpus) && cpus >= 0 ? Math.round(cpus * 1000) : null
}

/** "1.5 GiB", "128 MiB", "0 B": for tables. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit += 1
  }
  return `${value >= 10 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

/** "850ms", "12s", "3m10s", "2h5m", "4d1h": at most two units, for tables. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)}ms`
  const parts: string[] = []
  let rest = Math.floor(ms / 1000)
  for (const [unit, seconds] of [
    ['d', 86400],
    ['h', 3600],
    ['m', 60],
    ['s', 1],
  ] as const) {
    const count = Math.floor(rest / seconds)
    if (count > 0) parts.push(`${count}${unit}`)
    rest -= count * seconds
  }
  return parts.slice(0, 2).join('')
}
