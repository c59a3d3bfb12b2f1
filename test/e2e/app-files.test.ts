// biome-ignore-all lint/suspicious/noTemplateCurlyInString: Compose files have variables of that form
/**
 * App files as people have them: the documentation's own examples, the examples folder, applications nobody here wrote, and the
 * kinds of Compose files found in the wild. UPDATE_DOCS=1 writes docs/compose-support.md anew.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { type ReadAppInput, type ReadAppResult, readApp } from '../../coordinator/apps/read-app.ts'
import { keyTables } from '../../coordinator/apps/support-tables.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const appsFolder = join(root, '../shared/data/apps')
const hasApps = existsSync(appsFolder)

function readOrNull(path: string): string | null {
  return existsSync(path) ? readFileSync(path, 'utf8') : null
}

function read(text: string, fileName: string, more: Partial<ReadAppInput> = {}): Promise<ReadAppResult> {
  return readApp({ text, fileName, environment: {}, readFile: async () => null, ...more })
}

function composeFiles(): string[] {
  return readdirSync(appsFolder, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.ya?ml$/.test(name) && /^services:/m.test(readFileSync(join(appsFolder, name), 'utf8')))
    .toSorted()
}

async function readShared(name: string): Promise<ReadAppResult> {
  const path = join(appsFolder, name)
  // A made-up place, so that messages do not depend on where the checkout is.
  return await read(readFileSync(path, 'utf8'), `/apps/${name}`, {
    readFile: async (file) => readOrNull(join(dirname(path), relative('/', join('/', file)))),
  })
}

async function resultsTable(): Promise<string> {
  const rows: string[] = []
  for (const name of composeFiles()) {
    const result = await readShared(name)
    const outcome = result.kind === 'ok' ? `deploys: ${result.app.services.length} services` : 'refused'
    rows.push(`| ${name} | ${outcome} | ${result.warnings.length} | ${result.kind === 'ok' ? '' : grouped(result.faults)} |`)
  }
  return `| file | result | warnings | refused because |\n|---|---|---|---|\n${rows.join('\n')}\n`
}

/** Equal messages of several services as one line. */
function grouped(faults: readonly { path: string; message: string }[]): string {
  const byMessage = new Map<string, string[]>()
  for (const fault of faults)
    byMessage.set(fault.message, [...(byMessage.get(fault.message) ?? []), fault.path.split('/')[2] ?? ''])
  return [...byMessage].map(([message, names]) => `${message} (${[...new Set(names)].join(', ')})`).join('<br>')
}

const INTRODUCTION = `# What becomes of Compose files

Rubato reads [Compose files](app-files.md). Every key that the Compose Specification knows is **supported** (it has its meaning),
**ignored** (leaving it out does no harm; a warning with line and column says why) or **refused** (leaving it out would change
what the app does; the message says why and what to do). Nothing is dropped silently, and an unknown key is a fault.

This page is written by a test (\`UPDATE_DOCS=1\` with \`test/e2e/app-files.test.ts\`), which also keeps it true.

## Applications tried, unmodified

`

