/** What a second of scaling costs: services that all have news, and services that rest. */
import { silentLogger } from '../../shared/logger.ts'
import { createScalingLoop } from '../../coordinator/scaling/scaling-loop.ts'
import { openState } from '../../coordinator/state/state.ts'
import { aNodeObservation, anInstanceObservation, anInstanceUse, testObserved } from '../builders/observed.ts'
import { aNodeRecord, anAppRecord, anInstanceRecord, aServiceRecord, someAssignments } from '../builders/records.ts'
import { anAppSpec, aScale, aServiceSpec } from '../builders/specs.ts'
import { memoryStore } from '../fakes/memory-store.ts'
import { virtualClock } from '../fakes/virtual-clock.ts'
import type { BenchResult } from './result.ts'
import { median, spread } from './statistics.ts'

const SERVICES = 1_000
const INSTANCES = 10
const ROUNDS = 30

export async function benchScalingTick(): Promise<readonly BenchResult[]> {
  const clock = virtualClock()
  const state = await openState(memoryStore(), clock)
  const observed = testObserved()
  const ids: string[] = []
  const commit = async (change: ReturnType<typeof state.change>) => {
    const outcome = await state.commit(change)
    if (outcome.kind !== 'committed') throw new Error(`the bed could not be stored: ${outcome.kind}`)
  }
  for (let node = 0; node < SERVICES / 10; node += 1) {
    const nodeId = `n-${node}`
    const app = `a${node}`
    const services = Array.from({ length: 10 }, (_, i) => aServiceSpec({ name: `s${i}`, scale: aScale() }))
    const instances = services.flatMap(({ name }) =>
      Array.from({ length: INSTANCES }, (_, slot) => anInstanceRecord({ id: `${app}/${name}/${slot + 1}/1`, nodeId })),
    )
    await commit(state.change().put('app', app, anAppRecord({ name: app, spec: anAppSpec({ name: app, services }) })))
    for (const { name } of services)
      await commit(state.change().put('service', `${app}/${name}`, aServiceRecord({ id: `${app}/${name}`, desired: INSTANCES })))
    await commit(state.change().put('node', nodeId, aNodeRecord({ id: nodeId })))
    await commit(state.change().put('assignments', nodeId, someAssignments(nodeId, instances)))
    observed.setNode(aNodeObservation({ nodeId }))
    for (const { id } of instances) {
      observed.setInstance(anInstanceObservation({ instance: id, nodeId }))
      observed.setUse(anInstanceUse({ instance: id, loadPercent: 72 }), clock.now())
      ids.push(id)
    }
  }
  const loop = createScalingLoop({ state, observed, clock, logger: silentLogger() })
  loop.start()
  await clock.advance(40_000)
  const tick = async () => {
    const startedAt = performance.now()
    await clock.advance(1_000)
    return performance.now() - startedAt
  }
  const busy: number[] = []
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const id of ids)
      observed.setUse(anInstanceUse({ instance: id, loadPercent: 70 + (round % 5), requests: 10 }), clock.now())
    busy.push(await tick())
  }
  for (const id of ids) observed.setUse(anInstanceUse({ instance: id, loadPercent: 72 }), clock.now())
  await clock.advance(400_000)
  const resting: number[] = []
  for (let round = 0; round < ROUNDS; round += 1) resting.push(await tick())
  const [looked] = loop.decisions()
  if (looked?.ready !== INSTANCES) throw new Error('the loop did not look at the services')
  await loop.stop()
  const figure = (name: string, values: readonly number[]): BenchResult => ({
    name: `scaling.${name}_1000x10`,
    value: median(values),
    unit: 'ms/s',
    better: 'lower',
    target: null,
    peer: `median (range) ${spread(values, 2)}`,
    ratio: null,
  })
  return [figure('tick_all_busy_ms', busy), figure('tick_all_resting_ms', resting)]
}
