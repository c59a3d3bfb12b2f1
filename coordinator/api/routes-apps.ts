/** Apps and services: deploy, roll back, remove, scale, explain. */
import { z } from '@hono/zod-openapi'
import { type Fault, InputError, NotFoundError } from '../../shared/errors.ts'
import { serviceId } from '../../shared/model/identity.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import { checkAppSpec } from '../apps/check-app-spec.ts'
import type { Operator } from '../access/operator-tokens.ts'
import { checkBounds } from '../apps/spec-bounds.ts'
import type { ApiDeps } from './deps.ts'
import { type Endpoints, limit } from './endpoint.ts'
import { explainService } from './explain.ts'
import { HttpProblem } from './problem.ts'
import { rateLimiter } from './rate-limit.ts'
import { mayAct } from './roles.ts'
import { nameSchema, pageQuery, queryFlag, serviceNameSchema } from './inputs.ts'
import {
  type AppDetail,
  appDetail,
  appView,
  changeView,
  decisionsView,
  explanationView,
  pageOf,
  previewView,
  serviceView,
} from './schemas.ts'
import { page, viewApp, viewService } from './views.ts'
import { worldOf } from './world.ts'

const appPath = z.strictObject({ app: nameSchema })
const servicePath = z.strictObject({ app: nameSchema, service: serviceNameSchema })

interface DeployBody {
  readonly name?: string | undefined
  readonly spec: AppSpec
  readonly source: string
  readonly ifRevision?: number | null | undefined
}
/** Above it nothing that an operator deploys can evict what an administrator placed there: priorities have to differ by 10. */
export const OPERATOR_MAX_PRIORITY = 90

/** Dry runs of one credential: each may take the thread for a few tenths of a second in a large cluster, and leaves no trace. */
const DRY_RUNS = { ratePerS: 1, burst: 20 }

const dryRunQuery = z.strictObject({ dryRun: queryFlag.optional() })

const boundsOfDeploy = (body: unknown): readonly Fault[] =>
  typeof body === 'object' && body !== null && 'spec' in body
    ? checkBounds(body.spec).map((fault) => ({ ...fault, path: `/spec${fault.path}` }))
    : []

