import { describe, expect, it } from 'vitest'
import { anAppSpec, aServiceSpec } from '../../test/builders/specs.ts'
import type { PublishedPort } from '../../shared/model/unit.ts'
import { checkForeignPorts } from './check-foreign-ports.ts'

const port = (fields: Partial<PublishedPort> = {}): PublishedPort => ({
  port: 8080,
  containerPort: 8000,
  protocol: 'http',
  mode: 'ingress',
  ...fields,
})
const appNamed = (name: string, ...published: PublishedPort[]) =>
  anAppSpec({ name, services: [aServiceSpec({ name: 'web', published })] })
const faultsOf = (mine: PublishedPort, theirs: PublishedPort, removing = false) =>
  checkForeignPorts(appNamed('two', mine), [{ name: 'shop', spec: appNamed('shop', theirs), removing }])

describe('published ports of two apps', () => {
  it('one port for both is a fault that names the other and the way out', () => {
    expect(faultsOf(port(), port({ protocol: 'tcp', containerPort: 9 }))).toEqual([
      {
        path: '/spec/services/0/published/0',
        message: 'port 8080/tcp of two/web is already published by shop/web',
        hint: 'publish another port, or take shop down first',
      },
    ])
    expect(faultsOf(port(), port({ mode: 'host' }))).toHaveLength(1)
  })

  it('other ports, other transports, two ports of the own node, and apps that go are none', () => {
    expect(faultsOf(port(), port({ port: 8081 }))).toEqual([])
    expect(faultsOf(port(), port({ protocol: 'udp' }))).toEqual([])
    expect(faultsOf(port({ mode: 'host' }), port({ mode: 'host' }))).toEqual([])
    expect(faultsOf(port(), port(), true)).toEqual([])
  })

  it('a new revision of the app itself is none', () => {
    expect(
      checkForeignPorts(appNamed('shop', port()), [{ name: 'shop', spec: appNamed('shop', port()), removing: false }]),
    ).toEqual([])
  })
})
