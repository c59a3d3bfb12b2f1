import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { MACHINE_PHASES } from '../../shared/model/node.ts'
import { INSTANCE_PHASES } from '../../shared/model/observation.ts'
import {
  AVAILABILITY_TRANSITIONS,
  INSTANCE_TRANSITIONS,
  MACHINE_TRANSITIONS,
  mayFollow,
  ROLLOUT_TRANSITIONS,
  type Transitions,
} from './states.ts'

const page = readFileSync(new URL('../../docs/states.md', import.meta.url), 'utf8')

describe('states', () => {
  it.each<[string, Transitions<string>]>([
    ['Instance phase', INSTANCE_TRANSITIONS],
    ['Machine phase', MACHINE_TRANSITIONS],
    ['Node availability', AVAILABILITY_TRANSITIONS],
    ['Rollout', ROLLOUT_TRANSITIONS],
  ])('docs/states.md shows the table of the code: %s', (title, table) => {
    const section = page.split(`\n## ${title}\n`)[1]?.split('\n## ')[0] ?? ''
    const rows = section.split('\n').filter((line) => line.startsWith('| ') && !line.startsWith('| state '))
    const shown = rows.map((line) => line.split('|').map((cell) => cell.trim()))
    expect(Object.fromEntries(shown.map((cells) => [cells[1], cells[3] === '–' ? [] : cells[3]?.split(', ')]))).toEqual(table)
  })
  it('instances and machines never go back to an earlier phase', () => {
    for (const [i, from] of INSTANCE_PHASES.entries())
      for (const to of INSTANCE_PHASES.slice(0, i).filter((phase) => !(from === 'failed' && phase === 'stopped')))
        expect(mayFollow(INSTANCE_TRANSITIONS, from, to)).toBe(false)
    for (const from of MACHINE_PHASES) expect(mayFollow(MACHINE_TRANSITIONS, from, 'requested')).toBe(from === 'requested')
    expect(mayFollow(MACHINE_TRANSITIONS, 'gone', 'terminating')).toBe(false)
  })
})