export function addAppRoutes({ add }: Endpoints, deps: ApiDeps): void {
  const { state, apps } = deps
  const deployBody = z.strictObject({
    name: nameSchema.optional(),
    // A missing field is never `undefined` in JSON, which is all that the schema's own type leaves open.
    spec: deps.appSpecSchema as z.ZodType<AppSpec>,
    source: z
      .string()
      .max(256 * 1024)
      .default(''),
    /** The revision that the caller saw; 0 when the app must not exist yet. */
    ifRevision: z.number().int().nonnegative().nullable().optional(),
  })
  const world = worldOf(deps)
  const dryRuns = rateLimiter({ clock: deps.clock, ...DRY_RUNS })
  const preview = (input: Parameters<typeof apps.preview>[0], operator: Operator | null) => {
    limit(dryRuns.take(operator?.id ?? ''))
    return apps.preview(input)
  }
  const appOf = (name: string) => {
    const app = state.snapshot.get('app', name)
    if (!app) throw new NotFoundError(`There is no app ${name}.`)
    return app
  }
  const serviceOf = (appName: string, name: string) => {
    const app = appOf(appName)
    const spec = app.spec.services.find((service) => service.name === name)
    if (!spec) throw new NotFoundError(`The app ${appName} has no service ${name}.`)
    return { app, spec }
  }

  add(
    { route: 'GET /v1/apps', tag: 'apps', summary: 'List apps', query: z.strictObject(pageQuery), returns: pageOf(appView) },
    ({ query }) => {
      const found = page(state.snapshot.all('app').values(), ({ name }) => name, query)
      return { items: found.items.map((app) => viewApp(world, app)), next: found.next }
    },
  )

  add(
    { route: 'GET /v1/apps/{app}', tag: 'apps', summary: 'One app', params: appPath, returns: appDetail },
    ({ params, operator }) => {
      const app = appOf(params.app)
      const detail: AppDetail = {
        ...viewApp(world, app),
        source: operator && mayAct(operator.role, 'operator') ? app.source : null,
        history: app.history.map(({ revision, deployedAtMs }) => ({ revision, deployedAtMs })),
      }
      return json(detail, { etag: `"${app.revision}"` })
    },
  )

  /** The client resolved the file; what it may ask for is decided here. */
  const requireAllowed = (spec: AppSpec) => {
    const { faults, forbidden } = checkAppSpec(spec, deps.appPolicy)
    const inBody = (fault: Fault): Fault => ({ ...fault, path: `/spec${fault.path}` })
    if (faults.length > 0) throw new InputError('The app cannot be deployed.', faults.map(inBody))
    if (forbidden.length > 0) {
      throw new HttpProblem('forbidden', 'The app asks for what the policy of this cluster forbids.', {
        faults: forbidden.map(inBody),
      })
    }
  }

  /** Whoever may deploy may evict: above this only what an administrator has put there stays. */
  const requirePriority = (spec: AppSpec) => {
    const most = deps.settings?.operatorMaxPriority ?? OPERATOR_MAX_PRIORITY
    const present = new Map(
      state.snapshot.get('app', spec.name)?.spec.services.map((each) => [each.name, each.placement.priority]),
    )
    const faults = spec.services.flatMap(({ name, placement: { priority } }, index): Fault[] =>
      priority <= Math.max(most, present.get(name) ?? 0)
        ? []
        : [
            {
              path: `/spec/services/${index}/placement/priority`,
              message: `${priority} is more than operators may give: ${most}`,
            },
          ],
    )
    if (faults.length > 0)
      throw new HttpProblem(
        'forbidden',
        'Priorities above the bound of operators (placement.operatorMaxPriority) need the role admin.',
        {
          faults,
        },
      )
  }

  const deploy = async (
    name: string | undefined,
    body: DeployBody,
    query: z.output<typeof dryRunQuery>,
    request: Request,
    { actor, operator }: { readonly actor: string; readonly operator: Operator | null },
  ) => {
    const appName = name ?? body.name ?? body.spec.name
    for (const [pointer, given] of [
      ['/name', body.name ?? appName],
      ['/spec/name', body.spec.name],
    ] as const) {
      if (given !== appName)
        throw new InputError('The names differ.', [{ path: pointer, message: `must be ${appName}, as elsewhere in the request` }])
    }
    requireAllowed(body.spec)
    if (operator === null || !mayAct(operator.role, 'admin')) requirePriority(body.spec)
    const matched = matchRevision(request, state.snapshot.get('app', appName)?.revision ?? null)
    if (query.dryRun) return preview({ spec: body.spec, source: body.source }, operator)
    const change = await apps.deploy({
      spec: body.spec,
      source: body.source,
      actor,
      ifRevision: matched ?? body.ifRevision ?? null,
    })
    return json({ name: appName, ...change }, { status: change.changed ? 202 : 200, etag: `"${change.revision}"` })
  }
  const deployed = z.union([changeView, previewView])
  add(
    {
      route: 'POST /v1/apps',
      tag: 'apps',
      summary: 'Deploy an app',
      query: dryRunQuery,
      body: deployBody,
      bounds: boundsOfDeploy,
      returns: deployed,
      status: 200,
    },
    (call) => deploy(undefined, call.body, call.query, call.request, call),
  )
  add(
    {
      route: 'PUT /v1/apps/{app}',
      tag: 'apps',
      summary: 'Deploy an app under this name',
      params: appPath,
      query: dryRunQuery,
      body: deployBody,
      bounds: boundsOfDeploy,
      returns: deployed,
    },
    (call) => deploy(call.params.app, call.body, call.query, call.request, call),
  )

  add(
    { route: 'DELETE /v1/apps/{app}', tag: 'apps', summary: 'Stop and remove an app', params: appPath, query: dryRunQuery },
    async ({ params, query, request, actor }) => {
      const app = appOf(params.app)
      matchRevision(request, app.revision)
      if (query.dryRun) {
        const changes = app.spec.services.map(
          ({ name }) => `remove service ${name} (${state.snapshot.instancesOf(serviceId(app.name, name)).length} instances)`,
        )
        return { changes, placement: [], warnings: [] }
      }
      await apps.remove(params.app, actor)
      return undefined
    },
  )

  add(
    {
      route: 'POST /v1/apps/{app}/rollback',
      tag: 'apps',
      summary: 'Return to an earlier revision',
      params: appPath,
      query: dryRunQuery,
      body: z.strictObject({ revision: z.number().int().positive().nullable().default(null) }),
      returns: deployed,
      status: 202,
    },
    async ({ params, query, body, actor, operator }) => {
      const app = appOf(params.app)
      const target = body.revision === null ? app.history[0] : app.history.find(({ revision }) => revision === body.revision)
      if (!target) {
        throw new NotFoundError(
          body.revision === null
            ? `The app ${params.app} has no earlier revision.`
            : `The app ${params.app} keeps no revision ${body.revision}; it keeps ${app.history.map(({ revision }) => revision).join(', ') || 'none'}.`,
        )
      }
      if (query.dryRun) return json(await preview({ spec: target.spec, source: target.source }, operator), {})
      return { name: params.app, ...(await apps.rollback(params.app, body.revision, actor)) }
    },
  )

  add(
    {
      route: 'GET /v1/services',
      tag: 'services',
      summary: 'List services',
      query: z.strictObject({ ...pageQuery, app: nameSchema.optional() }),
      returns: pageOf(serviceView),
    },
    ({ query }) => {
      const chosen = query.app === undefined ? [...state.snapshot.all('app').values()] : [appOf(query.app)]
      const pairs = chosen.flatMap((app) => app.spec.services.map((spec) => ({ app, spec })))
      const found = page(pairs, ({ app, spec }) => serviceId(app.name, spec.name), query)
      return { items: found.items.map(({ app, spec }) => viewService(world, app, spec)), next: found.next }
    },
  )

  add(
    {
      route: 'GET /v1/services/{app}/{service}',
      tag: 'services',
      summary: 'One service',
      params: servicePath,
      returns: serviceView,
    },
    ({ params }) => {
      const { app, spec } = serviceOf(params.app, params.service)
      return viewService(world, app, spec)
    },
  )

  add(
    {
      route: 'POST /v1/services/{app}/{service}/scale',
      tag: 'services',
      summary: 'Pin the number of instances, or hand it back to scaling with null',
      params: servicePath,
      query: dryRunQuery,
      body: z.strictObject({ replicas: z.number().int().min(0).max(100_000).nullable() }),
      returns: serviceView,
    },
    async ({ params, query, body, actor }) => {
      const { app, spec } = serviceOf(params.app, params.service)
      if (spec.job !== undefined) {
        throw new InputError('A job cannot be scaled.', [
          { path: '/replicas', message: 'replicas of a job are the completions it needs; change them in the app file' },
        ])
      }
      if (spec.mode === 'global') {
        throw new InputError('A global service cannot be scaled.', [
          { path: '/replicas', message: 'this service runs once per node (mode: global); add or drain nodes instead' },
        ])
      }
      if (query.dryRun) {
        const { desired } = viewService(world, app, spec)
        const to = body.replicas === null ? 'automatic' : String(body.replicas)
        return { changes: [`scale ${app.name}/${spec.name} from ${desired} to ${to}`], placement: [], warnings: [] }
      }
      await apps.scale(serviceId(app.name, spec.name), body.replicas, actor)
      const now = serviceOf(params.app, params.service)
      return viewService(world, now.app, now.spec)
    },
  )

  add(
    {
      route: 'GET /v1/services/{app}/{service}/decisions',
      tag: 'services',
      summary: 'The last decisions of scaling about this service, with what they were made from',
      params: servicePath,
      returns: decisionsView,
    },
    ({ params }) => {
      const { app, spec } = serviceOf(params.app, params.service)
      const service = serviceId(app.name, spec.name)
      const decisions = deps.explain
        .decisions(service)
        .map(({ serviceId: _, load, ...decision }) => ({ ...decision, load: { ...load } }))
      return { service, directionChangesPerHour: deps.explain.turnsPerHour(service), decisions }
    },
  )

  add(
    {
      route: 'GET /v1/services/{app}/{service}/explain',
      tag: 'services',
      summary: 'Why this service has the count it has, and what it waits for',
      params: servicePath,
      returns: explanationView,
    },
    ({ params }) => {
      const { app, spec } = serviceOf(params.app, params.service)
      return explainService(deps, app, spec)
    },
  )
}

/** The revision that `If-Match` names; null without the header. Throws 412 when it is not the present one. */
function matchRevision(request: Request, revision: number | null): number | null {
  const header = request.headers.get('if-match')?.trim()
  if (header === undefined) return null
  if (header === '*' ? revision !== null : revision !== null && header.split(',').some((tag) => tag.trim() === `"${revision}"`))
    return revision
  throw new HttpProblem(
    'precondition-failed',
    revision === null ? 'It does not exist.' : `The present revision is "${revision}". Look at it again, then repeat.`,
  )
}

function json(value: unknown, options: { readonly status?: number; readonly etag?: string }): Response {
  return new Response(`${JSON.stringify(value)}\n`, {
    status: options.status ?? 200,
    headers: { 'content-type': 'application/json', ...(options.etag === undefined ? {} : { etag: options.etag }) },
  })
}
