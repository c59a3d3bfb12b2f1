/**
 * From the start of a jump of load to one more instance that serves, on real engines with the product's own settings: where a node
 * has room, and where a machine must be bought first. Next to it, in the same run and on the same engine, the same container by
 * `docker run` until its port answers, and a machine's own boot. Every phase has a name, so that it is plain what is waited for.
 *
 * The clock starts when the service itself first knows the new load; its own reporting period (0.5 s here) is not ours.
 */
import type { EventView, InstanceView, MachineView } from '../../coordinator/api/schemas.ts'
import { type ClusterBed, startClusterBed, WORKER_IMAGE } from '../lab/cluster-bed.ts'
import { type Host, pause } from '../lab/hosts.ts'
import { isRootOnDebian } from '../lab/packages.ts'
import type { BenchResult } from './result.ts'
import { median, spread } from './statistics.ts'

/** Instance start + 3 s where a node has room; bare boot + 5 s from order to ready where none has. */
const ROOM_TARGET_S = 3
const BOUND_TARGET_S = 5
const LOW = 30
const HIGH = 95
const POLL_MS = 15
/** Seconds, each since the phase before. */
type Phases = Readonly<Record<string, number>>

interface Round {
  readonly phases: Phases
  readonly totalS: number
  /** Order of the machine → its user data begins to run; null when none was bought. */
  readonly bootS: number | null
  readonly bareStartS: number
}

/** ROUNDS=n, default 5: about 40 s each. */
export async function benchReaction(rounds = Number(process.env.ROUNDS ?? 5)): Promise<readonly BenchResult[]> {
  if (!isRootOnDebian()) throw new Error('real engines need root on Debian or Ubuntu')
  const bed = await startClusterBed({
    id: 'rbrx',
    net: '10.91.7',
    bridgeNet: '10.95',
    hosts: 1,
    offerings: { small: { cpus: 1, memory: '1G', slots: 50 } },
    // Only giving back is hurried, so that each round begins with one node.
    settings: {
      fleet: { minNodeAge: '1s', downInterval: '2s', reapInterval: '5s', slowBootFactor: 0, rebalance: { maxMovesPerHour: 0 } },
      pools: [{ name: 'extra', provider: 'lab', offering: 'small', priceUsdPerHour: 0.02, max: 2 }],
    },
  })
  try {
    const [own] = bed.lab.hosts as [Host]
    await bed.join(own, { cpus: 4, memory: '4G' })
    await bed.until(async () => (await bed.liveNodes()).length === 1, 'the node')
    // The default window, and a short one, as a service has that must follow quickly.
    const kinds = [
      { app: 'room', window: '30s', bound: false },
      { app: 'bound', window: '30s', bound: true },
      { app: 'roomfast', window: '3s', bound: false },
      { app: 'boundfast', window: '3s', bound: true },
    ] as const
    const found = new Map<string, Round[]>(kinds.map(({ app }) => [app, []]))
    for (const { app, window, bound } of kinds) {
      bed.dial.set(`${app}/web`, LOW)
      await bed.up(app, appFile(bed, window, bound))
    }
    await pause(40_000)
    for (let round = 0; round < rounds; round += 1)
      for (const { app } of kinds) {
        const measured = await react(bed, own, app)
        found.get(app)?.push(measured)
        const { totalS, bareStartS } = measured
        const bare = `bare start ${bareStartS.toFixed(2)}`
        process.stderr.write(`${app} ${round + 1}/${rounds}: ${totalS.toFixed(2)} s (${bare}): ${phasesText([measured])}\n`)
      }
    const of = (app: string) => found.get(app) ?? []
    return [
      ...roomResults('reaction.node_has_room', of('room'), ROOM_TARGET_S),
      ...roomResults('reaction.node_has_room_3s_window', of('roomfast'), ROOM_TARGET_S),
      ...boundResults('reaction.vm_bound', of('bound')),
      ...boundResults('reaction.vm_bound_3s_window', of('boundfast')),
    ]
  } finally {
    await bed.stop()
  }
}

