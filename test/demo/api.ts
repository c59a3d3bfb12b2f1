/** The demo's view of the coordinator: its API, and what of the answers is shown. */

export interface Api {
  get(path: string): Promise<unknown>
  send(method: string, path: string, body?: unknown): Promise<unknown>
  setPoolMinimum(pool: string, min: number): Promise<void>
}

export interface NodeView {
  readonly id: string
  readonly address: string
  readonly availability: string
  readonly liveness: string
  readonly instances: number
  readonly capacity: { readonly cpuMillis: number; readonly memoryBytes: number }
}

export interface InstanceView {
  readonly id: string
  readonly node: string | null
  readonly phase: string
  readonly goal: string
  readonly routable: boolean
  readonly loadPercent: number | null
}

export interface ServiceView {
  readonly id: string
  readonly desired: number
  readonly loadPercent: number | null
}

/** Calls reject with what the coordinator said. */
export function apiClient(url: string, token: string): Api {
  const call = async (method: string, path: string, body?: unknown, headers: Readonly<Record<string, string>> = {}) => {
    const response = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text.slice(0, 300)}`)
    return { etag: response.headers.get('etag') ?? '', body: text === '' ? null : (JSON.parse(text) as unknown) }
  }
  return {
    get: async (path) => (await call('GET', path)).body,
    send: async (method, path, body) => (await call(method, path, body)).body,
    async setPoolMinimum(name, min) {
      const present = await call('GET', `/v1/pools/${name}`)
      const { name: _, machines: __, ...pool } = present.body as Record<string, unknown>
      await call('PUT', `/v1/pools/${name}`, { ...pool, min }, { 'if-match': present.etag })
    },
  }
}

export async function nodesOf(api: Api): Promise<readonly NodeView[]> {
  return ((await api.get('/v1/nodes')) as { items: readonly NodeView[] }).items
}

export async function instancesOf(api: Api): Promise<readonly InstanceView[]> {
  return ((await api.get('/v1/instances?app=demo')) as { items: readonly InstanceView[] }).items
}

export function activeNodes(nodes: readonly NodeView[]): readonly NodeView[] {
  return nodes.filter((node) => node.availability === 'active' && node.liveness === 'live')
}
