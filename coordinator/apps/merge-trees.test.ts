// biome-ignore-all lint/suspicious/noTemplateCurlyInString: Compose files have variables of that form
import { describe, expect, it } from 'vitest'
import { accept, main, refuse } from '../../test/builders/app-files.ts'

describe('anchors, merge keys, extends, include, several files', () => {
  it('merge keys give what is not said, and a list of them its first', async () => {
    const { app } = await accept(
      'x-a: &a {restart: always, user: one}\nx-b: &b {user: two, init: true}\nservices:\n  web: {<<: [*a, *b], image: "a:1"}\n  other: {<<: *b, image: "b:1", user: own}\n',
    )
    expect(app.services.map((service) => [main(service).user, main(service).init])).toEqual([
      ['one', true],
      ['own', true],
    ])
  })

  it('a fault inside an anchor points at the use', async () => {
    expect((await refuse('x-a: &a {replicas: x}\nservices:\n  web:\n    image: a:1\n    deploy: *a\n'))[0]).toMatchObject({
      path: '/services/web/deploy/replicas',
    })
  })

  it('extends a service of the same and of another file, whose paths count from there', async () => {
    const { app } = await accept(
      'services:\n  base: {image: "a:1", environment: [A=1, B=1], profiles: [never]}\n  web:\n    extends: {service: common, file: lib/base.yaml}\n    environment: {B: "2"}\n',
      {
        files: {
          'lib/base.yaml':
            'services:\n  common:\n    image: lib:1\n    env_file: x.env\n    volumes: ["./data:/data"]\n    environment: [A=1, B=1]\n',
          'lib/x.env': 'FROM=lib\n',
        },
      },
    )
    const web = app.services[0]
    if (web === undefined) throw new Error('none')
    expect(main(web)).toMatchObject({
      image: 'lib:1',
      environment: { FROM: 'lib', A: '1', B: '2' },
      mounts: [{ source: '/srv/shop/lib/data' }],
    })
  })

  it('refuses services that extend each other in a circle, and unknown ones with a suggestion', async () => {
    expect((await refuse('services: {a: {image: "a:1", extends: b}, b: {extends: a}}'))[0]?.message).toMatch(/circle: b → a → b/)
    expect((await refuse('services: {webb: {image: "a:1"}, x: {image: "a:1", extends: {service: web}}}'))[0]?.hint).toBe(
      'did you mean "webb"?',
    )
  })

  it('includes other files with their own .env', async () => {
    const { app } = await accept('include: [db/compose.yaml]\nservices: {web: {image: "a:1", depends_on: [db]}}', {
      files: { 'db/compose.yaml': 'services: {db: {image: "pg:${V}", expose: [5432]}}', 'db/.env': 'V=15\n' },
    })
    expect(app.services.map((service) => main(service).image)).toEqual(['a:1', 'pg:15'])
  })

  it('refuses files that include each other for ever', async () => {
    const faults = await refuse('include: a.yaml\nservices: {w: {image: "a:1"}}', {
      files: { 'a.yaml': 'include: a.yaml\nservices: {}\n' },
    })
    expect(faults[0]?.message).toMatch(/circle/)
  })

  it('lays further files over the first, with !reset and !override', async () => {
    const { app } = await accept(
      'services:\n  web: {image: "a:1", ports: ["80:80"], command: [one], environment: {A: "1"}, dns: [1.1.1.1]}\n',
      {
        overrides: [
          {
            fileName: '/srv/shop/prod.yaml',
            text: 'services:\n  web:\n    ports: !override ["90:80"]\n    command: [two]\n    environment: [B=2]\n    dns: !reset []\n',
          },
        ],
      },
    )
    const web = app.services[0]
    if (web === undefined) throw new Error('none')
    expect(web.published.map((port) => port.port)).toEqual([90])
    expect(main(web)).toMatchObject({ command: ['two'], environment: { A: '1', B: '2' }, dns: [] })
  })
})
