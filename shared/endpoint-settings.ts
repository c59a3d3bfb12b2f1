/** An HTTP endpoint of somebody else as settings name it: its URL, and files with a bearer token and the authority to trust. */
import { X509Certificate } from 'node:crypto'
import type { Fault } from './errors.ts'
import { readSecretFile, type SettingsSources } from './settings.ts'

export type EndpointSources = Pick<SettingsSources, 'readFile' | 'fileMode'>

export interface EndpointFiles {
  /** Secret. */
  readonly token: string | null
  readonly caPem: string | null
}

/** Checks the URL and reads the files; adds to `faults` what cannot be used. */
export async function resolveEndpoint(
  given: { readonly url: string; readonly tokenFile: string | null; readonly caFile: string | null },
  locate: (key: 'url' | 'tokenFile' | 'caFile') => Pick<Fault, 'path' | 'file' | 'line'>,
  sources: EndpointSources,
  faults: Fault[],
): Promise<EndpointFiles> {
  const url = URL.canParse(given.url) ? new URL(given.url) : null
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:'))
    faults.push({ ...locate('url'), message: `${given.url} is no http or https URL.` })
  else if (url.username !== '' || url.password !== '')
    faults.push({ ...locate('url'), message: 'A password in a URL ends up in logs.', hint: 'Use tokenFile.' })
  else if (given.tokenFile !== null && url.protocol === 'http:' && !isLoopbackHost(url.hostname))
    faults.push({
      ...locate('url'),
      message: 'A token over plain HTTP can be read on its way.',
      hint: 'Use https, or a loopback address.',
    })
  const token = given.tokenFile === null ? null : await readSecretFile(given.tokenFile, locate('tokenFile'), sources, faults)
  const caPem = given.caFile === null ? null : await sources.readFile(given.caFile)
  if (given.caFile !== null && caPem === null)
    faults.push({ ...locate('caFile'), message: `The file ${given.caFile} does not exist.` })
  else if (caPem !== null && !isCertificate(caPem))
    faults.push({ ...locate('caFile'), message: `The file ${given.caFile} holds no certificate (PEM).` })
  if (token !== null && !/^[\x21-\x7e]+$/.test(token))
    faults.push({
      ...locate('tokenFile'),
      message: `The file ${given.tokenFile} holds no token: one word without spaces.`,
    })
  return { token, caPem }
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).subject !== undefined
  } catch {
    return false
  }
}

function isLoopbackHost(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname)
}
