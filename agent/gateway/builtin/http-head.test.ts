import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseRequestHead, parseResponseHead, pathFault } from './http-head.ts'

const head = (...lines: string[]) => `${lines.join('\r\n')}\r\n`

describe('parseRequestHead', () => {
  it('keeps the target byte for byte and passes unknown headers on as they came', () => {
    const parsed = parseRequestHead(head('GET /a/b.c?x=%2F..// HTTP/1.1', 'Host: shop:80', 'X-One:  two '))
    expect(parsed).toMatchObject({
      kind: 'request',
      target: '/a/b.c?x=%2F..//',
      path: '/a/b.c',
      lines: 'X-One:  two \r\n',
      keepAlive: true,
    })
  })

  it('turns an absolute target whose host agrees into origin form', () => {
    expect(parseRequestHead(head('GET HTTP://Shop/x?y HTTP/1.1', 'Host: shop'))).toMatchObject({ target: '/x?y', path: '/x' })
    expect(parseRequestHead(head('GET http://shop?y HTTP/1.1', 'Host: shop'))).toMatchObject({ target: '/?y', path: '/' })
  })

  it('removes what Connection names wherever it stands, credentials included', () => {
    const parsed = parseRequestHead(
      head(
        'GET / HTTP/1.1',
        'Host: a',
        'X-B: 1',
        'Connection: X-b , authorization',
        'x-B: 2',
        'X-C: 3',
        'Authorization: Bearer t',
      ),
    )
    expect(parsed).toMatchObject({ lines: 'X-C: 3\r\n', authorization: null })
  })

  it('never yields a line break, a NUL, an underscore name, an identity header or two framings, whatever comes in', () => {
    const junk = fc
      .array(fc.integer({ min: 0, max: 255 }), { maxLength: 40 })
      .map((bytes) => Buffer.from(bytes).toString('latin1'))
    const name = fc.oneof(
      fc.constantFrom(
        'Host',
        'content-length',
        'Transfer-Encoding',
        'X-Rubato-Caller',
        'X_Auth',
        'Connection',
        'x-forwarded-for',
        'TE',
      ),
      junk,
    )
    const value = fc.oneof(fc.constantFrom('shop', '5', 'chunked', 'close', 'x-rubato-caller', 'gzip, chunked'), junk)
    const line = fc
      .tuple(name, fc.constantFrom(': ', ':', ' : ', ''), value, fc.constantFrom('\r\n', '\n', '\r\n ', '\r'))
      .map((parts) => parts.join(''))
    fc.assert(
      fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
        const parsed = parseRequestHead(`POST /x HTTP/1.1\r\nHost: shop\r\n${lines.join('')}`)
        if (parsed.kind === 'refuse') {
          expect([400, 405, 431, 501]).toContain(parsed.status)
          return
        }
        expect(parsed.chunked && parsed.contentLength >= 0).toBe(false)
        for (const passed of parsed.lines.split('\r\n').slice(0, -1)) {
          expect(passed).toMatch(/^[!#$%&'*+.^`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*$/)
          expect(passed).not.toMatch(
            /^(?:host|content-length|transfer-encoding|connection|x-rubato-[^:]*|x-forwarded-[^:]*|te):/i,
          )
        }
      }),
      { numRuns: 3_000 },
    )
  })
})

describe('pathFault', () => {
  it('accepts the paths of ordinary services', () => {
    for (const path of [
      '/',
      '/a',
      '/a/',
      '/a.b/c-d_e~f',
      '/.well-known/x',
      '/a..b',
      '/%C3%A9',
      '/a;v=1/b',
      '/@scope/pkg',
      '/a:b,c',
      '/...',
    ])
      expect(pathFault(path), path).toBeNull()
  })

  it('refuses every spelling that another reader may take for another path', () => {
    const bad = [
      '',
      'a',
      '//',
      '/a//b',
      '/..',
      '/../',
      '/a/..',
      '/a/./b',
      '/.',
      '/%2e',
      '/a/%2E./b',
      '/..;x/a',
      '/a%2fb',
      '/a%2Fb',
      '/a%5Cb',
      '/a\\b',
      '/%00',
    ]
    for (const path of [...bad, '/%', '/%g1', '/é', '/a b']) expect(pathFault(path), path).not.toBeNull()
  })

  it('accepts no path that a decoding and normalising reader would see elsewhere', () => {
    const part = fc.constantFrom(
      '/',
      '.',
      '..',
      '%2e',
      '%2E%2e',
      '%2f',
      '%5c',
      '\\',
      '%00',
      ';',
      'a',
      'admin',
      '%61',
      '%252e',
      '?',
    )
    fc.assert(
      fc.property(fc.array(part, { maxLength: 10 }), (parts) => {
        const path = `/${parts.join('').replaceAll('?', '')}`
        if (pathFault(path) !== null) return
        const decoded = decodeURIComponent(path)
        const segments = decoded.split('/')
        expect(decoded).not.toMatch(/\\|\0|\/\//)
        expect(segments.some((segment) => /^\.\.?(?:;.*)?$/.test(segment))).toBe(false)
        expect(segments.length).toBe(path.split('/').length)
      }),
      { numRuns: 5_000 },
    )
  })

  it('does not hang on long hostile paths', () => {
    const startedAt = performance.now()
    for (const unit of ['/a', '/.', 'a.', '/%2', '.;', 'a.a/']) pathFault(`/${unit.repeat(8_000 / unit.length)}\\`)
    expect(performance.now() - startedAt).toBeLessThan(10_000)
  })
})

describe('parseResponseHead', () => {
  it('drops hop-by-hop headers and X-Rubato-*, and refuses contradictory framing', () => {
    const parsed = parseResponseHead(
      head('HTTP/1.1 200 OK', 'X-Rubato-Caller: x', 'Connection: close, X-Hop', 'X-Hop: 1', 'Set-Cookie: a=1', 'Set-Cookie: b=2'),
    )
    expect(parsed).toMatchObject({ status: 200, keepAlive: false, lines: 'Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n' })
    for (const lines of [
      ['Content-Length: 1', 'Content-Length: 2'],
      ['Content-Length: 1', 'Transfer-Encoding: chunked'],
      ['Transfer-Encoding: gzip'],
    ])
      expect(parseResponseHead(head('HTTP/1.1 200 OK', ...lines))).toMatchObject({ kind: 'bad' })
  })

  it('I11: a Connection header of thousands of names is refused, for each costs a walk over the head', () => {
    const names = (count: number) => Array.from({ length: count }, (_, index) => `n${index}`).join(',')
    const head = (count: number) => parseRequestHead(`GET / HTTP/1.1\r\nHost: x\r\nConnection: ${names(count)}\r\nN1: y\r\n`)
    expect(head(3_000)).toMatchObject({ kind: 'refuse', status: 400 })
    expect(head(32)).toMatchObject({ kind: 'request', lines: '' })
    const repeated = `GET / HTTP/1.1\r\nHost: x\r\nConnection: ${'keep-alive,'.repeat(200)}\r\n`
    expect(parseRequestHead(repeated)).toMatchObject({ kind: 'refuse', status: 400 })
    const response = `HTTP/1.1 200 OK\r\nConnection: ${names(3_000)}\r\nContent-Length: 0\r\n`
    expect(parseResponseHead(response)).toMatchObject({ kind: 'bad' })
  })
})
