/** The cluster as a whole, and what needs no credential: health, metrics, the installer, the API's own description. */
import { createHash } from 'node:crypto'
import { z } from '@hono/zod-openapi'
import { createCalendar } from '../../shared/calendar.ts'
import { NotFoundError } from '../../shared/errors.ts'
import { createMetrics } from '../metrics.ts'
import type { ApiDeps } from './deps.ts'
import { DOCS_PAGE } from './docs-page.ts'
import type { Endpoints } from './endpoint.ts'
import { statusView, type StatusView } from './schemas.ts'
import { viewApp, viewInstance } from './views.ts'

export function addSystemRoutes({ add, api }: Endpoints, deps: ApiDeps): void {
  const { state, observed, fleet, clock, version } = deps
  const calendar = createCalendar()
  const metrics = createMetrics({
    state,
    observed,
    fleet,
    version,
    ...(deps.extraMetrics === undefined ? {} : { extra: deps.extraMetrics }),
  })

  add(
    { route: 'GET /v1/status', tag: 'system', summary: 'How the cluster is', returns: statusView },
    ({ operator }): StatusView => {
      const world = { snapshot: state.snapshot, observed, calendar }
      const apps = [...state.snapshot.all('app').values()].map((app) => viewApp(world, app))
      const services = apps.flatMap((app) => app.services)
      const nodes = [...state.snapshot.all('node').values()]
      const instances = [...state.snapshot.instances().values()]
      const { spentUsdThisMonth, limitUsdPerMonth } = fleet.figures()
      return {
        clusterId: [...state.snapshot.all('cluster').values()][0]?.id ?? null,
        epoch: state.epoch,
        version,
        nowMs: clock.now(),
        operator: operator ? { name: operator.name, role: operator.role } : null,
        frozen: observed.frozen ? { ...observed.frozen } : null,
        counts: {
          apps: apps.length,
          services: services.length,
          instances: instances.length,
          ready: instances.filter((record) => viewInstance(world, record).routable).length,
          pending: instances.filter((record) => record.nodeId === null).length,
          nodes: nodes.length,
          liveNodes: nodes.filter((node) => observed.node(node.id)?.liveness === 'live').length,
          machines: [...state.snapshot.all('machine').values()].filter((machine) => machine.phase !== 'gone').length,
        },
        spentUsdThisMonth,
        budgetUsdPerMonth: limitUsdPerMonth,
      }
    },
  )

  add(
    { route: 'GET /healthz', tag: 'system', summary: 'Answers 200 while the coordinator serves', mediaType: 'text/plain' },
    () => plain('ok\n'),
  )

  add({ route: 'GET /metrics', tag: 'system', summary: 'Figures for Prometheus', mediaType: 'text/plain' }, async () =>
    plain(await metrics.text(), metrics.contentType),
  )

  add(
    {
      route: 'GET /install.sh',
      tag: 'joining',
      summary: 'The script that makes a machine a node',
      mediaType: 'text/x-shellscript',
    },
    () => plain(deps.installScript, 'text/x-shellscript; charset=utf-8'),
  )

  add(
    {
      route: 'GET /v1/agent-binary/{platform}',
      tag: 'joining',
      summary: 'The agent for linux-x64 or linux-arm64; with .sha256 appended its checksum',
      params: z.strictObject({ platform: z.string().max(64) }),
      mediaType: 'application/octet-stream',
    },
    async ({ params }) => {
      const match = /^(linux-(?:x64|arm64))(\.sha256)?$/.exec(params.platform)
      const binary = match?.[1] === undefined ? null : await deps.agentBinary(match[1])
      if (!match || binary === null) throw new NotFoundError(`This coordinator carries no agent for ${params.platform}.`)
      if (match[2] !== undefined) return plain(`${binary.sha256}  rubato-agent\n`)
      return new Response(binary.open(), {
        headers: {
          'content-type': 'application/octet-stream',
          'content-length': String(binary.sizeBytes),
          'x-rubato-sha256': binary.sha256,
        },
      })
    },
  )

  let description: { readonly text: string; readonly etag: string } | null = null
  add({ route: 'GET /openapi.json', tag: 'system', summary: 'This description', mediaType: 'application/json' }, () => {
    description ??= describeApi(api, version)
    return new Response(description.text, { headers: { 'content-type': 'application/json', etag: description.etag } })
  })

  add({ route: 'GET /docs', tag: 'system', summary: 'This description for people', mediaType: 'text/html' }, () => {
    const scriptStart = DOCS_PAGE.indexOf('<script>') + '<script>'.length
    const script = DOCS_PAGE.slice(scriptStart, DOCS_PAGE.indexOf('</script>'))
    const scriptHash = createHash('sha256').update(script).digest('base64')
    return new Response(DOCS_PAGE, {
      headers: {
        'content-type': 'text/html; charset=utf-8',
        'content-security-policy': `default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'; script-src 'sha256-${scriptHash}'`,
      },
    })
  })
}

function describeApi(api: Endpoints['api'], version: string): { text: string; etag: string } {
  const document = api.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'Rubato',
      version,
      description:
        'Lists are paged: send `next` back as `after`. POST heeds Idempotency-Key, changes heed If-Match and `?dryRun=true` where listed. ' +
        'An instance is named in a path like its container: app.service.slot.generation.',
    },
    security: [{ operatorToken: [] }],
  })
  const components = { ...document.components, securitySchemes: { operatorToken: { type: 'http', scheme: 'bearer' } } }
  const text = `${JSON.stringify({ ...document, components })}\n`
  return { text, etag: `"${createHash('sha256').update(text).digest('hex').slice(0, 16)}"` }
}

function plain(text: string, contentType = 'text/plain; charset=utf-8'): Response {
  return new Response(text, { headers: { 'content-type': contentType } })
}
