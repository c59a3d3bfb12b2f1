/**
 * The part of Consul's HTTP API that readers use, over the embedded catalog: Prometheus `consul_sd`, Traefik, consul-template
 * and any Consul client find what runs. Blocking queries by `index` and `wait`; durations as Consul writes them. What would
 * change the answer and is not supported (`filter`, `node-meta`, another datacenter) is refused, not ignored; what only orders or
 * speeds up answers (`near`, `stale`, `consistent`, `cached`) is accepted and does nothing.
 */
import { Hono, type Context } from 'hono'
import type { Random } from '../../shared/random.ts'
import { parseDurationMs } from '../../shared/units.ts'
import type { NodeRecord } from '../../shared/model/node.ts'
import type { Catalog, CatalogEntry } from './catalog.ts'

export interface ConsulApiDeps {
  readonly catalog: Catalog
  readonly random: Random
  readonly datacenter: string
  readonly version: string
  /** `host:port` of this coordinator, for `/v1/status/leader`. */
  readonly leader: string
}

const DEFAULT_WAIT_MS = 300_000
const MAX_WAIT_MS = 600_000

export function createConsulApi(deps: ConsulApiDeps): Hono {
  const { catalog, datacenter } = deps
  const app = new Hono()

  app.use('*', async (context, next) => {
    if (context.req.method !== 'GET' && context.req.method !== 'HEAD') {
      context.header('Allow', 'GET, HEAD')
      return context.text(`the embedded catalog is read-only: ${context.req.method} is not allowed`, 405)
    }
    const asked = context.req.query('dc')
    if (asked !== undefined && asked !== '' && asked !== datacenter) return context.text('No path to datacenter', 500)
    await next()
  })

  /** Answers at once, or, with `index`, when that index has passed. */
  const blocking =
    (service: ((context: Context) => string) | null, answer: (context: Context) => unknown) => async (context: Context) => {
      if (context.req.query('filter'))
        return context.text('filter expressions are not supported by the embedded catalog: use ?tag= or ?passing', 400)
      if (context.req.query('node-meta') !== undefined)
        return context.text('node-meta is not supported by the embedded catalog: nodes have no such data there', 400)
      const name = service === null ? null : service(context)
      const after = context.req.query('index')
      if (after !== undefined && !/^\d{1,16}$/.test(after)) return context.text('index must be a whole number', 400)
      const waitText = context.req.query('wait')
      const waitMs = waitText === undefined ? DEFAULT_WAIT_MS : parseDurationMs(waitText)
      if (waitMs === null) return context.text('wait must be a duration such as 30s', 400)
      if (after !== undefined && Number(after) > 0) {
        const bounded = Math.min(waitMs, MAX_WAIT_MS)
        // An index from another life of the coordinator that lies ahead of ours must not block for ever: Consul resets, so do we.
        const from = Number(after) > catalog.index ? 0 : Number(after)
        const waited = catalog.wait(name, from, bounded + (deps.random.next() * bounded) / 16, context.req.raw.signal)
        if (waited === null) {
          context.header('Retry-After', '5')
          return context.text('too many blocking queries at once', 503)
        }
        await waited
      }
      context.header('X-Consul-Index', String(Math.max(1, name === null ? catalog.index : catalog.indexOf(name))))
      context.header('X-Consul-KnownLeader', 'true')
      context.header('X-Consul-LastContact', '0')
      return context.json(answer(context) as object)
    }
  const serviceName = (context: Context) => context.req.param('service') ?? ''
  const tagged = (context: Context) => {
    const tags = context.req.queries('tag') ?? []
    return catalog.service(serviceName(context)).filter((entry) => tags.every((tag) => entry.tags.includes(tag)))
  }

  app.get('/v1/catalog/datacenters', (context) => context.json([datacenter]))
  app.get(
    '/v1/catalog/services',
    blocking(null, () => Object.fromEntries([...catalog.services()].map(([name, tags]) => [name, [...tags].sort()]))),
  )
  app.get(
    '/v1/catalog/nodes',
    blocking(null, () => catalog.nodes().map((node) => nodeObject(node, datacenter, catalog.index))),
  )
  app.get(
    '/v1/catalog/node/:node',
    blocking(null, (context) => {
      const node = findNode(catalog, context.req.param('node') ?? '')
      if (!node) return null
      return {
        Node: nodeObject(node, datacenter, catalog.index),
        Services: Object.fromEntries(catalog.onNode(node.id).map((entry) => [entry.id, serviceObject(entry)])),
      }
    }),
  )
  app.get(
    '/v1/catalog/service/:service',
    blocking(serviceName, (context) =>
      tagged(context).map((entry) => ({
        ID: entry.node,
        Node: entry.node,
        Address: entry.nodeAddress,
        Datacenter: datacenter,
        TaggedAddresses: taggedAddresses(entry.nodeAddress),
        NodeMeta: {},
        ServiceKind: '',
        ServiceID: entry.id,
        ServiceName: entry.name,
        ServiceTags: entry.tags,
        ServiceAddress: entry.address,
        ServiceTaggedAddresses: serviceAddresses(entry),
        ServiceWeights: { Passing: 1, Warning: 1 },
        ServiceMeta: entry.meta,
        ServicePort: entry.port,
        ServiceEnableTagOverride: false,
        CreateIndex: entry.index,
        ModifyIndex: entry.index,
      })),
    ),
  )
  app.get(
    '/v1/health/service/:service',
    blocking(serviceName, (context) => {
      const passingOnly =
        context.req.query('passing') !== undefined && !['0', 'false'].includes(context.req.query('passing') ?? '')
      return tagged(context)
        .filter((entry) => !passingOnly || entry.status === 'passing')
        .map((entry) => ({
          Node: {
            ID: entry.node,
            Node: entry.node,
            Address: entry.nodeAddress,
            Datacenter: datacenter,
            TaggedAddresses: taggedAddresses(entry.nodeAddress),
            Meta: {},
            CreateIndex: entry.index,
            ModifyIndex: entry.index,
          },
          Service: serviceObject(entry),
          Checks: [checkObject(entry)],
        }))
    }),
  )
  app.get(
    '/v1/health/checks/:service',
    blocking(serviceName, (context) => tagged(context).map(checkObject)),
  )
  app.get(
    '/v1/health/node/:node',
    blocking(null, (context) => {
      const node = findNode(catalog, context.req.param('node') ?? '')
      return node ? catalog.onNode(node.id).map(checkObject) : []
    }),
  )
  app.get(
    '/v1/health/state/:state',
    blocking(null, (context) => {
      const state = context.req.param('state')
      return catalog
        .nodes()
        .flatMap((node) => catalog.onNode(node.id))
        .filter((entry) => state === 'any' || entry.status === state)
        .map(checkObject)
    }),
  )
  app.get('/v1/agent/self', (context) =>
    context.json({
      Config: { Datacenter: datacenter, NodeName: 'rubato', NodeID: 'rubato', Server: true, Version: deps.version, Revision: '' },
      Member: { Name: 'rubato', Addr: deps.leader.split(':')[0], Tags: { dc: datacenter, role: 'consul' } },
      Meta: {},
    }),
  )
  app.get('/v1/status/leader', (context) => context.json(deps.leader))
  app.get('/v1/status/peers', (context) => context.json([deps.leader]))
  app.notFound((context) =>
    context.text(
      `the embedded catalog is read-only and has no ${context.req.method} ${context.req.path}; see docs/catalog.md`,
      404,
    ),
  )
  return app
}

