/**
 * Throughput of the builtin gateway next to nginx with the same rule (one bearer key, else 401; keep-alive to the same
 * upstream; one worker), alternating in one run. Gateway, upstream and load generator are processes of their own; the gateway
 * is pinned to one core and the other two to the rest where `taskset` exists. Where those two are the bottleneck, throughput flatters the
 * slower gateway; therefore the CPU time that each gateway spends per request is compared too.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newCredential } from '../../shared/credentials.ts'
import { systemRandom } from '../../shared/random.ts'
import type { BenchResult } from './result.ts'
import { median, spread } from './statistics.ts'

const NGINX = '/usr/sbin/nginx'
const LOAD = join(import.meta.dirname, 'gateway-load.ts')
const CONNECTIONS = 32

export interface GatewayBenchOptions {
  readonly rounds?: number
  readonly seconds?: number
}

interface LoadReport {
  readonly requests: number
  readonly failed: number
  readonly p50Us: number
  readonly p99Us: number
}

/** Measures in about `2 × (rounds + 1) × seconds`. Without nginx the ratio is left out. */
export async function benchGateway(options: GatewayBenchOptions = {}): Promise<BenchResult[]> {
  const { rounds = 5, seconds = 3 } = options
  const key = newCredential('rbt', 'bench', systemRandom())
  const [upstreamPort, builtinPort, nginxPort] = (await freePorts(3)) as [number, number, number]
  const directory = mkdtempSync(join(tmpdir(), 'rubato-bench-'))
  const children: ChildProcess[] = []
  const hasNginx = existsSync(NGINX)
  try {
    children.push(await startNode(['upstream', `${upstreamPort}`], '1'))
    const builtin = await startNode(['builtin', `${builtinPort}`, `${upstreamPort}`, key.secretHash], '0')
    children.push(builtin)
    const nginx = hasNginx ? await startNginx(directory, nginxPort, upstreamPort, key.text) : null
    if (nginx !== null) children.push(nginx)
    const head = [
      'GET /items/42?page=1 HTTP/1.1',
      'Host: shop.example.org',
      `Authorization: Bearer ${key.text}`,
      'User-Agent: bench/1',
      'Accept: */*',
      'Accept-Encoding: gzip',
      '',
      '',
    ].join('\r\n')
    const ours: number[] = []
    const theirs: number[] = []
    const p99Us: number[] = []
    const cpuUs: number[] = []
    const nginxCpuUs: number[] = []
    let failed = 0
    for (let round = 0; round <= rounds; round += 1) {
      const cpuBefore = cpuTimeUs(builtin)
      const mine = await runLoad(builtinPort, seconds, head)
      const cpuBetween = cpuTimeUs(builtin)
      const nginxBefore = nginx === null ? 0 : cpuTimeUs(nginx)
      const other = nginx === null ? null : await runLoad(nginxPort, seconds, head)
      failed += mine.failed + (other?.failed ?? 0)
      if (round === 0) continue // warms both up
      ours.push(mine.requests / seconds)
      p99Us.push(mine.p99Us)
      cpuUs.push((cpuBetween - cpuBefore) / mine.requests)
      if (other === null || nginx === null) continue
      theirs.push(other.requests / seconds)
      nginxCpuUs.push((cpuTimeUs(nginx) - nginxBefore) / other.requests)
    }
    const results: BenchResult[] = [
      result('gateway.builtin_requests_per_s', median(ours), '1/s', 'higher'),
      result('gateway.builtin_p99_ms', median(p99Us) / 1_000, 'ms', 'lower'),
      result('gateway.builtin_cpu_us_per_request', median(cpuUs), 'µs', 'lower'),
      { ...result('gateway.bench_failed_requests', failed, 'requests', 'lower'), target: 0 },
    ]
    if (!hasNginx) return results
    const ratio = median(ours) / median(theirs)
    const peer = `nginx 1 worker ${spread(theirs, 0)}/s, builtin ${spread(ours, 0)}/s, ${rounds} rounds`
    const cpuRatio = median(nginxCpuUs) / median(cpuUs)
    const cpuPeer = `nginx ${median(nginxCpuUs).toFixed(1)} µs of CPU per request, builtin ${median(cpuUs).toFixed(1)} µs`
    return [
      { ...result('gateway.builtin_vs_nginx_ratio', ratio, 'ratio', 'higher'), target: 0.3, peer, ratio },
      {
        ...result('gateway.builtin_vs_nginx_cpu_ratio', cpuRatio, 'ratio', 'higher'),
        target: 0.3,
        peer: cpuPeer,
        ratio: cpuRatio,
      },
      ...results,
    ]
  } finally {
    await Promise.all(children.map(endProcess))
    rmSync(directory, { recursive: true, force: true })
  }
}

