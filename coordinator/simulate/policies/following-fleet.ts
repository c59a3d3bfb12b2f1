/**
 * Machines that follow the wanted instances at once, for policies that know of no fleet: as many as the instances fill, bought
 * from the pool that holds an instance for the least money, and the emptiest given back as soon as one is too many.
 */
import { cheapestPool, packPending } from './packing.ts'
import type { World } from '../world.ts'

export interface FollowingFleet {
  tick(): void
}

export function createFollowingFleet(world: World): FollowingFleet {
  const pool = cheapestPool(world.pools)
  let seen = -1
  return {
    tick() {
      if (world.revision === seen) return
      const needed = Math.ceil(world.wanted / pool.holds)
      const kept = world.machines.filter((machine) => machine.state !== 'draining')
      const draining = world.machines.filter((machine) => machine.state === 'draining')
      for (let missing = needed - kept.length; missing > 0; missing -= 1) {
        const back = draining.pop()
        if (back !== undefined) world.undrain(back, 'is needed again')
        else if (world.machines.length < pool.max) world.buy(pool, `${world.wanted} instances are wanted`)
      }
      const idle = kept.filter((machine) => machine.state === 'joined').sort((a, b) => a.instances.size - b.instances.size)
      for (const machine of idle.slice(0, Math.max(0, kept.length - Math.max(1, needed))))
        world.drain(machine, `${world.wanted} instances need ${needed} machines`)
      packPending(world, 'fullest')
      seen = world.revision
    },
  }
}
