/** The engine as all parts of the runtime see it: its client, and the calls that several of them make, each with a time limit. */
import Docker from 'dockerode'
import type { Clock } from '../../../shared/clock.ts'
import { engineCall, unless } from './docker-call.ts'

/** Making, starting and removing wait for disks. */
export const CREATE_TIMEOUT_MS = 60_000

export interface Engine {
  readonly docker: Docker
  /** One call of the client, as `engineCall` promises. */
  call<T>(
    make: (signal: AbortSignal) => Promise<T>,
    limits?: { readonly timeoutMs?: number; readonly signal?: AbortSignal },
  ): Promise<T>
  /** Throws NotFoundError when there is no such container. */
  inspect(id: string): Promise<Docker.ContainerInspectInfo>
  /** Running or not; all of them without filters. */
  listAll(filters?: Record<string, string[]>): Promise<Docker.ContainerInfo[]>
  /** Running or not; volumes without a name go with it, named ones stay. An absent one is fine. */
  remove(id: string): Promise<void>
}

export function createEngine(socketPath: string, clock: Clock): Engine {
  const docker = new Docker({ socketPath })
  const call: Engine['call'] = (make, limits = {}) => engineCall(clock, make, limits)
  return {
    docker,
    call,
    inspect: (id) => call((abortSignal) => docker.getContainer(id).inspect({ abortSignal })),
    listAll: (filters) =>
      call((abortSignal) => docker.listContainers({ all: true, ...(filters ? { filters } : {}), abortSignal })),
    async remove(id) {
      await unless(
        ['not-found'],
        call((abortSignal) => docker.getContainer(id).remove({ force: true, v: true, abortSignal }), {
          timeoutMs: CREATE_TIMEOUT_MS,
        }),
      )
    },
  }
}
