/**
 * Keeps agents told of the images that they shall pull ahead. Looks again only at services that changed, and at those that scale once a
 * minute (forecasts move without a change of the state). Updates are in a hurry; where growth would go, which costs a placement over
 * all nodes, is asked rarely.
 */
import type { Clock } from '../../shared/clock.ts'
import { compare } from '../../shared/compare.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop, type Loop } from '../../shared/loop.ts'
import type { ScaleRules } from '../../shared/model/app.ts'
import { type NodeId, type ServiceId, serviceId } from '../../shared/model/identity.ts'
import type { ImageToPull } from '../../shared/protocol/frames.ts'
import { createIsolation } from '../state/isolation.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import type { PlacementNode, PlacementOptions } from './model.ts'
import { type GrowthWant, placeGrowth, planPullAhead, type PullWant } from './plan-pull-ahead.ts'
import { growthWantOf, type ServiceHere, updateWantOf } from './pull-wants.ts'
import type { ChargeOf } from './requests.ts'

export interface PullAheadLoopDeps {
  readonly state: State
  readonly observed: Observed
  readonly clock: Clock
  readonly logger: Logger
  readonly options: PlacementOptions
  /** Nodes as placement sees them now. */
  nodes(): readonly PlacementNode[]
  /** The rules that scaling goes by now; null: it does not scale. */
  rulesOf(id: ServiceId): ScaleRules | null
  /** Instances that the forecast says will be wanted soon; null: it says nothing. */
  aheadOf(id: ServiceId, rules: ScaleRules): number | null
  readonly chargeOf?: ChargeOf
  tell(wanted: ReadonlyMap<NodeId, readonly ImageToPull[]>): void
}

/** Between two plans, and two placements of growth; the first change after a quiet time is planned for at once. */
const PACE_MS = 1_000
const GROWTH_PACE_MS = 10_000
const LOOK_MS = 60_000
/** Services that grow and are planned for at once, the likeliest first. */
const MAX_GROWING = 100

export function createPullAheadLoop(deps: PullAheadLoopDeps): Loop {
  const { state, observed, clock } = deps
  const logger = deps.logger.with({ loop: 'pull-ahead' })
  const isolation = createIsolation({ state, clock, logger, part: 'pull-ahead' })
  const updates = new Map<ServiceId, PullWant>()
  const growth = new Map<ServiceId, { readonly want: GrowthWant; readonly urgency: number }>()
  const dirty = new Set<ServiceId>()
  let lastMs = Number.NEGATIVE_INFINITY
  let lookDueMs = Number.NEGATIVE_INFINITY
  let growthDueMs = Number.NEGATIVE_INFINITY
  let places: readonly PullWant[] = []
  /** Whether `places` may be other ones by now. */
  let isGrowthStale = true
  let unsubscribe = () => {}

  const servicesOf = (app: string) => state.snapshot.get('app', app)?.spec.services ?? []
  const markApp = (name: string) => {
    for (const spec of servicesOf(name)) dirty.add(serviceId(name, spec.name))
    // What it has no more.
    for (const known of [updates, growth]) for (const id of known.keys()) if (id.startsWith(`${name}/`)) dirty.add(id)
  }
  const markScaling = () => {
    for (const name of state.snapshot.all('app').keys())
      for (const spec of servicesOf(name)) if (spec.scale !== null) dirty.add(serviceId(name, spec.name))
  }
  const find = (id: ServiceId): ServiceHere | null => {
    const [appName = '', name = ''] = id.split('/')
    const app = state.snapshot.get('app', appName)
    const spec = app?.spec.services.find((candidate) => candidate.name === name)
    const record = state.snapshot.get('service', id)
    if (app === undefined || app.removing || spec === undefined || record === undefined) return null
    return { app, spec, record, instances: state.snapshot.instancesOf(id) }
  }
  const look = (id: ServiceId) => {
    updates.delete(id)
    if (growth.delete(id)) isGrowthStale = true
    const here = find(id)
    if (here === null) return
    const update = updateWantOf(here)
    if (update !== null) updates.set(id, update)
    const rules = here.spec.scale === null ? null : deps.rulesOf(id)
    const ahead = rules === null ? null : deps.aheadOf(id, rules)
    const { chargeOf } = deps
    const more = growthWantOf(here, { rules, ahead, ...(chargeOf ? { chargeOf } : {}) }, clock.now())
    if (more === null) return
    growth.set(id, more)
    isGrowthStale = true
  }
  const diskUse = ({ id, capacity }: PlacementNode) => {
    const used = observed.node(id)?.use?.diskBytes
    return used === undefined || capacity.diskBytes <= 0 ? null : used / capacity.diskBytes
  }
  /** What comes counts as there, else noise would send it elsewhere when it has half come. */
  const withPending = (node: PlacementNode): PlacementNode => {
    const pending = observed.node(node.id)?.ahead?.pending ?? []
    return pending.length === 0 ? node : { ...node, images: new Set([...node.images, ...pending]) }
  }
  const plan = (nowMs: number) => {
    const nodes = updates.size === 0 && growth.size === 0 ? [] : deps.nodes()
    if (isGrowthStale && nowMs >= growthDueMs) {
      isGrowthStale = false
      growthDueMs = nowMs + GROWTH_PACE_MS
      const likeliest = [...growth.values()].sort((a, b) => a.urgency - b.urgency || compare(a.want.service, b.want.service))
      places = placeGrowth(
        likeliest.slice(0, MAX_GROWING).map(({ want }) => want),
        nodes.map(withPending),
        deps.options,
      )
    }
    const inOrder = [...updates.values()].sort((a, b) => compare(a.service, b.service))
    // Without services that want nothing more since their growth was placed.
    deps.tell(planPullAhead({ updates: inOrder, growth: places.filter(({ service }) => growth.has(service)), nodes, diskUse }))
  }

  const loop = createLoop({
    name: 'pull-ahead',
    clock,
    logger,
    maxSleepMs: LOOK_MS,
    async run() {
      const nowMs = clock.monotonicMs()
      if (nowMs < lastMs + PACE_MS) return clock.now() + (lastMs + PACE_MS - nowMs)
      lastMs = nowMs
      if (nowMs >= lookDueMs) {
        lookDueMs = nowMs + LOOK_MS
        markScaling()
        isGrowthStale = true
      }
      for (const id of dirty) isolation.attempt(id, () => look(id))
      dirty.clear()
      plan(nowMs)
      return clock.now() + (Math.min(lookDueMs, isGrowthStale ? growthDueMs : lookDueMs) - nowMs)
    },
  })

  return {
    name: loop.name,
    poke: () => loop.poke(),
    start() {
      for (const name of state.snapshot.all('app').keys()) markApp(name)
      unsubscribe = state.onChange(({ keys }) => {
        let isNews = false
        for (const { kind, key } of keys) {
          if (kind === 'service') dirty.add(key)
          else if (kind === 'app') markApp(key)
          else if (kind === 'node') isGrowthStale = true
          else continue
          isNews = true
        }
        if (isNews) loop.poke()
      })
      loop.start()
    },
    async stop() {
      unsubscribe()
      await loop.stop()
    },
  }
}
