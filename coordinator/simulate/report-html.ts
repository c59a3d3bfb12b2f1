/**
 * The report of a simulation as one HTML file that needs nothing else: tables, plots as inline SVG, every decision with its
 * reason. Light and dark by the reader's setting; every plot has a title and a description, and tables say the same in numbers. Pure.
 */
import type { ElasticityMetrics } from './elasticity-metrics.ts'
import { type Line, plot } from './report-plots.ts'
import type { RunResult, TimePoint } from './run.ts'

export interface ReportRun {
  readonly title: string
  readonly source: string
  readonly bootMs: number
  readonly result: RunResult
}

export interface Report {
  readonly heading: string
  /** What was run, as pairs of name and value. */
  readonly setup: readonly (readonly [string, string])[]
  readonly runs: readonly ReportRun[]
}

interface MetricColumn {
  readonly title: string
  readonly hint: string
  readonly value: (metrics: ElasticityMetrics) => string
}

export const METRIC_COLUMNS: readonly MetricColumn[] = [
  {
    title: 'under time %',
    hint: 'τ_U: share of the time with fewer instances than the objective needs',
    value: (m) => two(m.underTime),
  },
  { title: 'under %', hint: 'θ_U: instances missing, of those needed', value: (m) => two(m.underAmount) },
  { title: 'over time %', hint: 'τ_O: share of the time with more than needed', value: (m) => one(m.overTime) },
  { title: 'over %', hint: 'θ_O: instances too many, of those needed', value: (m) => one(m.overAmount) },
  {
    title: 'unstable %',
    hint: 'υ: share of minutes in which demand and supply did not move alike',
    value: (m) => one(m.instability),
  },
  { title: 'jitter /h', hint: 'changes of supply less changes of demand', value: (m) => one(m.jitter) },
  { title: 'late %', hint: 'share of the requests beyond the objective or never answered', value: (m) => two(m.beyondObjective) },
  { title: 'machine hours', hint: 'from the order to the deletion', value: (m) => m.machineHours.toFixed(0) },
  { title: 'USD', hint: 'by the prices of the pools', value: (m) => m.costUsd.toFixed(2) },
  { title: 'steps /h', hint: 'changes of the wanted count per hour', value: (m) => one(m.actionsPerHour) },
]

export function reportHtml(report: Report): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${escapeHtml(report.heading)}</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>${escapeHtml(report.heading)}</h1>
<dl>${report.setup.map(([name, value]) => `<div><dt>${escapeHtml(name)}</dt><dd>${escapeHtml(value)}</dd></div>`).join('')}</dl>
<h2 id="metrics">Metrics</h2>
${metricsTable(report.runs)}
<p class="note">θ and τ after SPEC-RG-2016-01; the formulae of τ, υ and jitter are quoted from memory. Less is better in every column; in jitter, nearer to zero.</p>
${report.runs.map((run, index) => section(run, index)).join('\n')}
</main>
</body>
</html>
`
}

function metricsTable(runs: readonly ReportRun[]): string {
  const head = METRIC_COLUMNS.map(
    ({ title, hint }) => `<th scope="col"><abbr title="${escapeHtml(hint)}">${escapeHtml(title)}</abbr></th>`,
  )
  const rows = runs.map(
    ({ title, bootMs, result }, index) =>
      `<tr><th scope="row"><a href="#run-${index}">${escapeHtml(title)}</a></th><td>${bootMs / 1000} s</td>${METRIC_COLUMNS.map(
        ({ value }) => `<td>${value(result.metrics)}</td>`,
      ).join('')}</tr>`,
  )
  return `<div class="scroll" role="region" aria-label="Metrics" tabindex="0"><table><thead><tr><th scope="col">policy</th><th scope="col">boot</th>${head.join('')}</tr></thead><tbody>${rows.join('')}</tbody></table></div>`
}

function section({ title, source, bootMs, result }: ReportRun, index: number): string {
  const { timeline, metrics } = result
  const line = (name: string, style: string, value: (point: TimePoint) => number | null): Line => ({
    name,
    style,
    values: timeline.map(value),
  })
  const times = timeline.map(({ atMs }) => atMs)
  const plots = [
    plot({
      id: `run-${index}-count`,
      title: 'Instances: needed, ready, forecast',
      text: `Fewer than needed ${two(metrics.underTime)} % of the time, more than needed ${one(metrics.overTime)} %.`,
      times,
      lines: [
        line('needed', 'a', ({ demand }) => demand),
        line('ready', 'b', ({ ready }) => ready),
        ...(timeline.some(({ forecast }) => forecast !== null) ? [line('forecast', 'c', ({ forecast }) => forecast)] : []),
      ],
    }),
    plot({
      id: `run-${index}-load`,
      title: 'Mean load of an instance, percent',
      text: `${two(metrics.beyondObjective)} % of the requests were beyond the objective.`,
      times,
      lines: [line('load', 'a', ({ loadPercent }) => loadPercent)],
    }),
    plot({
      id: `run-${index}-machines`,
      title: 'Machines',
      text: `${metrics.machineHours.toFixed(0)} machine hours.`,
      times,
      lines: [line('machines', 'b', ({ machines }) => machines)],
    }),
    plot({
      id: `run-${index}-money`,
      title: 'Money spent, USD',
      text: `${metrics.costUsd.toFixed(2)} USD in all.`,
      times,
      lines: [line('spent', 'c', ({ costUsd }) => costUsd)],
    }),
  ]
  const rows = result.decisions.map(
    ({ atMs, kind, what, reason }) =>
      `<tr><td>${iso(atMs)}</td><td>${kind}</td><td>${escapeHtml(what)}</td><td>${escapeHtml(reason)}</td></tr>`,
  )
  return `<section id="run-${index}" aria-labelledby="run-${index}-title">
