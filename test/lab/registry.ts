/** A registry of our own on loopback: images of one small layer, made here, which it can hand out slowly. */
import { createHash } from 'node:crypto'
import { createServer, type ServerResponse } from 'node:http'
import { setTimeout } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { tarOf } from '../../agent/runtime/docker/tar.ts'

export interface LabRegistry {
  /** `127.0.0.1:<port>/<name>`, for an image that `add` made. */
  nameOf(name: string): string
  /** Makes an image, given as `name:tag`, with a file of its own. */
  add(name: string): void
  /** While true, a layer takes most of a minute. */
  slow: boolean
  /** Layers that are on their way at this moment. */
  readonly underWay: number
  stop(): Promise<void>
}

/** Not to be compressed, so that a layer is as large; in 1 % steps of it an engine notices that its client has gone. */
const LAYER_BYTES = 256 * 1024
const SLOW = { bytes: 1024, everyMs: 150 }
const MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'

export async function startRegistry(): Promise<LabRegistry> {
  const blobs = new Map<string, Buffer>()
  const manifests = new Map<string, string>()
  const open = new Set<ServerResponse>()
  const put = (content: Buffer) => {
    const digest = digestOf(content)
    blobs.set(digest, content)
    return { digest, size: content.length }
  }
  const handOut = async (response: ServerResponse, layer: Buffer) => {
    open.add(response)
    response.on('close', () => open.delete(response))
    let sent = 0
    for (; registry.slow && sent < layer.length && open.has(response); sent += SLOW.bytes) {
      response.write(layer.subarray(sent, sent + SLOW.bytes))
      await setTimeout(SLOW.everyMs)
    }
    response.end(layer.subarray(sent))
  }
  const server = createServer((request, response) => {
    const path = request.url ?? ''
    const [, name = '', kind = '', reference = ''] = /^\/v2\/(.+)\/(manifests|blobs)\/([^/]+)$/.exec(path) ?? []
    if (path === '/v2/') return void response.end('{}')
    const content = kind === 'blobs' ? blobs.get(reference) : blobs.get(manifests.get(`${name}:${reference}`) ?? reference)
    if (content === undefined) {
      response.statusCode = 404
      return void response.end(JSON.stringify({ errors: [{ code: 'MANIFEST_UNKNOWN', message: 'manifest unknown' }] }))
    }
    response.setHeader('content-type', kind === 'blobs' ? 'application/octet-stream' : MANIFEST)
    response.setHeader('docker-content-digest', digestOf(content))
    response.setHeader('content-length', content.length)
    if (request.method === 'HEAD') return void response.end()
    if (kind === 'manifests' || content[0] === 0x7b) return void response.end(content)
    void handOut(response, content)
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  const registry: LabRegistry = {
    slow: false,
    nameOf: (name) => `127.0.0.1:${port}/${name}`,
    add(name) {
      const tar = tarOf([{ path: 'file', mode: 0o644, content: noiseOf(name) }])
      const layer = put(gzipSync(tar))
      const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64'
      const rootfs = { type: 'layers', diff_ids: [digestOf(tar)] }
      const config = put(Buffer.from(JSON.stringify({ architecture, os: 'linux', config: { Cmd: ['/none'] }, rootfs })))
      const manifest = {
        schemaVersion: 2,
        mediaType: MANIFEST,
        config: { mediaType: 'application/vnd.docker.container.image.v1+json', ...config },
        layers: [{ mediaType: 'application/vnd.docker.image.rootfs.diff.tar.gzip', ...layer }],
      }
      manifests.set(name, put(Buffer.from(JSON.stringify(manifest))).digest)
    },
    get underWay() {
      return open.size
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  return registry
}

function digestOf(content: Buffer): string {
  return `sha256:${createHash('sha256').update(content).digest('hex')}`
}

/** The same bytes for the same seed, without any pattern. */
function noiseOf(seed: string): Buffer {
  return createHash('shake256', { outputLength: LAYER_BYTES }).update(seed).digest()
}
