// biome-ignore-all lint/suspicious/noTemplateCurlyInString: Compose files have variables of that form
import { describe, expect, it } from 'vitest'
import { accept, refuse } from '../../test/builders/app-files.ts'

describe('volumes, configs, secrets', () => {
  it('reads named volumes, binds, anonymous volumes and tmpfs', async () => {
    const { app } = await accept(
      'services:\n  web:\n    image: a:1\n    volumes: ["data:/data", "./conf:/conf:ro", "~/x:/x", /cache, {type: tmpfs, target: /t, tmpfs: {size: 64m}}]\n    tmpfs: ["/run/app:rw,noexec,size=1m"]\nvolumes: {data: , other: {name: o}}\n',
      { environment: { HOME: '/home/me' } },
    )
    expect(app.services[0]?.unit.containers[0]?.mounts).toEqual([
      { kind: 'volume', source: 'shop_data', target: '/data', readOnly: false },
      { kind: 'bind', source: '/srv/shop/conf', target: '/conf', readOnly: true },
      { kind: 'bind', source: '/home/me/x', target: '/x', readOnly: false },
      { kind: 'volume', source: '', target: '/cache', readOnly: false },
      { kind: 'tmpfs', source: '', target: '/t', readOnly: false, sizeBytes: 64 * 2 ** 20 },
      { kind: 'tmpfs', source: '', target: '/run/app', readOnly: false, sizeBytes: 2 ** 20 },
    ])
    expect(app.services[0]?.update.order).toBe('stop-first')
  })

  it('an undeclared volume, config, secret or network is a fault with a suggestion', async () => {
    const faults = await refuse(
      'services:\n  web: {image: "a:1", volumes: ["dat:/d"], configs: [con], secrets: [sec], networks: [bak]}\nvolumes: {data: }\nconfigs: {conf: {content: x}}\nsecrets: {secr: {environment: X}}\nnetworks: {back: }\n',
    )
    expect(faults.map((fault) => fault.hint)).toEqual([
      'did you mean "data"?',
      'did you mean "conf"?',
      'did you mean "secr"?',
      'did you mean "back"?',
    ])
  })

  it('carries configs and secrets with Compose targets and modes', async () => {
    const { app } = await accept(
      'services:\n  web:\n    image: a:1\n    configs: [{source: c, target: /etc/c.conf, mode: 0440}]\n    secrets: [f, {source: e, target: token}]\nconfigs: {c: {content: "v=${V}"}}\nsecrets: {f: {file: ./f.txt}, e: {environment: TOKEN}}\n',
      { environment: { V: '1', TOKEN: 't0' }, files: { 'f.txt': 'file' } },
    )
    const files = app.services[0]?.unit.containers[0]?.files ?? []
    expect(
      files.map((file) => [file.target, file.mode, Buffer.from(file.contentBase64, 'base64').toString(), file.secret]),
    ).toEqual([
      ['/etc/c.conf', 0o440, 'v=1', false],
      ['/run/secrets/f', 0o444, 'file', true],
      ['/run/secrets/token', 0o444, 't0', true],
    ])
  })

  it('driver options: a bind becomes a bind, network storage is refused', async () => {
    const volume = (options: string) =>
      `services: {web: {image: "a:1", volumes: ["v:/v"]}}\nvolumes: {v: {driver: local, driver_opts: ${options}}}`
    const { app } = await accept(volume('{type: none, o: bind, device: /mnt/disk}'))
    expect(app.services[0]?.unit.containers[0]?.mounts[0]).toMatchObject({ kind: 'bind', source: '/mnt/disk' })
    expect((await refuse(volume('{type: nfs, o: "addr=10.0.0.1", device: ":/x"}')))[0]?.message).toMatch(/nfs/)
    expect((await refuse(volume('{type: none, o: bind, device: /etc}')))[0]?.message).toMatch(/forbidden/)
  })
})
