import { describe, expect, it } from 'vitest'
import { imageBaseName, type LabelledContainer, registrationsOf, splitTags } from './registration.ts'

const container = (over: Partial<LabelledContainer>): LabelledContainer => ({
  host: 'h1',
  name: 'web1',
  containerId: 'c0ffee',
  image: 'registry:5000/team/nginx:1.25',
  labels: {},
  environment: [],
  ports: [{ internal: 80, protocol: 'tcp', address: '10.0.0.1', port: 32768 }],
  ...over,
})
const two = [
  { internal: 80, protocol: 'tcp' as const, address: '10.0.0.1', port: 32768 },
  { internal: 443, protocol: 'tcp' as const, address: '10.0.0.1', port: 32769 },
]

describe('registrations from labels (V1, Registrator convention)', () => {
  it('names a service by its image and gives it an id of host, container and internal port', () => {
    expect(registrationsOf(container({}))).toMatchObject([
      { id: 'h1:web1:80', name: 'nginx', address: '10.0.0.1', port: 32768, tags: [], check: null },
    ])
  })
  it('adds the port to the name where there are several, unless the port has a name of its own', () => {
    const names = registrationsOf(container({ ports: two, environment: ['SERVICE_NAME=shop', 'SERVICE_443_NAME=secure'] })).map(
      (r) => r.name,
    )
    expect(names).toEqual(['shop-80', 'secure'])
  })
  it('lets a label override the environment, and a port key beat a plain key from either', () => {
    const found = registrationsOf(
      container({
        environment: ['SERVICE_NAME=env', 'SERVICE_80_REGION=port'],
        labels: { SERVICE_NAME: 'label', SERVICE_REGION: 'plain' },
      }),
    )
    expect(found).toMatchObject([{ name: 'label', meta: { region: 'port' } }])
  })
  it('ignores a container, or one of its ports, for any non-empty IGNORE', () => {
    expect(registrationsOf(container({ environment: ['SERVICE_IGNORE=false'] }))).toEqual([])
    expect(
      registrationsOf(container({ ports: two, labels: { SERVICE_80_IGNORE: 'x', SERVICE_443_NAME: 's' } })).map((r) => r.name),
    ).toEqual(['s'])
  })
  it('splits tags at commas, keeps escaped ones, and adds udp', () => {
    expect(splitTags('a,b\\,c, ,d')).toEqual(['a', 'b,c', 'd'])
    const found = registrationsOf(
      container({ ports: [{ internal: 53, protocol: 'udp', address: 'a', port: 1 }], labels: { SERVICE_TAGS: 'dns' } }),
    )
    expect(found).toMatchObject([{ id: 'h1:web1:53:udp', tags: ['dns', 'udp'] }])
  })
  it('takes only the first check in the order http, https, cmd, script, ttl, tcp, grpc', () => {
    const labels = {
      SERVICE_CHECK_TCP: 'true',
      SERVICE_CHECK_HTTP: '/health',
      SERVICE_CHECK_INTERVAL: '15s',
      SERVICE_CHECK_TIMEOUT: '1s',
    }
    expect(registrationsOf(container({ labels }))[0]?.check).toEqual({
      kind: 'http',
      path: '/health',
      method: null,
      interval: '15s',
      timeout: '1s',
      tlsSkipVerify: false,
    })
    expect(registrationsOf(container({ labels: { SERVICE_CHECK_TTL: '30s', SERVICE_CHECK_TCP: 'true' } }))[0]?.check).toEqual({
      kind: 'ttl',
      ttl: '30s',
    })
  })
  it('turns what is left over, check keys too, into meta data', () => {
    expect(
      registrationsOf(container({ labels: { SERVICE_OWNER: 'ops', SERVICE_CHECK_HTTP: '/h', SERVICE_ID: 'x' } }))[0],
    ).toMatchObject({ id: 'x', meta: { owner: 'ops', check_http: '/h' } })
  })
  it('reads Rubato labels, which win', () => {
    const labels = {
      'rubato.service': 'web',
      'rubato.port': '443',
      'rubato.tags': 'blue',
      'rubato.meta.team': 'a',
      'rubato.check.tcp': 'true',
      SERVICE_NAME: 'old',
    }
    expect(registrationsOf(container({ ports: two, labels }))).toMatchObject([
      { name: 'web', internalPort: 443, tags: ['blue'], meta: { team: 'a' }, check: { kind: 'tcp' } },
    ])
  })
  it('drops a label of a megabyte or with a newline and keeps the container (bad-input row "Labels")', () => {
    expect(registrationsOf(container({ labels: { SERVICE_NAME: 'x'.repeat(1_000_000), SERVICE_TAGS: 'a\nb' } }))).toMatchObject([
      { name: 'nginx', tags: [] },
    ])
  })
  it('registers only what names itself when told so', () => {
    expect(registrationsOf(container({}), { explicit: true, tags: [] })).toEqual([])
    expect(registrationsOf(container({ labels: { SERVICE_NAME: 'a' } }), { explicit: true, tags: ['dc1'] })).toMatchObject([
      { name: 'a', tags: ['dc1'] },
    ])
  })
  it('finds the base name of any image reference', () => {
    expect(['redis', 'a/b/redis:7', 'h:5000/redis@sha256:00', 'redis:7-alpine'].map(imageBaseName)).toEqual([
      'redis',
      'redis',
      'redis',
      'redis',
    ])
  })
})
