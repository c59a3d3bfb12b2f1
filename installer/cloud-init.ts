/**
 * User data: what a new machine is told at its first boot. Pure. The join token is the only secret in it; it is good for one
 * machine, once, for a quarter of an hour. Scripts start with `#!/bin/sh`, cloud configs with `#cloud-config`, and both carry the
 * whole installer, so that nothing is fetched that was not checked against the digest in the token.
 */
import { stringify } from 'yaml'
import { INSTALL_SCRIPT } from './install-script.ts'
import { shellQuote } from './shell-quote.ts'

export interface UserData {
  /** `settings`: JSON for the local provider, which needs no installer. */
  readonly kind: 'script' | 'cloud-config' | 'settings'
  /** Coordinators, best first. */
  readonly urls: readonly string[]
  readonly joinToken: string
  /** SHA-256 hex of the agent's binary, by architecture; a missing one is asked of the coordinator. */
  readonly agentSha256?: Readonly<Partial<Record<'x64' | 'arm64', string>>>
  /** Labels that the agent gives itself; those of its pool come with the join. Values hold no blanks. */
  readonly labels?: Readonly<Record<string, string>>
  readonly engine?: 'docker' | 'process' | 'auto'
  /** Install a Docker engine (Debian, Ubuntu) when none answers. */
  readonly installDocker?: boolean
}

/** What user data tells a machine, whatever its kind. */
export interface UserDataSettings {
  readonly urls: readonly string[]
  readonly token: string
  readonly labels: Readonly<Record<string, string>>
}

/** Where a cloud config leaves the script; the installer removes it after the join. */
const SCRIPT_PATH = '/run/rubato/setup.sh'

/** The user data's text. The same arguments give the same text. */
export function renderUserData(data: UserData): string {
  switch (data.kind) {
    case 'settings':
      return `${JSON.stringify({ urls: data.urls, token: data.joinToken, labels: data.labels ?? {} } satisfies UserDataSettings)}\n`
    case 'script':
      return setupScript(data)
    case 'cloud-config':
      return `#cloud-config\n${stringify(
        {
          write_files: [{ path: SCRIPT_PATH, owner: 'root:root', permissions: '0700', content: setupScript(data) }],
          runcmd: [['sh', SCRIPT_PATH]],
        },
        { lineWidth: 0 },
      )}`
  }
}

/** Reads the settings back from user data of any kind, or null when it is none of ours. */
export function settingsOfUserData(text: string): UserDataSettings | null {
  if (text.startsWith('{')) {
    try {
      const { urls, token, labels } = JSON.parse(text) as Partial<UserDataSettings>
      return Array.isArray(urls) && typeof token === 'string' ? { urls, token, labels: labels ?? {} } : null
    } catch {
      return null
    }
  }
  const assigned = (name: string) => new RegExp(`^\\s*${name}='([^']*)'$`, 'm').exec(text)?.[1]
  const token = assigned('RUBATO_TOKEN')
  const urls = assigned('RUBATO_URLS')
  if (token === undefined || urls === undefined) return null
  const labels = (assigned('RUBATO_LABELS') ?? '').split(' ').filter((label) => label.includes('='))
  return {
    urls: urls.split(' '),
    token,
    labels: Object.fromEntries(labels.map((label) => [label.slice(0, label.indexOf('=')), label.slice(label.indexOf('=') + 1)])),
  }
}

function setupScript(data: UserData): string {
  const labels = Object.entries(data.labels ?? {}).map(([key, value]) => `${key}=${value}`)
  const variables: Record<string, string> = {
    RUBATO_TOKEN: data.joinToken,
    RUBATO_URLS: data.urls.join(' '),
    ...(labels.length === 0 ? {} : { RUBATO_LABELS: labels.join(' ') }),
    ...(data.agentSha256?.x64 === undefined ? {} : { RUBATO_SHA256_X64: data.agentSha256.x64 }),
    ...(data.agentSha256?.arm64 === undefined ? {} : { RUBATO_SHA256_ARM64: data.agentSha256.arm64 }),
    ...(data.engine === undefined ? {} : { RUBATO_ENGINE: data.engine }),
    ...(data.installDocker ? { RUBATO_INSTALL_DOCKER: '1' } : {}),
  }
  const assignments = Object.entries(variables).map(([name, value]) => `${name}=${shellQuote(value)}\n`)
  return `#!/bin/sh\n${assignments.join('')}${INSTALL_SCRIPT.replace(/^#!\/bin\/sh\n/, '')}`
}
