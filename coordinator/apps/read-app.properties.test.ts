// biome-ignore-all lint/suspicious/noTemplateCurlyInString: Compose files have variables of that form
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { canonicalJson } from '../../shared/canonical.ts'
import { appSpecSchema } from './app-spec-schema.ts'
import { checkAppSpec } from './check-app-spec.ts'
import { SERVICE_KEYS } from './compose-schema.ts'
import { type ReadAppResult, readApp } from './read-app.ts'

const read = (text: string): Promise<ReadAppResult> =>
  readApp({ text, fileName: '/srv/x/compose.yaml', environment: { A: '1' }, readFile: async () => null })

/** Values that appear in Compose files, in places where they do and do not belong. */
const value = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 3 },
    fc.constantFrom<unknown>(
      '80:80',
      'a:1',
      '10s',
      '512M',
      'web',
      'db',
      './x:/y',
      '/var/run/docker.sock:/s',
      'service:web',
      'always',
      '${A}',
      '${B:?x}',
      '$',
      '',
      null,
      true,
      0,
      -1,
      1e21,
      3.5,
    ),
    fc.string({ maxLength: 12 }),
    fc.array(tie('value'), { maxLength: 3 }),
    fc.dictionary(
      fc.constantFrom(
        'test',
        'condition',
        'replicas',
        'target',
        'published',
        'source',
        'type',
        'path',
        'cpus',
        'memory',
        'limits',
        'resources',
        'placement',
        'web',
        'db',
        'scale',
        'max',
        'load',
        'x-y',
        '__proto__',
        'constructor',
        '<<',
      ),
      tie('value'),
      { maxKeys: 4 },
    ),
  ),
})).value
const service = fc.dictionary(fc.constantFrom(...Object.keys(SERVICE_KEYS), 'x-rubato', 'imgae'), value, { maxKeys: 6 })
const file = fc.record(
  {
    services: fc.dictionary(fc.constantFrom('web', 'db', 'a/b', ''), service, { maxKeys: 3 }),
    volumes: value,
    secrets: value,
    configs: value,
    networks: value,
    include: value,
  },
  { requiredKeys: ['services'] },
)

describe('whatever is in an app file', () => {
  it('reading never throws, for any text', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string({ unit: 'binary' }),
          fc.string({
            unit: fc.constantFrom(':', '-', ' ', '\n', '&', '*', 'a', '<', '[', '{', '}', ']', '!', '|', '"', '#', '?'),
          }),
        ),
        async (text) => {
          const result = await read(text)
          if (result.kind === 'refused') expect(result.faults.length).toBeGreaterThan(0)
        },
      ),
      { numRuns: 300 },
    )
  })

  it('reading never throws, for any structure; what is accepted passes the checks of the API, and every fault has a place', async () => {
    await fc.assert(
      fc.asyncProperty(file, async (content) => {
        const text = JSON.stringify(content)
        const result = await read(text)
        const lines = text.split('\n')
        if (result.kind === 'refused') {
          expect(result.faults.length).toBeGreaterThan(0)
          for (const fault of result.faults) {
            if (fault.line === undefined || fault.file !== '/srv/x/compose.yaml') continue
            expect(fault.line).toBeLessThanOrEqual(lines.length)
            expect(fault.column).toBeLessThanOrEqual((lines[fault.line - 1] ?? '').length + 1)
          }
        } else {
          expect(appSpecSchema.safeParse(result.app).error?.issues ?? []).toEqual([])
          const check = checkAppSpec(result.app)
          expect([...check.faults, ...check.forbidden]).toEqual([])
        }
      }),
      { numRuns: 400 },
    )
  })

  it('a fault of an unknown key points at that key, wherever it stands', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom('web', 'db', 'cache', 'api', 'queue'), { minLength: 1, maxLength: 5 }),
        fc.nat(),
        async (names, pick) => {
          const unique = [...new Set(names)]
          const chosen = unique[pick % unique.length] ?? ''
          const content = {
            services: Object.fromEntries(
              unique.map((name) => [
                name,
                { image: 'a:1', deploy: { replicas: 2, ...(name === chosen ? { unknownHere: 1 } : {}) } },
              ]),
            ),
          }
          const text = stringify(content)
          const result = await read(text)
          const lines = text.split('\n')
          const at = lines.findIndex((line) => line.includes('unknownHere'))
          expect(result).toMatchObject({
            kind: 'refused',
            faults: [
              {
                path: `/services/${chosen}/deploy/unknownHere`,
                line: at + 1,
                column: (lines[at]?.indexOf('unknownHere') ?? 0) + 1,
              },
            ],
          })
        },
      ),
      { numRuns: 50 },
    )
  })

  it('the same text gives the same spec, and JSON the same as YAML', async () => {
    const content = {
      services: { web: { image: 'a:1', ports: ['80:80'], environment: { A: 'x', B: '2' }, deploy: { replicas: 3 } } },
      volumes: {},
    }
    const [first, again, asYaml] = await Promise.all([
      read(JSON.stringify(content)),
      read(JSON.stringify(content)),
      read(stringify(content)),
    ])
    if (first.kind !== 'ok' || again.kind !== 'ok' || asYaml.kind !== 'ok') throw new Error('refused')
    expect(canonicalJson(again.app)).toBe(canonicalJson(first.app))
    expect(canonicalJson(asYaml.app)).toBe(canonicalJson(first.app))
  })
})

describe('limits hold in time', () => {
  it.each([
    ['flow lists', '['.repeat(200_000)],
    ['block lists', '- '.repeat(120_000)],
    ['complex keys', '? '.repeat(120_000)],
    ['many keys', Array.from({ length: 25_000 }, (_, index) => `k${index}: 1`).join('\n')],
    [
      'many anchors and aliases',
      `x-a: [${Array.from({ length: 8_000 }, (_, index) => `&a${index} 1, *a${index}`).join(', ')}]\nservices: {web: {image: "a:1"}}`,
    ],
    [
      'merge keys of merge keys',
      `x-0: &m0 {${Array.from({ length: 100 }, (_, index) => `k${index}: 1`).join(', ')}}\n${Array.from({ length: 30 }, (_, level) => `x-${level + 1}: &m${level + 1} {<<: [${Array(20).fill(`*m${level}`).join(', ')}]}`).join('\n')}`,
    ],
    ['a long variable', `services: {web: {image: "${'${A:-'.repeat(40_000)}"}}`],
  ])('row App YAML: %s cost a bounded time', async (_, text) => {
    const result = await read(text)
    expect(['ok', 'refused']).toContain(result.kind)
  })
})
