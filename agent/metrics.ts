/** The agent's figures in Prometheus text form, computed at each scrape. */
import type { AgentView } from './agent.ts'
import type { Link } from './link/link.ts'

/** What the figures are made of. */
export interface Measured extends Pick<AgentView, 'metered' | 'loadInbox' | 'pullAhead'> {
  readonly keys: Pick<AgentView['keys'], 'revision'>
}

export function agentMetrics(view: Measured, link: Pick<Link, 'connected' | 'counters'>): string {
  const lines: string[] = []
  const gauge = (name: string, help: string, values: readonly (readonly [labels: string, value: number])[]) => {
    lines.push(`# HELP rubato_agent_${name} ${help}`, `# TYPE rubato_agent_${name} gauge`)
    for (const [labels, value] of values) lines.push(`rubato_agent_${name}${labels} ${value}`)
  }
  gauge('connected', '1 while the link to a coordinator is open.', [['', link.connected() ? 1 : 0]])
  gauge('keys_revision', 'Revision of the key set that requests are checked with.', [['', view.keys.revision]])
  gauge('unknown_frames', 'Frames of types that this version does not know.', [['', link.counters.unknownFrames]])
  const running = view.metered()
  gauge('instances', 'Instances whose containers run.', [['', running.length]])
  gauge(
    'instance_load_percent',
    'Load that the instance reported.',
    running.flatMap(({ instance }) => {
      const load = view.loadInbox.get(instance, 30_000)
      return load === null ? [] : [[`{instance="${instance.replaceAll(/["\\\n]/g, '_')}"}`, load.loadPercent] as const]
    }),
  )
  const ahead = view.pullAhead()
  if (ahead !== null) {
    const { here, pending, failing } = ahead.answer()
    gauge('images_ahead', 'Images that shall be here before an instance needs them.', [
      ['{state="here"}', here.length],
      ['{state="pending"}', pending.length],
      ['{state="failing"}', failing.length],
    ])
    lines.push('# HELP rubato_agent_pulls_ahead_total Ends of pulls ahead.', '# TYPE rubato_agent_pulls_ahead_total counter')
    for (const [outcome, count] of Object.entries(ahead.counters))
      lines.push(`rubato_agent_pulls_ahead_total{outcome="${outcome}"} ${count}`)
  }
  return `${lines.join('\n')}\n`
}
