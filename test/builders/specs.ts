/** Builders of app, service and unit specs with plain defaults; tests name only the fields that matter to them. */
import { specHashOf } from '../../shared/canonical.ts'
import type { AppSpec, PlacementRules, ScaleRules, ServiceSpec, UpdateRules } from '../../shared/model/app.ts'
import type { ContainerSpec, RestartPolicy, UnitSpec } from '../../shared/model/unit.ts'

export function aRestartPolicy(fields: Partial<RestartPolicy> = {}): RestartPolicy {
  return { condition: 'any', delayMs: 1_000, maxAttempts: null, windowMs: 60_000, ...fields }
}

export function aContainerSpec(fields: Partial<ContainerSpec> = {}): ContainerSpec {
  return {
    name: 'web',
    image: 'shop/web:1',
    pullPolicy: 'missing',
    environment: {},
    labels: {},
    mounts: [],
    files: [],
    limits: {},
    reservations: {},
    capAdd: [],
    capDrop: [],
    readOnlyRootfs: false,
    init: false,
    extraHosts: [],
    dns: [],
    sysctls: {},
    ulimits: {},
    tty: false,
    stdinOpen: false,
    restart: aRestartPolicy(),
    ...fields,
  }
}

export function aUnitSpec(fields: Partial<UnitSpec> = {}): UnitSpec {
  return {
    runtime: 'docker',
    containers: [aContainerSpec()],
    ports: [{ containerPort: 80, protocol: 'http' }],
    published: [],
    reservations: { cpuMillis: 100, memoryBytes: 64 * 2 ** 20 },
    stopGraceMs: 10_000,
    drainMs: 5_000,
    warmUpMs: 0,
    load: [{ kind: 'custom' }],
    access: { public: false, sameApp: true, allow: [], roles: [], anyKey: true, methods: [], pathPrefixes: [] },
    balance: 'least-load',
    singletonStrictMs: null,
    ...fields,
  }
}

export function aPlacement(fields: Partial<PlacementRules> = {}): PlacementRules {
  return {
    constraints: [],
    spreadOver: [],
    maxPerNode: null,
    affinity: null,
    tolerates: [],
    pools: [],
    strategy: null,
    platform: null,
    priority: 50,
    ...fields,
  }
}

export function aScale(fields: Partial<ScaleRules> = {}): ScaleRules {
  return {
    min: 1,
    max: 40,
    lowPercent: 60,
    highPercent: 80,
    steps: [],
    windowMs: 30_000,
    downWindowMs: 120_000,
    warmUpMs: 0,
    coolDownMs: 20_000,
    predict: 'off',
    ...fields,
  }
}

export function anUpdate(fields: Partial<UpdateRules> = {}): UpdateRules {
  return {
    parallelism: 1,
    order: 'start-first',
    delayMs: 0,
    monitorMs: 5_000,
    progressDeadlineMs: 120_000,
    failureAction: 'rollback',
    ...fields,
  }
}

/** A replicated service `web` with one replica. Its hash follows from its unit unless one is given. */
export function aServiceSpec(fields: Partial<ServiceSpec> = {}): ServiceSpec {
  const unit = fields.unit ?? aUnitSpec()
  return {
    name: 'web',
    specHash: specHashOf(unit),
    mode: 'replicated',
    replicas: 1,
    scale: null,
    placement: aPlacement(),
    update: anUpdate(),
    dependsOn: [],
    published: [],
    labels: {},
    ...fields,
    unit,
  }
}

export function anAppSpec(fields: Partial<AppSpec> = {}): AppSpec {
  return { name: 'shop', services: [aServiceSpec()], ...fields }
}
