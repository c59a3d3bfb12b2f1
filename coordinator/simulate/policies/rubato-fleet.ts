/** The fleet's plans over the model world. What the loops observe is translated here, what they decide is carried out. */
import type { ServiceSpec } from '../../../shared/model/app.ts'
import type { MachineRecord } from '../../../shared/model/node.ts'
import type { FleetConfig } from '../../fleet/config.ts'
import { BUDGET_REASON } from '../../fleet/drain-reasons.ts'
import { ghostsAhead, spareGhosts } from '../../fleet/ghosts.ts'
import { createBuyHold, createDownTimer, firmHoldOf } from '../../fleet/pace.ts'
import { type Ghost, planCapacity } from '../../fleet/plan-capacity.ts'
import { budgetOf, overrunOf } from '../../fleet/plan-budget.ts'
import { planCancellation } from '../../fleet/plan-cancellation.ts'
import { planConsolidation } from '../../fleet/plan-consolidation.ts'
import { holdOn, planHolds } from '../../fleet/plan-holds.ts'
import type { PlacementNode, PlacementOptions, PlacementRequest } from '../../placement/model.ts'
import { assumedNode } from '../../placement/plan-offline.ts'
import { planPlacement } from '../../placement/plan-placement.ts'
import { requestOf } from '../../placement/requests.ts'
import type { SimInstance, SimMachine, SimPool, World } from '../world.ts'

export interface RubatoFleetSetup {
  readonly world: World
  readonly app: string
  readonly spec: ServiceSpec
  readonly pools: readonly SimPool[]
  readonly config: FleetConfig
  readonly placement: PlacementOptions
}

export interface RubatoFleet {
  /** `predicted`: instances that will be wanted within the machine lead time, those that there are included. */
  tick(predicted: number): void
}

