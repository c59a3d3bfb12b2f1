import { describe, expect, it } from 'vitest'
import { aNodeRecord, T0 } from '../../test/builders/records.ts'
import { noticesOf } from './plan-notices.ts'

const NOW = T0 + 30 * 86_400_000
const DAY_MS = 86_400_000
const announced = (endsAtMs: number, count = 1) =>
  Array.from({ length: count }, (_, index) => ({
    machineId: `m-${index}`,
    node: aNodeRecord({ id: `n-${index}`, machineId: `m-${index}` }),
    endsAtMs,
  }))

describe('notices of the cloud that it takes machines away', () => {
  it('row 13: what cannot be true ends nothing, and is told', () => {
    for (const [endsAtMs, why] of [
      [Math.floor(NOW / 1000) + 7200, /seconds\?/],
      [-5, /no epoch/],
      [NOW - 3_600_000, /long past/],
      [NOW + 30 * DAY_MS, /more than 7 days ahead/],
      [1e300, /more than 7 days ahead/],
    ] as const) {
      const { actions, reasons } = noticesOf('lab', announced(endsAtMs, 5), 5, NOW)
      expect(actions, String(endsAtMs)).toEqual([])
      expect(reasons).toHaveLength(5)
      for (const { code, text } of reasons) {
        expect(code).toBe('notice-implausible')
        expect(text).toMatch(why)
      }
    }
  })

  it('a deadline that has just passed, or is about to, leaves time to move', () => {
    for (const endsAtMs of [NOW - 60_000, NOW, NOW + 1_000])
      expect(noticesOf('lab', announced(endsAtMs), 9, NOW).actions).toEqual([
        { kind: 'interrupt', nodeId: 'n-0', deadlineAtMs: NOW + 30_000 },
      ])
    expect(noticesOf('lab', announced(NOW + 120_000), 9, NOW).actions).toMatchObject([{ deadlineAtMs: NOW + 120_000 }])
  })

  it('the same notice again, by a clock that is being set, changes nothing', () => {
    const drain = { reason: '', by: 'cloud', startedAtMs: NOW, deadlineAtMs: NOW + 120_000, deleteMachine: true }
    const again = (endsAtMs: number) => announced(endsAtMs).map((each) => ({ ...each, node: { ...each.node, drain } }))
    expect(noticesOf('lab', again(NOW + 119_990), 9, NOW).actions).toEqual([])
    expect(noticesOf('lab', again(NOW + 60_000), 9, NOW).actions).toHaveLength(1)
  })

  it('a whole spot pool at once is believed, each machine, but nothing there is stopped by force; what is left of it is as any other', () => {
    const { actions, reasons } = noticesOf('lab', announced(NOW + 120_000, 5), 6, NOW)
    expect(actions).toHaveLength(5)
    for (const action of actions) expect(action).toMatchObject({ deadlineAtMs: NOW + 120_000, forceAtMs: NOW + 7 * DAY_MS })
    expect(reasons.map(({ code }) => code)).toEqual(['mass-interruption'])
    expect(noticesOf('lab', announced(NOW + 120_000, 2), 6, NOW).reasons).toEqual([])
    const drain = { reason: '', by: 'cloud', startedAtMs: NOW, deadlineAtMs: NOW + 7 * DAY_MS, deleteMachine: true }
    const left = (count: number) => announced(NOW + 120_000, count).map((each) => ({ ...each, node: { ...each.node, drain } }))
    expect(noticesOf('lab', left(5), 6, NOW + 60_000).actions).toEqual([])
    expect(noticesOf('lab', left(2), 6, NOW + 60_000).actions).toEqual([
      { kind: 'interrupt', nodeId: 'n-0', deadlineAtMs: NOW + 120_000 },
      { kind: 'interrupt', nodeId: 'n-1', deadlineAtMs: NOW + 120_000 },
    ])
  })
})