function result(name: string, value: number, unit: string, better: 'higher' | 'lower'): BenchResult {
  return { name, value, unit, better, target: null, peer: null, ratio: null }
}

/** CPU time of a process so far (10 ms steps), in µs. */
function cpuTimeUs(child: ChildProcess): number {
  const fields = readFileSync(`/proc/${child.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) * 10_000
}

function pinned(core: string, command: string, argv: readonly string[]): ChildProcess {
  const stdio = ['ignore', 'pipe', 'inherit'] as const
  if (!existsSync('/usr/bin/taskset')) return spawn(command, argv, { stdio: [...stdio] })
  return spawn('/usr/bin/taskset', ['-c', core, command, ...argv], { stdio: [...stdio] })
}

async function startNode(argv: readonly string[], core: string): Promise<ChildProcess> {
  const child = pinned(core, process.execPath, [LOAD, ...argv])
  await firstOutput(child)
  return child
}

async function startNginx(directory: string, port: number, upstreamPort: number, credential: string): Promise<ChildProcess> {
  const config = join(directory, 'nginx.conf')
  writeFileSync(
    config,
    `daemon off;
master_process off;
worker_processes 1;
pid ${directory}/nginx.pid;
error_log stderr crit;
events { worker_connections 1024; }
http {
  access_log off;
  client_body_temp_path ${directory}/body;
  proxy_temp_path ${directory}/proxy;
  fastcgi_temp_path ${directory}/fastcgi;
  uwsgi_temp_path ${directory}/uwsgi;
  scgi_temp_path ${directory}/scgi;
  keepalive_requests 1000000000;
  map_hash_bucket_size 256;
  map $http_authorization $caller { default ""; "Bearer ${credential}" bench; }
  upstream app { server 127.0.0.1:${upstreamPort}; keepalive 64; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:${port};
    location / {
      if ($caller = "") { return 401; }
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header Authorization "";
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto http;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Rubato-Caller $caller;
      proxy_pass http://app;
    }
  }
}
`,
  )
  const child = pinned('0', NGINX, ['-p', directory, '-c', config, '-e', 'stderr'])
  for (let tries = 0; tries < 100; tries += 1) {
    if (existsSync(join(directory, 'nginx.pid'))) return child
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('nginx did not start')
}

async function runLoad(port: number, seconds: number, head: string): Promise<LoadReport> {
  const child = pinned('1', process.execPath, [
    LOAD,
    'load',
    `${port}`,
    `${CONNECTIONS}`,
    `${seconds}`,
    head.replaceAll('\r\n', '\\r\\n'),
  ])
  return JSON.parse(await firstOutput(child)) as LoadReport
}

function firstOutput(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    child.stdout?.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text.includes('\n')) resolve(text.slice(0, text.indexOf('\n')))
    })
    child.once('error', reject)
    child.once('exit', (code) => reject(new Error(`ended with ${code} before it said anything`)))
  })
}

function endProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve()
  return new Promise((resolve) => {
    child.once('exit', () => resolve())
    child.kill('SIGTERM')
  })
}

async function freePorts(count: number): Promise<readonly number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve) => {
          const server = createServer().listen(0, '127.0.0.1', () => resolve(server))
        }),
    ),
  )
  const ports = servers.map((server) => {
    const address = server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  })
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

if (import.meta.main) process.stdout.write(`${JSON.stringify(await benchGateway(), null, 2)}\n`)
