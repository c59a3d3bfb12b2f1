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

  it('a machine is the VM of its id, whatever it is called, else the first of its name', () => {
    const vm = (id: string, name: string) => ({ id, name, state: 'running' as const, createdAtMs: null })
    const confirmed = (providerId: string | null, listed: readonly ReturnType<typeof vm>[]) => {
      const machine = aMachineRecord({ phase: 'booting', providerId, name: 'c-1-m' })
      const lists = [{ provider: machine.provider, complete: true, machines: listed }]
      const frozen = false
      const input = { clusterId: 'c-1', machines: [machine], nodes: [], lists, livenessOf: () => 'live' as const, frozen }
      const plan = planReap({ ...input, startedAtMs: T0, config: DEFAULT_FLEET_CONFIG }, EMPTY_REAP_MEMORY, T0)
      return plan.actions.map((action) => (action.kind === 'confirm' ? action.providerId : action.kind))
    }
    const twins = [vm('vm-2', 'c-1-m'), vm('vm-1', 'c-1-m'), vm('vm-3', 'other')]
    expect(confirmed(null, twins)).toEqual(['vm-1'])
    expect(confirmed('vm-3', twins)).toEqual(['vm-3'])
    expect(confirmed('vm-9', twins)).toEqual(['vm-1'])
    expect(confirmed('vm-9', [vm('vm-3', 'other')])).toEqual([])
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
