/**
 * What an agent is told to run: one unit, resolved so far that an agent needs nothing else. It is data on the wire and in
 * the store, so every field is plain JSON. `specHash` (of the whole UnitSpec) tells whether two units are the same.
 */
import type { Resources } from './resources.ts'

export type PortProtocol = 'http' | 'tcp' | 'udp'

export interface UnitPort {
  /** Port that the process listens on inside the container; the gateway binds a port of its own for it. */
  readonly containerPort: number
  readonly protocol: PortProtocol
  /** Registration name suffix or label, where one was given. */
  readonly name?: string
}

/** A port of the node that leads to the service (Compose `ports:`). */
export interface PublishedPort {
  /** Port on the node. */
  readonly port: number
  readonly containerPort: number
  readonly protocol: PortProtocol
  /** `ingress`: on every node, balanced over all instances; `host`: on the instance's own node only. */
  readonly mode: 'ingress' | 'host'
}

export type Probe =
  | { readonly kind: 'http'; readonly port: number; readonly path: string }
  | { readonly kind: 'tcp'; readonly port: number }
  /** `argv` runs in the container; exit 0 is healthy. A shell form is `['/bin/sh', '-c', text]`. */
  | { readonly kind: 'exec'; readonly argv: readonly string[] }

/** Compose `healthcheck`. Absent: the instance counts as healthy as soon as it runs. */
export interface HealthSpec {
  readonly probe: Probe
  readonly intervalMs: number
  readonly timeoutMs: number
  readonly retries: number
  readonly startPeriodMs: number
  readonly startIntervalMs: number
}

export interface RestartPolicy {
  readonly condition: 'any' | 'on-failure' | 'none'
  /** Base of the exponential backoff. */
  readonly delayMs: number
  /** Restarts within `windowMs` before the instance is given up (`failed`); null for ever. */
  readonly maxAttempts: number | null
  /** Running this long makes earlier failures forgotten. */
  readonly windowMs: number
}

export interface Mount {
  readonly kind: 'volume' | 'bind' | 'tmpfs'
  /** Volume name or host path; '' for tmpfs. */
  readonly source: string
  readonly target: string
  readonly readOnly: boolean
  /** tmpfs only. */
  readonly sizeBytes?: number
}

/** A small file put into the container (Compose `configs`, `secrets`). */
export interface FileMount {
  readonly target: string
  readonly mode: number
  /** base64. Never logged. */
  readonly contentBase64: string
  readonly secret: boolean
}

export interface ContainerSpec {
  /** The service's name for the main container, the sidecar service's own name for a sidecar. */
  readonly name: string
  /** Empty for the process runtime. */
  readonly image: string
  readonly pullPolicy: 'missing' | 'always' | 'never'
  readonly platform?: string
  readonly entrypoint?: readonly string[]
  readonly command?: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  readonly labels: Readonly<Record<string, string>>
  readonly user?: string
  readonly workingDir?: string
  readonly hostname?: string
  readonly mounts: readonly Mount[]
  readonly files: readonly FileMount[]
  readonly limits: Partial<Resources> & { readonly pids?: number }
  readonly reservations: Partial<Resources>
  readonly capAdd: readonly string[]
  readonly capDrop: readonly string[]
  readonly readOnlyRootfs: boolean
  readonly init: boolean
  readonly stopSignal?: string
  readonly extraHosts: readonly string[]
  readonly dns: readonly string[]
  readonly sysctls: Readonly<Record<string, string>>
  readonly ulimits: Readonly<Record<string, { readonly soft: number; readonly hard: number }>>
  readonly shmSizeBytes?: number
  readonly tty: boolean
  readonly stdinOpen: boolean
  readonly health?: HealthSpec
  readonly restart: RestartPolicy
  /** Only where the operator's policy allowed it. */
  readonly privileged?: boolean
  /** Shares the node's network; only where the operator's policy allowed it. */
  readonly hostNetwork?: boolean
}

/** Where an instance's load comes from. Several may be given; the largest counts. */
export type LoadSource =
  | { readonly kind: 'cpu' }
  | { readonly kind: 'memory' }
  /** The instance pushes it (`PUT /v1/load`), or `pull` is given. */
  | { readonly kind: 'custom'; readonly pull?: LoadPull }
  /** In-flight requests against what one instance can hold at once. */
  | { readonly kind: 'requests'; readonly capacity: number }

export type LoadPull =
  | { readonly kind: 'json'; readonly port: number; readonly path: string; readonly pointer: string; readonly intervalMs: number }
  | {
      readonly kind: 'prometheus'
      readonly port: number
      readonly path: string
      readonly metric: string
      readonly full: number
      readonly intervalMs: number
    }

/** Who may call; checked at the ingress of each instance port whose protocol is http. */
export interface AccessPolicy {
  readonly public: boolean
  /** Services of the same app may call. */
  readonly sameApp: boolean
  /** Key names or `app/service` names that may call. */
  readonly allow: readonly string[]
  readonly roles: readonly string[]
  /** Any valid key will do (the default until the gateway knows its callers). */
  readonly anyKey: boolean
  readonly methods: readonly string[]
  readonly pathPrefixes: readonly string[]
}

export type BalanceStrategy = 'least-load' | 'least-conn' | 'round-robin' | 'hash'

export interface UnitSpec {
  readonly runtime: 'docker' | 'process'
  /** The main container first, sidecars after it. */
  readonly containers: readonly ContainerSpec[]
  readonly ports: readonly UnitPort[]
  readonly published: readonly PublishedPort[]
  /** What one instance is charged for on its node. */
  readonly reservations: Resources
  readonly stopGraceMs: number
  /** How long an instance that is taken out of service may finish its requests before it is stopped. */
  readonly drainMs: number
  readonly warmUpMs: number
  readonly load: readonly LoadSource[]
  readonly access: AccessPolicy
  readonly balance: BalanceStrategy
  /** `register`: labels that name it otherwise in the catalog live in the container's labels. */
  readonly singletonStrictMs: number | null
}