<h2 id="run-${index}-title">${escapeHtml(title)}, machines boot in ${bootMs / 1000} s</h2>
<p class="note">${escapeHtml(source)}</p>
${plots.join('\n')}
<details><summary>${result.decisions.length} decisions</summary><div class="scroll" role="region" aria-label="Decisions of ${escapeHtml(title)}" tabindex="0"><table class="log"><thead><tr><th scope="col">time (UTC)</th><th scope="col">kind</th><th scope="col">what</th><th scope="col">why</th></tr></thead><tbody>${rows.join('')}</tbody></table></div></details>
</section>`
}

export function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
}

function iso(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 19).replace('T', ' ')
}

const one = (value: number) => value.toFixed(1)
const two = (value: number) => value.toFixed(2)

const STYLE = `
:root{--bg:#fff;--fg:#1b1f24;--soft:#57606a;--rule:#d0d7de;--a:#0550ae;--b:#bc4c00;--c:#116329}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--soft:#9198a1;--rule:#3d444d;--a:#79c0ff;--b:#ffa657;--c:#7ee787}}
body{background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif;margin:0}
main{max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.5rem}
a{color:var(--a)}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(16rem,1fr));gap:.25rem 1.5rem;margin:0}
dt{color:var(--soft);font-size:.85rem}dd{margin:0 0 .5rem}
.scroll{overflow:auto;max-height:32rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}
th:first-child,td:first-child,.log th,.log td{text-align:left}
.log td:last-child{white-space:normal}
thead th{position:sticky;top:0;background:var(--bg)}
.note{color:var(--soft);font-size:.9rem}
figure{margin:1rem 0}figcaption{font-size:.9rem}
svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font-size:11px}
svg .grid{stroke:var(--rule);stroke-width:1}
svg path{fill:none;stroke-width:1.5}
.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}
.key{display:inline-block;margin-right:1rem}
.key::before{content:"";display:inline-block;width:1.2em;margin-right:.4em;vertical-align:.25em;border-top:3px solid}
.key.a::before{border-color:var(--a)}.key.b::before{border-color:var(--b);border-top-style:dashed}.key.c::before{border-color:var(--c);border-top-style:dotted}
path.b{stroke-dasharray:6 2}path.c{stroke-dasharray:2 2}
`
