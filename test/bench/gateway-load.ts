/**
 * Load generator and upstream for the gateway benchmark; each runs in a process of its own.
 *
 *   gateway-load.ts upstream PORT                             answers every request with 128 bytes
 *   gateway-load.ts load PORT CONNECTIONS SECONDS HEAD        prints {"requests", "failed", "p50Us", "p99Us"}
 *   gateway-load.ts builtin PORT UPSTREAM SECRET_HASH          the builtin engine with one instance
 *
 * Requests are raw bytes over kept-open sockets: the generator must cost less than what it measures.
 */
import { connect, createServer } from 'node:net'
import { createBuiltinGateway } from '../../agent/gateway/builtin/builtin-gateway.ts'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { systemRandom } from '../../shared/random.ts'

const BODY = 'x'.repeat(128)
const ANSWER = Buffer.from(`HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: ${BODY.length}\r\n\r\n${BODY}`)
const END = Buffer.from('\r\n\r\n')

const [mode, port = '0', ...rest] = process.argv.slice(2)
if (mode === 'upstream') upstream(Number(port))
else if (mode === 'load') load(Number(port), Number(rest[0]), Number(rest[1]), (rest[2] ?? '').replaceAll('\\r\\n', '\r\n'))
else if (mode === 'builtin') await builtin(Number(port), Number(rest[0]), rest[1] ?? '')

function upstream(listenPort: number): void {
  createServer({ noDelay: true }, (socket) => {
    let part: Buffer | null = null
    socket.on('error', () => {})
    socket.on('data', (chunk: Buffer) => {
      let buffer = part === null ? chunk : Buffer.concat([part, chunk])
      for (let end = buffer.indexOf(END); end >= 0; end = buffer.indexOf(END)) {
        socket.write(ANSWER)
        buffer = buffer.subarray(end + 4)
      }
      part = buffer.length > 0 ? buffer : null
    })
  }).listen(listenPort, '127.0.0.1', () => process.stdout.write('ready\n'))
}

function load(target: number, connections: number, seconds: number, head: string): void {
  const request = Buffer.from(head)
  const endAt = performance.now() + seconds * 1_000
  const latenciesUs: number[] = []
  let requests = 0
  let failed = 0
  let open = connections
  const report = () => {
    latenciesUs.sort((a, b) => a - b)
    const at = (quantile: number) => Math.round(latenciesUs[Math.floor(latenciesUs.length * quantile)] ?? 0)
    process.stdout.write(`${JSON.stringify({ requests, failed, p50Us: at(0.5), p99Us: at(0.99) })}\n`)
  }
  for (let index = 0; index < connections; index += 1) {
    const socket = connect({ port: target, host: '127.0.0.1', noDelay: true })
    let expected = 0
    let received = 0
    let sentAt = 0
    const send = () => {
      received = 0
      expected = 0
      sentAt = performance.now()
      socket.write(request)
    }
    socket.on('connect', send)
    socket.on('data', (chunk: Buffer) => {
      received += chunk.length
      if (expected === 0) {
        const end = chunk.indexOf(END)
        const text = chunk.toString('latin1', 0, end)
        if (!text.startsWith('HTTP/1.1 200')) failed += 1
        const length = /content-length: (\d+)/i.exec(text)
        expected = end + 4 + Number(length?.[1] ?? 0)
      }
      if (received < expected) return
      requests += 1
      const now = performance.now()
      latenciesUs.push((now - sentAt) * 1_000)
      if (now < endAt) send()
      else socket.end()
    })
    socket.on('error', () => {
      failed += 1
    })
    socket.on('close', () => {
      open -= 1
      if (open === 0) report()
    })
  }
}

async function builtin(gatewayPort: number, upstreamPort: number, secretHash: string): Promise<void> {
  const clock = systemClock()
  const access = { public: false, sameApp: true, allow: [], roles: [], anyKey: true, methods: [], pathPrefixes: [] }
  const engine = await createBuiltinGateway({
    nodeId: 'bench',
    address: '127.0.0.1',
    portRange: { from: gatewayPort, to: gatewayPort },
    keys: {
      key: (id) => (id === 'bench' ? { id, name: 'bench', roles: [], secretHash, expiresAtMs: null } : undefined),
      policy: () => access,
      meshSecret: null,
      confirmedAtMs: clock.now(),
      revision: 1,
    },
    staleAfterMs: () => 86_400_000,
    callerOf: () => null,
    clock,
    random: systemRandom(),
    logger: silentLogger(),
  })
  await engine.openIngress({
    instance: 'bench/web/1/1',
    service: 'web',
    containerPort: 80,
    protocol: 'http',
    access,
    targetAddress: '127.0.0.1',
    targetPort: upstreamPort,
    gatewayPort,
    hostPorts: [],
  })
  process.stdout.write('ready\n')
}
