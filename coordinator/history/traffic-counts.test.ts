import { expect, it } from 'vitest'
import { aNodeObservation, anInstanceObservation, anInstanceUse, testObserved } from '../../test/builders/observed.ts'
import { T0 } from '../../test/builders/records.ts'
import { countTraffic } from './traffic-counts.ts'

it('adds reports until they are taken out, and forgets a service with its last sample once it is no more', () => {
  const observed = testObserved()
  observed.setNode(aNodeObservation())
  observed.setInstance(anInstanceObservation())
  let exists = true
  const traffic = countTraffic(observed, () => exists)
  for (let i = 0; i < 3; i += 1) observed.setUse(anInstanceUse({ requests: 5 }), T0)
  expect(traffic.of('shop/web')?.requests).toBe(15)
  traffic.reset()
  expect(traffic.of('shop/web')?.requests).toBe(0)
  exists = false
  traffic.reset()
  expect(traffic.of('shop/web')).toBeUndefined()
  traffic.stop()
})
