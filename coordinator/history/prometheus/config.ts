/** Settings of the Prometheus that answers for the past. */
import { resolveEndpoint, type EndpointSources } from '../../../shared/endpoint-settings.ts'
import type { Fault } from '../../../shared/errors.ts'
import { durationSetting, optional, textSetting } from '../../../shared/setting-kinds.ts'

export const PROMETHEUS_SETTINGS = {
  'history.prometheus.url': optional(
    textSetting({ doc: 'Prometheus that scrapes this coordinator and answers for the past; see docs/history.md.' }),
  ),
  'history.prometheus.tokenFile': optional(textSetting({ doc: 'File (mode 0600) with the bearer token that it asks for.' })),
  'history.prometheus.caFile': optional(textSetting({ doc: 'The only authority (PEM) trusted for it.' })),
  'history.prometheus.scrapeInterval': durationSetting(
    {
      doc: 'How often it scrapes this coordinator, at least once a minute. Shorter than it really is leaves gaps.',
      default: '1m',
    },
    1_000,
  ),
} as const

export interface PrometheusConfig {
  readonly url: string
  /** Secret. */
  readonly token: string | null
  readonly caPem: string | null
  readonly scrapeIntervalMs: number
}

/** Forecasts learn by the minute. */
const LONGEST_INTERVAL_MS = 60_000

/** null: none is set. Adds to `faults` what cannot be used. */
export async function resolvePrometheus(
  values: {
    readonly 'history.prometheus.url': string | null
    readonly 'history.prometheus.tokenFile': string | null
    readonly 'history.prometheus.caFile': string | null
    readonly 'history.prometheus.scrapeInterval': number
  },
  locate: (key: keyof typeof PROMETHEUS_SETTINGS) => Pick<Fault, 'path' | 'file' | 'line'>,
  sources: EndpointSources,
  faults: Fault[],
): Promise<PrometheusConfig | null> {
  const url = values['history.prometheus.url']
  const scrapeIntervalMs = values['history.prometheus.scrapeInterval']
  if (scrapeIntervalMs > LONGEST_INTERVAL_MS)
    faults.push({ ...locate('history.prometheus.scrapeInterval'), message: 'It must scrape at least once a minute.' })
  const files = { tokenFile: values['history.prometheus.tokenFile'], caFile: values['history.prometheus.caFile'] }
  if (url === null) {
    for (const key of ['tokenFile', 'caFile'] as const)
      if (files[key] !== null)
        faults.push({ ...locate(`history.prometheus.${key}`), message: 'It is of no use without history.prometheus.url.' })
    return null
  }
  const { token, caPem } = await resolveEndpoint({ url, ...files }, (key) => locate(`history.prometheus.${key}`), sources, faults)
  if (URL.canParse(url) && (new URL(url).search !== '' || new URL(url).hash !== ''))
    faults.push({
      ...locate('history.prometheus.url'),
      message: 'Write it up to where /api/v1 follows, without what comes after a ? or #.',
    })
  return Object.freeze({ url, token, caPem, scrapeIntervalMs })
}
