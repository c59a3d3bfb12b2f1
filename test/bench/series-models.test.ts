import { expect, it } from 'vitest'
import { parseTrace } from '../../coordinator/simulate/trace.ts'
import { modelSeries } from './series-models.ts'

it('every model makes a series that can be read, the same for the same seed and another for another', () => {
  const series = modelSeries(1)
  expect(modelSeries(1)).toEqual(series)
  const others = new Map(modelSeries(2).map(({ csv }, index) => [series[index]?.name, csv]))
  for (const { name, csv } of series) {
    const { values } = parseTrace(csv, { name, gaps: 'zero' })
    expect(
      values.every((value) => value >= 0 && Number.isFinite(value)),
      name,
    ).toBe(true)
    expect(Math.max(...values), name).toBeGreaterThan(0)
    expect(csv === others.get(name), name).toBe(false)
  }
})
