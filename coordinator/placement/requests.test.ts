import { expect, it } from 'vitest'
import { aPlacement, aServiceSpec } from '../../test/builders/specs.ts'
import { requestOf } from './requests.ts'

it('a spec of earlier days that spreads over hundreds of attributes is placed by its first five', () => {
  const spreadOver = Array.from({ length: 500 }, (_, index) => `node.labels.l${index}`)
  const spec = aServiceSpec({ placement: aPlacement({ spreadOver }) })
  const request = requestOf('shop/web/1/1', { app: 'shop', spec, revision: 1, home: null })
  expect(request.rules.spreadOver).toEqual(spreadOver.slice(0, 5))
})
