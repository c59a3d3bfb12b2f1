/** TLS pinned to the cluster's own authority: nothing but its certificates is trusted, no public authority is. */
import { createHash, X509Certificate } from 'node:crypto'
import { checkServerIdentity, connect, type ConnectionOptions, type PeerCertificate } from 'node:tls'

/** Options for a connection that accepts only certificates signed by (or equal to) this one. */
export function pinnedTlsOptions(caPem: string): Pick<ConnectionOptions, 'ca' | 'checkServerIdentity' | 'minVersion'> {
  const pinned = digestOf(new X509Certificate(caPem).raw)
  return {
    ca: caPem,
    minVersion: 'TLSv1.2',
    // The pinned certificate itself needs no matching name; any other that it signed (a node's, say) must not pass as the coordinator.
    checkServerIdentity: (host: string, certificate: PeerCertificate) =>
      digestOf(certificate.raw) === pinned ? undefined : checkServerIdentity(host, certificate),
  }
}

/**
 * The certificate (PEM) in the server's chain whose SHA-256 is `caDigest`. Sends nothing but the TLS handshake. Rejects when
 * the server cannot be reached in time or shows no such certificate: then it is not our coordinator.
 */
export function fetchPinnedCa(url: URL, caDigest: string, timeoutMs: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const host = url.hostname.replace(/^\[|\]$/g, '')
    // Not verified here on purpose: this connection carries no data, it only reads the chain that the pin is looked up in.
    const socket = connect({ host, port: Number(url.port || 443), rejectUnauthorized: false, timeout: timeoutMs })
    const fail = (error: Error) => {
      socket.destroy()
      reject(error)
    }
    socket.once('error', fail)
    socket.once('timeout', () => fail(new Error(`no TLS handshake with ${url.host} within ${timeoutMs} ms`)))
    socket.once('secureConnect', () => {
      const found = findInChain(socket.getPeerCertificate(true), caDigest)
      socket.destroy()
      if (found === null) reject(new Error(`${url.host} does not show the certificate that the token names`))
      else resolve(new X509Certificate(found).toString())
    })
  })
}

function findInChain(leaf: PeerCertificate | undefined, digest: string): Buffer | null {
  const seen = new Set<string>()
  let certificate: (PeerCertificate & { issuerCertificate?: PeerCertificate }) | undefined = leaf
  while (certificate?.raw) {
    const present = digestOf(certificate.raw)
    if (present === digest) return certificate.raw
    if (seen.has(present)) return null
    seen.add(present)
    certificate = certificate.issuerCertificate
  }
  return null
}

function digestOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('hex')
}
