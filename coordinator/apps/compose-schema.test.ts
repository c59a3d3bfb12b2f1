import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Ajv, type ValidateFunction } from 'ajv'
import { describe, expect, it } from 'vitest'
import * as tables from './compose-schema.ts'
import { readApp } from './read-app.ts'

const path = fileURLToPath(new URL('../../../shared/data/schemas/compose-spec.json', import.meta.url))
const isThere = existsSync(path)

interface Schema {
  readonly properties?: Record<string, Schema>
  readonly definitions?: Record<string, Schema>
  readonly oneOf?: readonly Schema[]
  readonly items?: Schema
  readonly patternProperties?: Record<string, Schema>
}

function official(): Schema {
  return JSON.parse(readFileSync(path, 'utf8')) as Schema
}

function keysOf(schema: Schema | undefined): string[] {
  return Object.keys(schema?.properties ?? {}).toSorted()
}

function objectForm(schema: Schema | undefined): Schema | undefined {
  return (schema?.oneOf ?? schema?.items?.oneOf)?.find((form) => form.properties !== undefined)
}

/** Keys that are ours alone: old or undocumented, but harmless to know. */
function ours(table: tables.KeyTable): string[] {
  return Object.keys(table).toSorted()
}

describe.skipIf(!isThere)('our schema against the official one (../shared/data/schemas/compose-spec.json)', () => {
  const schema = isThere ? official() : {}
  const definitions = schema.definitions ?? {}
  const service = definitions.service?.properties ?? {}
  const deploy = definitions.deployment?.properties ?? {}
  const mount = objectForm(service.volumes)
  const cases: [string, tables.KeyTable, Schema | undefined][] = [
    ['the top level', tables.TOP_LEVEL_KEYS, schema],
    ['a service', tables.SERVICE_KEYS, definitions.service],
    ['healthcheck', tables.HEALTHCHECK_KEYS, definitions.healthcheck],
    ['deploy', tables.DEPLOY_KEYS, definitions.deployment],
    ['deploy.update_config', tables.UPDATE_KEYS, deploy.update_config],
    ['deploy.rollback_config', tables.UPDATE_KEYS, deploy.rollback_config],
    ['deploy.restart_policy', tables.RESTART_POLICY_KEYS, deploy.restart_policy],
    ['deploy.resources', tables.RESOURCES_KEYS, deploy.resources],
    ['deploy.resources.limits', tables.LIMITS_KEYS, deploy.resources?.properties?.limits],
    ['deploy.resources.reservations', tables.RESERVATIONS_KEYS, deploy.resources?.properties?.reservations],
    ['deploy.placement', tables.PLACEMENT_KEYS, deploy.placement],
    ['a port', tables.PORT_KEYS, objectForm(service.ports)],
    ['a mount', tables.MOUNT_KEYS, mount],
    ['bind of a mount', tables.BIND_KEYS, mount?.properties?.bind],
    ['volume of a mount', tables.VOLUME_MOUNT_KEYS, mount?.properties?.volume],
    ['tmpfs of a mount', tables.TMPFS_KEYS, mount?.properties?.tmpfs],
    [
      'a network of a service',
      tables.SERVICE_NETWORK_KEYS,
      objectForm(Object.values(service.networks?.oneOf?.[1]?.patternProperties ?? {})[0]),
    ],
    ['a dependency', tables.DEPENDENCY_KEYS, Object.values(service.depends_on?.oneOf?.[1]?.patternProperties ?? {})[0]],
    ['an env_file', tables.ENV_FILE_KEYS, objectForm(definitions.env_file?.oneOf?.[1])],
    ['extends', tables.EXTENDS_KEYS, objectForm(service.extends)],
    ['include', tables.INCLUDE_KEYS, objectForm(definitions.include)],
    ['a config or secret of a service', tables.FILE_MOUNT_KEYS, objectForm(definitions.service_config_or_secret)],
    ['a volume', tables.VOLUME_KEYS, definitions.volume],
    ['a network', tables.NETWORK_KEYS, definitions.network],
    ['a secret', tables.SECRET_KEYS, definitions.secret],
    ['a config', tables.CONFIG_KEYS, definitions.config],
  ]

  it.each(cases)('%s has exactly the keys that we classify', (_, table, theirs) => {
    expect(ours(table)).toEqual(keysOf(theirs))
  })

  it('whatever shape the official schema refuses for a key of a service, we refuse or ignore with a warning', async () => {
    const validate = compile()
    const wrong: unknown[] = [{ bogus_key: 1 }, [{ bogus_key: [1] }], [[1]], 'not a sensible value for this', true, -1.5]
    const silent: string[] = []
    for (const key of keysOf(definitions.service))
      for (const value of wrong) {
        const file = { services: { web: { ...(key === 'image' ? {} : { image: 'a:1' }), [key]: value } } }
        if (validate(file)) continue
        const result = await readApp({
          text: JSON.stringify(file),
          fileName: '/srv/x/compose.yaml',
          environment: {},
          readFile: async () => null,
        })
        const about = [...result.warnings, ...(result.kind === 'refused' ? result.faults : [])].filter(
          (item) => item.path.startsWith(`/services/web/${key}`) || item.path === '/services/web',
        )
        if (about.length === 0) silent.push(`${key}: ${JSON.stringify(value)}`)
      }
    // Compose itself takes these numbers and booleans as their text.
    expect(silent.filter((item) => !/: (true|-1\.5)$/.test(item))).toEqual([])
  })

  function compile(): ValidateFunction {
    const ajv = new Ajv({
      strict: false,
      logger: false,
      formats: { duration: true, subnet_ip_address: true, ports: true, expose: true, uri: true },
    })
    const { $schema: _draft, ...rest } = official() as Schema & { $schema?: string }
    return ajv.compile(rest)
  }
})
