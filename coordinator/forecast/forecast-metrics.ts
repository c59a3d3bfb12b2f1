/** Figures of the forecasts for `/metrics`, in Prometheus text form: a few per service that is forecast. Pure. */
import type { ServiceId } from '../../shared/model/identity.ts'
import type { DemandForecast } from './forecaster.ts'

export function forecastMetrics(forecasts: Iterable<readonly [ServiceId, DemandForecast]>): string {
  const peaks: string[] = []
  const errors: string[] = []
  const trusted: string[] = []
  const horizons: string[] = []
  for (const [id, { peak, errorVsPersistence, isTrusted, horizonMs }] of forecasts) {
    const [app = '', service = ''] = id.split('/')
    const labels = `app="${app}",service="${service}"`
    peaks.push(`rubato_service_forecast_peak_percent{${labels}} ${peak}`)
    horizons.push(`rubato_service_forecast_horizon_seconds{${labels}} ${horizonMs / 1000}`)
    if (errorVsPersistence !== null) errors.push(`rubato_service_forecast_error_ratio{${labels}} ${errorVsPersistence}`)
    trusted.push(`rubato_service_forecast_trusted{${labels}} ${isTrusted ? 1 : 0}`)
  }
  const block = (name: string, help: string, lines: readonly string[]) =>
    lines.length === 0
      ? ''
      : `# HELP rubato_service_forecast_${name} ${help}\n# TYPE rubato_service_forecast_${name} gauge\n${lines.join('\n')}\n`
  return [
    block('peak_percent', 'Highest demand expected within the lead time (p90), percent of one instance.', peaks),
    block('horizon_seconds', 'How far ahead demand is forecast: the learned lead time and one minute.', horizons),
    block('error_ratio', 'Mean absolute error of the forecast over the last days, that of persistence being 1.', errors),
    block('trusted', '1 while the forecast is good enough to act on.', trusted),
  ].join('')
}
