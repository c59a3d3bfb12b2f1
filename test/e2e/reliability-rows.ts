/**
 * The fault rows and bad inputs that we promise to meet. Faults find their tests by number (`row 12`, `rows 1–3`) in test titles; bad inputs
 * name theirs. `gap` says what no test covers yet, and where it belongs.
 */
export interface FaultRow {
  readonly row: number
  readonly fault: string
  readonly gap?: string
}

export interface InputRow {
  readonly surface: string
  readonly input: string
  /** File and a part of its text: the test's title, or the name of its case. */
  readonly tests: readonly (readonly [string, string])[]
  readonly gap?: string
}

const HA = 'comes with several coordinators on Consul (high availability)'

export const FAULT_ROWS: readonly FaultRow[] = [
  { row: 1, fault: 'coordinator killed at any instant' },
  { row: 2, fault: 'killed between the intent to buy and the purchase' },
  { row: 3, fault: 'purchase succeeded, its reply got lost' },
  { row: 4, fault: 'a bought machine never joins' },
  { row: 5, fault: 'a machine joins when its deletion has begun' },
  { row: 6, fault: 'the cloud lists a new machine late' },
  { row: 7, fault: 'the cloud lists nothing, or a part' },
  { row: 8, fault: 'a deletion is not answered' },
  { row: 9, fault: 'no capacity, quota reached, too many calls' },
  { row: 10, fault: 'a machine is deleted at the console' },
  { row: 11, fault: 'two pools fit equally well' },
  { row: 12, fault: 'some or all measurements are missing' },
  { row: 13, fault: 'a measurement is NaN, negative or absurd' },
  { row: 14, fault: 'the wanted count comes out as 0' },
  { row: 15, fault: 'agent killed' },
  { row: 16, fault: 'agent dies between creating a container and telling' },
  { row: 17, fault: 'orders come twice or in another order' },
  { row: 18, fault: 'the time to be observed runs out' },
  { row: 19, fault: 'container engine down or hanging' },
  { row: 20, fault: 'engine restarts and kills containers' },
  { row: 21, fault: 'recorded as stopped, still running' },
  { row: 22, fault: 'an image cannot be pulled, or the pull stalls' },
  { row: 23, fault: 'agent cut off, coordinator fine' },
  { row: 24, fault: 'strict singleton cut off' },
  { row: 25, fault: 'a cut-off node comes back' },
  { row: 26, fault: 'connection half open' },
  { row: 27, fault: '200 agents reconnect at once' },
  {
    row: 28,
    fault: 'coordinator stopped for a minute, another leads',
    gap: `the refusal by epoch is tested; SIGSTOP with a second leader ${HA}`,
  },
  { row: 29, fault: 'Consul loses its quorum', gap: HA },
  { row: 30, fault: 'leader loses its session and lives', gap: HA },
  { row: 31, fault: 'the lock is overwritten by hand', gap: HA },
  { row: 32, fault: 'an old backup is restored', gap: '`rubato restore`, which starts a new generation, is not there yet' },
  { row: 33, fault: "coordinator's disk full" },
  { row: 34, fault: 'fsync fails' },
  { row: 35, fault: 'second coordinator on one file' },
  { row: 36, fault: "agent's disk full" },
  { row: 37, fault: 'wall clock jumps by an hour' },
  { row: 38, fault: 'a clock runs 1.5 times too fast', gap: HA },
  { row: 39, fault: 'key revoked while an agent is cut off' },
  { row: 40, fault: 'key update lost or out of order' },
  { row: 41, fault: 'key file truncated or changed' },
  { row: 42, fault: 'two drains overlap' },
  { row: 43, fault: 'a drain cannot end' },
  { row: 44, fault: 'bad rollout' },
  { row: 45, fault: 'a neighbour host calls a container directly' },
  {
    row: 46,
    fault: 'agent reads slowly, or logs are huge',
  },
  {
    row: 47,
    fault: 'join token stolen and used first',
    gap: 'quarantine of both comes with the trust model; now the second is refused and an alarm raised',
  },
  { row: 48, fault: 'catalog wiped or restarted' },
]

