/** `deploy` of a service and the older keys that mean the same. */
import { type Constraint, MAX_SPREAD, type UpdateRules } from '../../shared/model/app.ts'
import type { Resources } from '../../shared/model/resources.ts'
import type { RestartPolicy } from '../../shared/model/unit.ts'
import {
  DEPLOY_KEYS,
  LIMITS_KEYS,
  PLACEMENT_KEYS,
  RESERVATIONS_KEYS,
  RESOURCES_KEYS,
  RESTART_POLICY_KEYS,
  SPREAD_KEYS,
  UPDATE_KEYS,
} from './compose-schema.ts'
import { child, children, type Cursor } from './located.ts'
import { type Report, shorten } from './report.ts'
import { nearest } from '../../shared/nearest.ts'
import { bytes, cpuMillis, durationMs, type Fields, fields, integer, number, oneOf, record, text, texts, word } from './values.ts'

const MAX_REPLICAS = 100_000
export const RESTART_DEFAULTS = { delayMs: 1_000, windowMs: 60_000 } as const
export const UPDATE_DEFAULTS = {
  parallelism: 1,
  delayMs: 0,
  monitorMs: 10_000,
  progressDeadlineMs: 300_000,
  failureAction: 'rollback',
} as const
const CONSTRAINT_ATTRIBUTE = /^(node\.(id|hostname|pool|provider|zone|labels\..+)|engine\.labels\..+)$/
const CONSTRAINT_NAMES = ['node.id', 'node.hostname', 'node.pool', 'node.provider', 'node.zone', 'node.labels.', 'engine.labels.']

export interface ReadDeploy {
  readonly mode: 'replicated' | 'global'
  /** `replicated-job` or `global-job` is written. */
  readonly isJob: boolean
  /** null where no mode is written. */
  readonly modeCursor: Cursor | null
  /** null where nothing is said. */
  readonly replicas: { readonly count: number; readonly cursor: Cursor } | null
  readonly labels: Readonly<Record<string, string>>
  readonly limits: Partial<Resources> & { pids?: number }
  readonly reservations: Partial<Resources>
  /** null where nothing is said. */
  readonly restart: RestartPolicy | null
  readonly constraints: readonly Constraint[]
  readonly spreadOver: readonly string[]
  readonly maxPerNode: number | null
  /** Only what is written. */
  readonly update: Partial<UpdateRules>
}

export function readDeploy(report: Report, service: Cursor): ReadDeploy {
  const deploy = fields(report, child(service, 'deploy'), DEPLOY_KEYS, 'deploy')
  const endpointMode = deploy?.get('endpoint_mode')
  if (oneOf(report, endpointMode, 'endpoint_mode', ['vip', 'dnsrr']) === 'dnsrr' && endpointMode !== undefined)
    report.warn(
      endpointMode,
      'endpoint_mode dnsrr is ignored: clients of the catalog see every instance, the gateway balances for others',
    )
  const placement = fields(report, deploy?.get('placement'), PLACEMENT_KEYS, 'placement')
  return {
    ...readMode(report, deploy?.get('mode')),
    replicas: readReplicas(report, service, deploy),
    labels: record(report, deploy?.get('labels'), 'deploy.labels'),
    ...readResources(report, service, deploy),
    restart: readRestart(report, service, deploy),
    constraints: texts(report, placement?.get('constraints'), 'constraints', false).flatMap((item) =>
      readConstraint(report, item),
    ),
    spreadOver: readSpread(report, placement?.get('preferences')),
    maxPerNode:
      integer(report, placement?.get('max_replicas_per_node'), 'max_replicas_per_node', { min: 0, max: MAX_REPLICAS }) || null,
    update: readUpdate(report, deploy?.get('update_config')),
  }
}

function readMode(report: Report, cursor: Cursor | undefined): Pick<ReadDeploy, 'mode' | 'isJob' | 'modeCursor'> {
  const mode = oneOf(report, cursor, 'mode', ['replicated', 'global', 'replicated-job', 'global-job']) ?? 'replicated'
  return {
    mode: mode === 'global' || mode === 'global-job' ? 'global' : 'replicated',
    isJob: mode.endsWith('-job'),
    modeCursor: cursor ?? null,
  }
}

function readReplicas(report: Report, service: Cursor, deploy: Fields | undefined): ReadDeploy['replicas'] {
  const range = { min: 0, max: MAX_REPLICAS }
  const inDeploy = deploy?.get('replicas')
  const outside = child(service, 'scale')
  const count = integer(report, inDeploy, 'replicas', range)
  const scale = integer(report, outside, 'scale', range)
  if (count !== undefined && scale !== undefined && count !== scale && outside !== undefined)
    report.fault(outside, `scale (${scale}) and deploy.replicas (${count}) disagree`, 'keep one of them')
  if (count !== undefined && inDeploy !== undefined) return { count, cursor: inDeploy }
  return scale !== undefined && outside !== undefined ? { count: scale, cursor: outside } : null
}

