/**
 * Time series that the coordinator keeps. One series is one measure of one subject; its points are means over a step.
 * Written by the loops that measure, read by forecasts, the API and the simulator.
 */

/** What is measured. Services: demand … denied; nodes: their use and what it is of. */
export type Measure =
  /** Sum of the loads of ready instances, percent of one instance: the demand of design §8.1. */
  | 'demand'
  /** Mean load of the ready instances, percent. */
  | 'load'
  | 'wanted'
  | 'ready'
  /** Demand that the forecast expected for that moment, percent of one instance. */
  | 'forecast'
  /** Requests per second, and those that failed or were denied. */
  | 'requests'
  | 'errors'
  | 'denied'
  /** 95th percentile of the answer time, ms. */
  | 'latencyP95'
  /** Use per instance (service) or of the node: millicores, bytes. */
  | 'cpuMillis'
  | 'memoryBytes'
  | 'diskBytes'
  | 'rxBytesPerS'
  | 'txBytesPerS'
  /** Node: reserved share of its scarcest resource, percent. Pool: machines, USD per hour. */
  | 'reservedPercent'
  | 'machines'
  | 'usdPerHour'

/** Every measure, with its unit for people. */
export const MEASURE_UNITS: Readonly<
  Record<Measure, 'percent' | 'count' | 'perS' | 'ms' | 'cpuMillis' | 'bytes' | 'bytesPerS' | 'usd'>
> = {
  demand: 'percent',
  load: 'percent',
  wanted: 'count',
  ready: 'count',
  forecast: 'percent',
  requests: 'perS',
  errors: 'perS',
  denied: 'perS',
  latencyP95: 'ms',
  cpuMillis: 'cpuMillis',
  memoryBytes: 'bytes',
  diskBytes: 'bytes',
  rxBytesPerS: 'bytesPerS',
  txBytesPerS: 'bytesPerS',
  reservedPercent: 'percent',
  machines: 'count',
  usdPerHour: 'usd',
}

/** In the order in which people read them. */
export const MEASURES = Object.keys(MEASURE_UNITS) as readonly Measure[]

export interface SeriesId {
  /** `service app/name`, `node <id>`, `pool <name>` or `cluster`. */
  readonly subject: string
  readonly measure: Measure
}

export interface Point {
  /** Epoch ms of the beginning of the step. */
  readonly atMs: number
  /** Mean over the step. */
  readonly value: number
  /** Largest sample in the step. */
  readonly max: number
}

export interface SeriesQuery extends SeriesId {
  /** Steps that begin at or after this. */
  readonly fromMs: number
  /** Exclusive. */
  readonly toMs: number
  /**
   * Wanted step. The answer has one resolution: the finest of levels.ts that is no finer than this, else the coarsest. Steps
   * that this resolution no longer keeps are absent.
   */
  readonly stepMs: number
}

export interface History {
  /**
   * Takes a sample; never throws, never waits for the disk. `NaN` and infinities are dropped. Samples may come in any order; those of
   * one step are one point, weighted alike.
   */
  record(id: SeriesId, atMs: number, value: number): void
  /** Ascending; steps without samples are absent. */
  query(query: SeriesQuery): readonly Point[]
  /** Series that have points, sorted. */
  series(subject?: string): readonly SeriesId[]
  /** The same of everything, in no order: for who would not have 100,000 sorted. */
  eachSeries(): Iterable<SeriesId>
  /** Writes what is held back; called at intervals and at the end. */
  flush(): Promise<void>
}

/** Bounds of a backend, for tests. */
export interface SeriesLimits {
  readonly maxSeries?: number
  readonly maxSeriesPerApp?: number
}

/** A history with its own keeping: made by whoever composes the coordinator, who also closes it. */
export interface HistoryBackend extends History {
  status(): HistoryStatus
  /** Writes what is held back and lets go of files. */
  close(): Promise<void>
}

export interface HistoryStatus {
  /** null: everything is kept. Else what is wrong, for people; samples wait in memory, or are dropped and counted. */
  readonly fault: string | null
  readonly series: number
  /** Samples or steps that were dropped since the start: too late, too many series, or no room while the disk refused. */
  readonly dropped: number
  /** Size of what is kept; 0 when it is in memory only. */
  readonly bytes: number
}
