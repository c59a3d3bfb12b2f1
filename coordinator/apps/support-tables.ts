/** The table of every Compose key with what becomes of it, for docs/compose-support.md. Pure. */
import { COMPOSE_TABLES } from './compose-schema.ts'

/** Markdown: one table per place of a Compose file. */
export function keyTables(): string {
  return COMPOSE_TABLES.map(({ place, keys }) => {
    const rows = Object.entries(keys).map(([key, rule]) => {
      const note =
        rule.status === 'supported'
          ? (rule.note ?? '')
          : rule.status === 'refused' && rule.hint !== undefined
            ? `${rule.why}; ${rule.hint}`
            : rule.why
      return `| \`${key}\` | ${rule.status} | ${note.replaceAll('|', '\\|')} |`
    })
    return `### ${place}\n\n| key | | note |\n|---|---|---|\n${rows.join('\n')}\n`
  }).join('\n')
}