function readResources(report: Report, service: Cursor, deploy: Fields | undefined): Pick<ReadDeploy, 'limits' | 'reservations'> {
  const resources = fields(report, deploy?.get('resources'), RESOURCES_KEYS, 'resources')
  const limits = fields(report, resources?.get('limits'), LIMITS_KEYS, 'limits')
  const reservations = fields(report, resources?.get('reservations'), RESERVATIONS_KEYS, 'reservations')
  const one = <T>(name: string, inDeploy: T | undefined, outside: T | undefined): T | undefined => {
    const cursor = child(service, name)
    if (inDeploy !== undefined && outside !== undefined && inDeploy !== outside && cursor !== undefined)
      report.fault(cursor, `${name} and deploy.resources disagree`, 'keep one of them')
    return inDeploy ?? outside
  }
  const quota = number(report, child(service, 'cpu_quota'), 'cpu_quota')
  const period = durationOrMicros(report, child(service, 'cpu_period')) ?? 100_000
  const quotaMillis = quota === undefined || quota <= 0 || period <= 0 ? undefined : Math.round((quota / period) * 1000)
  const cpuLimit =
    one('cpus', cpuMillis(report, limits?.get('cpus'), 'cpus'), cpuMillis(report, child(service, 'cpus'), 'cpus')) ?? quotaMillis
  const memoryLimit = one(
    'mem_limit',
    bytes(report, limits?.get('memory'), 'memory'),
    bytes(report, child(service, 'mem_limit'), 'mem_limit'),
  )
  const pids = one('pids_limit', readPids(report, limits?.get('pids')), readPids(report, child(service, 'pids_limit')))
  const cpuReserved = cpuMillis(report, reservations?.get('cpus'), 'cpus')
  const memoryReserved = one(
    'mem_reservation',
    bytes(report, reservations?.get('memory'), 'memory'),
    bytes(report, child(service, 'mem_reservation'), 'mem_reservation'),
  )
  const at = reservations?.cursor ?? child(service, 'mem_reservation') ?? service
  if (cpuReserved && cpuLimit && cpuReserved > cpuLimit)
    report.fault(reservations?.get('cpus') ?? at, 'more CPU is reserved than the limit allows')
  if (memoryReserved && memoryLimit && memoryReserved > memoryLimit)
    report.fault(reservations?.get('memory') ?? at, 'more memory is reserved than the limit allows')
  if (memoryLimit && memoryLimit < 6 * 2 ** 20)
    report.fault(
      limits?.get('memory') ?? child(service, 'mem_limit') ?? at,
      'a memory limit below 6 MiB is refused by engines',
      'write the unit: "128M"',
    )
  return {
    limits: {
      ...(cpuLimit ? { cpuMillis: cpuLimit } : {}),
      ...(memoryLimit ? { memoryBytes: memoryLimit } : {}),
      ...(pids === undefined ? {} : { pids }),
    },
    reservations: {
      ...(cpuReserved ? { cpuMillis: cpuReserved } : {}),
      ...(memoryReserved ? { memoryBytes: memoryReserved } : {}),
    },
  }
}

function readPids(report: Report, cursor: Cursor | undefined): number | undefined {
  const pids = integer(report, cursor, 'pids', { min: -1, max: 4_194_304 })
  return pids === undefined || pids <= 0 ? undefined : pids
}

function durationOrMicros(report: Report, cursor: Cursor | undefined): number | undefined {
  const written = text(report, cursor, 'cpu_period')
  if (written === undefined) return undefined
  if (/^\d+$/.test(written)) return Number(written)
  const value = durationMs(report, cursor, 'cpu_period')
  return value === undefined ? undefined : value * 1000
}

function readRestart(report: Report, service: Cursor, deploy: Fields | undefined): RestartPolicy | null {
  const policy = fields(report, deploy?.get('restart_policy'), RESTART_POLICY_KEYS, 'restart_policy')
  const restart = readRestartWord(report, child(service, 'restart'))
  if (policy === undefined) return restart
  const condition = oneOf(report, policy.get('condition'), 'condition', ['any', 'on-failure', 'none']) ?? 'any'
  return {
    condition,
    delayMs: durationMs(report, policy.get('delay'), 'delay') ?? RESTART_DEFAULTS.delayMs,
    maxAttempts: integer(report, policy.get('max_attempts'), 'max_attempts', { min: 0, max: 1_000_000 }) || null,
    windowMs: durationMs(report, policy.get('window'), 'window') || RESTART_DEFAULTS.windowMs,
  }
}

function readRestartWord(report: Report, cursor: Cursor | undefined): RestartPolicy | null {
  const written = cursor?.node.kind === 'scalar' && cursor.node.value === false ? 'no' : text(report, cursor, 'restart')
  if (written === undefined || cursor === undefined) return null
  const match = /^(no|always|unless-stopped|on-failure)(?::(\d{1,6}))?$/.exec(written)
  if (match === null || (match[2] !== undefined && match[1] !== 'on-failure')) {
    report.fault(cursor, `restart must be "no", always, unless-stopped, on-failure or on-failure:N, not "${shorten(written)}"`)
    return null
  }
  const condition = match[1] === 'no' ? 'none' : match[1] === 'on-failure' ? 'on-failure' : 'any'
  return { condition, ...RESTART_DEFAULTS, maxAttempts: Number(match[2] ?? 0) || null }
}

