/** Amounts of what a node offers and an instance needs. */

export interface Resources {
  /** Thousandths of a CPU. */
  readonly cpuMillis: number
  readonly memoryBytes: number
}

export interface Capacity extends Resources {
  readonly diskBytes: number
  /** How many instances the node may hold at once. */
  readonly slots: number
}

export const NO_RESOURCES: Resources = { cpuMillis: 0, memoryBytes: 0 }

export function addResources(a: Resources, b: Resources): Resources {
  return { cpuMillis: a.cpuMillis + b.cpuMillis, memoryBytes: a.memoryBytes + b.memoryBytes }
}
