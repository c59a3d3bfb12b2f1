/**
 * How an agent becomes a node: it finds the coordinator that its join token names (by the digest of its certificate authority),
 * shows the token once, and keeps the credential that it gets. Tries until it succeeds or is refused for good; a lost reply is
 * asked for again with a proof of its own making, kept on disk across restarts.
 */
import { createHash, X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { fullJitterMs } from '../shared/backoff.ts'
import { type Clock, sleep } from '../shared/clock.ts'
import { type JoinToken, parseJoinToken } from '../shared/credentials.ts'
import { ConfigError, ForbiddenError, messageOf, RetryableError } from '../shared/errors.ts'
import type { Files } from '../shared/files.ts'
import { base62Secret } from '../shared/ids.ts'
import type { Logger } from '../shared/logger.ts'
import { type JoinRequest, joinResponseSchema } from '../shared/protocol/join.ts'
import type { Random } from '../shared/random.ts'
import { forgetIdentity, type Identity, loadIdentity, saveIdentity } from './identity.ts'
import type { JoinHttp, Trust } from './join-http.ts'

export type JoinFacts = Omit<JoinRequest, 'token' | 'retryProof'>

export interface JoinDeps {
  /** null: none was given; enough for a node that has joined before. */
  readonly token: string | null
  /** File that the token came from; removed once the node has joined. */
  readonly tokenFile: string | null
  /** Coordinators, best first. */
  readonly urls: readonly string[]
  /** What this host says of itself; asked for only when it joins. */
  readonly facts: () => Promise<JoinFacts>
  /** The host's own id (/etc/machine-id); null where there is none. */
  readonly machineId: string | null
  readonly stateDir: string
  readonly http: JoinHttp
  readonly files: Files
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly signal?: AbortSignal
}

export interface Joined extends Identity {
  /** The state directory holds another node's state (a cloned image): the caller must discard it before it starts. */
  readonly wasCloned: boolean
}

const RETRY = { baseMs: 500, capMs: 30_000 }
/** Answers after which the same question gives the same answer. 429 and 5xx are not among them. */
const FINAL_STATUS: ReadonlySet<number> = new Set([400, 401, 403, 409, 410, 413, 415, 422])

/**
 * The node's identity: the one kept, or a new one by joining. Throws ConfigError when there is neither identity nor usable token
 * (exit 78), ForbiddenError when the coordinator refuses the token for good, and the signal's reason when it aborts.
 */
export async function joinCluster(deps: JoinDeps): Promise<Joined> {
  const { files, stateDir, logger, clock, random, signal } = deps
  const loaded = await loadIdentity(files, stateDir, deps.machineId)
  if (loaded.kind === 'known') {
    await removeToken(deps)
    return { ...loaded.identity, wasCloned: false }
  }
  if (loaded.kind === 'cloned') {
    logger.warn('this host was cloned from another node and joins as a node of its own', { originalNodeId: loaded.nodeId })
    await forgetIdentity(files, stateDir)
    await files.remove(proofPath(stateDir))
  }
  if (loaded.kind === 'damaged') logger.warn('the identity file is damaged; this host joins anew', { stateDir })

  const token = checkedToken(deps)
  const proof = await ensureProof(deps)
  const facts = await deps.facts()
  for (let attempt = 0; ; attempt += 1) {
    for (const url of deps.urls) {
      signal?.throwIfAborted()
      const outcome = await tryJoin(deps, url.replace(/\/$/, ''), token, {
        ...facts,
        token: deps.token?.trim() ?? '',
        retryProof: proof,
      })
      if (outcome.kind === 'refused')
        throw new ForbiddenError(`${url} refused to let this host join (${outcome.status}): ${outcome.detail}`)
      if (outcome.kind === 'joined') {
        await saveIdentity(files, stateDir, outcome.identity, deps.machineId)
        await files.remove(proofPath(stateDir))
        await removeToken(deps)
        logger.info('joined', { nodeId: outcome.identity.nodeId, clusterId: outcome.identity.clusterId, url })
        return { ...outcome.identity, wasCloned: loaded.kind === 'cloned' }
      }
      logger.info('joining did not succeed yet', { url, reason: outcome.reason, attempt })
    }
    await sleep(clock, Math.max(100, fullJitterMs(attempt, RETRY, random)), signal)
  }
}

type Outcome =
  | { readonly kind: 'joined'; readonly identity: Identity }
  | { readonly kind: 'refused'; readonly status: number; readonly detail: string }
  | { readonly kind: 'retry'; readonly reason: string }

async function tryJoin(deps: JoinDeps, url: string, token: JoinToken, request: JoinRequest): Promise<Outcome> {
  try {
    const caPem = token.caDigest === null ? null : await fetchAuthority(deps.http, url, token.caDigest)
    const trust: Trust = caPem === null ? { kind: 'system' } : { kind: 'only', caPem }
    const answer = await deps.http.postJson(`${url}/v1/join`, request, trust)
    if (FINAL_STATUS.has(answer.status)) return { kind: 'refused', status: answer.status, detail: detailOf(answer.body) }
    if (answer.status !== 200 && answer.status !== 201) return { kind: 'retry', reason: `status ${answer.status}` }
    const parsed = joinResponseSchema.safeParse(JSON.parse(answer.body))
    if (!parsed.success) return { kind: 'retry', reason: 'the answer is malformed' }
    const urls = parsed.data.urls.length === 0 ? [url] : parsed.data.urls
    return { kind: 'joined', identity: { ...parsed.data, urls, caPem } }
  } catch (error) {
    return { kind: 'retry', reason: messageOf(error) }
  }
}

/** The coordinator's authority, fetched from anyone and believed only by its digest. */
async function fetchAuthority(http: JoinHttp, url: string, digest: string): Promise<string> {
  const answer = await http.get(`${url}/v1/ca`, { kind: 'anyone' })
  if (answer.status !== 200) throw new RetryableError(`${url}/v1/ca answers ${answer.status}`)
  const pem = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/.exec(answer.body)?.[0]
  if (pem === undefined) throw new RetryableError(`${url}/v1/ca gives no certificate`)
  const found = createHash('sha256').update(new X509Certificate(pem).raw).digest('hex')
  if (found !== digest)
    throw new RetryableError(`${url} is not the coordinator that the join token names: its authority has another digest`)
  return `${pem}\n`
}

/** The token, and that what it demands fits the URLs. */
function checkedToken(deps: JoinDeps): JoinToken {
  if (deps.token === null)
    throw new ConfigError('This host has not joined a cluster: a join token is needed (tokenFile, or RUBATO_AGENT_TOKEN).')
  const token = parseJoinToken(deps.token)
  if (!token) throw new ConfigError('The join token is malformed: it was cut, or mistyped.')
  if (deps.urls.length === 0)
    throw new ConfigError('This host has not joined a cluster: the URL of a coordinator is needed (urls).')
  for (const url of deps.urls) {
    const { protocol, hostname } = new URL(url)
    if (protocol === 'https:') continue
    if (token.caDigest !== null) throw new ConfigError(`The join token demands TLS, but ${url} is plain HTTP.`)
    if (!isLoopbackHost(hostname)) throw new ConfigError(`${url} is plain HTTP off loopback: the token could be read on the way.`)
  }
  return token
}

function isLoopbackHost(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname)
}

