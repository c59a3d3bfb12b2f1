import { createSocket } from 'node:dgram'
import { Resolver } from 'node:dns/promises'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../shared/clock.ts'
import { silentLogger } from '../shared/logger.ts'
import { createAgentDns, parseResolvers } from './dns.ts'
import { parseDnsQuestion } from './dns-question.ts'

describe('agent DNS', () => {
  it('answers names of services by the app of the asking container, and asks others for the rest', async () => {
    const asked: string[] = []
    const other = createSocket('udp4')
    other.on('message', (query, from) => {
      asked.push(parseDnsQuestion(query)?.name ?? '')
      const answer = Buffer.from(query)
      answer.writeUInt16BE(0x8183, 2)
      other.send(answer, from.port, from.address)
    })
    await new Promise<void>((resolve) => other.bind(0, '127.0.0.1', resolve))
    const dead = createSocket('udp4')
    await new Promise<void>((resolve) => dead.bind(0, '127.0.0.1', resolve))
    const deadPort = dead.address().port
    await new Promise<void>((resolve) => dead.close(() => resolve()))
    const addresses: Record<string, string> = { 'shop/web': '127.96.0.1', 'blog/web': '127.96.0.65', 'shop/my.db': '127.96.0.2' }
    const dns = await createAgentDns({
      address: '127.0.0.1',
      port: 0,
      appOf: () => 'shop',
      virtualAddressOf: (service) => addresses[service] ?? null,
      resolvers: [deadPort, other.address().port].map((port) => ({ address: '127.0.0.1', port })),
      clock: systemClock(),
      logger: silentLogger(),
    })
    const resolver = new Resolver({ tries: 1, timeout: 5_000 })
    resolver.setServers([`127.0.0.1:${dns.port}`])
    expect(await resolver.resolve4('web')).toEqual(['127.96.0.1'])
    expect(await resolver.resolve4('WEB.blog')).toEqual(['127.96.0.65'])
    expect(await resolver.resolve4('web.blog.rubato')).toEqual(['127.96.0.65'])
    expect(await resolver.resolve4('my.db')).toEqual(['127.96.0.2'])
    await expect(resolver.resolve6('web')).rejects.toMatchObject({ code: 'ENODATA' })
    await expect(resolver.resolve4('nothing.shop.rubato')).rejects.toMatchObject({ code: 'ENOTFOUND' })
    await expect(resolver.resolve4('example.org')).rejects.toMatchObject({ code: 'ENOTFOUND' })
    expect(asked).toEqual(['example.org'])
    await dns.stop()
    other.close()
  })

  it('reads any bytes without a throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 80 }), (bytes) => {
        const question = parseDnsQuestion(Buffer.from(bytes))
        if (question !== null) expect(question.end).toBeLessThanOrEqual(bytes.length)
      }),
      { numRuns: 2_000 },
    )
  })

  it('finds the resolvers of a resolv.conf', () => {
    expect(parseResolvers('# x\nnameserver 1.2.3.4\nsearch a\nnameserver ::1\n').map(({ address }) => address)).toEqual([
      '1.2.3.4',
      '::1',
    ])
  })
})
