/** Images for tests and demos, made here from the machine's own static busybox: nothing is fetched. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { type TarEntry, tarOf } from '../../agent/runtime/docker/tar.ts'

const BUSYBOX_PATHS = ['/bin/busybox', '/usr/bin/busybox']

/** A root file system with busybox and its commands; `files` are laid over it (paths without a leading slash). */
export function busyboxTar(files: readonly TarEntry[] = []): Buffer {
  const path = BUSYBOX_PATHS.find((candidate) => isStatic(candidate))
  if (path === undefined) throw new Error('busybox-static is needed (apt-get install busybox-static)')
  const applets = execFileSync(path, ['--list'], { encoding: 'utf8' }).split('\n')
  const directories = ['bin', 'dev', 'etc', 'home', 'proc', 'root', 'sys', 'tmp', 'usr', 'usr/bin', 'var', 'www']
  return tarOf([
    ...directories.map((directory) => ({ path: directory, mode: directory === 'tmp' ? 0o1777 : 0o755, content: null })),
    { path: 'bin/busybox', mode: 0o755, content: readFileSync(path) },
    ...applets
      .filter((applet) => applet !== '' && applet !== 'busybox')
      .map((applet) => ({ path: `bin/${applet}`, mode: 0o777, content: null, linkTo: 'busybox' })),
    {
      path: 'etc/passwd',
      mode: 0o644,
      content: Buffer.from('root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n'),
    },
    { path: 'etc/group', mode: 0o644, content: Buffer.from('root:x:0:\nnobody:x:65534:\n') },
    ...files,
  ])
}

/** Makes an image of a root file system in the engine behind `socket`. `cmd` is what its containers run. */
export function importImage(
  socket: string,
  tag: string,
  cmd: readonly string[],
  options: { readonly tar?: Buffer; readonly changes?: readonly string[] } = {},
): Promise<void> {
  const query = new URLSearchParams({ fromSrc: '-', repo: tag.split(':')[0] ?? tag, tag: tag.split(':')[1] ?? 'latest' })
  for (const change of [`CMD ${JSON.stringify(cmd)}`, ...(options.changes ?? [])]) query.append('changes', change)
  const body = options.tar ?? busyboxTar()
  return new Promise((resolve, reject) => {
    const call = request(
      {
        socketPath: socket,
        method: 'POST',
        path: `/v1.41/images/create?${query}`,
        headers: { 'content-type': 'application/x-tar', 'content-length': body.length },
      },
      (response) => {
        let text = ''
        response.on('data', (chunk) => {
          text += String(chunk)
        })
        response.on('end', () =>
          response.statusCode === 200 && !text.includes('"error"')
            ? resolve()
            : reject(new Error(`import of ${tag}: ${response.statusCode} ${text}`)),
        )
        response.on('error', reject)
      },
    )
    call.on('error', reject)
    call.end(body)
  })
}

/** An ELF file that asks for no interpreter: it runs in a root file system of its own. */
function isStatic(path: string): boolean {
  try {
    const file = readFileSync(path)
    const headers = Number(file.readBigUInt64LE(32))
    const size = file.readUInt16LE(54)
    const count = file.readUInt16LE(56)
    return Array.from({ length: count }, (_, i) => file.readUInt32LE(headers + i * size)).every((type) => type !== 3)
  } catch {
    return false
  }
}
