/**
 * MiCADO's rule as its manual shows it (Scaling Policies: LOWER_THRESHOLD 50, UPPER_THRESHOLD 90): every 15 s (policy keeper's
 * loop) the load of the containers above the upper threshold adds one, below the lower takes one; the load of the nodes does the
 * same to machines once their number has been steady for 60 s. There is no drain: a machine goes with what runs on it, and the
 * orchestrator starts that again elsewhere (kinder here: it runs until its replacement does).
 */
import type { Policy } from '../policy.ts'
import { cheapestPool, packPending } from './packing.ts'

const LOOP_MS = 15_000
const LOWER = 50
const UPPER = 90
const STEADY_MS = 60_000

export const micado: Policy = {
  id: 'micado',
  title: 'MiCADO (50/90 %)',
  source: 'MiCADO manual, Scaling Policies',
  start({ world, rules }) {
    const pool = cheapestPool(world.pools)
    let sum = 0
    let ticks = 0
    let nextMs = world.nowMs + LOOP_MS
    let nodes = world.machines.length
    let steadySinceMs = world.nowMs
    return {
      tick({ loadPercent, ready }) {
        sum += loadPercent
        ticks += 1
        if (world.nowMs >= nextMs) {
          nextMs += LOOP_MS
          const load = sum / ticks
          sum = 0
          ticks = 0
          const joined = world.machines.filter((machine) => machine.state === 'joined')
          const nodeLoad = (load * ready) / Math.max(1, joined.length * pool.holds)
          if (world.machines.length !== nodes || joined.length !== nodes) {
            nodes = world.machines.length
            steadySinceMs = world.nowMs
          }
          // As long as containers wait for a place the nodes are what is short, however idle the mean of them looks.
          const waits = world.pending().length > 0
          if (world.nowMs - steadySinceMs >= STEADY_MS) {
            if ((nodeLoad > UPPER || waits) && nodes < pool.max) world.buy(pool, `nodes at ${Math.round(nodeLoad)} %`)
            else if (nodeLoad < LOWER && joined.length > 1) {
              const [emptiest] = joined.sort((a, b) => a.instances.size - b.instances.size)
              const room = joined.reduce((free, machine) => free + pool.holds - machine.instances.size, 0)
              if (emptiest !== undefined && room - pool.holds >= 0) world.drain(emptiest, `nodes at ${Math.round(nodeLoad)} %`)
            }
          }
          if (load > UPPER && !waits) world.scaleTo(Math.min(rules.max, world.wanted + 1), `containers at ${Math.round(load)} %`)
          else if (load < LOWER) world.scaleTo(Math.max(1, rules.min, world.wanted - 1), `containers at ${Math.round(load)} %`)
        }
        packPending(world, 'emptiest')
      },
    }
  },
}