function proofPath(stateDir: string): string {
  return join(stateDir, 'join.proof')
}

/** The secret that proves, to the coordinator that saw it, that a second request is ours too. On disk before it is first shown. */
async function ensureProof({ files, stateDir, random, machineId }: JoinDeps): Promise<string> {
  const known = await files.read(proofPath(stateDir))
  const [secret, host] = known?.trim().split(' ') ?? []
  if (secret !== undefined && /^[0-9A-Za-z]{43}$/.test(secret) && (host ?? null) === machineId) return secret
  const fresh = base62Secret(random)
  await files.write(proofPath(stateDir), machineId === null ? `${fresh}\n` : `${fresh} ${machineId}\n`, 0o600)
  return fresh
}

async function removeToken({ files, tokenFile, logger }: JoinDeps): Promise<void> {
  if (tokenFile === null) return
  try {
    await files.remove(tokenFile)
  } catch (error) {
    // It is spent; a read-only directory must not keep the node from working.
    logger.info('the spent join token cannot be removed', { path: tokenFile, reason: messageOf(error) })
  }
}

/** What a problem+json answer says to people; bounded. */
function detailOf(body: string): string {
  try {
    const { detail, title } = JSON.parse(body) as { detail?: unknown; title?: unknown }
    const text = typeof detail === 'string' ? detail : title
    if (typeof text === 'string') return text.slice(0, 500)
  } catch {
    // Not JSON: some proxy's page.
  }
  return 'no reason given'
}
