import { expect, it } from 'vitest'
import { aPlacement, aServiceSpec } from '../../test/builders/specs.ts'
import { requestOf } from './requests.ts'

it('disk is charged as reserved, beside what is learned of the rest', () => {
  const spec = aServiceSpec({ placement: aPlacement({ diskBytes: 5e9 }) })
  const learned = { cpuMillis: 70, memoryBytes: 1e8, diskBytes: 0, learned: true }
  const request = requestOf('shop/web/1/1', { app: 'shop', spec, revision: 1, home: null, chargeOf: () => learned })
  expect(request.charge).toEqual({ ...learned, diskBytes: 5e9 })
})

it('a spec of earlier days that spreads over hundreds of attributes is placed by its first five', () => {
  const spreadOver = Array.from({ length: 500 }, (_, index) => `node.labels.l${index}`)
  const spec = aServiceSpec({ placement: aPlacement({ spreadOver }) })
  const request = requestOf('shop/web/1/1', { app: 'shop', spec, revision: 1, home: null })
  expect(request.rules.spreadOver).toEqual(spreadOver.slice(0, 5))
})
