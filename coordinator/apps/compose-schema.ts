/**
 * Our own schema of Compose files: every key that the Compose Specification knows, and what becomes of it. `supported` keys are
 * mapped (perhaps with conditions, checked where they are read); `ignored` ones do no harm when left out, and a warning says why;
 * `refused` ones would change what the app does, so the file does not deploy. docs/compose-support.md is made from these tables.
 */

export type KeyRule =
  | { readonly status: 'supported'; readonly note?: string }
  | { readonly status: 'ignored'; readonly why: string }
  | { readonly status: 'refused'; readonly why: string; readonly hint?: string }

export type KeyTable = Readonly<Record<string, KeyRule>>

const yes = (note?: string): KeyRule => (note === undefined ? { status: 'supported' } : { status: 'supported', note })
const ignored = (why: string): KeyRule => ({ status: 'ignored', why })
const refused = (why: string, hint?: string): KeyRule =>
  hint === undefined ? { status: 'refused', why } : { status: 'refused', why, hint }

export const TOP_LEVEL_KEYS = {
  version: yes('any 2.x or 3.x, or none; it changes nothing'),
  name: yes("the app's name, unless one is given on the command line"),
  services: yes(),
  volumes: yes('driver local; a bind or tmpfs in driver_opts becomes that mount'),
  networks: yes('accepted with a warning: all services of an app reach each other, others do not'),
  configs: yes('file, content, environment'),
  secrets: yes('file, environment'),
  include: yes(),
  models: refused('AI models are a feature of Docker Desktop', 'run the model server as a service of its own'),
} as const satisfies KeyTable

