/** The audit trail: append-only, who, what, why, before and after. */
export interface EventRecord {
  /** Ascending, without gaps per epoch. */
  readonly seq: number
  readonly atMs: number
  /** `operator:<name>`, `node:<id>`, or the loop that acted: `scaling`, `fleet`, `services` … */
  readonly actor: string
  /** Stable, `noun.verb-past`: `instance.placed`, `machine.requested`, `app.deployed`. */
  readonly type: string
  /** Id of what it happened to. */
  readonly subject: string
  /** One sentence for people. Never a secret. */
  readonly message: string
  readonly severity: 'info' | 'warning' | 'error'
  readonly data?: Readonly<Record<string, unknown>>
}

export type EventDraft = Omit<EventRecord, 'seq' | 'atMs'>
