import { describe, expect, it } from 'vitest'
import type { RouteEndpoint } from '../../../shared/protocol/frames.ts'
import { reachableEndpoints } from './plan-endpoints.ts'

const at = (node: string, address: string): RouteEndpoint => ({
  instance: 'shop/web/1/1',
  node,
  address,
  gatewayPort: 7_700,
  zone: null,
  state: 'ready',
})

describe('endpoints of a route', () => {
  it("no other node can have this host's own loopback or the cloud's metadata address called in its name", () => {
    const addresses = ['127.0.0.1', '0.0.0.0', '::1', '::ffff:127.0.0.1', 'localhost', '169.254.169.254', '127.1']
    expect(
      reachableEndpoints(
        addresses.map((address) => at('n-2', address)),
        'n-1',
        '10.0.0.1',
      ),
    ).toEqual([])
  })

  it('others stay, so do this node’s own, and all of them among nodes that live on loopback', () => {
    const endpoints = [at('n-1', '127.0.0.1'), at('n-2', '10.0.0.2'), at('n-3', 'host.lan')]
    expect(reachableEndpoints(endpoints, 'n-1', '10.0.0.1')).toEqual(endpoints)
    const local = [at('n-2', '127.0.0.1'), at('n-3', '127.0.0.1')]
    expect(reachableEndpoints(local, 'n-1', '127.0.0.1')).toEqual(local)
  })
})