function findNode(catalog: Catalog, name: string): NodeRecord | undefined {
  return catalog.nodes().find((node) => node.id === name || node.hostname === name)
}

function taggedAddresses(address: string): Readonly<Record<string, string>> {
  return { lan: address, wan: address }
}

function serviceAddresses({ address, port }: CatalogEntry): Readonly<Record<string, object>> {
  return { lan_ipv4: { Address: address, Port: port }, wan_ipv4: { Address: address, Port: port } }
}

function nodeObject(node: NodeRecord, datacenter: string, index: number): object {
  return {
    ID: node.id,
    Node: node.id,
    Address: node.address,
    Datacenter: datacenter,
    TaggedAddresses: taggedAddresses(node.address),
    Meta: { hostname: node.hostname, ...(node.pool ? { pool: node.pool } : {}) },
    CreateIndex: index,
    ModifyIndex: index,
  }
}

function serviceObject(entry: CatalogEntry): object {
  return {
    ID: entry.id,
    Service: entry.name,
    Tags: entry.tags,
    Address: entry.address,
    TaggedAddresses: serviceAddresses(entry),
    Meta: entry.meta,
    Port: entry.port,
    Weights: { Passing: 1, Warning: 1 },
    EnableTagOverride: false,
    CreateIndex: entry.index,
    ModifyIndex: entry.index,
  }
}

function checkObject(entry: CatalogEntry): object {
  return {
    Node: entry.node,
    CheckID: `service:${entry.id}`,
    Name: `Service '${entry.name}' check`,
    Status: entry.status,
    Notes: '',
    Output: entry.note,
    ServiceID: entry.id,
    ServiceName: entry.name,
    ServiceTags: entry.tags,
    Type: 'ttl',
    CreateIndex: entry.index,
    ModifyIndex: entry.index,
  }
}
