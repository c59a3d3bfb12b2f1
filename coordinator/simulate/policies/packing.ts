/** Small placement for the policies that are not ours. */
import { InvariantError } from '../../../shared/errors.ts'
import type { SimMachine, SimPool, World } from '../world.ts'

/** The pool that holds one instance for the least money; ties by name. */
export function cheapestPool(pools: readonly SimPool[]): SimPool {
  const [first] = pools
    .filter((pool) => pool.holds > 0)
    .sort((a, b) => a.priceUsdPerHour / a.holds - b.priceUsdPerHour / b.holds || (a.name < b.name ? -1 : 1))
  if (first === undefined) throw new InvariantError('no pool holds an instance')
  return first
}

/** Binds waiting instances to joined machines with room: the fullest first (bin packing), or the emptiest (Kubernetes' LeastAllocated). */
export function packPending(world: World, order: 'fullest' | 'emptiest'): void {
  const pending = world.pending()
  if (pending.length === 0) return
  for (const instance of pending) {
    let best: SimMachine | null = null
    for (const machine of world.machines) {
      if (machine.state !== 'joined' || machine.instances.size >= machine.pool.holds) continue
      const better =
        best === null ||
        (order === 'fullest'
          ? machine.instances.size > best.instances.size
          : machine.instances.size / machine.pool.holds < best.instances.size / best.pool.holds)
      if (better) best = machine
    }
    if (best === null) return
    world.bind(instance, best)
  }
}
