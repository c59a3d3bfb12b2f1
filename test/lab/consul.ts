/** One real Consul server on a loopback address, for tests. Ends by its pid; its data goes with its folder. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { until } from './hosts.ts'
import { installConsul } from './packages.ts'

export interface ConsulServer {
  readonly host: string
  readonly httpPort: number
  readonly dnsPort: number
  /** GET of a path under /v1, decoded. */
  get(path: string): Promise<unknown>
  stop(): Promise<void>
}

/** Starts it with all ports from `basePort` on (8 are used); null where no Consul can be had. */
export async function startConsul(dir: string, host: string, basePort: number): Promise<ConsulServer | null> {
  const binary = installConsul((line) => process.stderr.write(`${line}\n`))
  if (binary === null) return null
  mkdirSync(dir, { recursive: true })
  const config = join(dir, 'consul.json')
  const [httpPort, dnsPort, serfLan, serfWan, server] = [basePort, basePort + 1, basePort + 2, basePort + 3, basePort + 4]
  writeFileSync(
    config,
    JSON.stringify({
      server: true,
      bootstrap_expect: 1,
      node_name: 'consul-test',
      datacenter: 'dc1',
      bind_addr: host,
      client_addr: host,
      data_dir: join(dir, 'data'),
      disable_update_check: true,
      enable_local_script_checks: true,
      performance: { raft_multiplier: 1 },
      ports: { http: httpPort, dns: dnsPort, serf_lan: serfLan, serf_wan: serfWan, server, grpc: -1 },
    }),
  )
  const log = openSync(join(dir, 'consul.log'), 'a')
  const child: ChildProcess = spawn(binary, ['agent', '-config-file', config], { stdio: ['ignore', log, log] })
  closeSync(log)
  const get = async (path: string) => {
    const response = await fetch(`http://${host}:${httpPort}/v1${path}`)
    if (!response.ok) throw new Error(`consul ${path}: ${response.status} ${await response.text()}`)
    return response.json()
  }
  await until(async () => {
    try {
      return (await get('/status/leader')) !== '' && ((await get('/catalog/nodes')) as unknown[]).length === 1
    } catch {
      return false
    }
  }, `Consul to lead (see ${dir}/consul.log)`)
  return {
    host,
    httpPort,
    dnsPort,
    get,
    async stop() {
      child.kill('SIGKILL')
      await until(() => child.exitCode !== null || child.signalCode !== null, 'Consul to end')
      rmSync(dir, { recursive: true, force: true })
    },
  }
}