export const SERVICE_KEYS = {
  annotations: ignored('OCI annotations are for other tools and do not change how the container runs'),
  attach: ignored('it only chooses whose output "docker compose up" prints; use "rubato logs"'),
  blkio_config: ignored("disk weights and rates are the engine's default; nothing depends on them to work"),
  build: yes('needs "image" beside it (the build is then ignored with a warning); alone it is refused'),
  cap_add: yes('those that amount to root on the host are refused'),
  cap_drop: yes(),
  cgroup: yes('"private" only'),
  cgroup_parent: ignored('Rubato accounts for instances itself'),
  command: yes(),
  configs: yes(),
  container_name: ignored('Rubato names containers after their instance: app.service.slot.generation'),
  cpu_count: ignored('it is for Windows containers; use "cpus"'),
  cpu_percent: ignored('it is for Windows containers; use "cpus"'),
  cpu_period: yes('together with cpu_quota: a limit in CPUs'),
  cpu_quota: yes('together with cpu_period: a limit in CPUs'),
  cpu_rt_period: refused('real-time scheduling needs a host set up for it'),
  cpu_rt_runtime: refused('real-time scheduling needs a host set up for it'),
  cpu_shares: ignored('relative weights mean nothing across nodes; use deploy.resources.reservations.cpus'),
  cpus: yes(),
  cpuset: ignored('CPU numbers differ from node to node; use "cpus"'),
  credential_spec: refused('it is for Windows containers'),
  depends_on: yes('all conditions; "restart" of a condition is ignored with a warning'),
  deploy: yes(),
  develop: ignored('it is for "docker compose watch", on a developer\'s machine'),
  device_cgroup_rules: refused('host devices are not given to instances', 'run what needs the device outside of Rubato'),
  devices: refused('host devices are not given to instances', 'run what needs the device outside of Rubato'),
  dns: yes(),
  dns_opt: ignored("the node's resolver options are used"),
  dns_search: ignored('names of the app resolve without a search domain'),
  domainname: ignored('the catalog names instances; nothing resolves a domain name set inside a container'),
  entrypoint: yes(),
  env_file: yes('strings, lists, and objects with path, required, format'),
  environment: yes(),
  expose: yes('each becomes a port of the instance'),
  extends: yes('from the same file or another one'),
  external_links: refused(
    'containers outside of the app cannot be linked',
    "name them by their catalog name in the service's configuration",
  ),
  extra_hosts: yes(),
  gpus: refused('GPUs are not given to instances yet', 'leave it away, or run this service outside of Rubato'),
  group_add: refused('supplementary groups are not passed on yet', 'give the group in "user: uid:gid"'),
  healthcheck: yes(),
  hostname: yes(),
  image: yes(),
  init: yes(),
  ipc: yes('"private" and "shareable" only'),
  isolation: yes('"default" only; the others are for Windows'),
  label_file: yes(),
  labels: yes(),
  links: yes('services of an app reach each other by name anyway; an alias that differs is told in a warning'),
  logging: ignored('the engine keeps the output and "rubato logs" reads it, whatever driver is named'),
  mac_address: ignored("an instance's address is Rubato's to give"),
  mem_limit: yes(),
  mem_reservation: yes(),
  mem_swappiness: ignored("the node's setting is used"),
  memswap_limit: ignored('the memory limit holds; swap is left to the node'),
  models: refused('AI models are a feature of Docker Desktop', 'run the model server as a service of its own'),
  network_mode: yes('"service:x" makes a sidecar of x; "bridge" is what it is anyway; "host" is refused'),
  networks: yes('accepted with a warning: all services of an app reach each other, others do not'),
  oom_kill_disable: ignored('a container beyond its memory limit is always ended and restarted'),
  oom_score_adj: ignored('the memory limit decides'),
  pid: refused('an instance has processes of its own; sharing them with the host gives root on the host'),
  pids_limit: yes(),
  platform: yes('instances go to nodes of that platform only'),
  ports: yes("the gateway of every node (mode host: of the instance's node) listens on the published port"),
  post_start: refused('hooks are not run yet', "do it in the image's entrypoint, or in a service that others depend on"),
  pre_stop: refused('hooks are not run yet', 'handle the stop signal; "stop_grace_period" gives it time'),
  privileged: yes('true is refused'),
  profiles: yes('services whose profiles are not asked for are left out'),
  provider: refused('providers are plug-ins of docker compose', 'set up what it provides yourself and name it in "environment"'),
  pull_policy: yes('refresh intervals pull at every start'),
  pull_refresh_after: ignored('images are pulled when an instance starts, never while it runs'),
  read_only: yes(),
  restart: yes(),
  runtime: yes('"runc" only: another engine runtime is not chosen yet'),
  scale: yes('the same as deploy.replicas'),
  secrets: yes(),
  security_opt: yes('"no-new-privileges" is told in a warning; switching protection off is refused'),
  shm_size: yes(),
  stdin_open: yes(),
  stop_grace_period: yes(),
  stop_signal: yes(),
  storage_opt: ignored("the node's storage driver decides"),
  sysctls: yes(),
  tmpfs: yes('size; other options are told in a warning'),
  tty: yes(),
  ulimits: yes(),
  use_api_socket: refused("the engine's socket gives root on the node"),
  user: yes(),
  userns_mode: refused('user namespaces are set per engine, not per container'),
  uts: yes('"host" is refused'),
  volumes: yes('named volumes, binds, tmpfs; what gives root on the host is refused'),
  volumes_from: refused('instances share no volumes by reference', 'name the same volume in both services'),
  working_dir: yes(),
} as const satisfies KeyTable

export const HEALTHCHECK_KEYS = {
  test: yes(),
  interval: yes('30s'),
  timeout: yes('30s'),
  retries: yes('3'),
  start_period: yes('0s'),
  start_interval: yes('5s'),
  disable: yes(),
} as const satisfies KeyTable

export const DEPLOY_KEYS = {
  mode: yes('replicated, global, replicated-job, global-job'),
  endpoint_mode: yes('vip; dnsrr is told in a warning'),
  replicas: yes(),
  labels: yes(),
  update_config: yes(),
  rollback_config: ignored('a rollback goes at the pace of update_config'),
  resources: yes(),
  restart_policy: yes(),
  placement: yes(),
} as const satisfies KeyTable

export const UPDATE_KEYS = {
  parallelism: yes('1; 0 is all at once'),
  delay: yes('0s'),
  failure_action: yes('rollback'),
  monitor: yes('10s'),
  max_failure_ratio: yes('0; more is told in a warning: the first failure counts'),
  order: yes('start-first; stop-first for what cannot run twice'),
} as const satisfies KeyTable

