import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseCron } from './cron.ts'

describe('faults say where and how to mend', () => {
  it.each([
    ['0 8 * *', 8, 'has 4 fields', 'five fields'],
    ['0 0 8 * * mon', 11, 'has 6 fields', 'no seconds'],
    ['60 8 * * *', 1, '"60" is no minute', '0–59'],
    ['0 8-25 * * *', 5, '"25" is no hour', '0–23'],
    ['0 8 * * mon-fry', 13, '"fry" is no day of week', 'sun–sat'],
    ['0 8 * * fri-mon', 9, 'runs backwards', 'fri-sat,sun-mon'],
    ['5/15 * * * *', 1, 'needs a range', '5-59/15'],
    ['*/0 * * * *', 3, 'the step "0"', '*/15'],
    ['1,,2 * * * *', 3, 'empty item', '0–59'],
    ['0 8 L * *', 5, '"l" is no day of month', '1–31'],
    ['@reboot', 1, '"@reboot" is no known shorthand', '@daily'],
    ['', 1, 'has 0 fields', 'five fields'],
  ])('%s', (expression, column, message, hint) => {
    const read = parseCron(expression)
    if (read.ok) throw new Error('was taken')
    expect(read.fault.column).toBe(column)
    expect(read.fault.message).toContain(message)
    expect(read.fault.hint).toContain(hint)
  })
})

it('no text makes it fail otherwise than with a place and a hint', () => {
  const noise = fc.oneof(fc.string({ maxLength: 30 }), fc.string({ unit: fc.constantFrom(...'*/-, 0159amonfri@') }))
  fc.assert(
    fc.property(noise, (text) => {
      const read = parseCron(text)
      if (read.ok) return
      expect(read.fault.message).not.toBe('')
      expect(read.fault.hint).not.toBe('')
      expect(read.fault.column).toBeGreaterThan(0)
      expect(read.fault.column).toBeLessThanOrEqual(text.length + 1)
    }),
    { numRuns: 500 },
  )
})
