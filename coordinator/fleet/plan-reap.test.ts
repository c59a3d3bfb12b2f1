import { describe, expect, it } from 'vitest'
import { aMachineRecord, T0 } from '../../test/builders/records.ts'
import { DEFAULT_FLEET_CONFIG } from './config.ts'
import { EMPTY_REAP_MEMORY, planReap } from './plan-reap.ts'

describe('planReap', () => {
  it('row 37: a machine ordered before the wall clock was set back is given up in time all the same', () => {
    const machine = aMachineRecord({ phase: 'joining', requestedAtMs: T0 + 3_600_000 })
    const input = {
      clusterId: 'c-1',
      machines: [machine],
      nodes: [],
      lists: [],
      livenessOf: () => 'live' as const,
      frozen: false,
      startedAtMs: T0,
      config: DEFAULT_FLEET_CONFIG,
    }
    const early = planReap(input, EMPTY_REAP_MEMORY, T0 + DEFAULT_FLEET_CONFIG.joinDeadlineMs - 1)
    expect(early.actions).toEqual([])
    expect(early.wakeAtMs).toBe(T0 + DEFAULT_FLEET_CONFIG.joinDeadlineMs)
    const late = planReap(input, EMPTY_REAP_MEMORY, T0 + DEFAULT_FLEET_CONFIG.joinDeadlineMs)
    expect(late.actions).toMatchObject([{ kind: 'terminate', machineId: machine.id, poolRests: true }])
  })
})
