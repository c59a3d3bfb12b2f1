/** Bare requests to a Docker engine's socket, for test beds and the demo: they need no docker client and no curl. */
import { createReadStream } from 'node:fs'
import { request } from 'node:http'

/** One request; resolves with the decoded JSON (or text), rejects on a status of 400 and above with the engine's message. */
export function engineRequest(
  socket: string,
  method: string,
  path: string,
  bodyFile?: string,
  timeoutMs = 120_000,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const call = request(
      { socketPath: socket, method, path, timeout: timeoutMs, headers: bodyFile ? { 'content-type': 'application/x-tar' } : {} },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () => {
          const text = Buffer.concat(chunks).toString()
          if ((response.statusCode ?? 500) >= 400) reject(new Error(`${method} ${path}: ${response.statusCode} ${text.trim()}`))
          else resolve(parse(text))
        })
      },
    )
    call.on('timeout', () => call.destroy(new Error(`${method} ${path}: no answer in ${timeoutMs} ms`)))
    call.on('error', reject)
    if (bodyFile) createReadStream(bodyFile).on('error', reject).pipe(call)
    else call.end()
  })
}

/** Whether an engine answers on that socket within three seconds. */
export async function engineAnswers(socket: string): Promise<boolean> {
  try {
    await engineRequest(socket, 'GET', '/_ping', undefined, 3_000)
    return true
  } catch {
    return false
  }
}

/** Loads a root file system as an image; `command` becomes its CMD. */
export async function importTar(socket: string, tar: string, tag: string, command: readonly string[]): Promise<void> {
  const [repository = tag, version = 'latest'] = tag.split(':')
  const changes = encodeURIComponent(`CMD ${JSON.stringify(command)}`)
  await engineRequest(
    socket,
    'POST',
    `/images/create?fromSrc=-&repo=${encodeURIComponent(repository)}&tag=${version}&changes=${changes}`,
    tar,
  )
}

/** Containers and networks with that label, as "container NAME" and "network NAME". */
export async function labelledOn(socket: string, label: string): Promise<readonly string[]> {
  const filters = encodeURIComponent(JSON.stringify({ label: [label] }))
  const containers = (await engineRequest(socket, 'GET', `/containers/json?all=true&filters=${filters}`)) as { Names: string[] }[]
  const networks = (await engineRequest(socket, 'GET', `/networks?filters=${filters}`)) as { Name: string }[]
  return [
    ...containers.map((container) => `container ${container.Names[0]}`),
    ...networks.map((network) => `network ${network.Name}`),
  ]
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
