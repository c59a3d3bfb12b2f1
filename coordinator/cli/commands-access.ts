/** keys …, token …. */
import type { KeyView } from '../api/schemas.ts'
import { isLocal } from './connection.ts'
import { CliError, EXIT } from './io.ts'
import { ago, durationMs, path } from './session.ts'
import type { AddVerb } from './verbs.ts'

const DURATION_HINT = 'Like 90s, 15m, 12h or 30d.'

/** Verbs below `keys`. */
export function addKeyCommands(add: AddVerb): void {
  add<{ role?: readonly string[]; ttl?: string }>('create <name>', 'make a key; it is shown only once', (command) =>
    command
      .option('--role <role...>', 'roles that services may ask for')
      .option('--ttl <duration>', 'how long it is valid, like 30d; default for ever'),
  )(async (session, [name], flags) => {
    const client = await session.client()
    const made = await client.send<{ key: KeyView; text: string }>('POST', '/v1/keys', {
      body: { name, roles: flags.role ?? [], ttlMs: flags.ttl === undefined ? undefined : durationMs(flags.ttl, DURATION_HINT) },
    })
    if (!session.json) session.note(`Key ${made.key.name} (${made.key.id}). Keep it now, it is not shown again:`)
    session.print(made, () => [made.text])
    return EXIT.ok
  })

  add<{ all?: boolean }>('ls', 'list keys', (command) => command.option('-a, --all', 'also revoked ones'))(
    async (session, _args, flags) => {
      const client = await session.client()
      const keys = await client.list<KeyView>('/v1/keys')
      const nowMs = session.io.clock.now()
      session.table(
        flags.all ? keys : keys.filter(({ revokedAtMs }) => revokedAtMs === null),
        [
          { title: 'KEY', value: ({ id }) => id },
          { title: 'NAME', value: ({ name }) => name, shrinkTo: 8 },
          { title: 'ROLES', value: ({ roles }) => roles.join(',') || '-', shrinkTo: 6 },
          { title: 'AGE', value: ({ createdAtMs }) => ago(createdAtMs, nowMs), align: 'right' },
          {
            title: 'STATE',
            value: (key) => keyState(key, nowMs),
            style: (key) => (keyState(key, nowMs) === 'valid' ? 'good' : 'faint'),
          },
        ],
        'No keys. Make one with "rubato keys create NAME".',
      )
      return EXIT.ok
    },
  )

  add<{ wait?: boolean; timeout: string }>('revoke <key>', 'end a key, by id or name', (command) =>
    command
      .option('--wait', 'return when every live agent has applied it')
      .option('--timeout <duration>', 'how long to wait', '10s'),
  )(async (session, [key = ''], flags) => {
    const client = await session.client()
    const answer = await client.send<{ key: KeyView; applied: { everywhere: boolean; waitingFor: string[] } | null }>(
      'DELETE',
      `/v1/keys${path(key)}`,
      {
        query: flags.wait ? { wait: true, timeoutMs: durationMs(flags.timeout, DURATION_HINT) } : {},
      },
    )
    session.print(answer, () => [`Key ${answer.key.name} is revoked${answer.applied?.everywhere ? ' on every live node' : ''}.`])
    if (answer.applied && !answer.applied.everywhere) {
      throw new CliError(
        EXIT.timedOut,
        `Not yet applied by ${answer.applied.waitingFor.join(', ')}.`,
        'They refuse it as soon as they are reached, at the latest when their keys are stale.',
      )
    }
    return EXIT.ok
  })
}

