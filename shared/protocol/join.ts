/** Joining the cluster: `POST /v1/join` with a join token, once per node. */
import { z } from 'zod'

export const joinRequestSchema = z.object({
  token: z.string().min(8).max(400),
  hostname: z.string().min(1).max(253),
  address: z.string().min(1).max(253),
  platform: z.string().max(64),
  runtimes: z.array(z.enum(['docker', 'process'])),
  capacity: z.object({
    cpuMillis: z.number().min(0),
    memoryBytes: z.number().min(0),
    diskBytes: z.number().min(0),
    slots: z.number().int().min(0),
  }),
  labels: z.record(z.string(), z.string()),
  engineLabels: z.record(z.string(), z.string()),
  agentVersion: z.string().max(64),
  /** A secret of the agent's own making, the same in each of its tries: after a lost reply it gets the same node again. */
  retryProof: z.string().min(32).max(128).optional(),
})
export type JoinRequest = z.infer<typeof joinRequestSchema>

export const joinResponseSchema = z.object({
  clusterId: z.string(),
  nodeId: z.string(),
  /** `rbtn_<node id>_<secret>`: the node's credential for the link. */
  credential: z.string(),
  /** Coordinators to dial, best first. */
  urls: z.array(z.string()),
})
export type JoinResponse = z.infer<typeof joinResponseSchema>
