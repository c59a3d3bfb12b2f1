// biome-ignore-all lint/suspicious/noTemplateCurlyInString: Compose files have variables of that form
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseEnvFile } from './env-file.ts'
import { interpolate } from './interpolate.ts'
import { splitWords } from './shell-words.ts'

describe('interpolation', () => {
  const variables = new Map([
    ['SET', 'value'],
    ['EMPTY', ''],
  ])
  const cases: [string, string][] = [
    ['$SET-x', 'value-x'],
    ['${SET}', 'value'],
    ['${EMPTY:-d}', 'd'],
    ['${EMPTY-d}', ''],
    ['${NONE-d}', 'd'],
    ['${NONE:-${SET}}', 'value'],
    ['${NONE:-${EMPTY:-$SET}}!', 'value!'],
    ['${SET:+yes}${EMPTY:+no}${EMPTY+set}${NONE+no}', 'yesset'],
    ['${SET:?message}', 'value'],
    ['${EMPTY?message}', ''],
    ['$$SET $${SET}', '$SET ${SET}'],
    ['${NONE:-a$$b}', 'a$b'],
    ['plain', 'plain'],
  ]
  it.each(cases)('%s becomes %s', (text, expected) => {
    expect(interpolate(text, variables)).toMatchObject({ text: expected, error: null })
  })

  it.each(['${EMPTY:?needed}', '${NONE?needed}'])('%s is an error with its message', (text) => {
    expect(interpolate(text, variables).error).toMatch(/is required: needed/)
  })

  it.each(['$', 'a$ b', '${', '${SET', '${SET:}', '${1}', '${SET!x}', '${}'])('%s is an error', (text) => {
    expect(interpolate(text, variables).error).not.toBeNull()
  })

  it('a value that holds a variable is not read again', () => {
    expect(interpolate('$A', new Map([['A', '$A${A}']])).text).toBe('$A${A}')
  })

  it('stops as soon as a value grows too long, however often a long variable is named', () => {
    const long = new Map([['A', 'y'.repeat(60_000)]])
    expect(interpolate('$A'.repeat(120_000), long).error).toMatch(/grows beyond/)
    expect(interpolate(`\${NONE:-${'$A'.repeat(120_000)}}`, long).error).toMatch(/grows beyond/)
  })

  it('names what is missing only where it is used', () => {
    expect(interpolate('${SET:-$NONE}$OTHER', variables).missing).toEqual(['OTHER'])
  })

  it('never throws, and text without a dollar sign stays as it is', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('$', '{', '}', ':', '-', '?', '+', 'A', '_', ' ') }), (text) => {
        const result = interpolate(text, variables)
        if (!text.includes('$')) expect(result.text).toBe(text)
      }),
    )
    expect(interpolate('${A:-'.repeat(500), new Map()).error).toMatch(/nested/)
  })
})

describe('env files', () => {
  it('reads quotes, comments, export, several lines and variables', () => {
    const text = [
      '\uFEFF# comment',
      'A=1 # comment',
      'B=has#hash',
      "C='single $A \\' done'",
      'D="double $A \\"q\\" \\n \\$A"',
      'export E=${A}2',
      'F=',
      'G',
      'H: yaml',
      'I="two',
      'lines"',
      "J='x' # after",
    ].join('\r\n')
    expect(Object.fromEntries(parseEnvFile(text, new Map()).entries)).toEqual({
      A: '1',
      B: 'has#hash',
      C: "single $A ' done",
      D: 'double 1 "q" \n $A',
      E: '12',
      F: '',
      G: null,
      H: 'yaml',
      I: 'two\nlines',
      J: 'x',
    })
  })

  it('the environment wins over the file inside later values', () => {
    expect(parseEnvFile('A=file\nB=$A\n', new Map([['A', 'outside']])).entries).toEqual([
      ['A', 'file'],
      ['B', 'outside'],
    ])
  })

  it('tells lines that it cannot read', () => {
    expect(parseEnvFile('A=1\n=x\nB="open\n', new Map()).faults.map((fault) => fault.line)).toEqual([2, 3])
  })

  it('format raw keeps values as they are', () => {
    expect(parseEnvFile('A="q" $X # no comment', new Map(), 'raw').entries).toEqual([['A', '"q" $X # no comment']])
  })

  it('never throws', () => {
    fc.assert(fc.property(fc.string({ unit: 'binary' }), (text) => void parseEnvFile(text, new Map())))
  })
})

describe('command lines', () => {
  it.each<[string, string[] | null]>([
    ['a b  c', ['a', 'b', 'c']],
    ['sh -c "echo \'x\' \\"y\\" $HOME"', ['sh', '-c', 'echo \'x\' "y" $HOME']],
    ['a \'\' "" b\\ c', ['a', '', '', 'b c']],
    ["it's", null],
    ['', []],
    ['--opt="a b"c', ['--opt=a bc']],
  ])('%s', (line, expected) => {
    expect(splitWords(line)).toEqual(expected)
  })

  it('words in single quotes come out as they went in', () => {
    fc.assert(
      fc.property(fc.array(fc.string().filter((word) => !word.includes("'"))), (words) => {
        expect(splitWords(words.map((word) => `'${word}'`).join(' '))).toEqual(words)
      }),
    )
  })
})
