/** Nodes, pools and machines. */
import { z } from '@hono/zod-openapi'
import { specHashOf } from '../../shared/canonical.ts'
import { ConflictError, InputError, NotFoundError } from '../../shared/errors.ts'
import { parseDurationMs } from '../../shared/units.ts'
import { serviceId } from '../../shared/model/identity.ts'
import type { Pool } from '../../shared/model/node.ts'
import { commitChange } from '../access/commit-change.ts'
import type { ApiDeps } from './deps.ts'
import type { Endpoints } from './endpoint.ts'
import { HttpProblem } from './problem.ts'
import { idSchema, nameSchema, pageQuery, poolInput, queryFlag } from './inputs.ts'
import { fleetView, machineView, nodeView, pageOf, poolView } from './schemas.ts'
import { page, viewMachine, viewNode, viewPool, type World } from './views.ts'

const nodePath = z.strictObject({ node: idSchema })
const poolPath = z.strictObject({ pool: nameSchema })
const durationSchema = z
  .string()
  .max(32)
  .transform((text, context) => {
    const ms = parseDurationMs(text)
    if (ms === null) context.addIssue({ code: 'custom', message: 'is no duration such as "90s" or "15m"' })
    return ms ?? 0
  })

export function addFleetRoutes(endpoints: Endpoints, deps: ApiDeps): void {
  addNodeRoutes(endpoints, deps)
  addPoolRoutes(endpoints, deps)
  addMigration(endpoints, deps)
  endpoints.add(
    {
      route: 'GET /v1/fleet',
      tag: 'fleet',
      summary: 'Money, pools, and why nothing is bought or given back now',
      returns: fleetView,
    },
    () => deps.fleet.view(),
  )
}

function addMigration({ add }: Endpoints, { state, apps }: ApiDeps): void {
  add(
    {
      route: 'POST /v1/apps/{app}/migrate',
      tag: 'fleet',
      summary: 'Move the instances of an app to other pools, each replacement ready before the old one goes',
      params: z.strictObject({ app: nameSchema }),
      query: z.strictObject({ dryRun: queryFlag.optional() }),
      body: z.strictObject({ to: z.array(nameSchema).min(1).max(50) }),
      returns: z.object({ name: z.string(), revision: z.number(), changed: z.boolean(), moving: z.number() }),
      status: 202,
    },
    async ({ params, query, body, actor }) => {
      const app = state.snapshot.get('app', params.app)
      if (!app || app.removing) throw new NotFoundError(`There is no app ${params.app}.`)
      const unknown = body.to.find((name) => state.snapshot.get('pool', name) === undefined)
      if (unknown !== undefined) throw new NotFoundError(`There is no pool ${unknown}.`)
      const services = app.spec.services.map((spec) =>
        spec.mode === 'global' ? spec : { ...spec, placement: { ...spec.placement, pools: body.to } },
      )
      const moving = app.spec.services.flatMap((spec) =>
        spec.mode === 'global'
          ? []
          : state.snapshot.instancesOf(serviceId(app.name, spec.name)).filter(({ nodeId, goal }) => {
              const pool = nodeId === null ? undefined : state.snapshot.get('node', nodeId)?.pool
              return goal === 'run' && pool !== undefined && !body.to.includes(pool ?? '')
            }),
      ).length
      if (query.dryRun) return { name: app.name, revision: app.revision, changed: false, moving }
      const spec = { ...app.spec, services }
      const done = await apps.deploy({ spec, source: app.source, actor, ifRevision: app.revision })
      return { name: app.name, ...done, moving }
    },
  )
}

