/** A real HTTP server on loopback, with everything that can be wrong about it. */
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { systemRandom } from '../../shared/random.ts'
import { answerTo, aQuestion } from '../../test/builders/scheduling.ts'
import { memoryFiles } from '../../test/fakes/memory-files.ts'
import { ensureTls } from '../access/ca.ts'
import { createHttpScheduler, type HttpSchedulerOptions } from './http-scheduler.ts'
import { MAX_ANSWER_BYTES } from './protocol.ts'
import { askOnce, type Scheduler } from './scheduler.ts'

const open: { close(): unknown; closeAllConnections?(): void }[] = []
const sockets = new Set<Socket>()
afterEach(() => {
  for (const each of open.splice(0)) {
    each.close()
    each.closeAllConnections?.()
  }
  for (const socket of sockets) socket.destroy()
})

async function listen(server: Server | ReturnType<typeof createTcpServer>): Promise<number> {
  open.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

function schedulerAt(url: string, fields: Partial<HttpSchedulerOptions> = {}): Scheduler {
  const scheduler = createHttpScheduler({
    name: 'test',
    url,
    deadlineMs: 10_000,
    maxCandidates: 1_000,
    token: null,
    caPem: null,
    ...fields,
  })
  open.push({ close: () => scheduler.close() })
  return scheduler
}

const question = aQuestion()
const GOOD = answerTo(question, () => ({ score: 50 }))
const ask = (scheduler: Scheduler) => askOnce(scheduler, question, systemClock(), new AbortController().signal)

async function askServer(listener: RequestListener, fields: Partial<HttpSchedulerOptions> = {}) {
  const port = await listen(createServer(listener))
  return ask(schedulerAt(`http://127.0.0.1:${port}/schedule`, fields))
}

async function textOf(incoming: IncomingMessage): Promise<string> {
  let text = ''
  for await (const part of incoming) text += part
  return text
}

const json = { 'content-type': 'application/json; charset=utf-8' }

describe('a scheduler behind HTTP', () => {
  it('gets the question as one POST with its token and gives a verdict on each node', async () => {
    let seen: { method?: string; token?: string; body: unknown } | undefined
    const outcome = await askServer(
      async (incoming, outgoing) => {
        const { method = '', headers } = incoming
        seen = { method, token: headers.authorization ?? '', body: JSON.parse(await textOf(incoming)) }
        outgoing
          .writeHead(200, json)
          .end(answerTo(question, (id) => (id === 'n-1' ? { score: 99.5, max: 2 } : { reject: 'too hot' })))
      },
      { token: 'secret-word' },
    )
    expect(seen).toEqual({ method: 'POST', token: 'Bearer secret-word', body: question })
    expect(outcome).toMatchObject({ kind: 'answered' })
    expect(outcome.kind === 'answered' && [...outcome.verdicts]).toEqual([
      ['n-1', { kind: 'accept', score: 99.5, atMost: 2 }],
      ['n-2', { kind: 'reject', reason: 'too hot' }],
    ])
  })

  it('is asked over one kept connection', async () => {
    const seen = new Set<Socket>()
    const port = await listen(
      createServer((incoming, outgoing) => {
        seen.add(incoming.socket)
        outgoing.writeHead(200, json).end(GOOD)
      }),
    )
    const scheduler = schedulerAt(`http://127.0.0.1:${port}/`)
    for (let i = 0; i < 3; i += 1) expect((await ask(scheduler)).kind).toBe('answered')
    expect(seen.size).toBe(1)
  })

  it.each<[string, RequestListener, string, string]>([
    ['an error status', (_, out) => void out.writeHead(503, json).end(GOOD), 'bad-answer', 'status 503'],
    ['no content', (_, out) => void out.writeHead(204).end(), 'bad-answer', 'status 204'],
    [
      'a redirect',
      (_, out) => void out.writeHead(307, { location: 'http://127.0.0.1:1/' }).end(),
      'bad-answer',
      'redirects (status 307)',
    ],
    [
      'the wrong media type',
      (_, out) => void out.writeHead(200, { 'content-type': 'text/html' }).end(GOOD),
      'bad-answer',
      'application/json',
    ],
    [
      'a compressed body',
      (_, out) => void out.writeHead(200, { ...json, 'content-encoding': 'gzip' }).end(GOOD),
      'bad-answer',
      'compressed',
    ],
    [
      'a body that says it is too large',
      (_, out) => void out.writeHead(200, { ...json, 'content-length': String(MAX_ANSWER_BYTES + 1) }).write('{'),
      'bad-answer',
      'larger than 1024 KiB',
    ],
    [
      'a body without end',
      (_, out) => {
        out.writeHead(200, json)
        const more = () => {
          while (!out.destroyed && out.write(' '.repeat(65_536))) {}
          out.once('drain', more)
        }
        more()
      },
      'bad-answer',
      'larger than 1024 KiB',
    ],
    [
      'bytes that are no UTF-8',
      (_, out) => void out.writeHead(200, json).end(Buffer.from([0x22, 0xff, 0xfe, 0x22])),
      'bad-answer',
      'UTF-8',
    ],
    ['what is no JSON', (_, out) => void out.writeHead(200, json).end('{"nodes": NaN}'), 'bad-answer', 'no JSON'],
    [
      'a score of 1e308',
      (_, out) => void out.writeHead(200, json).end(GOOD.replaceAll('50', '1e308')),
      'bad-answer',
      'nodes.0.score',
    ],
    [
      'half an answer',
      (_, out) => {
        out.writeHead(200, { ...json, 'content-length': String(GOOD.length) }).write(GOOD.slice(0, 20))
        out.socket?.end()
      },
      'unreachable',
      'ended within its answer',
    ],
    ['a connection that it closes', (incoming) => void incoming.socket.destroy(), 'unreachable', 'cannot be reached'],
  ])('fails by name: %s', async (_what, listener, code, detail) => {
    const outcome = await askServer(listener)
    expect(outcome).toMatchObject({ kind: 'failed', code, detail: expect.stringContaining(detail) })
  })

  it('fails when nobody listens', async () => {
    const port = await listen(createTcpServer())
    for (const each of open.splice(0)) each.close()
    expect(await ask(schedulerAt(`http://127.0.0.1:${port}/`))).toMatchObject({ code: 'unreachable' })
  })

  it.each<[string, (socket: Socket) => void]>([
    ['accepts and says nothing', () => {}],
    ['speaks no HTTP until then', (socket) => void socket.write('HTTP/1.1 200 OK\r\nx-slow: ')],
    [
      'trickles its answer, a byte at a time',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n')
        const timer = setInterval(() => socket.write(' '), 20)
        socket.on('close', () => clearInterval(timer))
      },
    ],
  ])('is given up at the deadline when the other side %s, and the connection with it', async (_what, act) => {
    const closed = Promise.withResolvers<void>()
    const port = await listen(
      createTcpServer((socket) => {
        sockets.add(socket)
        socket.on('error', () => {})
        socket.on('close', () => closed.resolve())
        socket.resume()
        act(socket)
      }),
    )
    const outcome = await ask(schedulerAt(`http://127.0.0.1:${port}/`, { deadlineMs: 250 }))
    expect(outcome).toMatchObject({ kind: 'failed', code: 'timeout', detail: 'no answer within 250 ms' })
    await closed.promise
  })

  it('trusts only the authority that it is given, and tells nobody the token', async () => {
    const identity = (hosts: string[]) =>
      ensureTls(
        { files: memoryFiles(), stateDir: '/state', clock: systemClock(), random: systemRandom(), logger: silentLogger() },
        hosts,
      )
    const tls = await identity(['127.0.0.1'])
    const stranger = await identity(['127.0.0.1'])
    const server = createTlsServer({ key: tls.keyPem, cert: tls.certPem }, (_, out) => void out.writeHead(200, json).end(GOOD))
    const port = await listen(server)
    const url = `https://127.0.0.1:${port}/`
    expect((await ask(schedulerAt(url, { caPem: tls.caPem, token: 'secret-word' }))).kind).toBe('answered')
    for (const caPem of [stranger.caPem, null]) {
      const outcome = await ask(schedulerAt(url, { caPem, token: 'secret-word' }))
      expect(outcome).toMatchObject({ kind: 'failed', code: 'unreachable' })
      expect(JSON.stringify(outcome)).not.toContain('secret-word')
    }
  })
})