/** One jump of load of one service, and back. */
async function react(bed: ClusterBed, own: Host, app: string): Promise<Round> {
  const service = `${app}/web`
  const known = new Set((await bed.machines()).map((machine) => machine.id))
  const before = new Set((await bed.instances(service)).map((instance) => instance.id))
  const bareStartS = bareStart(own)
  bed.dial.set(service, HIGH)
  const seen = await watch(bed, service, before)
  const heardMs = bed.dial.heardAtMs(service) ?? Number.NaN
  const scaled = (await bed.events('service.scaled')).filter(({ subject, atMs }) => subject === service && atMs >= heardMs)
  const decidedMs = Math.min(...scaled.map((event: EventView) => event.atMs))
  const machine = (await bed.machines()).find(({ id }: MachineView) => !known.has(id))
  const made = bed.cloud.machines.find(({ name }) => machine !== undefined && name.endsWith(machine.id))
  const steps: [string, number][] = [
    ['load seen', seen.loadMs],
    ['decided', decidedMs],
    ...(made === undefined
      ? []
      : ([
          ['ordered', made.orderedAtMs],
          ['booted', made.bootedAtMs ?? Number.NaN],
          ['joined', machine?.joinedAtMs ?? Number.NaN],
        ] as [string, number][])),
    ['placed', seen.placedMs],
    ['started', seen.startedMs],
    ['ready', seen.readyMs],
    ['routable', seen.routableMs],
  ]
  let lastMs = heardMs
  const phases = Object.fromEntries(
    steps.map(([name, atMs]) => {
      const s = (atMs - lastMs) / 1000
      lastMs = atMs
      return [name, s]
    }),
  )
  bed.dial.set(service, LOW)
  await bed.scale(service, 1)
  await bed.until(async () => (await bed.instances(service)).length === 1, 'one instance again', 90_000)
  await bed.until(async () => (await bed.machines()).length === 0, 'the machine to be given back', 90_000)
  await bed.coordinator.cli(['scale', `${service}=auto`])
  const bootS = made === undefined ? null : ((made.bootedAtMs ?? Number.NaN) - made.orderedAtMs) / 1000
  return { phases, totalS: (seen.routableMs - heardMs) / 1000, bootS, bareStartS }
}

interface Seen {
  loadMs: number
  placedMs: number
  startedMs: number
  readyMs: number
  routableMs: number
}

/** Follows the service by the API until an instance that was not there before is routable; epoch ms of each step. */
async function watch(bed: ClusterBed, service: string, before: ReadonlySet<string>): Promise<Seen> {
  const [app] = service.split('/')
  const seen: Seen = { loadMs: 0, placedMs: 0, startedMs: 0, readyMs: 0, routableMs: 0 }
  const note = (step: keyof Seen, isSo: boolean, atMs = Date.now()) => {
    if (isSo && seen[step] === 0) seen[step] = atMs
  }
  const limitMs = Date.now() + 120_000
  while (seen.routableMs === 0) {
    if (Date.now() > limitMs) throw new Error(`${service} got no further instance: ${JSON.stringify(seen)}`)
    const { items } = await bed.coordinator.get<{ items: InstanceView[] }>(`/v1/instances?app=${app}&limit=20`)
    for (const instance of items) {
      if (before.has(instance.id)) note('loadMs', (instance.loadPercent ?? 0) > (LOW + HIGH) / 2)
      else {
        note('placedMs', instance.node !== null)
        note('startedMs', instance.startedAtMs !== null, instance.startedAtMs ?? 0)
        note('readyMs', instance.readyAtMs !== null, instance.readyAtMs ?? 0)
        note('routableMs', instance.routable)
      }
    }
    await pause(POLL_MS)
  }
  return seen
}