describe('the documentation', () => {
  const blocks = [...(readOrNull(join(root, 'docs/app-files.md')) ?? '').matchAll(/```yaml\n([\s\S]*?)```/g)].map(
    (match) => match[1] ?? '',
  )

  it('has examples', () => {
    expect(blocks.length).toBeGreaterThan(5)
  })

  it.each(blocks.map((block, index) => [index + 1, block] as const))(
    'example %i of docs/app-files.md deploys',
    async (_, block) => {
      const result = await read(block, '/srv/example/compose.yaml', {
        environment: { DB_PASSWORD: 'x', TAG: '1.0' },
        readFile: async (path) => (path.endsWith('.env') || path.endsWith('.txt') || path.endsWith('.conf') ? 'A=1\n' : null),
      })
      expect(result.kind === 'refused' ? result.faults : []).toEqual([])
    },
  )

  const examples = existsSync(join(root, 'examples'))
    ? readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.yaml'))
    : []
  it.each(examples.map((name) => [name]))('examples/%s is an app file that deploys', async (name) => {
    const text = readFileSync(join(root, 'examples', name), 'utf8')
    if (!/^services:/m.test(text)) return
    const result = await read(text, `/srv/examples/${name}`, {
      readFile: async (path) => readOrNull(join(root, 'examples', path)),
    })
    expect(result.kind === 'refused' ? result.faults : []).toEqual([])
  })

  it('docs/compose-support.md lists every key as it is treated', () => {
    const page = readOrNull(join(root, 'docs/compose-support.md')) ?? ''
    if (process.env.UPDATE_DOCS !== '1') expect(page).toContain(keyTables())
  })

  it.skipIf(!hasApps)('docs/compose-support.md tells what becomes of the applications in ../shared/data/apps', async () => {
    const page = `${INTRODUCTION}${await resultsTable()}\n## Every key\n\n${keyTables()}`
    const path = join(root, 'docs/compose-support.md')
    if (process.env.UPDATE_DOCS === '1') writeFileSync(path, page)
    expect(readOrNull(path)).toBe(page)
  })
})

