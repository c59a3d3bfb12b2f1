/**
 * Bugs that one could make, as changes to the text of the product's modules: made only in memory, by planted-loader.ts. A bug
 * whose text is not found (any more) fails loudly: then it is to be planted anew where its rule lives now.
 */
export interface PlantedBug {
  readonly name: string
  /** What the product would do wrong. */
  readonly mistake: string
  readonly patches: readonly Patch[]
}

export interface Patch {
  readonly file: string
  /** Occurs exactly once. */
  readonly from: string
  readonly to: string
}

const AGENT_PLAN = 'agent/reconcile/plan-instance.ts'
const EXECUTOR = 'coordinator/fleet/machine-executor.ts'
const REAP = 'coordinator/fleet/plan-reap.ts'
const CAPACITY = 'coordinator/fleet/plan-capacity.ts'
const REPLACE = 'coordinator/services/plan-replace.ts'
const SERVICE_PLAN = 'coordinator/services/service-plan.ts'

const FENCE_PLAN = 'agent/fence/plan-fence.ts'
const WATCHDOG_SLEEPS: Patch = { file: FENCE_PLAN, from: 'if (nowMs < deadlineMs)', to: 'if (nowMs < Number.MAX_VALUE)' }

export const PLANTED_BUGS: readonly PlantedBug[] = [
  {
    name: 'no-epoch-fence',
    mistake: 'agents take sets of a coordinator whose epoch is over, and it does not notice either',
    patches: [
      {
        file: 'coordinator/hub/hub.ts',
        from: 'if (frame.epoch > epoch) return refuse(',
        to: 'if (frame.epoch < 0) return refuse(',
      },
      {
        file: 'agent/link/link.ts',
        from: `'epoch' in frame && frame.epoch < highestEpoch`,
        to: `'epoch' in frame && frame.epoch < 0`,
      },
      { file: 'agent/link/held-set.ts', from: 'const older = frame.epoch < epoch || (', to: 'const older = (' },
    ],
  },
  {
    name: 'revision-goes-back',
    mistake: 'each connection counts its revisions from one again, and agents take older ones',
    patches: [
      { file: 'coordinator/hub/sent-set.ts', from: 'revision = Math.max(revision, agentRevision)', to: 'revision = 0' },
      {
        file: 'agent/link/held-set.ts',
        from: 'const older = frame.epoch < epoch || (frame.epoch === epoch && frame.revision < revision)',
        to: 'const older = frame.epoch < epoch',
      },
    ],
  },
  {
    name: 'revocation-not-sent',
    mistake: 'revoked keys stay in the sets of agents',
    patches: [{ file: 'coordinator/hub/node-sync.ts', from: `...removeItems('removeKeys', keyDiff.remove),`, to: '' }],
  },
  {
    name: 'no-idempotency-token',
    mistake: 'a purchase that is repeated has another name',
    patches: [
      {
        file: EXECUTOR,
        from: '            name: machine.name,',
        to: '            name: machine.name + (machine.attempts || ""),',
      },
    ],
  },
  {
    name: 'timeout-is-absence',
    mistake: 'a deletion that was not answered counts as done',
    patches: [
      {
        file: EXECUTOR,
        from: `if (!(error instanceof RubatoError && error.code === 'not-found')) {`,
        to: 'if (Number.isNaN(0)) {',
      },
    ],
  },
  {
    name: 'deletion-not-repeated',
    mistake: 'a deletion that failed is not tried again',
    patches: [
      {
        file: EXECUTOR,
        from: `machine.phase === 'terminating' && due <= nowMs && deleting`,
        to: `machine.phase === 'terminating' && !dueAt.has(machine.id) && deleting`,
      },
    ],
  },
  {
    name: 'no-back-off',
    mistake: 'a purchase that failed is repeated at once, for ever',
    patches: [{ file: EXECUTOR, from: 'const backoffMs = RETRY.baseMs / 2 + ', to: 'const backoffMs = 0 * ' }],
  },
  {
    name: 'foreign-machines-deleted',
    mistake: 'what the cloud lists and we do not know is deleted, whoever owns it',
    patches: [
      { file: EXECUTOR, from: 'provider.list({ [CLUSTER_TAG]: deps.clusterId() }, signal)', to: 'provider.list({}, signal)' },
      { file: REAP, from: 'if (!cloud.name.startsWith(prefix)) {', to: 'if (Number.isNaN(0)) {' },
    ],
  },
  {
    name: 'orphans-kept',
    mistake: 'a machine that nobody ordered is never deleted',
    patches: [{ file: REAP, from: 'nowMs - sinceMs >= config.orphanGraceMs', to: 'Number.isNaN(0)' }],
  },
  {
    name: 'short-list-believed',
    mistake: 'what a list omits is gone, the first time and whatever its agent says',
    patches: [
      {
        file: REAP,
        from: 'seen.lists < 2 || nowMs - seen.sinceMs < config.missingMs || !silent || !mayDelete',
        to: 'Number.isNaN(0)',
      },
      {
        file: REAP,
        from: `liveness(machine) === 'live')\n  if (contradicting)`,
        to: `liveness(machine) === 'lost')\n  if (Number.isNaN(0) && contradicting)`,
      },
      { file: REAP, from: 'if (list.machines.length === 0 && believed', to: 'if (Number.isNaN(0) && believed' },
    ],
  },
  {
    name: 'overdue-machine-kept',
    mistake: 'a machine that never joins is waited for, for ever',
    patches: [{ file: REAP, from: 'if (nowMs < deadlineMs) {', to: 'if (nowMs < deadlineMs || !Number.isNaN(0)) {' }],
  },
  {
    name: 'late-join-accepted',
    mistake: 'an agent joins from a machine that is being deleted',
    patches: [
      {
        file: 'coordinator/access/plan-join.ts',
        from: `if (!machine || machine.phase === 'terminating' || machine.phase === 'gone' || machine.phase === 'lost')`,
        to: 'if (!machine)',
      },
    ],
  },
  {
    name: 'booting-not-counted',
    mistake: 'machines on their way do not count as capacity',
    patches: [
      {
        file: CAPACITY,
        from: 'const coming = input.machines.filter(isComing)',
        to: 'const coming = input.machines.filter(() => false)',
      },
    ],
  },
  {
    name: 'budget-ignored',
    mistake: 'machines are bought beyond the budget',
    patches: [{ file: CAPACITY, from: 'if (total <= budget.limitUsd + 1e-9) return null', to: 'if (total >= 0) return null' }],
  },
  {
    name: 'generation-reused',
    mistake: 'a replacement has the generation of what it replaces',
    patches: [{ file: 'coordinator/services/generations.ts', from: 'return last + 1', to: 'return Math.max(1, last)' }],
  },
  {
    name: 'unknown-is-lost',
    mistake: 'nodes that a new coordinator has not heard of yet are replaced at once',
    patches: [{ file: 'coordinator/hub/plan-liveness.ts', from: 'unknownForMs: 300_000', to: 'unknownForMs: 0' }],
  },
  {
    name: 'no-freeze',
    mistake: 'when most nodes go silent at once, all of them are replaced',
    patches: [
      {
        file: 'coordinator/hub/plan-liveness.ts',
        from: 'if (fresh < rules.massAtLeast || fresh * 3 <= counted) return null',
        to: 'if (fresh >= 0) return null',
      },
    ],
  },
  {
    name: 'drain-budget-per-node',
    mistake: 'every draining node moves a quarter of the service by itself',
    patches: [{ file: REPLACE, from: 'else if (moving < budget) {', to: 'else if (moving < budget * draft.wanted) {' }],
  },
  {
    name: 'drain-without-replacement',
    mistake: 'a drain stops instances before anything takes their place',
    patches: [
      {
        file: REPLACE,
        from: 'else if (isPastDeadline(draft, member)) retire(',
        to: 'else if (!isPastDeadline(draft, member)) retire(',
      },
    ],
  },
  {
    name: 'pairs-kept',
    mistake: 'when a lost node comes back, the instance and its replacement both stay',
    patches: [{ file: REPLACE, from: 'else if (!isUpdate && !isDrain', to: 'else if (Number.isNaN(0) && !isDrain' }],
  },
  {
    name: 'rollout-not-gated',
    mistake: 'an update goes on before the new instances are healthy',
    patches: [
      {
        file: 'coordinator/services/plan-rollout.ts',
        from: 'if (readyMs === null || member.crashLooping) return false',
        to: 'if (readyMs === null || member.crashLooping) return true',
      },
    ],
  },
  {
    name: 'no-rollback',
    mistake: 'an update that does not become healthy stays half done',
    patches: [
      {
        file: 'coordinator/services/plan-rollout.ts',
        from: 'const culprit = members(draft).find((member) => faultOf(draft, member) !== null)',
        to: 'const culprit = members(draft).find(() => Number.isNaN(0))',
      },
    ],
  },
  {
    name: 'singleton-replaced-early',
    mistake: 'a strict singleton is replaced before its agent must have stopped it',
    patches: [
      {
        file: SERVICE_PLAN,
        from: 'Math.ceil(strictMs * CLOCK_RATE_BOUND) + STRICT_MARGIN_MS',
        to: '0',
      },
    ],
  },
  {
    name: 'singleton-by-present-rules',
    mistake: 'a strict singleton is replaced by what its app says now, not by what its node was told',
    patches: [
      {
        file: SERVICE_PLAN,
        from: 'record.strictMs ?? givenStrictMs(input, record)',
        to: 'input.spec && record ? strictMsOf(input.spec.unit) : null',
      },
    ],
  },
  {
    name: 'singleton-not-fenced',
    mistake: 'neither the agent of a strict singleton nor its watchdog ends it without a coordinator',
    patches: [
      {
        file: AGENT_PLAN,
        from: 'if (unit.singletonStrictMs === null) return null',
        to: 'if (unit.singletonStrictMs !== 0) return null',
      },
      WATCHDOG_SLEEPS,
    ],
  },
  {
    name: 'singleton-outlives-its-agent',
    mistake: 'nothing but the agent ends a strict singleton: when it is dead nobody does',
    patches: [WATCHDOG_SLEEPS],
  },
  {
    name: 'singleton-never-killed',
    mistake: 'an engine that hangs is asked to stop a strict singleton, and nothing else is done',
    patches: [{ file: FENCE_PLAN, from: 'else if (nowMs >= killAtMs)', to: 'else if (nowMs < 0)' }],
  },
  {
    name: 'watchdog-not-replaced',
    mistake: 'a watchdog that died is not missed',
    patches: [{ file: 'agent/fence/lease-keeper.ts', from: 'isOurs && watchdog.isAlive()', to: 'isOurs' }],
  },
  {
    name: 'lease-not-renewed',
    mistake: 'the lease is written once: what is started after that is not in it',
    patches: [{ file: 'agent/fence/lease-keeper.ts', from: 'if (text === written) return', to: 'if (written !== null) return' }],
  },
  {
    name: 'clock-rates-not-counted',
    mistake: 'a strict singleton is replaced as if all clocks ran alike',
    patches: [{ file: SERVICE_PLAN, from: 'strictMs * CLOCK_RATE_BOUND', to: 'strictMs' }],
  },
  {
    name: 'nothing-adopted',
    mistake: 'an agent that starts stops the containers that it finds',
    patches: [
      {
        file: AGENT_PLAN,
        from: '  if (assignment === null) return planLeftover(view, memory, nowMs)\n',
        to: '  if (assignment === null || (view.containers.length > 0 && memory.run === null && memory.phase === "placed")) return planLeftover(view, memory, nowMs)\n',
      },
    ],
  },
  {
    name: 'way-in-kept',
    mistake: 'the gateway goes on accepting requests for an instance that is gone',
    patches: [
      {
        file: 'agent/agent.ts',
        from: 'await gateway.closeIngress(instance, CLOSE_AFTER_GONE_MS)',
        to: 'await Promise.resolve(CLOSE_AFTER_GONE_MS)',
      },
    ],
  },
  {
    name: 'route-kept-after-stop',
    mistake: 'nodes are not told that routes have changed, so requests go to instances that have stopped',
    patches: [
      {
        file: 'coordinator/hub/node-sync.ts',
        from: 'if (put.length === 0 && remove.length === 0) return',
        to: 'if (put.length >= 0) return',
      },
    ],
  },
  {
    name: 'missing-load-is-none',
    mistake: 'a report that did not come counts as no load, also on the way down',
    patches: [
      {
        file: 'coordinator/scaling/load-window.ts',
        from: "if (missing || unheard === 'perhaps serving') completeSinceMs = null",
        to: "if (missing || unheard === 'perhaps serving') completeSinceMs ??= atMs",
      },
    ],
  },
  {
    name: 'unstored-is-acted-on',
    mistake: 'a commit that the store did not take changes the state in memory all the same',
    patches: [
      {
        file: 'coordinator/state/state.ts',
        from: `if (outcome.kind !== 'committed') return outcome`,
        to: `if (outcome.kind !== 'committed' && outcome.kind !== 'unavailable') return outcome\n      if (outcome.kind === 'unavailable') Object.assign(outcome, { kind: 'committed', versions: [], events: [] })`,
      },
    ],
  },
]
