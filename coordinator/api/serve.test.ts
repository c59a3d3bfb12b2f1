/** The API on a real socket, on loopback. */
import { createServer } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { apiBed } from '../../test/builders/api-bed.ts'
import { silentLogger } from '../../shared/logger.ts'
import { type HttpServer, requireFreePort, startHttpServer } from './serve.ts'

let open: HttpServer | null = null
afterEach(async () => {
  await open?.close()
  open = null
})

describe('the server', () => {
  it('serves the API, with the caller’s address, and closes while a stream is open', async () => {
    const bed = await apiBed()
    open = await startHttpServer({ app: bed.api, listen: { host: '127.0.0.1', port: 0 }, logger: silentLogger() })
    expect(await (await fetch(`${open.url}/healthz`)).text()).toBe('ok\n')
    const stream = await fetch(`${open.url}/v1/events?follow`, { headers: { authorization: `Bearer ${bed.tokens.viewer}` } })
    const reader = stream.body?.getReader()
    await reader?.read()
    const ended = reader?.read().catch(() => ({ done: true }))
    await open.close()
    open = null
    expect((await ended)?.done).toBe(true)
  })

  it('API row 3: a chunked body over 1 MiB is answered 413 on a socket too', async () => {
    const bed = await apiBed()
    open = await startHttpServer({ app: bed.api, listen: { host: '127.0.0.1', port: 0 }, logger: silentLogger() })
    const chunk = new Uint8Array(64 * 1024).fill(32)
    let sent = 0
    const body = new ReadableStream<Uint8Array>({
      pull(controller) {
        if (sent++ < 20) controller.enqueue(chunk)
        else controller.close()
      },
    })
    const response = await fetch(`${open.url}/v1/keys`, {
      method: 'POST',
      headers: { authorization: `Bearer ${bed.tokens.admin}`, 'content-type': 'application/json' },
      body,
      duplex: 'half',
    } as RequestInit)
    expect(response.status).toBe(413)
  })

  it('refuses plain HTTP off loopback, and names a port that is taken', async () => {
    const bed = await apiBed()
    const listen = (host: string, port: number) =>
      startHttpServer({ app: bed.api, listen: { host, port }, logger: silentLogger() })
    await expect(listen('0.0.0.0', 0)).rejects.toThrow(/TLS/)
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    const address = taken.address()
    const port = typeof address === 'object' && address ? address.port : 0
    await expect(listen('127.0.0.1', port)).rejects.toThrow(`127.0.0.1:${port}`)
    // Before anything was made, too, with what to do about it.
    await expect(requireFreePort({ host: '127.0.0.1', port })).rejects.toThrow(/Choose another address with --listen/)
    await new Promise((resolve) => taken.close(resolve))
    await requireFreePort({ host: '127.0.0.1', port })
  })
})