function addNodeRoutes({ add }: Endpoints, deps: ApiDeps): void {
  const { state, observed, nodes } = deps
  const world: World = { snapshot: state.snapshot, observed }
  const nodeOf = (id: string) => {
    const node = state.snapshot.get('node', id) ?? uniqueByHostname(id)
    if (!node) throw new NotFoundError(`There is no node ${id}.`)
    return node
  }
  const uniqueByHostname = (hostname: string) => {
    const found = [...state.snapshot.all('node').values()].filter((node) => node.hostname === hostname)
    return found.length === 1 ? found[0] : undefined
  }

  add(
    {
      route: 'GET /v1/nodes',
      tag: 'nodes',
      summary: 'List nodes',
      query: z.strictObject({ ...pageQuery, pool: nameSchema.optional() }),
      returns: pageOf(nodeView),
    },
    ({ query }) => {
      const wanted = [...state.snapshot.all('node').values()].filter(
        (node) => query.pool === undefined || node.pool === query.pool,
      )
      const found = page(wanted, ({ id }) => id, query)
      return { items: found.items.map((node) => viewNode(world, node)), next: found.next }
    },
  )
  add(
    {
      route: 'GET /v1/nodes/{node}',
      tag: 'nodes',
      summary: 'One node, by id or by a host name that only one has',
      params: nodePath,
      returns: nodeView,
    },
    ({ params }) => viewNode(world, nodeOf(params.node)),
  )
  add(
    {
      route: 'POST /v1/nodes/{node}/drain',
      tag: 'nodes',
      summary: 'Move every instance away, then give the machine back',
      params: nodePath,
      body: z.strictObject({
        reason: z.string().max(400).default('asked for by an operator'),
        /** Compose duration; after it the drain is forced. */
        deadline: durationSchema.optional(),
        /** Default true: a bought machine is deleted when it is empty. */
        deleteMachine: z.boolean().default(true),
      }),
      returns: nodeView,
      status: 202,
    },
    async ({ params, body, actor }) => {
      const { id } = nodeOf(params.node)
      await nodes.drain(id, { reason: body.reason, deadlineMs: body.deadline ?? null, deleteMachine: body.deleteMachine, actor })
      return viewNode(world, nodeOf(id))
    },
  )
  add(
    {
      route: 'POST /v1/nodes/{node}/interruption',
      tag: 'nodes',
      summary: 'The cloud takes its machine away (spot interruption): drain it by then, buy what its instances need',
      params: nodePath,
      /** Compose duration from now until the machine is gone. */
      body: z.strictObject({ deadline: durationSchema }),
      returns: nodeView,
      status: 202,
    },
    async ({ params, body, actor }) => {
      const { id } = nodeOf(params.node)
      await nodes.interrupt(id, body.deadline, actor)
      return viewNode(world, nodeOf(id))
    },
  )
  add(
    {
      route: 'POST /v1/nodes/{node}/cordon',
      tag: 'nodes',
      summary: 'Place nothing new on it',
      params: nodePath,
      returns: nodeView,
    },
    async ({ params, actor }) => {
      const { id } = nodeOf(params.node)
      await nodes.cordon(id, actor)
      return viewNode(world, nodeOf(id))
    },
  )
  add(
    {
      route: 'POST /v1/nodes/{node}/uncordon',
      tag: 'nodes',
      summary: 'Use it again; ends a drain',
      params: nodePath,
      returns: nodeView,
    },
    async ({ params, actor }) => {
      const { id } = nodeOf(params.node)
      await nodes.uncordon(id, actor)
      return viewNode(world, nodeOf(id))
    },
  )
  add(
    {
      route: 'DELETE /v1/nodes/{node}',
      tag: 'nodes',
      summary: 'Forget a node; with force even while it runs instances',
      params: nodePath,
      query: z.strictObject({ force: queryFlag.optional() }),
    },
    async ({ params, query, actor }) => {
      await nodes.remove(nodeOf(params.node).id, { force: query.force ?? false, actor })
    },
  )
  add(
    {
      route: 'GET /v1/machines',
      tag: 'fleet',
      summary: 'List machines; those that are gone only with all',
      query: z.strictObject({ ...pageQuery, pool: nameSchema.optional(), all: queryFlag.optional() }),
      returns: pageOf(machineView),
    },
    ({ query }) => {
      const wanted = [...state.snapshot.all('machine').values()].filter(
        (machine) => (query.pool === undefined || machine.pool === query.pool) && (query.all || machine.phase !== 'gone'),
      )
      const found = page(wanted, ({ id }) => id, query)
      return { items: found.items.map(viewMachine), next: found.next }
    },
  )
  add(
    {
      route: 'GET /v1/machines/{machine}',
      tag: 'fleet',
      summary: 'One machine',
      params: z.strictObject({ machine: idSchema }),
      returns: machineView,
    },
    ({ params }) => {
      const machine = state.snapshot.get('machine', params.machine)
      if (!machine) throw new NotFoundError(`There is no machine ${params.machine}.`)
      return viewMachine(machine)
    },
  )
}

