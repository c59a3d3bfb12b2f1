/** Where the coordinator is and who we are: flag > environment > ~/.config/rubato/config.yaml > this host. */
import { resolve } from 'node:path'
import { type ApiClient, apiClient } from './client.ts'
import { CliError, type CliIo, EXIT } from './io.ts'
import type { CliConfig } from './read-cli-config.ts'

const DEFAULT_URL = 'http://127.0.0.1:7600'

export interface ConnectionFlags {
  readonly url?: string | undefined
  readonly ca?: string | undefined
  readonly tokenFile?: string | undefined
}

export interface Connection {
  readonly url: string
  /** False when nothing named a coordinator: `url` is then this host's default. */
  readonly configured: boolean
  readonly token: string | null
  readonly caPem: string | null
}

/** Throws `CliError` (2) naming the file or flag that cannot be used. */
export async function resolveConnection(io: CliIo, flags: ConnectionFlags): Promise<Connection> {
  const config = await readConfig(io)
  const { env } = io
  const given = flags.url ?? (env.RUBATO_URL || undefined) ?? config.url
  const url = given ?? DEFAULT_URL
  if (!/^https?:\/\/[^/\s]+/.test(url)) throw new CliError(EXIT.refused, `"${url}" is no address.`, 'Like http://127.0.0.1:7600.')
  const tokenFile = flags.tokenFile ?? (env.RUBATO_TOKEN ? undefined : env.RUBATO_TOKEN_FILE || undefined)
  const token = tokenFile
    ? await secretFile(io, tokenFile)
    : env.RUBATO_TOKEN || config.token || (config.tokenFile ? await secretFile(io, config.tokenFile) : null)
  const caFile = flags.ca ?? (env.RUBATO_CA || undefined) ?? config.ca
  const caPem = caFile === undefined ? null : await io.readText(resolve(io.cwd, caFile))
  if (caFile !== undefined && caPem === null) throw new CliError(EXIT.refused, `The CA file ${caFile} does not exist.`)
  return { url, configured: given !== undefined, token: token === null ? null : token.trim(), caPem }
}

/** A client for the resolved coordinator. A token never travels in the clear beyond this host. */
export async function connect(io: CliIo, flags: ConnectionFlags): Promise<ApiClient> {
  return clientOf(io, await resolveConnection(io, flags))
}

export function clientOf(io: CliIo, { url, token, caPem }: Connection): ApiClient {
  const { protocol, hostname } = new URL(url)
  if (protocol === 'http:' && token !== null && !isLocal(hostname) && io.env.RUBATO_INSECURE !== '1') {
    throw new CliError(
      EXIT.refused,
      `${url} is not encrypted; the token would be readable on the way.`,
      'Use https://, or RUBATO_INSECURE=1 where the network is your own.',
    )
  }
  return apiClient({ url, token, fetch: io.fetchWith(caPem), signal: io.signal })
}

/** Whether it names this host to itself only. */
export function isLocal(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d+){3}$/.test(hostname)
}

async function readConfig(io: CliIo): Promise<CliConfig> {
  const path = configPath(io)
  const text = await io.readText(path)
  if (text === null) return {}
  const config = (await import('./read-cli-config.ts')).parseCliConfig(text, path)
  if (config.token !== undefined) await requirePrivate(io, path)
  return config
}

export function configPath(io: CliIo): string {
  return resolve(io.env.XDG_CONFIG_HOME || resolve(io.home, '.config'), 'rubato', 'config.yaml')
}

async function secretFile(io: CliIo, file: string): Promise<string> {
  const path = resolve(io.cwd, file)
  const text = await io.readText(path)
  if (text === null) throw new CliError(EXIT.refused, `The token file ${file} does not exist.`)
  await requirePrivate(io, path)
  return text
}

async function requirePrivate(io: CliIo, path: string): Promise<void> {
  const mode = await io.modeOf(path)
  if (mode !== null && (mode & 0o077) !== 0) throw new CliError(EXIT.refused, `Others can read ${path}.`, `chmod 600 ${path}`)
}
