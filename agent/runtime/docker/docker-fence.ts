/** Ends containers as another process than the agent: through the engine, and by their processes when that hangs. */
import { readdirSync, readFileSync } from 'node:fs'
import Docker from 'dockerode'
import type { Clock } from '../../../shared/clock.ts'
import { RubatoError } from '../../../shared/errors.ts'
import type { FenceHands } from '../fence-hands.ts'
import { readProcess } from '../process/process-table.ts'
import { engineCall, unless } from './docker-call.ts'

/** An engine that has not said by then whether something runs is not waited for. */
const ASK_TIMEOUT_MS = 2_000

export function dockerFenceHands(options: {
  readonly socketPath: string
  readonly clock: Clock
  readonly procRoot?: string
}): FenceHands {
  const { clock } = options
  const procRoot = options.procRoot ?? '/proc'
  const docker = new Docker({ socketPath: options.socketPath })
  return {
    async runs(id) {
      try {
        const info = await engineCall(clock, (abortSignal) => docker.getContainer(id).inspect({ abortSignal }), {
          timeoutMs: ASK_TIMEOUT_MS,
        })
        return info.State.Running
      } catch (error) {
        if (error instanceof RubatoError && error.code === 'not-found') return false
        return processesOf(id, procRoot).length > 0
      }
    },
    async stop(id, graceMs) {
      const t = Math.max(graceMs > 0 ? 1 : 0, Math.round(graceMs / 1000))
      await unless(
        ['not-found', 'conflict'],
        engineCall(clock, (abortSignal) => docker.getContainer(id).stop({ t, abortSignal }), { timeoutMs: graceMs + 30_000 }),
      )
    },
    kill(id) {
      for (const { pid, startTicks } of processesOf(id, procRoot)) {
        // The number may be another's since it was found.
        if (readProcess(pid, procRoot)?.startTicks !== startTicks || !isOf(id, pid, procRoot)) continue
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It ended at this moment.
        }
      }
    },
  }
}

/** Processes in the container's control group, whose path holds its id, whatever driver made it. */
export function processesOf(id: string, procRoot: string): readonly { readonly pid: number; readonly startTicks: number }[] {
  return readdirSync(procRoot).flatMap((name) => {
    const pid = Number(name)
    if (!Number.isInteger(pid) || pid <= 1 || !isOf(id, pid, procRoot)) return []
    const info = readProcess(pid, procRoot)
    return info === null || info.state === 'Z' ? [] : [{ pid, startTicks: info.startTicks }]
  })
}

function isOf(id: string, pid: number, procRoot: string): boolean {
  try {
    return id.length >= 64 && readFileSync(`${procRoot}/${pid}/cgroup`, 'utf8').includes(id)
  } catch {
    return false
  }
}
