import { describe, expect, it } from 'vitest'
import type { NodeRecord } from '../../shared/model/node.ts'
import { aMachineRecord, aNodeRecord, T0 } from '../../test/builders/records.ts'
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

  it('§8.3: a notice in the list interrupts the node once, and again only when it comes sooner', () => {
    const machine = aMachineRecord({ phase: 'joined', providerId: 'vm-1', nodeId: 'n-1' })
    const node = (drain: NodeRecord['drain']) => aNodeRecord({ id: 'n-1', machineId: machine.id, drain })
    const actionsAt = (interruptionAtMs: number, drain: NodeRecord['drain'] = null) =>
      planReap(
        {
          clusterId: 'c-1',
          machines: [machine],
          nodes: [node(drain)],
          lists: [
            {
              provider: machine.provider,
              complete: true,
              machines: [{ id: 'vm-1', name: machine.name, state: 'running', createdAtMs: null, interruptionAtMs }],
            },
          ],
          livenessOf: () => 'live' as const,
          frozen: false,
          startedAtMs: T0,
          config: DEFAULT_FLEET_CONFIG,
        },
        EMPTY_REAP_MEMORY,
        T0,
      ).actions
    expect(actionsAt(T0 + 120_000)).toEqual([{ kind: 'interrupt', nodeId: 'n-1', deadlineAtMs: T0 + 120_000 }])
    const drain = { reason: '', by: 'cloud', startedAtMs: T0, deadlineAtMs: T0 + 120_000, deleteMachine: true }
    expect(actionsAt(T0 + 120_000, drain)).toEqual([])
    expect(actionsAt(T0 + 130_000, drain)).toEqual([])
    expect(actionsAt(T0 + 60_000, drain)).toHaveLength(1)
    // Seconds for milliseconds end nothing.
    expect(actionsAt(Math.floor(T0 / 1000) + 120)).toEqual([])
    expect(actionsAt(T0 + 120_000, { ...drain, by: 'fleet' })).toHaveLength(1)
  })
})
