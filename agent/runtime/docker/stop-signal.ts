/** Which signals end a container: the others may ask it for anything else. */
import { constants } from 'node:os'

/** Whether `signal` (a number, as events have it) ends a container whose image or user chose `stopSignal` ('' or absent: SIGTERM). */
export function isStopSignal(signal: string, stopSignal: string | undefined): boolean {
  const wanted = (stopSignal || 'SIGTERM').toUpperCase()
  const name = (wanted.startsWith('SIG') ? wanted : `SIG${wanted}`) as NodeJS.Signals
  const number = /^\d+$/.test(wanted) ? Number(wanted) : constants.signals[name]
  return Number(signal) === number || Number(signal) === constants.signals.SIGKILL || Number(signal) === constants.signals.SIGTERM
}