function readConstraint(report: Report, item: { value: string; cursor: Cursor }): Constraint[] {
  const match = /^\s*([\w.\-/]+)\s*(==|!=)\s*(.*?)\s*$/.exec(item.value)
  const attribute = match?.[1] ?? ''
  const operator = match?.[2] === '!=' ? '!=' : '=='
  const value = match?.[3] ?? ''
  if (match === null || value === '') {
    report.fault(item.cursor, `"${shorten(item.value)}" is no constraint`, 'write for example "node.labels.disk == ssd"')
    return []
  }
  if (attribute === 'node.role') {
    if ((value === 'worker') === (operator === '=='))
      report.warn(item.cursor, `"${shorten(item.value)}" holds everywhere: every node of Rubato is a worker`)
    else
      report.fault(
        item.cursor,
        `"${shorten(item.value)}" holds nowhere: Rubato's nodes are all workers`,
        'label a node and write node.labels.<name> == <value>',
      )
    return []
  }
  if (CONSTRAINT_ATTRIBUTE.test(attribute)) return [{ attribute, operator, value }]
  if (attribute === 'node.platform.os' || attribute === 'node.platform.arch') {
    if (attribute === 'node.platform.os' && (value === 'linux') === (operator === '=='))
      report.warn(item.cursor, `"${shorten(item.value)}" holds everywhere: nodes run Linux`)
    else
      report.fault(
        item.cursor,
        `constraints cannot look at "${attribute}"`,
        'use "platform: linux/amd64" or "platform: linux/arm64" of the service',
      )
    return []
  }
  const near = nearest(attribute, CONSTRAINT_NAMES)
  report.fault(
    item.cursor,
    `constraints cannot look at "${shorten(attribute)}"`,
    near === null
      ? `they can at ${CONSTRAINT_NAMES.map((name) => (name.endsWith('.') ? `${name}*` : name)).join(', ')}`
      : `did you mean "${near}"?`,
  )
  return []
}

function readSpread(report: Report, cursor: Cursor | undefined): string[] {
  if (cursor === undefined) return []
  if (cursor.node.kind !== 'list') {
    report.fault(cursor, '"preferences" must be a list')
    return []
  }
  const items = children(cursor)
  if (items.length > MAX_SPREAD)
    report.fault(cursor, `more than ${MAX_SPREAD} preferences`, 'the weight of each is half that of the one before it')
  return items.slice(0, MAX_SPREAD).flatMap(({ cursor: item }) => {
    const preference = fields(report, item, SPREAD_KEYS, 'a preference')
    const attribute = word(report, preference?.get('spread'), 'spread', 256)
    if (attribute === undefined) {
      if (preference?.get('spread') === undefined) report.fault(item, 'a preference needs "spread"')
      return []
    }
    if (CONSTRAINT_ATTRIBUTE.test(attribute)) return [attribute]
    report.fault(
      preference?.get('spread') ?? item,
      `nodes have no attribute "${shorten(attribute)}" to spread over`,
      'for example node.zone or node.labels.<name>',
    )
    return []
  })
}

function readUpdate(report: Report, cursor: Cursor | undefined): Partial<UpdateRules> {
  const update = fields(report, cursor, UPDATE_KEYS, 'update_config')
  if (update === undefined) return {}
  const parallelism = integer(report, update.get('parallelism'), 'parallelism', { min: 0, max: MAX_REPLICAS })
  const delayMs = durationMs(report, update.get('delay'), 'delay')
  const monitorMs = durationMs(report, update.get('monitor'), 'monitor')
  const order = oneOf(report, update.get('order'), 'order', ['start-first', 'stop-first'])
  const failureAction = oneOf(report, update.get('failure_action'), 'failure_action', ['rollback', 'pause', 'continue'])
  const ratio = number(report, update.get('max_failure_ratio'), 'max_failure_ratio')
  if (ratio !== undefined && (ratio < 0 || ratio > 1))
    report.fault(update.get('max_failure_ratio') ?? update.cursor, 'max_failure_ratio must be from 0 to 1')
  else if (ratio)
    report.warn(
      update.get('max_failure_ratio') ?? update.cursor,
      'max_failure_ratio is ignored: the first failed instance counts',
    )
  return {
    ...(parallelism === undefined ? {} : { parallelism: parallelism === 0 ? MAX_REPLICAS : parallelism }),
    ...(delayMs === undefined ? {} : { delayMs }),
    ...(monitorMs === undefined ? {} : { monitorMs }),
    ...(order === undefined ? {} : { order }),
    ...(failureAction === undefined ? {} : { failureAction }),
  }
}