export const RESOURCES_KEYS = { limits: yes(), reservations: yes() } as const satisfies KeyTable
export const LIMITS_KEYS = { cpus: yes(), memory: yes(), pids: yes() } as const satisfies KeyTable
export const RESERVATIONS_KEYS = {
  cpus: yes(),
  memory: yes(),
  generic_resources: refused(
    'only CPU and memory are reserved',
    'label the nodes that have it and use deploy.placement.constraints',
  ),
  devices: refused(
    'GPUs and other devices are not given to instances yet',
    'leave it away, or run this service outside of Rubato',
  ),
} as const satisfies KeyTable

export const RESTART_POLICY_KEYS = {
  condition: yes('any'),
  delay: yes('1s, doubling with every failure'),
  max_attempts: yes('for ever'),
  window: yes('60s'),
} as const satisfies KeyTable

export const PLACEMENT_KEYS = {
  constraints: yes('== and != on node.id, node.hostname, node.labels.*, engine.labels.*, node.pool, node.provider, node.zone'),
  preferences: yes('spread'),
  max_replicas_per_node: yes(),
} as const satisfies KeyTable

export const PORT_KEYS = {
  name: yes(),
  mode: yes('ingress, host'),
  host_ip: yes('0.0.0.0 and ::; a loopback address is not published, with a warning'),
  target: yes(),
  published: yes(),
  protocol: yes('tcp, udp'),
  app_protocol: yes('http, https, tcp …'),
} as const satisfies KeyTable

export const MOUNT_KEYS = {
  type: yes('volume, bind, tmpfs'),
  source: yes(),
  target: yes(),
  read_only: yes(),
  consistency: ignored('it is for Docker Desktop on a Mac'),
  bind: yes(),
  volume: yes(),
  tmpfs: yes(),
  image: refused('mounts from images are not known', "copy the files into the service's own image"),
} as const satisfies KeyTable

export const BIND_KEYS = {
  create_host_path: ignored('a missing path is created by the engine, or the instance fails and says so'),
  propagation: ignored('mounts made later on the host are not passed on (private)'),
  recursive: ignored("the engine's default is used"),
  selinux: ignored("labels are the node's to set"),
} as const satisfies KeyTable

export const VOLUME_MOUNT_KEYS = {
  nocopy: ignored("an empty volume is filled from the image's directory"),
  subpath: refused('part of a volume cannot be mounted', 'use a volume of its own'),
  labels: ignored('labels of a volume do not change it'),
} as const satisfies KeyTable

export const TMPFS_KEYS = {
  size: yes(),
  mode: ignored('the engine gives it mode 1777'),
} as const satisfies KeyTable

export const VOLUME_KEYS = {
  name: yes(),
  driver: yes('local'),
  driver_opts: yes('bind and tmpfs'),
  external: yes(),
  labels: ignored('labels of a volume do not change it'),
} as const satisfies KeyTable

const NETWORK_WHY = 'every instance is in the network of its node, which Rubato makes'
export const NETWORK_KEYS = {
  name: ignored(NETWORK_WHY),
  driver: ignored(NETWORK_WHY),
  driver_opts: ignored(NETWORK_WHY),
  ipam: ignored("addresses are Rubato's to give; services are reached by name"),
  external: ignored(NETWORK_WHY),
  internal: ignored('instances can reach the outside: put a firewall before the nodes where that matters'),
  enable_ipv4: ignored(NETWORK_WHY),
  enable_ipv6: ignored(NETWORK_WHY),
  attachable: ignored(NETWORK_WHY),
  labels: ignored('labels of a network do not change it'),
} as const satisfies KeyTable

const ADDRESS_WHY = "an instance's address is Rubato's to give; services are reached by name"
export const SERVICE_NETWORK_KEYS = {
  aliases: ignored('only the name of the service itself resolves'),
  interface_name: ignored(ADDRESS_WHY),
  ipv4_address: ignored(ADDRESS_WHY),
  ipv6_address: ignored(ADDRESS_WHY),
  link_local_ips: ignored(ADDRESS_WHY),
  mac_address: ignored(ADDRESS_WHY),
  driver_opts: ignored('every instance is in the network of its node, which Rubato makes'),
  priority: ignored('an instance is in one network only'),
  gw_priority: ignored('an instance is in one network only'),
} as const satisfies KeyTable