const API = 'coordinator/api/bad-input.test.ts'
const APPS = 'coordinator/apps/read-app.test.ts'
const LINK = 'coordinator/hub/websocket-server.test.ts'
const HUB = 'coordinator/hub/hub.test.ts'
const GATEWAY = 'test/contracts/gateway-contract.ts'
const HEAD = 'agent/gateway/builtin/http-head.test.ts'

export const INPUT_ROWS: readonly InputRow[] = [
  {
    surface: 'API',
    input: 'broken JSON, a key given twice',
    tests: [
      [API, 'row 1: invalid JSON'],
      [API, 'row 1: a key given twice'],
    ],
  },
  { surface: 'API', input: 'wrong media type', tests: [[API, 'row 2: a wrong media type']] },
  {
    surface: 'API',
    input: 'body over 1 MiB',
    tests: [
      [API, 'row 3: a body over 1 MiB'],
      ['coordinator/api/serve.test.ts', 'row 3: a chunked body'],
    ],
  },
  { surface: 'API', input: 'faults of the schema, unknown fields', tests: [[API, 'row 4: schema faults']] },
  { surface: 'API', input: '__proto__, absurd numbers, bad names', tests: [[API, 'row 5: __proto__']] },
  {
    surface: 'API',
    input: 'no credential, a bad one, too little right',
    tests: [
      [API, 'row 6: no or a bad credential'],
      [API, 'row 6: a role that does not suffice'],
    ],
  },
  { surface: 'API', input: 'If-Match stale or missing', tests: [[API, 'row 7: a stale If-Match']] },
  {
    surface: 'API',
    input: 'Idempotency-Key used again',
    tests: [
      [API, 'row 8: an Idempotency-Key'],
      [API, 'row 8: two equal requests at once'],
    ],
  },
  { surface: 'API', input: 'not the leader, store away', tests: [[API, 'row 9: a store that is away']] },
  { surface: 'API', input: 'too many requests', tests: [[API, 'row 10: over the rate']] },
  { surface: 'Websocket', input: 'bad credential, an Origin', tests: [[LINK, '§3: a bad or missing credential']] },
  { surface: 'Websocket', input: 'frame over 1 MiB, flood of fragments', tests: [[LINK, '§3: a frame above 1 MiB']] },
  { surface: 'Websocket', input: 'binary, bad UTF-8, bad JSON', tests: [[LINK, '§3: binary is 1003']] },
  { surface: 'Websocket', input: 'unknown type, other major version', tests: [[HUB, 'unknown frame types are counted']] },
  { surface: 'Websocket', input: 'gap in the sequence', tests: [[HUB, 'row 40: a lost update']] },
  {
    surface: 'Websocket',
    input: 'lower epoch, second socket of a node',
    tests: [
      [HUB, 'row 28: an agent refuses'],
      [HUB, 'the newer of two connections'],
    ],
  },
  { surface: 'Websocket', input: "another node's container", tests: [[HUB, 'ignores what a node has no right to speak of']] },
  {
    surface: 'App file',
    input: 'anchor bomb, too large, too deep',
    tests: [
      [APPS, 'row App YAML: an anchor bomb'],
      [APPS, 'row App YAML: more than 256 KiB'],
      [APPS, 'row App YAML: a depth over 32'],
    ],
  },
  { surface: 'App file', input: 'min above max, duplicate port', tests: [[APPS, 'row min>max']] },
  { surface: 'App file', input: 'privileged, host network, engine socket, root mount', tests: [[APPS, 'row Privileged']] },
  {
    surface: 'App file',
    input: 'image tag that can move',
    tests: [[APPS, 'row Mutable image tag']],
    gap: 'it warns; the digest is not pinned yet',
  },
  {
    surface: 'Labels',
    input: 'forged labels of ours',
    tests: [['agent/runtime/docker/docker-mapping.test.ts', 'so that none can be forged']],
    gap: "a forged container beside the agent's own record is not tried on a real engine",
  },
  {
    surface: 'Labels',
    input: 'not UTF-8, a megabyte, a line break',
    tests: [['shared/registration.test.ts', 'drops a label of a megabyte']],
  },
  {
    surface: 'Gateway',
    input: 'contradictory framing, bare LF, folded headers, NUL, no Host',
    tests: [
      [GATEWAY, 'row Proxy: bare line feeds'],
      [GATEWAY, "'CL+TE'"],
      [GATEWAY, "'two Content-Lengths'"],
      [GATEWAY, "'obs-fold'"],
      [GATEWAY, "'NUL in a header'"],
      [GATEWAY, "'no Host'"],
      [HEAD, 'refuses contradictory framing'],
    ],
  },
  {
    surface: 'Gateway',
    input: 'odd Host, other absolute target, odd transfer codings, TRACE, CONNECT',
    tests: [
      [GATEWAY, "'two Hosts'"],
      [GATEWAY, "'absolute URI ≠ Host'"],
      [GATEWAY, "'TE on HTTP/1.0'"],
      [GATEWAY, "'gzip, chunked'"],
      [GATEWAY, "'TRACE'"],
      [GATEWAY, "'CONNECT'"],
      [HEAD, 'turns an absolute target'],
    ],
  },
  {
    surface: 'Gateway',
    input: 'Authorization or key header given twice',
    tests: [
      [GATEWAY, "'two Authorizations'"],
      [GATEWAY, "'two X-API-Keys'"],
    ],
  },
  {
    surface: 'Gateway',
    input: 'underscores in header names',
    tests: [[HEAD, 'never yields a line break, a NUL, an underscore name']],
  },
  {
    surface: 'Gateway',
    input: 'Connection that names our headers',
    tests: [
      [GATEWAY, "'Connection: host'"],
      [GATEWAY, 'row Proxy: strips what Connection names'],
      [HEAD, 'removes what Connection names'],
    ],
  },
  { surface: 'Gateway', input: 'paths that are read in two ways', tests: [[HEAD, 'refuses every spelling']] },
  { surface: 'Gateway', input: 'X-Forwarded-* of the client', tests: [[GATEWAY, 'sets its own headers last']] },
  { surface: 'Gateway', input: 'key in the query string', tests: [[GATEWAY, 'row "Key in query string"']] },
  { surface: 'Gateway', input: 'headers over 16 KiB', tests: [[GATEWAY, "'a header over 16 KiB'"]] },
  {
    surface: 'Gateway',
    input: 'upstream dead or slow',
    tests: [
      [GATEWAY, 'row Proxy: a dead upstream'],
      [GATEWAY, 'row Proxy: repeats nothing'],
    ],
  },
  {
    surface: 'Cloud',
    input: 'answers that are no answer, unknown states',
    tests: [
      ['coordinator/providers/exec/exec-provider.test.ts', '§3 Cloud: foreign tags are ignored'],
      ['coordinator/providers/local/local-provider.test.ts', 'row 7: a damaged record'],
    ],
  },
  {
    surface: 'Cloud',
    input: 'the same machine twice, foreign tags, odd dates',
    tests: [['coordinator/providers/exec/exec-provider.test.ts', '§3 Cloud: foreign tags are ignored']],
  },
  {
    surface: 'Config',
    input: 'unknown key, bad duration, empty variable',
    tests: [['coordinator/config.test.ts', '§3 Config: %s is refused by key and line']],
  },
  {
    surface: 'Config',
    input: 'secret file that others can read',
    tests: [['coordinator/config.test.ts', 'I12: a token is refused as a flag, and in a file that others can read']],
  },
  {
    surface: 'Config',
    input: 'invalid on reload',
    tests: [],
    gap: 'there is no reload yet: a change of the configuration needs a restart, which refuses what is wrong',
  },
]
