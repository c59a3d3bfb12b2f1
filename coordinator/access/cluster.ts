/** The cluster's own record: made once, at the first start, and never changed by a restart. */
import type { Clock } from '../../shared/clock.ts'
import type { Ids } from '../../shared/ids.ts'
import type { Random } from '../../shared/random.ts'
import type { ClusterRecord } from '../state/objects.ts'
import type { State } from '../state/state.ts'
import { commitChange } from './commit-change.ts'

/** Key of the only object of kind `cluster`. */
export const CLUSTER_KEY = 'cluster'
const MESH_SECRET_BYTES = 32

/** The cluster's record; makes it (id and mesh secret) when the store has none yet. Two callers get the same one. */
export async function ensureCluster(state: State, ids: Ids, random: Random, clock: Clock): Promise<ClusterRecord> {
  return commitChange(state, (change, snapshot) => {
    const known = snapshot.get('cluster', CLUSTER_KEY)
    if (known) return known
    const record: ClusterRecord = {
      id: ids.next('c'),
      createdAtMs: clock.now(),
      meshSecret: Buffer.from(random.bytes(MESH_SECRET_BYTES)).toString('base64'),
    }
    change.put('cluster', CLUSTER_KEY, record).event({
      actor: 'access',
      type: 'cluster.created',
      subject: record.id,
      message: `Cluster ${record.id} was created.`,
      severity: 'info',
    })
    return record
  })
}
