import { describe, expect, it } from 'vitest'
import { isHostAddress, isHostName, isOwnHostAddress } from './host-names.ts'

describe('host names', () => {
  it.each(['node-1', 'a.b.c', '10.0.0.1', 'node_1.lan'])('%s is a host name', (text) => expect(isHostName(text)).toBe(true))
  it.each(['', '-a', 'a-', 'a b', 'a\nb', 'a/b', '[::1]', 'a:80', `${'x'.repeat(254)}`, '<b>'])('%j is none', (text) => {
    expect(isHostName(text)).toBe(false)
    expect(isHostAddress(text)).toBe(false)
  })
  it('addresses of both families are addresses', () => {
    for (const text of ['10.0.0.1', 'fd00::1', '2001:db8::2', 'host.lan']) expect(isHostAddress(text), text).toBe(true)
  })
  it.each([
    ...['127.0.0.1', '127.9.9.9', '0.0.0.0', '169.254.169.254', 'localhost', 'LOCALHOST.', 'x.localhost', '127.1', '2130706433'],
    ...[
      '0x7f000001',
      '0177.0.0.1',
      '::',
      '::1',
      '0:0:0:0:0:0:0:1',
      '::ffff:127.0.0.1',
      '::ffff:7f00:1',
      'fe80::1',
      '64:ff9b::7f00:1',
    ],
  ])('%s means whoever uses it', (text) => expect(isOwnHostAddress(text)).toBe(true))
  it.each(['10.0.0.1', '192.168.1.1', '128.0.0.1', 'fd00::1', '2001:db8::1', 'localhost.example', 'node-1', '1e100.net'])(
    '%s is one certain host',
    (text) => expect(isOwnHostAddress(text)).toBe(false),
  )
})
