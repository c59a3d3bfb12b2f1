/** A count chosen by a person who knew the whole demand beforehand: for its peak (99th percentile of the need), or its mean. */
import type { Policy } from '../policy.ts'
import { createFollowingFleet } from './following-fleet.ts'

function fixed(id: string, title: string, count: (known: { readonly p99: number; readonly mean: number }) => number): Policy {
  return {
    id,
    title,
    source: 'no scaling',
    start({ world, known }) {
      const fleet = createFollowingFleet(world)
      return {
        tick() {
          world.scaleTo(count(known), 'fixed')
          fleet.tick()
        },
      }
    },
  }
}

export const fixedPeak = fixed('fixed', 'fixed for the 99th percentile', (known) => known.p99)
export const fixedMean = fixed('fixed-mean', 'fixed for the mean', (known) => known.mean)
