/** What the watchdog of strict singletons (agent/fence) can do to what runs, also while its engine hangs. */
export interface FenceHands {
  /** Whether it runs; told without the engine when that does not answer within seconds. */
  runs(id: string): Promise<boolean>
  /** Asks for its end with its stop signal, as softly as the grace allows; may return before it has ended. May be repeated. */
  stop(id: string, graceMs: number): Promise<void>
  /** SIGKILL past the engine; nothing when it does not run. */
  kill(id: string): void
}
