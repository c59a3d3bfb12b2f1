/** `volumes` and `tmpfs` of a service. */
import type { Mount } from '../../shared/model/unit.ts'
import { BIND_KEYS, MOUNT_KEYS, TMPFS_KEYS, VOLUME_KEYS, VOLUME_MOUNT_KEYS } from './compose-schema.ts'
import type { Context } from './context.ts'
import { child, children, type Cursor, isNull } from './located.ts'
import { expandHome, joinPath } from './paths.ts'
import { shorten } from './report.ts'
import { nearest } from '../../shared/nearest.ts'
import { bytes, fields, flag, oneOf, record, text, texts, word } from './values.ts'
import { parseBytes } from '../../shared/units.ts'

/** Directories of the host whose content gives root on it, or its secrets. */
const HOST_DIRECTORIES =
  /^\/(etc|boot|dev|proc|sys|root|run|var\/run|var\/spool\/cron|var\/lib\/(docker|containerd|kubelet|systemd|dpkg|cloud|rubato|rubato-agent)|usr|bin|sbin|lib|lib64)(\/|$)/
/** Files of the host that many images mount and that give nothing away. */
const HARMLESS_HOST_FILES =
  /^\/(etc\/(localtime|timezone|ssl\/certs(\/.*)?|os-release|machine-id)|usr\/share\/zoneinfo(\/.*)?|dev\/null)$/
const SOCKETS = /(^|\/)(docker|podman|containerd|crio)\.sock$/

/** Mounts in order: `volumes`, then `tmpfs`. */
export function readMounts(context: Context, service: Cursor): Mount[] {
  const { report } = context
  const mounts: { mount: Mount; cursor: Cursor }[] = []
  const add = (mount: Mount | null, cursor: Cursor): void => {
    if (mount === null) return
    const before = mounts.find((other) => other.mount.target === mount.target)
    if (before !== undefined)
      report.fault(cursor, `two mounts at ${shorten(mount.target)}`, `the other one is in line ${before.cursor.at.line}`)
    else mounts.push({ mount, cursor })
  }
  const volumes = child(service, 'volumes')
  if (volumes !== undefined && !isNull(volumes.node)) {
    if (volumes.node.kind !== 'list') report.fault(volumes, '"volumes" of a service must be a list')
    else
      for (const { cursor } of children(volumes))
        add(cursor.node.kind === 'map' ? longMount(context, cursor) : shortMount(context, cursor), cursor)
  }
  for (const item of texts(report, child(service, 'tmpfs'), '"tmpfs"'))
    add(shortTmpfs(context, item.value, item.cursor), item.cursor)
  return mounts.map((item) => item.mount)
}

/** Checks the declarations at the top of the file, used or not. */
export function checkVolumes(context: Context): void {
  for (const cursor of context.volumes.values()) declaredVolume(context, '', cursor)
}

function shortMount(context: Context, cursor: Cursor): Mount | null {
  const value = text(context.report, cursor, 'a volume')
  if (value === undefined) return null
  if (/^[A-Za-z]:(\\|\/[^:]*:)/.test(value)) {
    context.report.fault(cursor, `"${shorten(value)}" is a Windows path`, 'nodes run Linux')
    return null
  }
  const parts = value.split(':')
  if (parts.length > 3 || parts.some((part) => part === '')) {
    context.report.fault(cursor, `"${shorten(value)}" is no volume`, 'write "name:/path", "./directory:/path" or "name:/path:ro"')
    return null
  }
  const [source, target, modes] = parts.length === 1 ? [undefined, parts[0], undefined] : parts
  const readOnly = readModes(context, cursor, modes)
  if (!isTarget(context, cursor, target)) return null
  if (source === undefined) return anonymous(context, cursor, target, readOnly)
  return isPath(source) ? bind(context, cursor, source, target, readOnly) : named(context, cursor, source, target, readOnly)
}

function readModes(context: Context, cursor: Cursor, modes: string | undefined): boolean {
  let readOnly = false
  for (const mode of (modes ?? '').split(',').filter((item) => item !== '')) {
    if (mode === 'ro') readOnly = true
    else if (mode === 'rw') readOnly = false
    else if (/^(z|Z|cached|delegated|consistent|nocopy|r?shared|r?slave|r?private)$/.test(mode))
      context.report.warn(cursor, `the mount option "${mode}" is ignored: the engine's default is used`)
    else context.report.fault(cursor, `the mount option "${shorten(mode)}" is not known`, 'ro and rw are')
  }
  return readOnly
}

