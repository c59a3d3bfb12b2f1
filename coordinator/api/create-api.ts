/** The whole HTTP API as one app without a socket: `createApi(deps).request('/v1/…')` is how tests and the in-process CLI call it. */
import type { ApiDeps } from './deps.ts'
import { type Api, endpoints } from './endpoint.ts'
import { codeOf, HttpProblem, PROBLEMS, problemResponse } from './problem.ts'
import { NotFoundError } from '../../shared/errors.ts'
import { ROUTE_ROLES } from './roles.ts'
import { addAccessRoutes } from './routes-access.ts'
import { addAppRoutes } from './routes-apps.ts'
import { addEventRoutes } from './routes-events.ts'
import { addFleetRoutes } from './routes-fleet.ts'
import { addHistoryRoutes } from './routes-history.ts'
import { addInstanceRoutes } from './routes-instances.ts'
import { addSystemRoutes } from './routes-system.ts'

/**
 * Builds the API. Other parts (dashboard, catalog) may mount further routes on the result; they bring their own guards. The
 * websocket upgrade is not here: it belongs to the server that `startHttpServer` returns.
 */
export function createApi(deps: ApiDeps): Api {
  const built = endpoints(deps)
  const { api } = built
  api.use('*', async (c, next) => {
    const given = c.req.header('x-request-id')
    c.set('requestId', given !== undefined && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : deps.ids.next('r'))
    await next()
    c.res.headers.set('x-request-id', c.get('requestId'))
    c.res.headers.set('x-content-type-options', 'nosniff')
    // Tokens and texts of fresh keys must not stay in anybody's cache.
    if (!c.res.headers.has('cache-control')) c.res.headers.set('cache-control', 'no-store')
  })
  addSystemRoutes(built, deps)
  addAppRoutes(built, deps)
  addInstanceRoutes(built, deps)
  addFleetRoutes(built, deps)
  addAccessRoutes(built, deps)
  addEventRoutes(built, deps)
  addHistoryRoutes(built, deps)

  api.notFound((c) => {
    const allowed = methodsOf(c.req.path)
    const request = { path: c.req.path, requestId: c.get('requestId') ?? '' }
    if (allowed.length === 0) return problemResponse(new NotFoundError(`There is nothing at ${c.req.path}. See /docs.`), request)
    return problemResponse(
      new HttpProblem('method-not-allowed', `Here only ${allowed.join(', ')}.`, { headers: { allow: allowed.join(', ') } }),
      request,
    )
  })
  api.onError((error, c) => {
    if (PROBLEMS[codeOf(error)].status === 500) {
      deps.logger.error('request failed', {
        requestId: c.get('requestId'),
        method: c.req.method,
        path: c.req.path,
        error: error.message,
        stack: error.stack,
      })
    }
    return problemResponse(error, { path: c.req.path, requestId: c.get('requestId') ?? '' })
  })
  return api
}

const ROUTES = Object.keys(ROUTE_ROLES).map((route) => {
  const [method = '', path = ''] = route.split(' ')
  return { method, pattern: new RegExp(`^${path.replaceAll('.', '\\.').replaceAll(/\{.+?\}/g, '[^/]+')}$`) }
})

/** Methods that some route offers at this path. */
function methodsOf(path: string): readonly string[] {
  return [...new Set(ROUTES.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method))].sort()
}