/** The same container by `docker run` on the host's own engine, until its port answers. */
function bareStart(host: Host): number {
  const script = `s=$(date +%s%N); id=$(docker run -d --pull never ${WORKER_IMAGE} /usr/bin/node /app.mjs)
a=$(docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' $id)
until curl -fs --max-time 1 http://$a:8080/health >/dev/null; do sleep 0.02; done
e=$(date +%s%N); docker rm -f $id >/dev/null; echo $(( (e - s) / 1000000 ))`
  return Number(host.run(['sh', '-c', script])) / 1000
}

function roomResults(name: string, rounds: readonly Round[], targetS: number): BenchResult[] {
  const total = rounds.map(({ totalS }) => totalS)
  const bare = rounds.map(({ bareStartS }) => bareStartS)
  const beyond = rounds.map(({ totalS, bareStartS }) => totalS - bareStartS)
  const peer = `docker run of the same container until its port answers: ${spread(bare, 2)} s; ${phasesText(rounds)}`
  return [
    result(`${name}_s`, median(total), null, `worst ${Math.max(...total).toFixed(2)} s of ${rounds.length}`),
    result(`${name}_minus_bare_start_s`, median(beyond), targetS, `worst ${Math.max(...beyond).toFixed(2)} s; ${peer}`),
  ]
}

function boundResults(name: string, rounds: readonly Round[]): BenchResult[] {
  const total = rounds.map(({ totalS }) => totalS)
  const bare = rounds.map(({ bareStartS, bootS }) => bareStartS + (bootS ?? Number.NaN))
  const beyond = total.map((totalS, i) => totalS - (bare[i] ?? Number.NaN))
  const sinceOrder = rounds.map(({ phases, totalS, bootS }) => {
    const toOrderS = (phases['load seen'] ?? 0) + (phases.decided ?? 0) + (phases.ordered ?? 0)
    return totalS - toOrderS - (bootS ?? Number.NaN)
  })
  const worst = (values: readonly number[]) => `worst ${Math.max(...values).toFixed(2)} s`
  const boots = rounds.map(({ bootS }) => bootS ?? Number.NaN)
  return [
    result(`${name}_s`, median(total), null, `${worst(total)} of ${rounds.length}; ${phasesText(rounds)}`),
    result(
      `${name}_minus_bare_boot_and_start_s`,
      median(beyond),
      null,
      `${worst(beyond)}; create → user data runs ${spread(boots, 2)} s, docker run ${spread(
        rounds.map(({ bareStartS }) => bareStartS),
        2,
      )} s`,
    ),
    result(`${name}_order_to_ready_minus_bare_boot_s`, median(sinceOrder), BOUND_TARGET_S, worst(sinceOrder)),
  ]
}

function result(name: string, value: number, target: number | null, peer: string): BenchResult {
  return { name, value, unit: 's', better: 'lower', target, peer, ratio: null }
}

/** Median of each phase in order: "load seen 0.81, decided 3.92, …". */
function phasesText(rounds: readonly Round[]): string {
  const names = Object.keys(rounds[0]?.phases ?? {})
  return names.map((name) => `${name} ${median(rounds.map(({ phases }) => phases[name] ?? Number.NaN)).toFixed(2)}`).join(', ')
}

function appFile(bed: ClusterBed, window: string, bound: boolean): string {
  return `services:
  web:
    image: ${WORKER_IMAGE}
    pull_policy: never
    command: ["/usr/bin/node", "/app.mjs"]
    environment: { DIAL: "${bed.dial.url}" }
    expose: ["8080"]
    stop_grace_period: 1s
    healthcheck: { interval: 2s }
    deploy:
      resources: { reservations: { cpus: "0.1", memory: 32M } }
      placement: { max_replicas_per_node: ${bound ? 1 : 8} }
    x-rubato:
      health: { http: /health }
      scale: { min: 1, max: 4, load: custom, window: ${window}, predict: off }
      drain: 0s
`
}
