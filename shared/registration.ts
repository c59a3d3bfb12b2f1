/**
 * From labels to registrations: Rubato's own labels and the complete Registrator convention, so that Rubato takes Registrator's
 * place without a change to any container. Pure; used by the agent (for Consul and for containers of others) and by the
 * coordinator's embedded catalog.
 *
 * Registrator's rules, as its behaviour shows them: environment first, labels override; `SERVICE_<internal port>_KEY` beats
 * `SERVICE_KEY`; keys are case-insensitive; any non-empty IGNORE ignores; TAGS split at commas, `\,` is a comma; the default name is the
 * image's base name, with `-<port>` behind it where several ports are registered and the port has no NAME of its own; what is
 * left over becomes meta data; of several checks only the first of http, https, cmd, script, ttl, tcp, grpc counts.
 * Rubato's labels (`rubato.service`, `rubato.port`, `rubato.tags`, `rubato.check.*`, `rubato.meta.*`) come after and win.
 */

export interface LabelledContainer {
  /** Host name that leads the registration id. */
  readonly host: string
  /** Without a leading slash. */
  readonly name: string
  readonly containerId: string
  readonly image: string
  readonly labels: Readonly<Record<string, string>>
  /** `KEY=value` lines. */
  readonly environment: readonly string[]
  readonly ports: readonly LabelledPort[]
  /** Name when no label gives one; default: the image's base name. */
  readonly defaultName?: string
}

export interface LabelledPort {
  /** Port inside the container. */
  readonly internal: number
  readonly protocol: 'tcp' | 'udp'
  /** Where others reach it. */
  readonly address: string
  readonly port: number
}

export interface ServiceRegistration {
  readonly id: string
  readonly name: string
  readonly address: string
  readonly port: number
  readonly internalPort: number
  readonly tags: readonly string[]
  readonly meta: Readonly<Record<string, string>>
  readonly check: LabelCheck | null
  readonly initialStatus: 'passing' | 'warning' | 'critical' | null
  readonly deregisterAfter: string | null
}

/** A check as the labels ask for it; durations as they were written ("10s"). */
export type LabelCheck =
  | {
      readonly kind: 'http' | 'https'
      readonly path: string
      readonly method: string | null
      readonly interval: string
      readonly timeout: string | null
      readonly tlsSkipVerify: boolean
    }
  | { readonly kind: 'cmd' | 'script'; readonly command: string; readonly interval: string; readonly timeout: string | null }
  | { readonly kind: 'ttl'; readonly ttl: string }
  | { readonly kind: 'tcp'; readonly interval: string; readonly timeout: string | null }
  | {
      readonly kind: 'grpc'
      readonly interval: string
      readonly timeout: string | null
      readonly useTls: boolean
      readonly tlsSkipVerify: boolean
    }

export interface RegistrationOptions {
  /** Register only containers that name themselves (`SERVICE_NAME` or `rubato.service`). */
  readonly explicit: boolean
  /** Added to every registration. */
  readonly tags: readonly string[]
}

/** Longest label value that is read; a longer one is dropped, the container stays (reliability §3 "Labels"). */
const MAX_VALUE = 4096
const MAX_META = 64

/** Every registration that the container asks for; empty when it is ignored or names nothing to register. */
export function registrationsOf(
  container: LabelledContainer,
  options: RegistrationOptions = { explicit: false, tags: [] },
): readonly ServiceRegistration[] {
  const several = container.ports.length > 1
  const wantedPort = cleanValue(container.labels['rubato.port'])
  const found: ServiceRegistration[] = []
  for (const port of container.ports) {
    const { values, fromPort } = serviceValues(container, port.internal)
    if (values.get('ignore')) continue
    const rubatoName = cleanValue(container.labels['rubato.service'])
    if (rubatoName !== null && wantedPort !== null && wantedPort !== String(port.internal)) continue
    const givenName = values.get('name') || null
    if (options.explicit && givenName === null && rubatoName === null) continue
    const suffixed = several && !fromPort.has('name') && (rubatoName === null || wantedPort === null)
    const base = rubatoName ?? givenName ?? container.defaultName ?? imageBaseName(container.image)
    const rubatoTags = cleanValue(container.labels['rubato.tags'])
    const tags = [
      ...splitTags(values.get('tags') ?? ''),
      ...splitTags(rubatoTags ?? ''),
      ...options.tags,
      ...(port.protocol === 'udp' ? ['udp'] : []),
    ]
    const id = values.get('id') || `${container.host}:${container.name}:${port.internal}${port.protocol === 'udp' ? ':udp' : ''}`
    found.push({
      id,
      name: suffixed ? `${base}-${port.internal}` : base,
      address: port.address,
      port: port.port,
      internalPort: port.internal,
      tags: [...new Set(tags)],
      meta: metaOf(values, container.labels),
      check: rubatoCheck(container.labels) ?? registratorCheck(values),
      initialStatus: statusOf(values.get('check_initial_status')),
      deregisterAfter: values.get('check_deregister_after') || null,
    })
  }
  return found
}