export const SECRET_KEYS = {
  name: ignored('secrets belong to their app'),
  environment: yes(),
  file: yes(),
  external: yes('true is refused: give the file or a variable'),
  labels: ignored('labels of a secret do not change it'),
  driver: refused('secret drivers are plug-ins of Docker Swarm', 'use "file" or "environment"'),
  driver_opts: refused('secret drivers are plug-ins of Docker Swarm', 'use "file" or "environment"'),
  template_driver: refused('templates are a feature of Docker Swarm', 'write the file out'),
} as const satisfies KeyTable

export const CONFIG_KEYS = {
  name: ignored('configs belong to their app'),
  content: yes(),
  environment: yes(),
  file: yes(),
  external: yes('true is refused: give the file or its content'),
  labels: ignored('labels of a config do not change it'),
  template_driver: refused('templates are a feature of Docker Swarm', 'write the file out'),
} as const satisfies KeyTable

export const FILE_MOUNT_KEYS = {
  source: yes(),
  target: yes(),
  uid: yes('0; another is told in a warning'),
  gid: yes('0; another is told in a warning'),
  mode: yes('0444'),
} as const satisfies KeyTable

export const DEPENDENCY_KEYS = {
  condition: yes(),
  required: yes(),
  restart: ignored('instances are restarted for their own sake only'),
} as const satisfies KeyTable

export const ENV_FILE_KEYS = { path: yes(), required: yes(), format: yes('raw, or none') } as const satisfies KeyTable
export const EXTENDS_KEYS = { service: yes(), file: yes() } as const satisfies KeyTable
export const INCLUDE_KEYS = { path: yes(), env_file: yes(), project_directory: yes() } as const satisfies KeyTable
export const ULIMIT_KEYS = { soft: yes(), hard: yes() } as const satisfies KeyTable
export const SPREAD_KEYS = { spread: yes() } as const satisfies KeyTable

/** Every table with the place it is for, as documentation names it. */
export const COMPOSE_TABLES: readonly { readonly place: string; readonly keys: KeyTable }[] = [
  { place: 'top level', keys: TOP_LEVEL_KEYS },
  { place: 'service', keys: SERVICE_KEYS },
  { place: 'healthcheck', keys: HEALTHCHECK_KEYS },
  { place: 'deploy', keys: DEPLOY_KEYS },
  { place: 'deploy.update_config', keys: UPDATE_KEYS },
  { place: 'deploy.resources', keys: RESOURCES_KEYS },
  { place: 'deploy.resources.limits', keys: LIMITS_KEYS },
  { place: 'deploy.resources.reservations', keys: RESERVATIONS_KEYS },
  { place: 'deploy.restart_policy', keys: RESTART_POLICY_KEYS },
  { place: 'deploy.placement', keys: PLACEMENT_KEYS },
  { place: 'ports (long)', keys: PORT_KEYS },
  { place: 'volumes (long)', keys: MOUNT_KEYS },
  { place: 'volumes (long) bind', keys: BIND_KEYS },
  { place: 'volumes (long) volume', keys: VOLUME_MOUNT_KEYS },
  { place: 'volumes (long) tmpfs', keys: TMPFS_KEYS },
  { place: 'networks of a service', keys: SERVICE_NETWORK_KEYS },
  { place: 'depends_on (long)', keys: DEPENDENCY_KEYS },
  { place: 'env_file (long)', keys: ENV_FILE_KEYS },
  { place: 'configs and secrets of a service (long)', keys: FILE_MOUNT_KEYS },
  { place: 'volume', keys: VOLUME_KEYS },
  { place: 'network', keys: NETWORK_KEYS },
  { place: 'secret', keys: SECRET_KEYS },
  { place: 'config', keys: CONFIG_KEYS },
]
