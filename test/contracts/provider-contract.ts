/** What every provider promises, fake or real. Call it from a test file with a bed that can make one. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { NotFoundError } from '../../shared/errors.ts'
import {
  type CloudMachine,
  CLUSTER_TAG,
  type CreateMachine,
  MACHINE_TAG,
  type Provider,
} from '../../coordinator/providers/provider.ts'

export interface ProviderBed {
  readonly provider: Provider
  /** A request that this provider can fulfil, under that name and with those tags. */
  request(name: string, tags: Readonly<Record<string, string>>): CreateMachine
  /** Awaits a call; under virtual time this moves the clock until it is settled. Default: plain await. */
  settle?<T>(promise: Promise<T>): Promise<T>
  /** Lets about that much time pass. */
  pause(ms: number): Promise<void>
  cleanup(): Promise<void>
}

const NEVER = new AbortController().signal
const DELETE_ATTEMPTS = 200

export function describeProviderContract(name: string, makeBed: () => Promise<ProviderBed>): void {
  describe(`provider contract: ${name}`, () => {
    let bed: ProviderBed
    const settle = <T>(promise: Promise<T>) => (bed.settle ? bed.settle(promise) : promise)
    const tagsOf = (cluster: string, machine: string) => ({ [CLUSTER_TAG]: cluster, [MACHINE_TAG]: machine })
    const create = (machine: string, cluster = 'c1') =>
      settle(bed.provider.create(bed.request(`${cluster}-${machine}`, tagsOf(cluster, machine)), NEVER))
    const listed = async (cluster = 'c1') => {
      const list = await settle(bed.provider.list({ [CLUSTER_TAG]: cluster }, NEVER))
      expect(list.complete).toBe(true)
      return [...list.machines].sort((a, b) => (a.name < b.name ? -1 : 1))
    }
    const deleteFully = async (machine: { id: string | null; name: string }) => {
      for (let attempt = 0; attempt < DELETE_ATTEMPTS; attempt += 1) {
        try {
          await settle(bed.provider.delete(machine, NEVER))
        } catch (error) {
          expect(error).toBeInstanceOf(NotFoundError)
          return
        }
        await bed.pause(250)
      }
      throw new Error(`${machine.name} was still there after ${DELETE_ATTEMPTS} deletions`)
    }

    beforeEach(async () => {
      bed = await makeBed()
    })
    afterEach(async () => {
      await bed.cleanup()
    })

    it('creates a machine under the name asked for, and lists it', async () => {
      const machine = await create('m-1')
      expect(machine.name).toBe('c1-m-1')
      expect(machine.id).not.toBe('')
      const found = await listed()
      expect(found.map(({ id, name }) => ({ id, name }))).toEqual([{ id: machine.id, name: 'c1-m-1' }])
    })

    it('row 2: repeating a create returns the same machine and makes no second one', async () => {
      const first = await create('m-1')
      const second = await create('m-1')
      expect(second.id).toBe(first.id)
      expect(await listed()).toHaveLength(1)
    })

    it('creates with one name at the same time make one machine', async () => {
      const both = await Promise.all(
        [create('m-1'), create('m-1')].map((promise) => promise.catch((error: unknown) => error as Error)),
      )
      const made = both.filter((result): result is CloudMachine => !(result instanceof Error))
      expect(made.length).toBeGreaterThan(0)
      expect(new Set(made.map((machine) => machine.id)).size).toBe(1)
      expect(await listed()).toHaveLength(1)
    })

    it('lists only machines that carry the tags asked for', async () => {
      await create('m-1', 'c1')
      await create('m-2', 'c2')
      expect((await listed('c1')).map((machine) => machine.name)).toEqual(['c1-m-1'])
      expect((await listed('c2')).map((machine) => machine.name)).toEqual(['c2-m-2'])
      expect(await listed('c3')).toEqual([])
    })

    it('row 8: a delete that is repeated ends in NotFoundError, and the machine is listed no more', async () => {
      const machine = await create('m-1')
      await deleteFully({ id: machine.id, name: machine.name })
      expect(await listed()).toEqual([])
    })

    it('row 3: a machine whose id never reached us is deleted by its name', async () => {
      const machine = await create('m-1')
      await deleteFully({ id: null, name: machine.name })
      expect(await listed()).toEqual([])
    })

    it('deleting what never was is NotFoundError', async () => {
      await expect(settle(bed.provider.delete({ id: null, name: 'c1-m-none' }, NEVER))).rejects.toBeInstanceOf(NotFoundError)
    })

    it('offers something with a capacity and a price', async () => {
      const offerings = await settle(bed.provider.offerings(NEVER))
      for (const offering of offerings) {
        expect(offering.name).not.toBe('')
        expect(offering.priceUsdPerHour).toBeGreaterThanOrEqual(0)
        expect(offering.capacity.memoryBytes).toBeGreaterThan(0)
      }
    })
  })
}
