/** What tells drains apart: who asked, and whether the fleet may take them back. Pure. */

/** Who drains a node whose machine the cloud takes away: never taken back, its instances are provided for at once. */
export const INTERRUPTED_BY = 'cloud'

/** Begins the reasons of drains for the budget's sake, which returning demand does not end. */
export const BUDGET_REASON = 'budget:'

/** Whether a person asked, through the API. */
export function isByPerson(by: string): boolean {
  return by.startsWith('operator:')
}
