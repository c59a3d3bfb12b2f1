import { describe, expect, it } from 'vitest'
import { accept, acceptOne, refuseOne } from '../../test/builders/app-files.ts'

describe('ports and access', () => {
  it('reads every short form', async () => {
    const spec = await acceptOne(
      'ports: ["3000", "3000-3001:4000-4001", 8080:80, "0.0.0.0:81:81", "6060:6060/udp", "[::]:82:82"]',
    )
    expect(spec.published.map((port) => `${port.port}:${port.containerPort}/${port.protocol}`)).toEqual([
      '3000:4000/tcp',
      '3001:4001/tcp',
      '8080:80/tcp',
      '81:81/tcp',
      '6060:6060/udp',
      '82:82/tcp',
    ])
    expect(spec.unit.ports.map((port) => port.containerPort)).toEqual([3000, 4000, 4001, 80, 81, 6060, 82])
  })

  it('reads the long form', async () => {
    const spec = await acceptOne('ports: [{target: 80, published: "8080", mode: host, app_protocol: http, name: web}]')
    expect(spec.published).toEqual([{ port: 8080, containerPort: 80, protocol: 'http', mode: 'host' }])
    expect(spec.unit.ports).toEqual([{ containerPort: 80, protocol: 'http', name: 'web' }])
    expect(spec.update.order).toBe('stop-first')
  })

  it('a published port is public with a warning, an exposed one needs a key', async () => {
    const { app, warnings } = await accept(
      'services: {web: {image: "a:1", ports: ["80:80"]}, api: {image: "a:1", expose: ["80"]}}',
    )
    expect(app.services.map((service) => service.unit.access.public)).toEqual([true, false])
    expect(warnings).toEqual(['port 80 is published without x-rubato.access: anybody may call it'])
  })

  it('a port published on a loopback address is never opened to others', async () => {
    const { app, warnings } = await accept('services: {db: {image: "a:1", ports: ["127.0.0.1:5432:5432"]}}')
    expect(app.services[0]).toMatchObject({
      published: [],
      unit: { access: { public: false }, ports: [{ containerPort: 5432 }] },
    })
    expect(warnings[0]).toMatch(/no node listens on 5432/)
  })

  it('access rules make a port speak http, and are refused on one that says tcp', async () => {
    const spec = await acceptOne('expose: ["80"]\nx-rubato: {access: {allow: [shop-web, "role:operator", web], methods: [GET]}}')
    expect(spec.unit.ports[0]?.protocol).toBe('http')
    expect(spec.unit.access).toEqual({
      public: false,
      sameApp: false,
      anyKey: false,
      allow: ['shop-web', 'web', 'shop/web'],
      roles: ['operator'],
      methods: ['GET'],
      pathPrefixes: [],
    })
    expect((await refuseOne('expose: ["80"]\nx-rubato: {protocol: tcp, access: {allow: [a]}}')).message).toMatch(/speaks tcp/)
    expect((await acceptOne('ports: ["5432:5432"]\nx-rubato: {access: {public: true}}')).unit.ports[0]?.protocol).toBe('tcp')
  })

  it('refuses what is no port, and ranges that do not match or are too large', async () => {
    for (const port of [
      '0:80',
      '80:0',
      '80:70000',
      'a:b',
      '1:2:3:4',
      '80:80/sctp',
      '10-20:5-6',
      '1000-9000:1000-9000',
      '10.0.0.1:80:80',
    ])
      await refuseOne(`ports: ["${port}"]`)
  })
})
