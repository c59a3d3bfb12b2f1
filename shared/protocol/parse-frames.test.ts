import { describe, expect, it } from 'vitest'
import { MAX_DEMAND } from '../model/observation.ts'
import { parseAgentFrame, parseCoordinatorFrame } from './parse-frames.ts'

const report = (fields: Record<string, unknown>) =>
  parseAgentFrame(
    JSON.stringify({
      type: 'report',
      node: null,
      full: false,
      instances: [
        {
          instance: 'shop/web/1/1',
          loadPercent: 50,
          demand: null,
          cpuMillis: 1,
          memoryBytes: 1,
          rxBytes: 0,
          txBytes: 0,
          inFlight: 0,
          requests: 0,
          errors: 0,
          denied: 0,
          ...fields,
        },
      ],
    }),
  )

describe('reports of use', () => {
  it('row 13: a backlog beyond belief counts as not told, and the rest of the report stands', () => {
    for (const [told, taken] of [
      [3, 3],
      [MAX_DEMAND, MAX_DEMAND],
      [MAX_DEMAND + 1, null],
      [1e12, null],
    ])
      expect(report({ demand: told })).toMatchObject({ frame: { instances: [{ demand: taken, loadPercent: 50 }] } })
  })

  it('row 13: amounts that no host has make a bad frame', () => {
    for (const field of ['cpuMillis', 'memoryBytes', 'rxBytes']) {
      expect(report({ [field]: 1e300 })).toMatchObject({ kind: 'bad' })
      expect(report({ [field]: 2 ** 40 })).toMatchObject({ kind: 'frame' })
    }
  })
})

describe('images pulled ahead', () => {
  const image = { image: 'shop/web:2', platform: 'linux/amd64', refresh: true }
  const asked = (images: unknown) => parseCoordinatorFrame(JSON.stringify({ type: 'pullAhead', images }))
  const answer = (fields: object) =>
    parseAgentFrame(JSON.stringify({ type: 'pulledAhead', here: [], pending: [], failing: [], ...fields }))

  it('are bounded on both ways, in number and in length', () => {
    expect(asked([image])).toMatchObject({ kind: 'frame', frame: { images: [image] } })
    expect(asked(Array(65).fill(image))).toMatchObject({ kind: 'bad' })
    expect(asked([{ image: 'x'.repeat(501) }])).toMatchObject({ kind: 'bad' })
    expect(answer({ here: ['shop/web:2'] })).toMatchObject({ kind: 'frame', frame: { here: ['shop/web:2'] } })
    expect(answer({ here: Array(65).fill('a') })).toMatchObject({ kind: 'bad' })
    expect(answer({ failing: ['x'.repeat(501)] })).toMatchObject({ kind: 'bad' })
  })
})