function longMount(context: Context, cursor: Cursor): Mount | null {
  const { report } = context
  const mount = fields(report, cursor, MOUNT_KEYS, 'a volume')
  if (mount === undefined) return null
  const typeCursor = mount.get('type')
  const type = oneOf(report, typeCursor, 'type', ['volume', 'bind', 'tmpfs', 'cluster', 'npipe', 'image'])
  if (typeCursor === undefined) report.fault(cursor, 'a volume needs "type"', 'volume, bind or tmpfs')
  const bindFields = fields(report, mount.get('bind'), BIND_KEYS, 'bind')
  const volumeFields = fields(report, mount.get('volume'), VOLUME_MOUNT_KEYS, 'volume')
  const tmpfsFields = fields(report, mount.get('tmpfs'), TMPFS_KEYS, 'tmpfs')
  if (type === undefined) return null
  if (typeCursor !== undefined && (type === 'cluster' || type === 'npipe' || type === 'image')) {
    report.fault(typeCursor, `volumes of type ${type} are not supported`, 'volume, bind and tmpfs are')
    return null
  }
  for (const [name, given] of [
    ['bind', bindFields],
    ['volume', volumeFields],
    ['tmpfs', tmpfsFields],
  ] as const)
    if (given !== undefined && name !== type)
      report.warn(given.cursor, `options for ${name} mean nothing on a volume of type ${type}`)
  const readOnly = flag(report, mount.get('read_only'), 'read_only') ?? false
  const source = word(report, mount.get('source'), 'source', 4096)
  const targetCursor = mount.get('target')
  const target = word(report, targetCursor, 'target', 4096)
  if (targetCursor === undefined) report.fault(cursor, 'a volume needs "target": the path in the container')
  if (target === undefined || !isTarget(context, targetCursor ?? cursor, target)) return null
  if (type === 'tmpfs') {
    const sizeBytes = bytes(report, tmpfsFields?.get('size'), 'size')
    return { kind: 'tmpfs', source: '', target, readOnly, ...(sizeBytes === undefined ? {} : { sizeBytes }) }
  }
  if (source === undefined) {
    if (type === 'volume' && mount.get('source') === undefined) return anonymous(context, cursor, target, readOnly)
    if (mount.get('source') === undefined) report.fault(cursor, 'a bind mount needs "source": the path on the node')
    return null
  }
  const at = mount.get('source') ?? cursor
  return type === 'bind' ? bind(context, at, source, target, readOnly) : named(context, at, source, target, readOnly)
}

function shortTmpfs(context: Context, value: string, cursor: Cursor): Mount | null {
  const colon = value.indexOf(':')
  const target = colon < 0 ? value : value.slice(0, colon)
  if (!isTarget(context, cursor, target)) return null
  let sizeBytes: number | undefined
  let readOnly = false
  for (const option of colon < 0 ? [] : value.slice(colon + 1).split(',')) {
    const size = /^size=(.+)$/.exec(option)
    if (size !== null) {
      const parsed = parseBytes(size[1] ?? '')
      if (parsed === null) context.report.fault(cursor, `"${shorten(option)}" is no size`, 'write for example "size=64m"')
      else sizeBytes = parsed
    } else if (option === 'ro') readOnly = true
    else if (!/^(rw|noexec|nosuid|nodev|)$/.test(option))
      context.report.warn(
        cursor,
        `the tmpfs option "${shorten(option)}" is ignored: the engine's default (rw, noexec, nosuid, nodev) is used`,
      )
  }
  return { kind: 'tmpfs', source: '', target, readOnly, ...(sizeBytes === undefined ? {} : { sizeBytes }) }
}

function anonymous(context: Context, cursor: Cursor, target: string, readOnly: boolean): Mount {
  context.report.warn(cursor, `a volume without a name at ${shorten(target)}: every instance gets its own, which ends with it`)
  return { kind: 'volume', source: '', target, readOnly }
}

function bind(context: Context, cursor: Cursor, written: string, target: string, readOnly: boolean): Mount | null {
  const { report, policy } = context
  const home = expandHome(written, context.variables.get('HOME'))
  const source = stripSlash(joinPath(context.directory, context.relative(cursor.at, home)))
  if (!source.startsWith('/')) {
    report.fault(cursor, `the path "${shorten(written)}" cannot be made absolute`, 'write an absolute path')
    return null
  }
  const danger = dangerOf(source)
  if (danger !== null && !policy.allowHostMounts) {
    report.fault(
      cursor,
      `mounting ${shorten(source)} is forbidden: ${danger}`,
      'use a named volume, or carry the file as a config; no setting of the coordinator allows it',
    )
    return null
  }
  if (!HARMLESS_HOST_FILES.test(source))
    report.warn(
      cursor,
      `${shorten(source)} is a path of the node: it must be on every node that may run this service; "configs" carries files to them`,
    )
  return { kind: 'bind', source, target, readOnly }
}