/** Registrator's image base name: `registry:5000/team/web:1.4` → `web`. */
export function imageBaseName(image: string): string {
  const last = image.split('@')[0]?.split('/').at(-1) ?? image
  return last.split(':')[0] || 'container'
}

/** Splits at commas; `\,` stays a comma within one tag; empty tags go. */
export function splitTags(text: string): readonly string[] {
  const tags: string[] = []
  let current = ''
  for (let index = 0; index < text.length; index += 1) {
    const character = text.charAt(index)
    if (character === '\\' && text.charAt(index + 1) === ',') {
      current += ','
      index += 1
    } else if (character === ',') {
      tags.push(current)
      current = ''
    } else current += character
  }
  tags.push(current)
  return tags.map((tag) => tag.trim()).filter((tag) => tag !== '')
}

function serviceValues(container: LabelledContainer, port: number): { values: Map<string, string>; fromPort: Set<string> } {
  const values = new Map<string, string>()
  const fromPort = new Set<string>()
  const take = (rawKey: string, rawValue: string) => {
    const value = cleanValue(rawValue)
    if (!/^service_/i.test(rawKey) || value === null || value === '') return
    const key = rawKey.slice('SERVICE_'.length).toLowerCase()
    const ported = /^(\d+)_(.+)$/.exec(key)
    if (ported) {
      if (Number(ported[1]) !== port || !ported[2]) return
      values.set(ported[2], value)
      fromPort.add(ported[2])
    } else if (key !== '' && !fromPort.has(key)) values.set(key, value)
  }
  for (const line of container.environment) {
    const at = line.indexOf('=')
    if (at > 0) take(line.slice(0, at), line.slice(at + 1))
  }
  for (const [key, value] of Object.entries(container.labels)) take(key, value)
  return { values, fromPort }
}

const CONSUMED = new Set(['id', 'name', 'tags', 'ignore'])

function metaOf(values: ReadonlyMap<string, string>, labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  const meta: Record<string, string> = {}
  const put = (key: string, value: string) => {
    // Consul accepts only these characters in keys; a key that it would refuse must not cost the whole registration.
    if (/^[a-zA-Z0-9_-]{1,128}$/.test(key) && Object.keys(meta).length < MAX_META) meta[key] = value.slice(0, 512)
  }
  for (const [key, value] of values) if (!CONSUMED.has(key)) put(key, value)
  for (const [label, value] of Object.entries(labels)) {
    const clean = cleanValue(value)
    if (label.startsWith('rubato.meta.') && clean !== null) put(label.slice('rubato.meta.'.length), clean)
  }
  return meta
}

function registratorCheck(values: ReadonlyMap<string, string>): LabelCheck | null {
  const interval = values.get('check_interval') || '10s'
  const timeout = values.get('check_timeout') || null
  const tlsSkipVerify = values.get('check_tls_skip_verify') === 'true'
  const http = values.get('check_http')
  if (http)
    return { kind: 'http', path: http, method: values.get('check_http_method') || null, interval, timeout, tlsSkipVerify: false }
  const https = values.get('check_https')
  if (https)
    return { kind: 'https', path: https, method: values.get('check_https_method') || null, interval, timeout, tlsSkipVerify }
  const cmd = values.get('check_cmd')
  if (cmd) return { kind: 'cmd', command: cmd, interval, timeout }
  const script = values.get('check_script')
  if (script) return { kind: 'script', command: script, interval, timeout }
  const ttl = values.get('check_ttl')
  if (ttl) return { kind: 'ttl', ttl }
  if (values.get('check_tcp')) return { kind: 'tcp', interval, timeout }
  if (values.get('check_grpc'))
    return { kind: 'grpc', interval, timeout, useTls: values.get('check_grpc_use_tls') === 'true', tlsSkipVerify }
  return null
}

function rubatoCheck(labels: Readonly<Record<string, string>>): LabelCheck | null {
  const label = (name: string) => cleanValue(labels[`rubato.check.${name}`])
  const interval = label('interval') ?? '10s'
  const timeout = label('timeout')
  const http = label('http')
  if (http) return { kind: 'http', path: http, method: null, interval, timeout, tlsSkipVerify: false }
  if (label('tcp')) return { kind: 'tcp', interval, timeout }
  const ttl = label('ttl')
  if (ttl) return { kind: 'ttl', ttl }
  return null
}

function statusOf(text: string | undefined): 'passing' | 'warning' | 'critical' | null {
  return text === 'passing' || text === 'warning' || text === 'critical' ? text : null
}

/** The value, or null when it is absent, too long, or holds control characters or broken UTF-8. */
function cleanValue(value: string | undefined): string | null {
  if (value === undefined || value.length > MAX_VALUE) return null
  return /[\u0000-\u001f\u007f\ufffd]/.test(value) ? null : value
}
