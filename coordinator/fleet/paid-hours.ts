/** Machines that are billed by the hour cost as much when they go early: they stay until the last minutes of what is paid for. Pure. */
import type { MachineRecord, Pool } from '../../shared/model/node.ts'

const HOUR_MS = 3_600_000
/** Time to drain it and have it deleted before the next hour begins. */
const TAIL_MS = 600_000

/** Until when giving the machine back would spare nothing; null: it spares something now. */
export function paidUntilMs(pool: Pool, machine: MachineRecord, nowMs: number): number | null {
  if (pool.billing !== 'hour') return null
  const intoHourMs = (nowMs - machine.requestedAtMs) % HOUR_MS
  return intoHourMs < HOUR_MS - TAIL_MS ? nowMs + HOUR_MS - TAIL_MS - intoHourMs : null
}