/** Verbs below `token`. */
export function addTokenCommands(add: AddVerb): void {
  add<{ label?: readonly string[]; ttl?: string }>('join', 'make a token with which one host becomes a node', (command) =>
    command
      .option('--label <key=value...>', 'labels of the node')
      .option('--ttl <duration>', 'how long it may be used; default 15m'),
  )(async (session, _args, flags) => {
    const client = await session.client()
    const labels = Object.fromEntries((flags.label ?? []).map(labelParts))
    const made = await client.send<{ id: string; text: string; expiresAtMs: number }>('POST', '/v1/tokens/join', {
      body: { labels, ttlMs: flags.ttl === undefined ? undefined : durationMs(flags.ttl, DURATION_HINT) },
    })
    if (!session.json) session.note(joinAdvice(made.text, client.url, made.expiresAtMs))
    if (isLocal(new URL(client.url).hostname)) session.note(localAdvice(client.url))
    session.print(made, () => [made.text])
    return EXIT.ok
  })

  add<{ role: string; ttl?: string }>('operator <name>', 'make a token for a person or a pipeline', (command) =>
    command
      .option('--role <role>', 'viewer, operator or admin', 'operator')
      .option('--ttl <duration>', 'how long it is valid; default for ever'),
  )(async (session, [name], flags) => {
    if (!['viewer', 'operator', 'admin'].includes(flags.role))
      throw new CliError(EXIT.refused, `There is no role "${flags.role}" for operators.`, 'Use viewer, operator or admin.')
    const client = await session.client()
    const made = await client.send<{ token: { id: string }; text: string }>('POST', '/v1/tokens/operator', {
      body: { name, role: flags.role, ttlMs: flags.ttl === undefined ? undefined : durationMs(flags.ttl, DURATION_HINT) },
    })
    if (!session.json) session.note(`Token ${name} (${flags.role}). Keep it now, it is not shown again:`)
    session.print(made, () => [made.text])
    return EXIT.ok
  })
}

/** How a host joins with this token; the token itself is in no command, because every process of a host can read those. */
export function joinAdvice(token: string, url: string, expiresAtMs: number): string {
  const digest = token.slice(token.lastIndexOf('_') + 1)
  const install = `${url}/install.sh | sh -s -- --url ${url} --token-file join.token`
  return [
    `Good for one host until ${new Date(expiresAtMs).toISOString()}. On the host, as root:`,
    '  (umask 077; cat > join.token)   # paste the token, then Ctrl-D',
    ...(digest === 'plain'
      ? [`  curl -fsSL ${install}`]
      : [
          // Only the certificate whose digest was checked is trusted: others may follow it in the answer.
          `  curl -fsSk ${url}/v1/ca | sed '/-----END/q' | sed '/-----/d' | base64 -d > rubato-ca.der`,
          `  (echo -----BEGIN CERTIFICATE-----; base64 rubato-ca.der; echo -----END CERTIFICATE-----) > rubato-ca.pem`,
          `  [ "$(sha256sum < rubato-ca.der | cut -d' ' -f1)" = ${digest} ] &&`,
          `    curl -fsS --cacert rubato-ca.pem ${install}`,
        ]),
    'Where rubato-agent is there already:',
    `  rubato-agent --urls ${url} --token-file join.token`,
  ].join('\n')
}

/** A join command with an address of loopback works on one host only. */
function localAdvice(url: string): string {
  const { hostname, port } = new URL(url)
  return [
    `warning: ${hostname} reaches the coordinator from this host only. For other hosts let it listen for them, in its file:`,
    `  listen: 0.0.0.0:${port || '7600'}`,
    `  advertiseUrls: [https://ADDRESS:${port || '7600'}]   # ADDRESS: of this host, as the others see it`,
    'Start it again, then make the token with --url https://ADDRESS… (and --ca, see docs/cli.md).',
  ].join('\n')
}

function keyState({ revokedAtMs, expiresAtMs }: KeyView, nowMs: number): string {
  if (revokedAtMs !== null) return 'revoked'
  return expiresAtMs !== null && expiresAtMs <= nowMs ? 'expired' : 'valid'
}

function labelParts(text: string): [string, string] {
  const at = text.indexOf('=')
  if (at < 1) throw new CliError(EXIT.refused, `"${text}" is no label.`, 'Like disk=ssd.')
  return [text.slice(0, at), text.slice(at + 1)]
}