function addPoolRoutes({ add }: Endpoints, deps: ApiDeps): void {
  const { state } = deps
  const poolOf = (name: string) => {
    const pool = state.snapshot.get('pool', name)
    if (!pool) throw new NotFoundError(`There is no pool ${name}.`)
    return pool
  }
  const priceOf = (pool: z.output<typeof poolInput>): number => {
    const known = pool.priceUsdPerHour ?? deps.offeredPrice(pool.provider, pool.offering) ?? (pool.static ? 0 : null)
    if (known !== null) return known
    throw new InputError('The pool has no price.', [
      {
        path: '/priceUsdPerHour',
        message: `must be given: ${pool.provider} names no price of ${pool.offering === '' ? 'its machines' : pool.offering}; 0 if they cost nothing and count for no budget`,
      },
    ])
  }
  const answer = (pool: Pool, status = 200) =>
    new Response(`${JSON.stringify(viewPool(state.snapshot, pool))}\n`, {
      status,
      headers: { 'content-type': 'application/json', etag: etagOf(pool) },
    })

  add(
    { route: 'GET /v1/pools', tag: 'fleet', summary: 'List pools', query: z.strictObject(pageQuery), returns: pageOf(poolView) },
    ({ query }) => {
      const found = page(state.snapshot.all('pool').values(), ({ name }) => name, query)
      return { items: found.items.map((pool) => viewPool(state.snapshot, pool)), next: found.next }
    },
  )
  add({ route: 'GET /v1/pools/{pool}', tag: 'fleet', summary: 'One pool', params: poolPath, returns: poolView }, ({ params }) =>
    answer(poolOf(params.pool)),
  )
  add(
    {
      route: 'PUT /v1/pools/{pool}',
      tag: 'fleet',
      summary: 'Make or change a pool; changing one needs If-Match',
      params: poolPath,
      query: z.strictObject({ dryRun: queryFlag.optional() }),
      body: poolInput,
      returns: poolView,
    },
    async ({ params, query, body, request, actor }) => {
      const wanted: Pool = { ...body, name: params.pool, priceUsdPerHour: priceOf(body) }
      const created = await commitChange(state, (change, snapshot) => {
        const present = snapshot.get('pool', params.pool)
        requireMatch(request, present ?? null)
        if (query.dryRun) return present === undefined
        change.put('pool', params.pool, wanted).event({
          actor,
          type: present ? 'pool.changed' : 'pool.created',
          subject: params.pool,
          message: `Pool ${params.pool} was ${present ? 'changed' : 'created'}: ${wanted.min} to ${wanted.max} machines of ${wanted.provider}.`,
          severity: 'info',
        })
        return present === undefined
      })
      return answer(wanted, created ? 201 : 200)
    },
  )
  add(
    {
      route: 'DELETE /v1/pools/{pool}',
      tag: 'fleet',
      summary: 'Remove a pool that has no machines',
      params: poolPath,
      query: z.strictObject({ dryRun: queryFlag.optional() }),
    },
    async ({ params, query, request, actor }) => {
      await commitChange(state, (change, snapshot) => {
        const pool = snapshot.get('pool', params.pool)
        if (!pool) throw new NotFoundError(`There is no pool ${params.pool}.`)
        if (request.headers.has('if-match')) requireMatch(request, pool)
        const alive = [...snapshot.all('machine').values()].filter(({ pool: of, phase }) => of === pool.name && phase !== 'gone')
        if (alive.length > 0) {
          throw new ConflictError(
            `Pool ${pool.name} still has ${alive.length} machines (${alive[0]?.id} …). Set its min and max to 0 and drain them first.`,
          )
        }
        if (query.dryRun) return
        change.delete('pool', pool.name).event({
          actor,
          type: 'pool.removed',
          subject: pool.name,
          message: `Pool ${pool.name} was removed.`,
          severity: 'info',
        })
      })
    },
  )
}

function etagOf(pool: Pool): string {
  return `"${specHashOf(pool)}"`
}

/** What spends money is never overwritten unseen: a change must name the version that it changes. */
function requireMatch(request: Request, present: Pool | null): void {
  const header = request.headers.get('if-match')?.trim()
  if (header === undefined) {
    if (present === null) return
    throw new HttpProblem(
      'precondition-required',
      `Pool ${present.name} exists: send If-Match with the ETag of GET /v1/pools/${present.name}.`,
    )
  }
  const matches = present !== null && (header === '*' || header.split(',').some((tag) => tag.trim() === etagOf(present)))
  if (!matches) throw new HttpProblem('precondition-failed', 'The pool is not as you saw it. Look at it again, then repeat.')
}
