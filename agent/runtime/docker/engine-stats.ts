/** Use of one container as the engine counts it: where the kernel's files cannot be read (cgroup-stats.ts). */
import type { ContainerUse } from '../runtime.ts'
import { unless } from './docker-call.ts'
import type { Engine } from './engine.ts'

/** null when it does not run, or the engine cannot say now. */
export async function statsOfEngine(engine: Engine, id: string): Promise<ContainerUse | null> {
  const stats = await unless(
    ['not-found', 'conflict', 'retryable'],
    engine.call((abortSignal) =>
      engine.docker.getContainer(id).stats({ stream: false, 'one-shot': true, abortSignal } as { stream: false }),
    ),
  )
  if (!stats?.cpu_stats?.cpu_usage) return null
  const networks = Object.values(stats.networks ?? {})
  const io = stats.blkio_stats?.io_service_bytes_recursive ?? []
  const ioOf = (kind: string) =>
    io.filter((entry) => entry.op.toLowerCase() === kind).reduce((sum, entry) => sum + entry.value, 0)
  const memory = stats.memory_stats as { usage?: number; stats?: Record<string, number> }
  return {
    id,
    cpuTotalMs: stats.cpu_stats.cpu_usage.total_usage / 1e6,
    memoryBytes: Math.max(0, (memory.usage ?? 0) - (memory.stats?.total_inactive_file ?? memory.stats?.inactive_file ?? 0)),
    rxBytes: networks.reduce((sum, item) => sum + item.rx_bytes, 0),
    txBytes: networks.reduce((sum, item) => sum + item.tx_bytes, 0),
    blockReadBytes: ioOf('read'),
    blockWriteBytes: ioOf('write'),
  }
}