/** Why a path of the host must not be mounted, or null when it may. Also used where specs come in through the API. */
export function dangerOf(source: string): string | null {
  if (source === '/' || source === '') return 'it is the whole host'
  if (SOCKETS.test(source)) return "the engine's socket gives root on the node"
  if (HARMLESS_HOST_FILES.test(source)) return null
  return HOST_DIRECTORIES.test(source) || /^\/(home|var|var\/lib|var\/spool)\/?$/.test(source)
    ? 'it is a directory of the host itself'
    : null
}

function named(context: Context, cursor: Cursor, name: string, target: string, readOnly: boolean): Mount | null {
  const { report } = context
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(name)) {
    report.fault(cursor, `"${shorten(name)}" is no name of a volume`, 'a path starts with ".", "/" or "~"')
    return null
  }
  const declared = context.volumes.get(name)
  if (declared === undefined) {
    const near = nearest(name, context.volumes.keys())
    report.fault(
      cursor,
      `the volume "${shorten(name)}" is not declared`,
      near === null ? `add "${name}:" under the top-level "volumes:"` : `did you mean "${near}"?`,
    )
    return null
  }
  const volume = declaredVolume(context, name, declared)
  if (volume === null) return null
  if (volume.kind === 'bind') return bind(context, cursor, volume.source, target, readOnly)
  return {
    kind: volume.kind,
    source: volume.source,
    target,
    readOnly,
    ...(volume.sizeBytes === undefined ? {} : { sizeBytes: volume.sizeBytes }),
  }
}

function declaredVolume(
  context: Context,
  name: string,
  cursor: Cursor,
): { kind: 'volume' | 'bind' | 'tmpfs'; source: string; sizeBytes?: number } | null {
  const { report, app } = context
  const declared = fields(report, cursor, VOLUME_KEYS, 'a volume')
  const scoped = { kind: 'volume' as const, source: `${app}_${name}` }
  if (declared === undefined) return isNull(cursor.node) ? scoped : null
  const externalCursor = declared.get('external')
  // Old files: external: { name: x }.
  const externalName = externalCursor?.node.kind === 'map' ? word(report, child(externalCursor, 'name'), 'name', 255) : undefined
  const isExternal = externalCursor?.node.kind === 'map' ? true : (flag(report, externalCursor, 'external') ?? false)
  const ownName = word(report, declared.get('name'), 'name', 255) ?? externalName
  if (ownName !== undefined && !/^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(ownName)) {
    report.fault(declared.get('name') ?? cursor, `"${shorten(ownName)}" is no name of a volume`)
    return null
  }
  if (isExternal)
    report.warn(
      externalCursor ?? cursor,
      'an external volume must be on every node that may run the service; it is made empty where it is not',
    )
  const driver = text(report, declared.get('driver'), 'driver') ?? 'local'
  if (driver !== 'local' && driver !== 'default') {
    report.fault(
      declared.get('driver') ?? cursor,
      `the volume driver "${shorten(driver)}" is not supported`,
      'the driver local is; mount network storage on the nodes and bind it',
    )
    return null
  }
  const optionsCursor = declared.get('driver_opts')
  const options = record(report, optionsCursor, 'driver_opts')
  if (optionsCursor === undefined || Object.keys(options).length === 0)
    return ownName === undefined && !isExternal ? scoped : { kind: 'volume', source: ownName ?? name }
  const flags = (options.o ?? '').split(',')
  if (options.device !== undefined && (flags.includes('bind') || flags.includes('rbind')))
    return { kind: 'bind', source: options.device }
  if (options.type === 'tmpfs') {
    const size = flags.map((item) => /^size=(.+)$/.exec(item)?.[1]).find((item) => item !== undefined)
    const sizeBytes = size === undefined ? null : parseBytes(size)
    return { kind: 'tmpfs', source: '', ...(sizeBytes === null ? {} : { sizeBytes }) }
  }
  report.fault(
    optionsCursor,
    `driver_opts of type "${shorten(options.type ?? '')}" are not supported: the volume would be an empty one of the node`,
    'mount the storage on the nodes and bind its directory',
  )
  return null
}

function isTarget(context: Context, cursor: Cursor, target: string | undefined): target is string {
  if (target?.startsWith('/') && target !== '/' && target.length <= 4096 && !/[\0-\x1f]/.test(target)) return true
  context.report.fault(cursor, `"${shorten(target ?? '')}" is no path in a container`, 'it must be absolute and not "/"')
  return false
}

function isPath(source: string): boolean {
  return source.startsWith('/') || source.startsWith('.') || source.startsWith('~')
}

function stripSlash(path: string): string {
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path
}
