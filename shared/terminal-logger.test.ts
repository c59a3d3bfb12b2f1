import { describe, expect, it } from 'vitest'
import { terminalLogger } from './terminal-logger.ts'

function written(level: 'info' | 'silent' = 'info') {
  const lines: string[] = []
  const clock = { now: () => Date.UTC(2026, 10, 29, 20, 15, 3) }
  return { lines, logger: terminalLogger({ level, clock, write: (text) => void lines.push(text) }) }
}

describe('the log on a terminal', () => {
  it('is a line of words with what was bound before', () => {
    const { lines, logger } = written()
    logger.with({ nodeId: 'n-1' }).info('joined', { took: 12, reason: 'it is "new"', absent: undefined })
    logger.warn('too slow')
    expect(lines).toEqual([
      '20:15:03 info  joined  nodeId=n-1 took=12 reason="it is \\"new\\""\n',
      '20:15:03 \u001b[33mwarn \u001b[0m too slow\n',
    ])
  })

  it('leaves out what is below its level', () => {
    const { lines, logger } = written()
    logger.debug('details')
    expect(lines).toEqual([])
    const silent = written('silent')
    silent.logger.error('no')
    expect(silent.lines).toEqual([])
  })

  it('what strangers chose moves no cursor', () => {
    const { lines, logger } = written()
    logger.info('joined', { host: '\u001b[2J\u009b2J\nx' })
    expect(lines[0]).toBe('20:15:03 info  joined  host="\\u001b[2J\\u009b2J\\nx"\n')
  })
})
