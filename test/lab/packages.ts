/**
 * The Debian packages that real tests, the demo and benchmarks use, and how to get them. What is there already is left alone;
 * Consul, which newer
 * Debian releases lack, and a Prometheus with consul_sd, which they build without, are unpacked from bullseye's packages into .cache.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'

const ROOT = join(import.meta.dirname, '..', '..')

/** Package → a file that tells it is installed. */
export const PACKAGES: Readonly<Record<string, string>> = {
  'docker.io': '/usr/sbin/dockerd',
  iptables: '/usr/sbin/iptables',
  iproute2: '/usr/sbin/ip',
  'busybox-static': '/bin/busybox',
  curl: '/usr/bin/curl',
  'nginx-light': '/usr/sbin/nginx',
  haproxy: '/usr/sbin/haproxy',
  'bind9-dnsutils': '/usr/bin/dig',
  strace: '/usr/bin/strace',
  libfaketime: `/usr/lib/${process.arch === 'arm64' ? 'aarch64' : 'x86_64'}-linux-gnu/faketime/libfaketimeMT.so.1`,
}

export function isRootOnDebian(): boolean {
  return process.getuid?.() === 0 && existsSync('/usr/bin/apt-get')
}

/** Installs the missing ones of `names`; true when all are there afterwards. Progress goes to `say`. Daemons are not started. */
export async function installPackages(
  say: (line: string) => void,
  names: readonly string[] = Object.keys(PACKAGES),
): Promise<boolean> {
  const missing = names.filter((name) => !existsSync(PACKAGES[name] ?? ''))
  if (missing.length > 0) {
    if (!isRootOnDebian()) return false
    say(`installing ${missing.join(', ')} …`)
    // The policy script keeps package scripts from starting daemons that nobody asked for; an existing one is left alone.
    const policy = '/usr/sbin/policy-rc.d'
    const ours = !existsSync(policy)
    if (ours) writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
    try {
      apt(['update'])
      apt(['install', '-y', '--no-install-recommends', ...missing])
    } finally {
      if (ours) rmSync(policy, { force: true })
    }
  }
  return names.every((name) => existsSync(PACKAGES[name] ?? ''))
}

/** A real Consul binary, from PATH or Debian bullseye's package; null where neither can be had. */
export function installConsul(say: (line: string) => void): string | null {
  const installed = spawnSync('sh', ['-c', 'command -v consul'], { encoding: 'utf8' }).stdout.trim()
  return installed || (bullseyeBinaries('consul', ['usr/bin/consul'], say)?.[0] ?? null)
}

/** A real Prometheus that knows `consul_sd_configs`: later Debian releases build it without. null where it cannot be had. */
export function installPrometheus(say: (line: string) => void): string | null {
  return installPrometheusTools(say)?.prometheus ?? null
}

/** The same, and promtool, which makes data files out of samples. */
export function installPrometheusTools(
  say: (line: string) => void,
): { readonly prometheus: string; readonly promtool: string } | null {
  const [prometheus, promtool] = bullseyeBinaries('prometheus', ['usr/bin/prometheus', 'usr/bin/promtool'], say) ?? []
  return prometheus === undefined || promtool === undefined ? null : { prometheus, promtool }
}

/** Programs out of a package of Debian bullseye, unpacked into .cache without touching the system; null where they cannot be had. */
function bullseyeBinaries(name: string, paths: readonly string[], say: (line: string) => void): readonly string[] | null {
  const directory = join(ROOT, '.cache', name)
  const binaries = paths.map((path) => join(directory, basename(path)))
  if (binaries.every((binary) => existsSync(binary))) return binaries
  const mirror = isRootOnDebian() ? debianMirror() : null
  if (mirror === null) return null
  say(`fetching ${name} from Debian bullseye …`)
  const work = mkdtempSync(join(tmpdir(), 'rubato-package-'))
  try {
    execFileSync('chmod', ['755', work])
    mkdirSync(join(work, 'lists', 'partial'), { recursive: true })
    mkdirSync(join(work, 'cache', 'archives', 'partial'), { recursive: true })
    const source = `deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${mirror} bullseye main\n`
    writeFileSync(join(work, 'bullseye.list'), source)
    const options = [
      ['Dir::Etc::sourcelist', join(work, 'bullseye.list')],
      ['Dir::Etc::sourceparts', '/dev/null'],
      ['Dir::State::lists', join(work, 'lists')],
      ['Dir::Cache', join(work, 'cache')],
      ['APT::Sandbox::User', 'root'],
    ].flatMap(([key, value]) => ['-o', `${key}=${value}`])
    execFileSync('apt-get', [...options, '-qq', 'update'], { stdio: ['ignore', 'ignore', 'inherit'] })
    // By version: with the host's own release in the package database, the plain name would mean that one.
    const madison = execFileSync('apt-cache', [...options, 'madison', name], { encoding: 'utf8' })
    const version = madison
      .split('\n')
      .find((line) => line.includes('bullseye'))
      ?.split('|')[1]
      ?.trim()
    if (version === undefined) return null
    execFileSync('apt-get', [...options, '-qq', 'download', `${name}=${version}`], {
      cwd: work,
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const archive = readdirSync(work).find((file) => file.endsWith('.deb'))
    if (!archive) return null
    execFileSync('dpkg-deb', ['-x', join(work, archive), join(work, 'x')])
    mkdirSync(directory, { recursive: true })
    execFileSync('install', ['-m', '755', ...paths.map((path) => join(work, 'x', path)), directory])
    return binaries
  } catch (error) {
    say(`${name} could not be fetched: ${error instanceof Error ? error.message : String(error)}`)
    return null
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

function apt(args: readonly string[]): void {
  const result = spawnSync('apt-get', ['-qq', ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
    encoding: 'utf8',
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  })
  if (result.status !== 0)
    throw new Error(`apt-get ${args.join(' ')} failed: ${result.stderr.trim().split('\n').slice(-3).join(' ')}`)
}

/** The mirror that this machine's apt already uses. */
function debianMirror(): string | null {
  const directory = '/etc/apt/sources.list.d'
  const files = [
    '/etc/apt/sources.list',
    ...(existsSync(directory) ? readdirSync(directory).map((name) => join(directory, name)) : []),
  ]
  for (const file of files) {
    if (!existsSync(file)) continue
    for (const line of readFileSync(file, 'utf8').split('\n')) {
      const uri = /^URIs:\s*(\S+)/.exec(line)?.[1] ?? /^deb\s+(?:\[[^\]]*\]\s*)?(https?:\S+)/.exec(line)?.[1]
      if (uri) return uri.replace(/\/$/, '').replace(/-security$/, '')
    }
  }
  return null
}
