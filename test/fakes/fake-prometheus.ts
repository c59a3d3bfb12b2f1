/** A server on loopback that answers as Prometheus does, or as a broken one does. Keeps what it was asked. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface FakePrometheus {
  readonly url: string
  readonly asked: { readonly path: string; readonly parameters: URLSearchParams; readonly authorization: string | undefined }[]
  /** Answers everything from now on; null: it never answers. */
  answer(how: Answer | null): void
  close(): Promise<void>
}

export interface Answer {
  readonly status?: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string | ((parameters: URLSearchParams, path: string) => string)
  /** Ends the connection within the answer. */
  readonly isCut?: boolean
}

export const success = (data: unknown): string => JSON.stringify({ status: 'success', data })

export async function fakePrometheus(): Promise<FakePrometheus> {
  let how: Answer | null = { body: success({ resultType: 'matrix', result: [] }) }
  const asked: FakePrometheus['asked'] = []
  const respond = (request: IncomingMessage, response: ServerResponse) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://localhost')
    asked.push({ path: pathname, parameters: searchParams, authorization: request.headers.authorization })
    if (how === null) return
    const body = typeof how.body === 'string' ? how.body : how.body(searchParams, pathname)
    response.writeHead(how.status ?? 200, { 'content-type': 'application/json', ...how.headers })
    if (how.isCut !== true) response.end(body)
    else response.write(body, () => response.destroy())
  }
  const server = createServer(respond)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    answer(next) {
      how = next
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
