/** The API's view of the coordinator: each part behind the narrow interface that the API owns. */
import { ConflictError, InputError, NotFoundError, UnavailableError } from '../shared/errors.ts'
import type { AppSpec } from '../shared/model/app.ts'
import { serviceId } from '../shared/model/identity.ts'
import { VERSION } from '../shared/version.ts'
import type { Logger } from '../shared/logger.ts'
import type { Clock } from '../shared/clock.ts'
import type { Ids } from '../shared/ids.ts'
import { notStored } from './access/commit-change.ts'
import { appSpecSchema } from './apps/app-spec-schema.ts'
import { checkForeignPorts } from './apps/check-foreign-ports.ts'
import { diffApps } from './apps/dry-run.ts'
import type { AgentBinary, ApiDeps, AppOperations } from './api/deps.ts'
import type { Coordinator } from './coordinator.ts'
import { cordonNode, drainNode, evenIfChanged, interruptNode, removeNode, uncordonNode } from './fleet/node-actions.ts'
import { whoChose } from './placement/answers.ts'
import { remedyOf, renderExplanation } from './placement/explain.ts'
import { deployApp, type Prepared, removeApp, rollbackApp, scaleService } from './services/deploy.ts'
import { checkSchedulers, previewPlacement } from './schedulers/preview.ts'
import type { State } from './state/state.ts'

export interface ApiWiring {
  readonly coordinator: Coordinator
  readonly clock: Clock
  readonly ids: Ids
  readonly logger: Logger
  readonly caPem: string | null
  readonly installScript: string
  agentBinary(platform: string): Promise<AgentBinary | null>
  /** See ApiDeps. */
  offeredPrice(provider: string, offering: string): number | null
  /** See ApiSettings. */
  readonly operatorMaxPriority: number
  extraMetrics(): string
}

export function apiDeps(wiring: ApiWiring): ApiDeps {
  const { coordinator, clock, ids, logger } = wiring
  const { state, hub, placement, scaling, fleet } = coordinator
  const steady = { state, clock: { now: coordinator.steadyNowMs } }
  return {
    clock,
    ids,
    logger,
    version: VERSION,
    state,
    observed: hub.observed,
    apps: appOperations(coordinator, clock),
    appSpecSchema,
    offeredPrice: (provider, offering) => wiring.offeredPrice(provider, offering),
    settings: { operatorMaxPriority: wiring.operatorMaxPriority },
    nodes: {
      cordon: async (node, actor) => void (await evenIfChanged(() => cordonNode(steady, node, actor))),
      uncordon: async (node, actor) => void (await evenIfChanged(() => uncordonNode(steady, node, actor))),
      async drain(node, { actor, reason, deleteMachine, deadlineMs }) {
        const drain = { by: actor, reason, deleteMachine, ...(deadlineMs === null ? {} : { deadlineMs }) }
        await evenIfChanged(() => drainNode(steady, node, drain))
      },
      async interrupt(node, deadlineMs, actor) {
        const deadlineAtMs = coordinator.steadyNowMs() + deadlineMs
        await evenIfChanged(() => interruptNode(steady, node, deadlineAtMs, actor))
      },
      async remove(node, options) {
        await evenIfChanged(() => removeNode(steady, node, { by: options.actor, force: options.force }))
        hub.disconnect(node, 'removed from the cluster')
      },
    },
    keys: coordinator.keys,
    operatorTokens: coordinator.operatorTokens,
    joining: {
      createToken: (request) =>
        coordinator.joinTokens.create({ machineId: null, labels: request.labels, lifeMs: request.ttlMs, actor: request.actor }),
      join: coordinator.join,
    },
    hub: {
      logs: (instance, options, signal) => hub.logs(instance, options, signal),
      keysProgress() {
        const revision = hub.keysRevision()
        return { revision, waitingFor: hub.keysAppliedBy(revision).pending }
      },
    },
    explain: {
      scaling(service) {
        const decision = scaling.decision(service)
        if (!decision) return null
        const loadPercent = decision.demandPercent === null || decision.n === 0 ? null : decision.demandPercent / decision.n
        return {
          loadPercent,
          thresholdPercent: decision.thresholdPercent,
          reasons: [{ subject: service, code: decision.code, text: decision.reason }],
        }
      },
      objective: (service) => scaling.objective(service),
      decisions: (service) => scaling.decisionsOf(service),
      turnsPerHour: (service) => scaling.turnsPerHour(service),
      forecast: (service) => coordinator.forecasts.current(service),
      forecasters: (service) => coordinator.forecasts.standings(service),
      placement(instance) {
        const explanation = placement.explanation(instance)
        if (explanation === null) return null
        const parts = [renderExplanation(explanation), fleet.noteFor(instance)].filter((part) => part !== null)
        const remedy = remedyOf(explanation)
        return `${parts.join('; ')}${remedy === null ? '' : ` → ${remedy}`}`
      },
      asking: (instance) => placement.asking(instance),
      waitingFor: (instance) => fleet.waitingFor(instance),
    },
    fleet: {
      view: () => fleet.view(),
      figures() {
        const view = fleet.view()
        return { spentUsdThisMonth: view.spentUsd, limitUsdPerMonth: view.budgetUsdPerMonth }
      },
    },
    past: coordinator.past,
    caPem: wiring.caPem,
    agentBinary: wiring.agentBinary,
    installScript: wiring.installScript,
    extraMetrics: wiring.extraMetrics,
  }
}

