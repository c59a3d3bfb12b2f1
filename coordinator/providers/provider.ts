/**
 * Contract of a cloud (design §8.3). Four calls are all Rubato needs of one. test/contracts/provider-contract.ts holds every
 * provider to it.
 */
import type { Capacity } from '../../shared/model/resources.ts'

export interface CreateMachine {
  /** Unique name and idempotency token: repeating it returns the same machine. */
  readonly name: string
  readonly pool: string
  readonly offering: string
  readonly image: string
  readonly zone: string | null
  readonly userData: string
  readonly tags: Readonly<Record<string, string>>
  readonly settings: Readonly<Record<string, unknown>>
}

export type CloudMachineState = 'starting' | 'running' | 'stopping' | 'unknown'

export interface CloudMachine {
  readonly id: string
  readonly name: string
  readonly state: CloudMachineState
  readonly address?: string
  readonly createdAtMs: number | null
  /** Epoch ms at which the cloud takes the machine away, once it has announced so (spot interruption). */
  readonly interruptionAtMs?: number | null
}

export interface Offering {
  readonly name: string
  readonly capacity: Capacity
  readonly priceUsdPerHour: number
}

/** Throws CapacityError, QuotaError, RetryableError, NotFoundError; anything else is fatal for that call. */
export interface Provider {
  readonly name: string
  /** Safe to repeat with the same name. */
  create(request: CreateMachine, signal: AbortSignal): Promise<CloudMachine>
  /** To be repeated until it throws NotFoundError. */
  delete(machine: { readonly id: string | null; readonly name: string }, signal: AbortSignal): Promise<void>
  /** Machines with all these tags. `complete: false`: absence from the list means nothing. */
  list(
    tags: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<{ readonly complete: boolean; readonly machines: readonly CloudMachine[] }>
  offerings(signal: AbortSignal): Promise<readonly Offering[]>
}

/** Tag that every machine of a cluster carries; machines without it are never touched. */
export const CLUSTER_TAG = 'rubato-cluster'
export const MACHINE_TAG = 'rubato-machine'