describe.skipIf(!hasApps)('applications nobody here wrote (../shared/data/apps)', () => {
  it.each(hasApps ? composeFiles().map((name) => [name]) : [])(
    '%s gives a plan or says precisely what is refused',
    async (name) => {
      const result = await readShared(name)
      if (result.kind === 'ok') expect(result.app.services.length).toBeGreaterThan(0)
      else {
        expect(new Set(result.faults.map((fault) => `${fault.path} ${fault.message}`)).size).toBe(result.faults.length)
        for (const fault of result.faults) {
          expect(fault.path).toMatch(/^\/(services|volumes|networks|secrets|configs)\//)
          expect(fault.line).toBeGreaterThan(0)
          expect(fault.message).not.toMatch(/unknown key/)
        }
      }
      for (const warning of result.warnings) expect(warning.line).toBeGreaterThan(0)
    },
  )
})

/** Own texts with the features that well-known self-hosted applications use in their Compose files. */
const WILD: Record<
  string,
  { text: string; files?: Record<string, string>; environment?: Record<string, string>; refused?: RegExp[] }
> = {
  'a blog with a database, as most tutorials write it': {
    text: `version: '3.8'
services:
  wp:
    image: wordpress:6-apache
    restart: unless-stopped
    depends_on: [mysql]
    ports: ['\${WP_PORT:-8080}:80']
    environment: &dbenv
      WORDPRESS_DB_HOST: mysql:3306
      WORDPRESS_DB_PASSWORD: \${DB_PASSWORD:?database password}
    volumes: ['wp:/var/www/html', './uploads.ini:/usr/local/etc/php/conf.d/uploads.ini:ro']
  mysql:
    image: mysql:8.4
    command: --default-authentication-plugin=mysql_native_password --innodb-buffer-pool-size=64M
    environment: {MYSQL_ROOT_PASSWORD: '\${DB_PASSWORD}', MYSQL_DATABASE: wp}
    expose: ['3306']
    volumes: ['db:/var/lib/mysql']
    healthcheck: {test: ['CMD-SHELL', 'mysqladmin ping -h 127.0.0.1 -p$$MYSQL_ROOT_PASSWORD'], interval: 10s, start_period: 40s}
volumes: {wp: {}, db: {driver: local}}
`,
    environment: { DB_PASSWORD: 'p' },
  },
  'a photo library with extended hardware files and a machine-learning service': {
    text: `name: photos
services:
  server:
    container_name: photos_server
    image: ghcr.io/photos/server:\${VERSION:-release}
    volumes: ["\${UPLOAD:-./library}:/data", "/etc/localtime:/etc/localtime:ro"]
    env_file: [.env]
    ports: ['2283:2283']
    depends_on: [redis, database]
    restart: always
    healthcheck: {disable: false}
  ml:
    image: ghcr.io/photos/ml:\${VERSION:-release}
    volumes: [models:/cache]
    env_file: [.env]
    restart: always
  redis:
    image: docker.io/valkey/valkey:8-bookworm@sha256:${'ab'.repeat(32)}
    healthcheck: {test: redis-cli ping || exit 1}
    expose: [6379]
  database:
    image: ghcr.io/photos/postgres:14
    shm_size: 128mb
    expose: [5432]
    environment: {POSTGRES_PASSWORD: "\${DB_PASSWORD}", POSTGRES_INITDB_ARGS: '--data-checksums'}
    volumes: ["\${DB:-./postgres}:/var/lib/postgresql/data"]
volumes: {models: }
`,
    files: { '.env': 'DB_PASSWORD=postgres\n# comment\nUPLOAD=./library\n' },
  },
  'analytics with a migration that runs first': {
    text: `x-app: &app
  image: analytics/app:v2
  environment:
    - BASE_URL
    - SECRET_KEY_BASE=\${SECRET_KEY_BASE}
  depends_on:
    db: {condition: service_healthy, restart: true}
    events: {condition: service_started, required: false}
services:
  app:
    <<: *app
    command: sh -c "/entrypoint.sh run"
    ports: ["127.0.0.1:8000:8000"]
    depends_on:
      migrate: {condition: service_completed_successfully}
    ulimits: {nofile: {soft: 65535, hard: 65535}}
  migrate:
    <<: *app
    command: ["sh", "-c", "/entrypoint.sh db createdb && /entrypoint.sh db migrate"]
  db:
    image: postgres:16-alpine
    expose: ["5432"]
    healthcheck: {test: ["CMD-SHELL", "pg_isready -U postgres"], start_period: 1m, start_interval: 2s}
    volumes: ["db-data:/var/lib/postgresql/data"]
  events:
    image: clickhouse/clickhouse-server:24.12-alpine
    expose: [8123]
    ulimits: {nofile: 262144}
volumes:
  db-data: {driver: local}
`,
    environment: { BASE_URL: 'https://a.example', SECRET_KEY_BASE: 's' },
  },
  'a social network with internal networks and shared volumes': {
    text: `services:
  db: {image: "postgres:14-alpine", restart: always, shm_size: 256mb, networks: [internal], expose: [5432], healthcheck: {test: ['CMD', 'pg_isready', '-U', 'postgres']}, environment: ['POSTGRES_HOST_AUTH_METHOD=trust']}
  web:
    image: ghcr.io/social/web:v4.3.0
    env_file: .env.production
    command: bundle exec puma -C config/puma.rb
    networks: {external: , internal: {aliases: [web, api]}}
    healthcheck: {test: ['CMD-SHELL', "curl -s --noproxy localhost localhost:3000/health | grep -q 'OK' || exit 1"]}
    ports: ['127.0.0.1:3000:3000']
    depends_on: [db]
    volumes: ['./public/system:/app/public/system']
  queue: {image: "ghcr.io/social/web:v4.3.0", env_file: .env.production, command: bundle exec sidekiq, networks: [external, internal], depends_on: [db]}
networks: {external: , internal: {internal: true}}
`,
    files: { '.env.production': 'SMTP_FROM=\'Social <no-reply@example.org>\'\nexport LOCAL_DOMAIN=example.org\nKEY="a\\nb"\n' },
  },
  'a git forge with a long configuration in one variable': {
    text: `services:
  forge:
    image: forge/forge:17.5
    hostname: git.example.org
    environment:
      OMNIBUS_CONFIG: |
        external_url 'https://git.example.org'
        nginx['listen_port'] = 80
    ports: [{target: 80, published: "8929", app_protocol: http}, {target: 22, published: 2224, protocol: tcp, mode: host}]
    volumes: ["$DATA/config:/etc/forge", "$DATA/logs:/var/log/forge"]
    shm_size: '256m'
    cap_add: [NET_BIND_SERVICE]
    sysctls: ["net.core.somaxconn=1024"]
    stop_grace_period: 1m30s
    logging: &log {driver: json-file, options: {max-size: 10m, max-file: "3"}}
  runner: {image: "forge/runner:alpine", logging: *log, volumes: [/var/run/docker.sock:/var/run/docker.sock]}
`,
    environment: { DATA: '/srv/forge' },
    refused: [/docker\.sock/],
  },
  'a cloud drive with secrets in files': {
    text: `services:
  db:
    image: postgres:16
    environment: {POSTGRES_PASSWORD_FILE: /run/secrets/pw, POSTGRES_USER_FILE: /run/secrets/user}
    secrets: [pw, user]
    expose: [5432]
  app:
    image: nextcloud:30-apache
    links: ["db:database"]
    ports: ["8080:80"]
    secrets: [{source: pw, uid: "33", gid: "33", mode: 0400}]
    extra_hosts: ["host.docker.internal:host-gateway"]
    tmpfs: /tmp
  cron: {image: "nextcloud:30-apache", entrypoint: /cron.sh, depends_on: [db, app], network_mode: "service:app"}
secrets: {pw: {file: ./pw.txt}, user: {file: ./user.txt}}
`,
    files: { 'pw.txt': 'secret\n', 'user.txt': 'me\n' },
  },
  'a model server that wants a GPU': {
    text: `services:
  llm:
    image: llm/server:0.5
    ports: ["11434:11434"]
    runtime: nvidia
    gpus: all
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: all, capabilities: [gpu]}]}}}
    devices: ["/dev/kfd", "/dev/dri"]
    group_add: [video]
    security_opt: ["seccomp:unconfined"]
`,
    refused: [/runtime: nvidia/, /"gpus" is not supported/, /"devices" is not supported/, /"group_add"/, /seccomp/],
  },
  'a home automation hub that wants the host': {
    text: `services:
  hub: {image: "home/hub:2025.1", network_mode: host, privileged: true, volumes: ["/run/dbus:/run/dbus:ro", "./config:/config"], restart: unless-stopped, environment: {TZ: Europe/Vienna}}
`,
    refused: [/host's network is forbidden/, /privileged containers are forbidden/, /mounting \/run\/dbus is forbidden/],
  },
  'a Swarm stack with a proxy': {
    text: `version: "3.9"
services:
  proxy:
    image: traefik:v3.1
    command: ["--providers.swarm", "--entrypoints.web.address=:80"]
    ports: [{target: 80, published: 80, mode: host}]
    deploy: {mode: global, placement: {constraints: [node.role == manager]}, update_config: {order: start-first, failure_action: rollback, max_failure_ratio: 0.2}}
  app:
    image: app/app:3
    deploy:
      replicas: 6
      endpoint_mode: vip
      labels: ["traefik.enable=true", "traefik.http.routers.a.rule=Host(\`a.example\`)"]
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 120s}
      resources: {limits: {cpus: '0.50', memory: 50M}, reservations: {cpus: '0.25', memory: 20M}}
    configs: [{source: cfg, target: /etc/app.yml}]
configs: {cfg: {external: true}}
networks: {default: {driver: overlay, attachable: true}}
`,
    refused: [/node\.role == manager/, /external/],
  },
}

describe('the kinds of Compose files found in the wild', () => {
  it.each(Object.entries(WILD))('%s', async (_, app) => {
    const result = await read(app.text, '/srv/wild/compose.yaml', {
      environment: app.environment ?? {},
      readFile: async (path) => app.files?.[path] ?? null,
    })
    const faults = result.kind === 'refused' ? result.faults : []
    for (const expected of app.refused ?? []) expect(faults.map((fault) => fault.message).join('\n')).toMatch(expected)
    if (app.refused === undefined) expect(result.kind).toBe('ok')
    for (const fault of faults) expect(fault.message).not.toMatch(/unknown key|must be/)
  })
})
