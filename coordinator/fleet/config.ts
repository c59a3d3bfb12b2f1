/** Settings of the fleet. Every value may be set; these are the defaults. */
export interface FleetConfig {
  /** A machine younger than this is not given back: buying and deleting in turns costs more than waiting. */
  readonly minNodeAgeMs: number
  /** How often it is asked whether a machine can go. */
  readonly downIntervalMs: number
  /** How often the clouds are asked what exists. */
  readonly reapIntervalMs: number
  /** A machine that has not joined by then is deleted and its pool backs off. */
  readonly joinDeadlineMs: number
  readonly drainDeadlineMs: number
  /** After the drain's deadline: time for forced stops before the machine is deleted regardless. */
  readonly forceGraceMs: number
  /** An empty draining node keeps its published ports at least this long after its drain began. */
  readonly entrySettleMs: number
  /** A VM with our tag that we do not know is deleted after this long. */
  readonly orphanGraceMs: number
  /** A machine that no complete list shows is lost after this long (and at least two lists). */
  readonly missingMs: number
  /** A machine whose agent was silent for this long is given back, unless its node holds local volumes: it costs and serves nobody. */
  readonly silentNodeMs: number
  /** After a start of the coordinator nothing unknown is deleted for this long. */
  readonly takeoverMs: number
  /** How long a pool rests after the cloud had no machine for it. Doubles with each failure in a row, up to an hour. */
  readonly capacityCoolDownMs: number
  readonly quotaCoolDownMs: number
  /** One call to a cloud may take this long. */
  readonly callTimeoutMs: number
  readonly maxParallelCreates: number
  /** A machine is bought, or taken back, only for what has fitted nowhere for this long: what is on the move often fits a moment later. */
  readonly buyHoldMs: number
  /** Machines ordered in one pass: bounds the damage of a wrong decision. */
  readonly maxBuysPerPass: number
  /** USD per calendar month (UTC) over all pools; null for no limit. */
  readonly budgetUsdPerMonth: number | null
  /** Share of each remaining node, in percent, that must stay free when a node is given back: keeps the next step from buying. */
  readonly headroomPercent: number
  /** Room kept free for so many instances beside those wanted, wherever untainted; pools may ask for more. */
  readonly spareSlots: number
  readonly spareSlotCpuMillis: number
  readonly spareSlotMemoryBytes: number
  /** A machine that takes this many times its pool's learned p90 while work waits gets a stand-in from another pool. 0: never. */
  readonly slowBootFactor: number
  /** Nodes that are given back at the same time. */
  readonly maxParallelDrains: number
  /**
   * A node is given back only if its share of the fleet's price is at least this many times its share of the instances: moving
   * almost everything to save next to nothing is not worth it. 0: always.
   */
  readonly minSavingsRatio: number
  /** Moves onto nodes that joined, per hour; 0: none. */
  readonly rebalanceMovesPerHour: number
  /** Only while the fullest node is this many percent of its capacity fuller than the one that joined. */
  readonly rebalanceImbalancePercent: number
}

export const DEFAULT_FLEET_CONFIG: FleetConfig = {
  minNodeAgeMs: 600_000,
  downIntervalMs: 60_000,
  reapIntervalMs: 60_000,
  joinDeadlineMs: 600_000,
  drainDeadlineMs: 900_000,
  forceGraceMs: 120_000,
  entrySettleMs: 5_000,
  orphanGraceMs: 120_000,
  missingMs: 300_000,
  silentNodeMs: 1_800_000,
  takeoverMs: 300_000,
  capacityCoolDownMs: 120_000,
  quotaCoolDownMs: 900_000,
  callTimeoutMs: 300_000,
  maxParallelCreates: 10,
  buyHoldMs: 500,
  maxBuysPerPass: 50,
  budgetUsdPerMonth: null,
  headroomPercent: 10,
  spareSlots: 0,
  spareSlotCpuMillis: 500,
  spareSlotMemoryBytes: 512 * 2 ** 20,
  slowBootFactor: 2,
  maxParallelDrains: 1,
  minSavingsRatio: 0.5,
  rebalanceMovesPerHour: 12,
  rebalanceImbalancePercent: 40,
}