export function createRubatoFleet({ world, app, spec, pools, config, placement }: RubatoFleetSetup): RubatoFleet {
  const service = `${app}/${spec.name}`
  const context = { app, spec, revision: 1, home: null }
  const requests = new Map<string, PlacementRequest>()
  const requestFor = (id: string): PlacementRequest => {
    const known = requests.get(id)
    if (known !== undefined) return known
    const made = requestOf(id, context)
    requests.set(id, made)
    return made
  }
  const charge = requestFor(`${service}/1/1`).charge
  const byName = new Map(pools.map((pool) => [pool.name, pool]))
  const providers = new Set(pools.map((pool) => pool.provider))
  const downTimer = createDownTimer(config.downIntervalMs, world.nowMs)
  const buyHold = createBuyHold<SimInstance>(config.buyHoldMs)
  const hasBudget = config.budgetUsdPerMonth !== null || pools.some((pool) => pool.budgetUsdPerMonth !== null)
  const hasMinimum = pools.some((pool) => pool.min > 0)
  const reclaimedAtMs = new Map<string, number>()
  const spare = spareGhosts(pools, config, () => spec.unit.runtime)
  /** Instances that nothing can be bought for. */
  let blocked: ReadonlySet<string> = new Set()
  let tried: ReadonlySet<string> = new Set()
  let seen = -1
  let planned = 0
  let wanted = world.wanted
  /** The last look at what could go, when nothing could: it stands until the world changes or a machine comes of age. */
  let kept = { revision: -1, predicted: -1, untilMs: 0 }

  const nodeOf = (machine: SimMachine, closed: string | null): PlacementNode => {
    const { pool } = machine
    const count = machine.instances.size
    const staying = [...machine.instances].filter((instance) => !instance.isLeaving).length
    return assumedNode(machine.id, pool.capacity, {
      labels: pool.labels,
      taints: pool.taints,
      pool: pool.name,
      provider: pool.provider,
      zone: pool.zone,
      free: {
        cpuMillis: pool.capacity.cpuMillis - count * charge.cpuMillis,
        memoryBytes: pool.capacity.memoryBytes - count * charge.memoryBytes,
        diskBytes: pool.capacity.diskBytes - count * charge.diskBytes,
        slots: pool.capacity.slots - count,
      },
      closed,
      services: new Map([[service, staying]]),
    })
  }
  const joined = () => world.machines.filter((machine) => machine.state === 'joined')
  const machineById = (id: string) => world.machines.find((machine) => machine.id === id)

  const place = (): readonly SimInstance[] => {
    const pending = world.pending()
    if (pending.length === 0) return pending
    const byId = new Map(pending.map((instance) => [instance.id, instance]))
    const plan = planPlacement({
      requests: pending.map(({ id }) => requestFor(id)),
      nodes: joined().map((machine) => nodeOf(machine, null)),
      options: placement,
    })
    for (const { instance, node } of plan.assignments) {
      const waiting = byId.get(instance)
      const machine = machineById(node)
      if (waiting !== undefined && machine !== undefined) world.bind(waiting, machine)
    }
    return plan.refusals.flatMap(({ instance }) => byId.get(instance) ?? [])
  }

  const ghostsFor = (predicted: number): readonly Ghost[] => [...ghostsAhead(context, predicted, world.wanted), ...spare]

  /** `afterMs`: so long after this moment, until the next tick nothing else happens. */
  const capacity = (refused: readonly SimInstance[], predicted: number, afterMs: number) => {
    const draining = world.machines.filter(({ drain }) => drain !== null && !drain.reason.startsWith(BUDGET_REASON))
    const plan = planCapacity({
      refused: refused.map(({ id }) => requestFor(id)),
      ghosts: ghostsFor(predicted),
      nodes: joined().map((machine) => nodeOf(machine, null)),
      reclaimable: draining.map((machine) => nodeOf(machine, null)),
      machines: records(),
      pools,
      handJoined: new Map(),
      cooling: new Map(),
      providers,
      config,
      nowMs: world.nowMs,
    })
    blocked = new Set(plan.blocked.keys())
    for (const action of plan.actions) {
      if (action.kind === 'buy') world.buy(byName.get(action.pool) as SimPool, action.reason, afterMs)
      else if (action.kind === 'reclaim') {
        const machine = machineById(action.nodeId)
        if (machine === undefined) continue
        world.undrain(machine, 'is needed again')
        reclaimedAtMs.set(machine.pool.name, world.nowMs)
        buyHold.forget()
      }
    }
  }

  const records = (): readonly MachineRecord[] =>
    // Ended machines only teach the budget how long one lives.
    [...(hasBudget ? world.ended : []), ...world.machines].map((machine) => ({
      id: machine.id,
      name: machine.id,
      pool: machine.pool.name,
      provider: machine.pool.provider,
      phase: machine.state === 'coming' ? 'booting' : machine.state === 'gone' ? 'gone' : 'joined',
      providerId: machine.id,
      nodeId: machine.state === 'coming' ? null : machine.id,
      capacity: machine.pool.capacity,
      priceUsdPerHour: machine.pool.priceUsdPerHour,
      reason: '',
      requestedAtMs: machine.requestedAtMs,
      bootedAtMs: null,
      joinedAtMs: machine.state === 'coming' ? null : machine.joinsAtMs,
      terminatingAtMs: null,
      goneAtMs: machine.goneAtMs,
      attempts: 1,
      lastError: null,
    }))

  const budgetNow = (machines: readonly MachineRecord[]) =>
    budgetOf({ machines, pools, limitUsd: config.budgetUsdPerMonth, nowMs: world.nowMs })

  const cancel = (predicted: number) => {
    if (!world.machines.some(({ state }) => state === 'coming')) return
    const plan = planCancellation(
      {
        nodes: joined().map((machine) => nodeOf(machine, null)),
        machines: records(),
        pools,
        wanted: [...world.pending().map(({ id }) => requestFor(id)), ...ghostsFor(predicted).map(({ request }) => request)],
        leastAgeMs: config.downIntervalMs,
        headroomPercent: config.headroomPercent,
      },
      world.nowMs,
    )
    for (const { machineId, reason } of plan.actions) {
      const machine = machineById(machineId)
      if (machine !== undefined) world.cancel(machine, reason)
    }
  }

  const giveBack = (predicted: number) => {
    const leaving = world.machines.filter((machine) => machine.state === 'draining')
    if (firmHoldOf({ frozen: null, leaving: leaving.length, config }) !== null) return
    if (world.revision === kept.revision && predicted === kept.predicted && world.nowMs < kept.untilMs) return
    const all = records()
    const byId = new Map(all.map((record) => [record.id, record]))
    // What nothing can be bought for must not keep machines alive for ever.
    const waiting = world.pending().filter(({ id }) => !blocked.has(id))
    const holds = planHolds(
      {
        nodes: [],
        services: [{ id: service, isUpdating: false, waiting: waiting.length }],
        machines: all,
        reclaimedAtMs,
        downIntervalMs: config.downIntervalMs,
      },
      world.nowMs,
    )
    const requestsOn = (id: string) => [...(machineById(id)?.instances ?? [])].map((instance) => requestFor(instance.id))
    const plan = planConsolidation(
      {
        nodes: joined().map((machine) => nodeOf(machine, null)),
        requestsOn,
        keepsData: new Set(),
        machineOf: (id) => byId.get(id),
        machines: all,
        pools,
        hold: holds.manyWaiting,
        heldOf: (node) => holdOn(node, holds),
        overBudget: config.budgetUsdPerMonth === null ? null : overrunOf(budgetNow(all)),
        ghosts: [...ghostsFor(predicted).map(({ request }) => request), ...waiting.map(({ id }) => requestFor(id))],
        room: config.maxParallelDrains - leaving.length,
        tried,
        minNodeAgeMs: config.minNodeAgeMs,
        headroomPercent: config.headroomPercent,
        minSavingsRatio: config.minSavingsRatio,
      },
      world.nowMs,
    )
    tried = plan.tried
    // Holds end with time alone, and turns go round: then the next look may find what this one did not.
    const isSettled = holds.pools.size === 0 && tried.size === 0
    const untilMs = isSettled ? (plan.wakeAtMs ?? Number.POSITIVE_INFINITY) : world.nowMs
    kept = { revision: world.revision, predicted, untilMs }
    for (const action of plan.actions) {
      const machine = machineById(action.nodeId)
      if (machine !== undefined) world.drain(machine, action.reason, config.drainDeadlineMs)
    }
  }

  return {
    tick(predicted) {
      if (world.revision !== seen || predicted > planned) {
        const refused = place()
        const { lasting, youngMs } = buyHold.lasting(refused, world.nowMs)
        if (lasting.size > 0 || hasMinimum || spare.length > 0 || predicted > world.wanted) capacity([...lasting], predicted, 0)
        if (youngMs !== null) {
          const pending = refused.filter((instance) => instance.state === 'pending')
          capacity([...buyHold.lasting(pending, world.nowMs + youngMs).lasting], predicted, youngMs)
        }
        seen = world.revision
      }
      planned = predicted
      if (world.wanted < wanted) downTimer.scaledDown(world.nowMs)
      wanted = world.wanted
      if (downTimer.take(world.nowMs)) {
        cancel(predicted)
        giveBack(predicted)
      }
    },
  }
}
