import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { Availability } from '../shared/model/node.ts'
import { INSTANCE_PHASES, type InstancePhase } from '../shared/model/observation.ts'
import { anInstanceObservation } from '../test/builders/observed.ts'
import { MACHINE_TRANSITIONS } from './fleet/machine-states.ts'
import { mayFollow } from './hub/observed-book.ts'
import type { RolloutState } from './state/objects.ts'

const page = readFileSync(new URL('../docs/states.md', import.meta.url), 'utf8')

/** The table of that section: state → what may follow. */
function shown(title: string): Record<string, readonly string[]> {
  const section = page.split(`\n## ${title}\n`)[1]?.split('\n## ')[0] ?? ''
  const rows = section.split('\n').filter((line) => line.startsWith('| ') && !line.startsWith('| state '))
  return Object.fromEntries(
    rows.map((line) => {
      const [, state = '', , next = ''] = line.split('|').map((cell) => cell.trim())
      return [state, next === '–' ? [] : next.split(', ')]
    }),
  )
}

describe('docs/states.md', () => {
  it('says of machines what the fleet lets happen', () => {
    expect(shown('Machine phase')).toEqual(MACHINE_TRANSITIONS)
  })

  it('says of instances what the hub believes of an agent that restarts nothing', () => {
    const table = shown('Instance phase')
    expect(Object.keys(table)).toEqual(INSTANCE_PHASES)
    // `lost` is the coordinator's view: no agent reports it.
    const reported = INSTANCE_PHASES.filter((phase) => phase !== 'lost')
    const status = (phase: InstancePhase) => anInstanceObservation({ phase })
    for (const from of reported) {
      const believed = reported.filter((to) => to !== from && mayFollow(status(from), status(to)))
      expect(
        table[from]?.filter((phase) => phase !== 'lost'),
        from,
      ).toEqual(believed)
    }
  })

  it('names every availability of a node and every phase of a rollout', () => {
    const availabilities: Record<Availability, true> = { active: true, cordoned: true, draining: true, drained: true }
    expect(Object.keys(shown('Node availability'))).toEqual(Object.keys(availabilities))
    const rollouts: Record<RolloutState['phase'], true> = {
      progressing: true,
      monitoring: true,
      'rolling-back': true,
      paused: true,
      failed: true,
      completed: true,
    }
    expect(Object.keys(shown('Rollout'))).toEqual(Object.keys(rollouts))
  })
})