function appOperations({ state, placement, schedulers }: Coordinator, clock: Clock): AppOperations {
  return {
    async deploy(input) {
      checkSchedulers(input.spec, schedulers.names())
      // Asked again with every attempt: one that met another deploy must not be laid over it.
      const outcome = await commitPrepared(state, () => {
        const revision = state.snapshot.get('app', input.spec.name)?.revision ?? 0
        if (input.ifRevision !== null && revision !== input.ifRevision)
          throw new ConflictError(`${input.spec.name} is at revision ${revision}, not ${input.ifRevision}: look at it again`)
        requireFreePorts(state, input.spec)
        return deployApp(state, { spec: input.spec, source: input.source, by: input.actor }, clock.now())
      })
      return { revision: outcome.revision, changed: outcome.kind !== 'unchanged' }
    },
    async preview({ spec }) {
      const changes = diffApps(state.snapshot.get('app', spec.name)?.spec ?? null, spec)
      checkSchedulers(spec, schedulers.names())
      requireFreePorts(state, spec)
      const { plan, why, left } = await previewPlacement(spec, placement.nodes(), placement.desk)
      const where = new Map<string, { place: string; chosen: string; count: number }>()
      for (const { instance, node, request, chosenBy } of plan.assignments) {
        const who = whoChose(request.rules.scheduler, chosenBy, why.get(request.group) ?? null)
        const place = `${serviceId(spec.name, instance.split('/')[1] ?? '')} on ${node}`
        const known = where.get(place)
        if (known) known.count += 1
        else where.set(place, { place, chosen: who === null ? '' : `, ${who}`, count: 1 })
      }
      return {
        changes: changes.flatMap((change) => [
          `${change.service}: ${change.message}`,
          ...change.fields.map((field) => `  ${field.path}: ${field.before} → ${field.after}`),
        ]),
        placement: [
          ...[...where.values()].map(({ place, chosen, count }) => `${count === 1 ? place : `${place} (${count})`}${chosen}`),
          ...plan.refusals.map(({ instance, explanation }) => {
            const remedy = remedyOf(explanation)
            return `${instance} waits: ${renderExplanation(explanation)}${remedy === null ? '' : ` → ${remedy}`}`
          }),
          ...left.map(({ service, count }) => `${service}: ${count} more, which a dry run does not look at`),
        ],
        warnings: [],
      }
    },
    async rollback(name, revision, actor) {
      const outcome = await commitPrepared(state, () => {
        const app = state.snapshot.get('app', name)
        const target = revision === null ? app?.history[0] : app?.history.find((earlier) => earlier.revision === revision)
        if (target) requireFreePorts(state, target.spec)
        return rollbackApp(state, { name, by: actor, ...(revision === null ? {} : { toRevision: revision }) }, clock.now())
      })
      return { revision: outcome.revision, changed: outcome.kind !== 'unchanged' }
    },
    remove: async (name, actor) => void (await commitPrepared(state, () => removeApp(state, { name, by: actor }))),
    async scale(service, replicas, actor) {
      const [app, name] = service.split('/')
      if (!app || !name) throw new NotFoundError(`${service} is no service: write app/service`)
      await commitPrepared(state, () => scaleService(state, { app, service: name, count: replicas, by: actor }))
    },
  }
}

/** Throws InputError with each port that another app publishes already. */
function requireFreePorts(state: State, spec: AppSpec): void {
  const faults = checkForeignPorts(spec, state.snapshot.all('app').values())
  if (faults.length > 0) throw new InputError('Another app publishes the same port.', faults)
}

/** Commits; a loop that touched the same object meanwhile makes it prepare again, a few times. */
async function commitPrepared<T>(state: State, prepare: () => Prepared<T>): Promise<T> {
  for (let attempt = 0; ; attempt += 1) {
    const { change, outcome } = prepare()
    const result = await state.commit(change)
    if (result.kind === 'committed') return outcome
    if (result.kind === 'unavailable') throw notStored(result)
    if (result.kind !== 'conflict' || attempt >= 9)
      throw new UnavailableError(`could not be stored: ${result.kind}: ${result.detail}`)
  }
}
