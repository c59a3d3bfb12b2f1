/**
 * The cluster's certificate authority and the coordinator's certificate under it (ECDSA P-256). Made at the first start, kept
 * under `<stateDir>/tls` with mode 0600; key and certificate share one file, so that a crash cannot part them. Agents pin the
 * authority by its digest, so it is never replaced silently: a damaged file stops the start.
 */
import { createHash, webcrypto, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { join } from 'node:path'
import type { Clock } from '../../shared/clock.ts'
import { ConfigError, messageOf } from '../../shared/errors.ts'
import type { Files } from '../../shared/files.ts'
import type { Logger } from '../../shared/logger.ts'
import type { Random } from '../../shared/random.ts'
import { installReflectMetadata } from './reflect-metadata.ts'

export interface TlsIdentity {
  /** Certificate of the authority (PEM): the answer of `GET /v1/ca`. */
  readonly caPem: string
  /** SHA-256 hex of the authority's certificate in DER: part of every join token. */
  readonly caDigest: string
  /** Chain and key that the listener presents (PEM). */
  readonly certPem: string
  readonly keyPem: string
  /** Epoch ms at which the listener's certificate must be renewed: call `ensureTls` again and hand the listener the new one. */
  readonly renewAtMs: number
}

export interface TlsDeps {
  readonly files: Files
  readonly stateDir: string
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
}

const DAY_MS = 86_400_000
const CA_LIFE_MS = 3650 * DAY_MS
const SERVER_LIFE_MS = 90 * DAY_MS
const RENEW_BEFORE_MS = 30 * DAY_MS
/** Clocks of hosts that just booted are behind; a certificate "not yet valid" would keep them out. */
const BACKDATE_MS = DAY_MS
const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' }
const SIGNING_ALGORITHM = { name: 'ECDSA', hash: 'SHA-256' }

interface KeyedCertificate {
  readonly certPem: string
  readonly keyPem: string
}

/**
 * The authority, and a certificate for these host names and addresses, made or renewed where needed. Throws ConfigError when a
 * kept file cannot be used.
 */
export async function ensureTls(deps: TlsDeps, hosts: readonly string[]): Promise<TlsIdentity> {
  const { files, stateDir, clock, logger } = deps
  const nowMs = clock.now()
  const names = [...new Set(hosts)].sort()
  const caPath = join(stateDir, 'tls', 'ca.pem')
  const serverPath = join(stateDir, 'tls', 'server.pem')

  let ca = await readKeyed(files, caPath)
  if (!ca) {
    ca = await makeAuthority(deps, nowMs)
    await files.write(caPath, `${ca.certPem}\n${ca.keyPem}\n`, 0o600)
    logger.info('certificate authority created', { digest: digestOfPem(ca.certPem) })
  }
  const caCertificate = new X509Certificate(ca.certPem)
  if (validToMs(caCertificate) - nowMs < RENEW_BEFORE_MS)
    logger.warn('the certificate authority is about to expire; every node must join again with a new one', { path: caPath })

  let server = await readServer(files, serverPath, logger)
  if (!server || !isUsable(server, caCertificate, names, nowMs)) {
    server = await issueServer(deps, ca, names, nowMs)
    await files.write(serverPath, `${server.certPem}\n${server.keyPem}\n`, 0o600)
    logger.info('server certificate issued', { hosts: names })
  }
  return {
    caPem: `${ca.certPem}\n`,
    caDigest: digestOfPem(ca.certPem),
    certPem: `${server.certPem}\n${ca.certPem}\n`,
    keyPem: `${server.keyPem}\n`,
    renewAtMs: validToMs(new X509Certificate(server.certPem)) - RENEW_BEFORE_MS,
  }
}

/** TLS with certificates of the user's own making. The authority (or, without one, the certificate itself) is what agents pin. */
export function tlsFromPem(certPem: string, keyPem: string, caPem: string | null): TlsIdentity {
  const anchor = firstCertificate(caPem ?? certPem)
  if (!anchor) throw new ConfigError('The TLS file holds no certificate.')
  return { caPem: `${anchor}\n`, caDigest: digestOfPem(anchor), certPem, keyPem, renewAtMs: Number.POSITIVE_INFINITY }
}

/** SHA-256 hex of the DER of the first certificate in a PEM text. Throws ConfigError when there is none. */
export function digestOfPem(pem: string): string {
  try {
    return createHash('sha256').update(new X509Certificate(pem).raw).digest('hex')
  } catch (error) {
    throw new ConfigError(`This is no certificate: ${messageOf(error)}`)
  }
}

async function readKeyed(files: Files, path: string): Promise<KeyedCertificate | null> {
  const text = await files.read(path)
  if (text === null) return null
  const certPem = firstCertificate(text)
  const keyPem = /-----BEGIN PRIVATE KEY-----[\s\S]+?-----END PRIVATE KEY-----/.exec(text)?.[0]
  if (!certPem || !keyPem)
    throw new ConfigError(`${path} is damaged: restore it from a backup, or remove it and join every node again.`)
  digestOfPem(certPem)
  return { certPem, keyPem }
}

/** The server's certificate can always be made anew: a damaged one is as good as none. */
async function readServer(files: Files, path: string, logger: Logger): Promise<KeyedCertificate | null> {
  try {
    return await readKeyed(files, path)
  } catch (error) {
    logger.warn('server certificate is damaged and is replaced', { path, reason: messageOf(error) })
    return null
  }
}

function isUsable(server: KeyedCertificate, ca: X509Certificate, names: readonly string[], nowMs: number): boolean {
  const certificate = new X509Certificate(server.certPem)
  return (
    certificate.verify(ca.publicKey) &&
    validToMs(certificate) - nowMs > RENEW_BEFORE_MS &&
    Date.parse(certificate.validFrom) <= nowMs &&
    names.every((name) => (isIP(name) ? certificate.checkIP(name) : certificate.checkHost(name)) !== undefined)
  )
}

function validToMs(certificate: X509Certificate): number {
  return Date.parse(certificate.validTo)
}

function firstCertificate(text: string): string | undefined {
  return /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/.exec(text)?.[0]
}

async function makeAuthority({ random }: TlsDeps, nowMs: number): Promise<KeyedCertificate> {
  const x509 = await loadX509()
  const keys = await webcrypto.subtle.generateKey(KEY_ALGORITHM, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialOf(random),
    name: 'CN=Rubato cluster CA',
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + CA_LIFE_MS),
    signingAlgorithm: SIGNING_ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return { certPem: certificate.toString('pem'), keyPem: await exportKey(keys.privateKey) }
}

async function issueServer(
  { random }: TlsDeps,
  ca: KeyedCertificate,
  names: readonly string[],
  nowMs: number,
): Promise<KeyedCertificate> {
  const x509 = await loadX509()
  const issuer = new x509.X509Certificate(ca.certPem)
  const signingKey = await importKey(ca.keyPem)
  const keys = await webcrypto.subtle.generateKey(KEY_ALGORITHM, true, ['sign', 'verify'])
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialOf(random),
    subject: 'CN=Rubato coordinator',
    issuer: issuer.subject,
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(Math.min(nowMs + SERVER_LIFE_MS, issuer.notAfter.getTime())),
    signingAlgorithm: SIGNING_ALGORITHM,
    publicKey: keys.publicKey,
    signingKey,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: isIP(value) ? 'ip' : 'dns', value }))),
      await x509.AuthorityKeyIdentifierExtension.create(issuer),
    ],
  })
  return { certPem: certificate.toString('pem'), keyPem: await exportKey(keys.privateKey) }
}

async function loadX509() {
  installReflectMetadata()
  const x509 = await import('@peculiar/x509')
  x509.cryptoProvider.set(webcrypto as Crypto)
  return x509
}

/** 127 bits, positive, never zero. */
function serialOf(random: Random): string {
  const bytes = Buffer.from(random.bytes(16))
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40
  return bytes.toString('hex')
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const base64 = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64')
  return `-----BEGIN PRIVATE KEY-----\n${base64.replace(/(.{64})(?=.)/g, '$1\n')}\n-----END PRIVATE KEY-----`
}

async function importKey(pem: string): Promise<webcrypto.CryptoKey> {
  const der = Buffer.from(pem.replace(/-----[A-Z ]+-----|\s/g, ''), 'base64')
  return webcrypto.subtle.importKey('pkcs8', der, KEY_ALGORITHM, false, ['sign'])
}
