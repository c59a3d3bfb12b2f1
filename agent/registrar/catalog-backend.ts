/**
 * Where registrations go besides the coordinator's embedded catalog: a local Consul agent, or a fake for tests. The embedded
 * catalog itself needs no backend: it is derived from the statuses and `foreign` services on the link.
 */
export interface Registration {
  /** Unique on the node: `<node>:<container>:<port>[:udp]`. */
  readonly id: string
  readonly name: string
  readonly address: string
  readonly port: number
  readonly tags: readonly string[]
  readonly meta: Readonly<Record<string, string>>
  readonly check: RegistrationCheck | null
  /** State of the check until it first ran. */
  readonly initialStatus?: 'passing' | 'warning' | 'critical'
  /** Consul removes the service itself when it was critical for so long ("10m"); Consul's minimum is one minute. */
  readonly deregisterAfter?: string
}

export type RegistrationCheck =
  /** Kept passing or critical by us. */
  | { readonly kind: 'ttl'; readonly ttlMs: number }
  | {
      readonly kind: 'http'
      readonly url: string
      readonly method?: string
      readonly intervalMs: number
      readonly timeoutMs?: number
      readonly tlsSkipVerify?: boolean
      readonly header?: Readonly<Record<string, readonly string[]>>
    }
  | { readonly kind: 'tcp'; readonly address: string; readonly intervalMs: number; readonly timeoutMs?: number }
  | { readonly kind: 'grpc'; readonly address: string; readonly intervalMs: number; readonly useTls: boolean }
  | { readonly kind: 'script'; readonly argv: readonly string[]; readonly intervalMs: number; readonly timeoutMs?: number }

export interface CatalogBackend {
  /** Service and check in one call; repeating it changes nothing. */
  register(registration: Registration): Promise<void>
  deregister(id: string): Promise<void>
  /** Keeps a TTL check fresh. */
  heartbeat(id: string, state: 'passing' | 'warning' | 'critical', note: string): Promise<void>
  /** Ids of ours that the backend holds now: registrations left by an earlier life are found here. */
  list(): Promise<readonly Registration[]>
}
