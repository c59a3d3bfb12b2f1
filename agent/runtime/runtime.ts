/**
 * Contract of what runs containers (design §4). Drivers: `docker`, `process`, and a fake for tests; all pass
 * test/contracts/runtime-contract.ts. Every method may be repeated: starting what runs and removing what is gone succeed.
 */
import type { InstanceId } from '../../shared/model/identity.ts'
import type { ContainerSpec, UnitPort, UnitSpec } from '../../shared/model/unit.ts'

/** One container (or process) of a unit, as the runtime sees it now. Found by our labels, whoever started this agent. */
export interface ObservedContainer {
  /** The runtime's id; with `startedAtMs` it is unique for ever. */
  readonly id: string
  readonly instance: InstanceId
  /** Name of the container within the unit. */
  readonly container: string
  readonly specHash: string
  readonly state: 'created' | 'running' | 'exited' | 'dead'
  readonly startedAtMs: number | null
  readonly exitedAtMs: number | null
  readonly exitCode: number | null
  readonly oomKilled: boolean
  /** Address at which this node's gateway and probes reach it; null while it does not run. */
  readonly address: string | null
  /** Where each container port really listens (the process runtime moves them; docker does not). */
  readonly portMap: Readonly<Record<number, number>>
}

export interface ContainerUse {
  readonly id: string
  /** Total CPU time in ms since the start. */
  readonly cpuTotalMs: number
  readonly memoryBytes: number
  readonly rxBytes: number
  readonly txBytes: number
  readonly blockReadBytes: number
  readonly blockWriteBytes: number
}

export type RuntimeEvent = { readonly kind: 'changed'; readonly instance: InstanceId } | { readonly kind: 'resync' }

export interface LogLine {
  readonly atMs: number
  readonly stream: 'stdout' | 'stderr'
  readonly text: string
}

export interface LogOptions {
  readonly follow: boolean
  /** Newest lines to begin with. */
  readonly tail: number
}

export interface RegistryAuth {
  readonly username: string
  readonly password: string
  readonly server: string
}

export interface CreateContainer {
  readonly instance: InstanceId
  readonly specHash: string
  readonly spec: ContainerSpec
  readonly unit: UnitSpec
  readonly ports: readonly UnitPort[]
  /** Container whose network namespace it shares (sidecars); null for the main container. */
  readonly sharesNetworkOf: string | null
  /** Added to the environment: `RUBATO_*` variables, `PORT` for processes. */
  readonly extraEnvironment: Readonly<Record<string, string>>
  /** Added to /etc/hosts as `name:address`. */
  readonly extraHosts: readonly string[]
}

/** A container that Rubato did not start, for the registrar. */
export interface ForeignContainer {
  readonly id: string
  readonly name: string
  readonly image: string
  readonly labels: Readonly<Record<string, string>>
  readonly environment: readonly string[]
  readonly address: string | null
  /** Ports it exposes, and where they are published on the host. */
  readonly ports: readonly {
    readonly containerPort: number
    readonly protocol: 'tcp' | 'udp'
    readonly hostIp: string | null
    readonly hostPort: number | null
  }[]
  readonly running: boolean
  readonly healthy: boolean | null
}

export interface Runtime {
  readonly name: 'docker' | 'process'
  /** Containers with our cluster's and node's labels. Throws UnavailableError when the engine does not answer: unknown, not gone. */
  list(): Promise<readonly ObservedContainer[]>
  /** True when the image is here already. */
  hasImage(image: string): Promise<boolean>
  /** Throws NotFoundError when there is no such image, RetryableError when the registry does not answer. */
  pull(image: string, options: { readonly auth?: RegistryAuth; readonly platform?: string }, signal: AbortSignal): Promise<void>
  /** Creates it under its own name; a container of that name with our labels is adopted, another one is ConflictError. */
  create(request: CreateContainer): Promise<string>
  start(id: string): Promise<void>
  /** Sends the stop signal, waits at most `graceMs`, then kills. Returns when it no longer runs. */
  stop(id: string, graceMs: number): Promise<void>
  remove(id: string): Promise<void>
  /** Uses of those that still run; the others are left out. */
  stats(ids: readonly string[]): Promise<readonly ContainerUse[]>
  /** Exit code of a command run inside. Rejects with RetryableError on time-out. */
  exec(id: string, argv: readonly string[], timeoutMs: number): Promise<number>
  logs(id: string, options: LogOptions, signal: AbortSignal): AsyncIterable<LogLine>
  /** Runs until the signal aborts; reconnects by itself and then yields `resync`. */
  events(signal: AbortSignal): AsyncIterable<RuntimeEvent>
  /** Containers of others on the same engine; empty for runtimes that have none. */
  foreign(): Promise<readonly ForeignContainer[]>
  /** Yields when containers of others may have changed (started, being stopped, died); absent where there are none. */
  foreignEvents?(signal: AbortSignal): AsyncIterable<void>
  /** Address of this node on its containers' network: where they reach the local API and the mesh. */
  readonly bridgeAddress: string
}
