/** What this node offers: the host's size, or less where a cgroup or the settings say so. */
import type { Capacity } from '../../shared/model/resources.ts'
import { type ProcReader, parseCpuTicks, parseMemory } from './proc.ts'

/** Instances per node unless the settings say otherwise: a bound on what one agent looks after. */
const DEFAULT_SLOTS = 250

/** Detects capacity. `overrides` win: a declared slice of the host. `diskPath`: the file system that images and volumes fill. */
export async function detectCapacity(proc: ProcReader, overrides: Partial<Capacity> = {}, diskPath = '/'): Promise<Capacity> {
  const ticks = parseCpuTicks((await proc.read('/proc/stat')) ?? '')
  const memory = parseMemory((await proc.read('/proc/meminfo')) ?? '')
  const disk = await proc.disk(diskPath)
  const quota = await cpuQuotaMillis(proc)
  const limit = await memoryLimitBytes(proc)
  const hostMillis = (ticks?.cores ?? 1) * 1_000
  const hostBytes = memory?.totalBytes ?? 0
  return {
    cpuMillis: overrides.cpuMillis ?? Math.min(hostMillis, quota ?? hostMillis),
    memoryBytes: overrides.memoryBytes ?? Math.min(hostBytes, limit ?? hostBytes),
    diskBytes: overrides.diskBytes ?? disk?.totalBytes ?? 0,
    slots: overrides.slots ?? DEFAULT_SLOTS,
  }
}

/** CPU limit of our cgroup (v2, then v1), or null for none. */
async function cpuQuotaMillis(proc: ProcReader): Promise<number | null> {
  const max = /^(\d+) (\d+)/.exec((await proc.read('/sys/fs/cgroup/cpu.max')) ?? '')
  if (max !== null) return toMillis(Number(max[1]), Number(max[2]))
  const quota = Number((await proc.read('/sys/fs/cgroup/cpu/cpu.cfs_quota_us')) ?? '-1')
  const period = Number((await proc.read('/sys/fs/cgroup/cpu/cpu.cfs_period_us')) ?? '0')
  return toMillis(quota, period)
}

function toMillis(quotaUs: number, periodUs: number): number | null {
  return quotaUs > 0 && periodUs > 0 ? Math.round((quotaUs / periodUs) * 1_000) : null
}

async function memoryLimitBytes(proc: ProcReader): Promise<number | null> {
  for (const path of ['/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes']) {
    const text = (await proc.read(path))?.trim()
    // `max`, and v1's huge number, mean no limit.
    if (text !== undefined && /^\d{1,15}$/.test(text)) return Number(text)
  }
  return null
}
