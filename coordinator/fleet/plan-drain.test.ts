import { describe, expect, it } from 'vitest'
import type { MachineRecord, NodeRecord } from '../../shared/model/node.ts'
import type { InstanceRecord } from '../state/objects.ts'
import { MACHINE_TRANSITIONS } from './machine-states.ts'
import { type DrainInput, planDrain } from './plan-drain.ts'

const DRAIN = { reason: 'test', by: 'operator:x', startedAtMs: 0, deadlineAtMs: 1000, deleteMachine: true }

function input(
  instances: Partial<InstanceRecord>[],
  overrides: Partial<DrainInput> = {},
  node: Partial<NodeRecord> = {},
): DrainInput {
  const record = { id: 'n', machineId: 'm', pool: 'p', availability: 'draining', drain: DRAIN, ...node } as NodeRecord
  return {
    nodes: [record],
    instancesOn: () =>
      instances.map((instance, index) => ({ id: `a/s/${index + 1}/1`, goal: 'run', ...instance }) as InstanceRecord),
    machines: new Map([['m', { id: 'm', phase: 'joined' } as MachineRecord]]),
    staticPools: new Set(),
    frozen: false,
    forceGraceMs: 500,
    entrySettleMs: 0,
    ...overrides,
  }
}

const kinds = (drain: DrainInput, nowMs: number) => planDrain(drain, nowMs).actions.map((action) => action.kind)

describe('drain', () => {
  it('waits while instances are there, says which, and looks again at the deadline', () => {
    const plan = planDrain(input([{}]), 500)
    expect(plan.actions).toEqual([])
    expect(plan.wakeAtMs).toBe(1000)
    expect(plan.reasons[0]?.text).toContain('a/s/1/1')
  })

  it('an empty node is drained and its machine goes', () => {
    expect(kinds(input([]), 500)).toEqual(['drained', 'terminate'])
    expect(kinds(input([], {}, { drain: { ...DRAIN, deleteMachine: false } }), 500)).toEqual(['drained'])
    expect(kinds(input([], { staticPools: new Set(['p']) }), 500)).toEqual(['drained'])
    expect(kinds(input([], {}, { availability: 'active', drain: null }), 500)).toEqual([])
  })

  it('an empty node keeps its published ports for a while, for callers that have not moved on', () => {
    const settling = input([], { entrySettleMs: 400 }, { drain: { ...DRAIN, startedAtMs: 200 } })
    expect(kinds(settling, 500)).toEqual(['drained'])
    expect(planDrain(settling, 500).wakeAtMs).toBe(600)
    expect(kinds(settling, 600)).toEqual(['drained', 'terminate'])
  })

  it('row 43: after the deadline what runs is stopped, after a grace the machine goes regardless', () => {
    expect(kinds(input([{}]), 1000)).toEqual(['force-stop'])
    expect(kinds(input([{ goal: 'stop' }]), 1400)).toEqual([])
    expect(planDrain(input([{ goal: 'stop' }]), 1400).wakeAtMs).toBe(1500)
    expect(kinds(input([{ goal: 'stop' }]), 1500)).toEqual(['terminate'])
  })

  it('forces and deletes nothing while too many nodes are silent', () => {
    expect(kinds(input([{}], { frozen: true }), 5000)).toEqual([])
    expect(kinds(input([], { frozen: true }), 5000)).toEqual(['drained'])
  })

  it('machine phases only move forward', () => {
    const order = Object.keys(MACHINE_TRANSITIONS)
    for (const [from, nexts] of Object.entries(MACHINE_TRANSITIONS))
      for (const to of nexts) expect(order.indexOf(to)).toBeGreaterThan(order.indexOf(from))
  })
})
